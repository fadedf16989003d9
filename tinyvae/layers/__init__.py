"""Layers: one file, one layer, its forward pass and inside that its backward pass."""

from tinyvae.layers.batch_norm import BatchNorm as BatchNorm
from tinyvae.layers.conv import Conv as Conv
from tinyvae.layers.conv_transpose import ConvTranspose as ConvTranspose
from tinyvae.layers.dense import Dense as Dense
from tinyvae.layers.labelled import Labelled as Labelled
from tinyvae.layers.layer import Layer as Layer
from tinyvae.layers.layer import Param as Param
from tinyvae.layers.residual import Residual as Residual
from tinyvae.layers.tied import Tied as Tied
