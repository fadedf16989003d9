"""Exercise kl-forward (easy): the KL divergence of a Gaussian from the prior.

Write the function, then: python -m tinyvae exercises check kl-forward
The tutorial is tutorials/04_gaussian_kl.md; hints: python -m tinyvae exercises hint kl-forward

logvar is log sigma^2.
"""

import numpy as np

from tinyvae.backend import Array

EXERCISE = "kl-forward"


def kl_forward(mu: Array, logvar: Array) -> Array:
    """KL(N(mu, sigma^2) || N(0, 1)) of each row and dimension, in nats: ?.

    mu, logvar (batch, latent) -> (batch, latent). The KL of a row is the sum over its dimensions.
    """
    raise NotImplementedError
