"""Exercise relu-backward (easy): the ReLU, backward, from its output.

Write the function, then: python -m tinyvae exercises check relu-backward
The tutorial is tutorials/02_dense_layer.md; hints: python -m tinyvae exercises hint relu-backward

Forward: y = max(a, 0).
dNAME is the gradient of the loss with respect to NAME, in its shape.
"""

import numpy as np

from tinyvae.backend import Array

EXERCISE = "relu-backward"


def relu_backward(dy: Array, y: Array) -> Array:
    """da = ? (at the kink a = 0 the derivative is taken as 0)."""
    raise NotImplementedError
