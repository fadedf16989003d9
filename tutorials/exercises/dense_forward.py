"""Exercise dense-forward (easy): a dense layer, forward.

Write the function, then: python -m tinyvae exercises check dense-forward
The tutorial is tutorials/02_dense_layer.md; hints: python -m tinyvae exercises hint dense-forward
"""

import numpy as np

from tinyvae.backend import Array

EXERCISE = "dense-forward"


def dense_forward(x: Array, W: Array, b: Array) -> Array:
    """y = ?.  x (batch, in), W (in, out), b (out,) -> y (batch, out)."""
    raise NotImplementedError
