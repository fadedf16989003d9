"""Exercise reparameterize-backward (medium): the sample of z, backward.

Write the function, then: python -m tinyvae exercises check reparameterize-backward
The tutorial is tutorials/05_reparameterization.md; hints: python -m tinyvae exercises hint reparameterize-backward

Forward: z = mu + e^(logvar / 2) eps.
dNAME is the gradient of the loss with respect to NAME, in its shape.
All are (batch, latent).
"""

import numpy as np

EXERCISE = "reparameterize-backward"


def reparameterize_backward(dz, logvar, eps):
    """dmu = ?, dlogvar = ?. `eps` is the noise of the forward pass."""
    raise NotImplementedError
