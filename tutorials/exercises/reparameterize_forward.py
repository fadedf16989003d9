"""Exercise reparameterize-forward (easy): a sample of z from mu, logvar and noise.

Write the function, then: python -m tinyvae exercises check reparameterize-forward
The tutorial is tutorials/05_reparameterization.md; hints: python -m tinyvae exercises hint reparameterize-forward

logvar is log sigma^2, and eps is noise with mean 0 and variance 1.
All are (batch, latent).
"""

import numpy as np

EXERCISE = "reparameterize-forward"


def reparameterize_forward(mu, logvar, eps):
    """z = ?."""
    raise NotImplementedError
