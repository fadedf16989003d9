"""Exercise conv-transpose2d-forward (hard): transposed convolution, forward.

Write the function, then: python -m tinyvae exercises check conv-transpose2d-forward
The tutorial is tutorials/12_convolution.md; hints: python -m tinyvae exercises hint conv-transpose2d-forward
"""

import numpy as np

from tinyvae.backend import Array
from tinyvae.ops.convolution import fold  # it is yours to use

EXERCISE = "conv-transpose2d-forward"


def conv_transpose2d_forward(x: Array, W: Array, b: Array, shape: tuple[int, int], stride: int, pad: int) -> Array:
    """y = ?: the adjoint of the convolution by W, of images of `shape` = (height, width).

    x (batch, places down, places across, out), W (kernel, kernel, in, out), b (in,) -> y (batch, height, width, in).
    `shape` must be one from which the window has just these places: where the stride leaves a remainder there are
    several.
    """
    raise NotImplementedError
