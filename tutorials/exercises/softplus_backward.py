"""Exercise softplus-backward (medium): the softplus, backward, from its output.

Write the function, then: python -m tinyvae exercises check softplus-backward
The tutorial is tutorials/02_dense_layer.md; hints: python -m tinyvae exercises hint softplus-backward

Forward: y = log(1 + e^a).
dNAME is the gradient of the loss with respect to NAME, in its shape.
dy, y and da are arrays of one shape.
"""

import numpy as np

EXERCISE = "softplus-backward"


def softplus_backward(dy, y):
    """da = ?."""
    raise NotImplementedError
