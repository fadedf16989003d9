"""Exercise dense-backward (medium): a dense layer, backward.

Write the function, then: python -m tinyvae exercises check dense-backward
The tutorial is tutorials/02_dense_layer.md; hints: python -m tinyvae exercises hint dense-backward

Forward: y = x W + b.
dNAME is the gradient of the loss with respect to NAME, in its shape.
"""

import numpy as np

from tinyvae.backend import Array

EXERCISE = "dense-backward"


def dense_backward(dy: Array, x: Array, W: Array) -> tuple[Array, Array, Array]:
    """dx = ?, dW = ?, db = ?.

    dy (batch, out), x (batch, in), W (in, out) -> dx (batch, in), dW (in, out), db (out,).
    """
    raise NotImplementedError
