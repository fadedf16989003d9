"""The latent Gaussian q(z|x) = N(mu, diag(sigma^2)), with logvar = log sigma^2, against the prior p(z) = N(0, I).

Reparameterization (Kingma & Welling 2014, section 2.4) moves the randomness out of the way of the gradient:

    z = mu + sigma eps,   sigma = e^(logvar / 2),   eps ~ N(0, I)
    dz/dmu = 1            dz/dlogvar = eps e^(logvar / 2) / 2

The KL divergence has a closed form (the same paper, appendix B). Per dimension, in nats:

    KL = (mu^2 + sigma^2 - 1 - logvar) / 2
    dKL/dmu = mu          dKL/dlogvar = (sigma^2 - 1) / 2
"""

from tinyvae.backend import Array, array_module


def reparameterize_forward(mu: Array, logvar: Array, eps: Array) -> Array:
    """z = mu + e^(logvar / 2) eps.  All (batch, latent)."""
    xp = array_module(mu, logvar, eps)
    return mu + xp.exp(0.5 * logvar) * eps  # (batch, latent)


def reparameterize_backward(dz: Array, logvar: Array, eps: Array) -> tuple[Array, Array]:
    """dmu = dz, dlogvar = dz eps e^(logvar / 2) / 2.  `eps` is the noise of the forward pass.  All (batch, latent)."""
    xp = array_module(dz, logvar, eps)
    dmu = dz  # (batch, latent)
    dlogvar = dz * eps * (0.5 * xp.exp(0.5 * logvar))  # (batch, latent)
    return dmu, dlogvar


def kl_forward(mu: Array, logvar: Array) -> Array:
    """KL(N(mu, sigma^2) || N(0, 1)) of each row and dimension, in nats: (mu^2 + e^logvar - 1 - logvar) / 2.

    mu, logvar (batch, latent) -> (batch, latent). The KL of a row is the sum over its dimensions.
    """
    xp = array_module(mu, logvar)
    return 0.5 * (mu * mu + (xp.expm1(logvar) - logvar))  # (batch, latent); expm1 keeps KL exact near 0


def kl_backward(dkl: Array | float, mu: Array, logvar: Array) -> tuple[Array, Array]:
    """dmu = dkl mu, dlogvar = dkl (e^logvar - 1) / 2.

    dkl broadcasts to (batch, latent); mu, logvar (batch, latent) -> dmu, dlogvar (batch, latent).
    """
    xp = array_module(mu, logvar)
    dmu = dkl * mu  # (batch, latent)
    dlogvar = dkl * (0.5 * xp.expm1(logvar))  # (batch, latent)
    return dmu, dlogvar


def free_bits_forward(kl: Array, free_bits: float) -> Array:
    """The part of the KL that the loss charges for: max(free_bits, mean over the batch of KL_j), in nats.

    kl (batch, latent) -> (latent,). A dimension below its allowance costs a constant, so nothing pushes it to collapse.
    Kingma et al. 2016 (the paper on inverse autoregressive flow), "free bits", with one group per dimension.
    """
    return array_module(kl).maximum(kl.mean(axis=0), free_bits)  # (latent,)


def free_bits_backward(dcharged: Array | float, kl: Array, free_bits: float) -> Array:
    """dkl = dcharged / batch where the dimension's mean is above its allowance, else 0 (by convention at the kink too).

    dcharged broadcasts to (latent,); kl (batch, latent) -> dkl (latent,), the same for every row.
    """
    return dcharged * (kl.mean(axis=0) > free_bits) / kl.shape[0]  # (latent,)
