"""Exercise conv2d-backward (hard): convolution, backward.

Write the function, then: python -m tinyvae exercises check conv2d-backward
The tutorial is tutorials/12_convolution.md; hints: python -m tinyvae exercises hint conv2d-backward

Forward: y = rows W + b, with rows = patches(x, kernel, stride, pad).
dNAME is the gradient of the loss with respect to NAME, in its shape.
"""

import numpy as np

from tinyvae.backend import Array
from tinyvae.ops.convolution import fold, patches  # both are yours to use

EXERCISE = "conv2d-backward"


def conv2d_backward(dy: Array, x: Array, W: Array, stride: int, pad: int) -> tuple[Array, Array, Array]:
    """dx = ?, dW = ?, db = ?.

    dy (batch, places down, places across, out), x and W as in the forward -> dx, dW, db, as x, W and b.
    """
    raise NotImplementedError
