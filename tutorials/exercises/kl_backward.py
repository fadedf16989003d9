"""Exercise kl-backward (easy): the KL divergence, backward.

Write the function, then: python -m tinyvae exercises check kl-backward
The tutorial is tutorials/04_gaussian_kl.md; hints: python -m tinyvae exercises hint kl-backward

Forward: KL = (mu^2 + e^logvar - 1 - logvar) / 2, of each row and dimension.
dNAME is the gradient of the loss with respect to NAME, in its shape.
dkl broadcasts to (batch, latent); mu, logvar (batch, latent) -> dmu, dlogvar (batch, latent).
"""

import numpy as np

EXERCISE = "kl-backward"


def kl_backward(dkl, mu, logvar):
    """dmu = ?, dlogvar = ?."""
    raise NotImplementedError
