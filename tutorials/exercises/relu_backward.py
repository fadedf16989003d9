"""Exercise relu-backward (easy): the ReLU, backward, from its output.

Write the function, then: python -m tinyvae exercises check relu-backward
The tutorial is tutorials/02_dense_layer.md; hints: python -m tinyvae exercises hint relu-backward

Forward: y = max(a, 0).
dNAME is the gradient of the loss with respect to NAME, in its shape.
dy, y and da are arrays of one shape.
"""

import numpy as np

EXERCISE = "relu-backward"


def relu_backward(dy, y):
    """da = ? (at the kink a = 0 the derivative is taken as 0)."""
    raise NotImplementedError
