"""Exercise sigmoid-backward (easy): the sigmoid, backward, from its output.

Write the function, then: python -m tinyvae exercises check sigmoid-backward
The tutorial is tutorials/02_dense_layer.md; hints: python -m tinyvae exercises hint sigmoid-backward

Forward: y = 1 / (1 + e^-a).
dNAME is the gradient of the loss with respect to NAME, in its shape.
dy, y and da are arrays of one shape.
"""

import numpy as np

EXERCISE = "sigmoid-backward"


def sigmoid_backward(dy, y):
    """da = ?."""
    raise NotImplementedError
