"""Exercise free-bits-backward (medium): free bits, backward.

Write the function, then: python -m tinyvae exercises check free-bits-backward
The tutorial is tutorials/09_training_and_looking.md; hints: python -m tinyvae exercises hint free-bits-backward

Forward: charged_j = max(free_bits, mean over the batch of kl_nj).
dNAME is the gradient of the loss with respect to NAME.
"""

import numpy as np

from tinyvae.backend import Array

EXERCISE = "free-bits-backward"


def free_bits_backward(dcharged: Array | float, kl: Array, free_bits: float) -> Array:
    """dkl = ? (at the kink it is 0, by convention).

    dcharged broadcasts to (latent,); kl (batch, latent) -> dkl (latent,), the same for every row.
    """
    raise NotImplementedError
