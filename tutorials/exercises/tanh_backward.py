"""Exercise tanh-backward (easy): the tanh, backward, from its output.

Write the function, then: python -m tinyvae exercises check tanh-backward
The tutorial is tutorials/02_dense_layer.md; hints: python -m tinyvae exercises hint tanh-backward

Forward: y = tanh(a).
dNAME is the gradient of the loss with respect to NAME, in its shape.
dy, y and da are arrays of one shape.
"""

import numpy as np

EXERCISE = "tanh-backward"


def tanh_backward(dy, y):
    """da = ?."""
    raise NotImplementedError
