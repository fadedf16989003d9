"""Exercise kl-forward (easy): the KL divergence of a Gaussian from the prior.

Write the function, then: python -m tinyvae exercises check kl-forward
The tutorial is tutorials/04_gaussian_kl.md; hints: python -m tinyvae exercises hint kl-forward

logvar is log sigma^2.
mu, logvar (batch, latent) -> the KL of each row and dimension, (batch, latent).
"""

import numpy as np

EXERCISE = "kl-forward"


def kl_forward(mu, logvar):
    """KL(N(mu, sigma^2) || N(0, 1)), in nats: ?.

    The KL of a row is the sum over its dimensions.
    """
    raise NotImplementedError
