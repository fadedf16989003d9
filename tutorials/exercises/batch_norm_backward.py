"""Exercise batch-norm-backward (hard): batch normalization, backward.

Write the function, then: python -m tinyvae exercises check batch-norm-backward
The tutorial is tutorials/12_convolution.md; hints: python -m tinyvae exercises hint batch-norm-backward

Forward: m, v = mean and variance of each column of a; h = (a - m) / sqrt(v + EPSILON); y = scale h + shift.
dNAME is the gradient of the loss with respect to NAME, in its shape.
"""

import numpy as np

from tinyvae.backend import Array
from tinyvae.ops.normalization import EPSILON

EXERCISE = "batch-norm-backward"


def batch_norm_backward(dy: Array, h: Array, v: Array, scale: Array) -> tuple[Array, Array, Array]:
    """da = ? with dh = dy scale and r = 1 / sqrt(v + EPSILON).

    dy (rows, columns); h and v from the forward; scale (columns,) -> da (rows, columns), dscale, dshift (columns,).
    """
    raise NotImplementedError
