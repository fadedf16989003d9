"""Exercise elu-backward (medium): the ELU, backward, from its output.

Write the function, then: python -m tinyvae exercises check elu-backward
The tutorial is tutorials/02_dense_layer.md; hints: python -m tinyvae exercises hint elu-backward

Forward: y = a where a > 0, else e^a - 1.
dNAME is the gradient of the loss with respect to NAME, in its shape.
dy, y and da are arrays of one shape.
"""

import numpy as np

EXERCISE = "elu-backward"


def elu_backward(dy, y):
    """da = ?."""
    raise NotImplementedError
