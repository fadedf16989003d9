"""Exercise bound-backward (medium): the importance-weighted bound, backward.

Write the function, then: python -m tinyvae exercises check bound-backward
The tutorial is tutorials/09_training_and_looking.md; hints: python -m tinyvae exercises hint bound-backward

Forward: bound_n = log of the mean over k of e^(log_w_nk).
dNAME is the gradient of the loss with respect to NAME, in its shape.
"""

import numpy as np

from tinyvae.backend import Array

EXERCISE = "bound-backward"


def bound_backward(dbound: Array | float, log_w: Array) -> Array:
    """dlog_w = ?.  dbound (batch, 1) or a number; log_w (batch, K) -> (batch, K)."""
    raise NotImplementedError
