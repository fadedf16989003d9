"""The latent Gaussian q(z|x) = N(mu, diag(sigma^2)), with logvar = log sigma^2, against the prior p(z) = N(0, I).

Reparameterization (Kingma & Welling 2014, section 2.4) moves the randomness out of the way of the gradient:

    z = mu + sigma eps,   sigma = e^(logvar / 2),   eps ~ N(0, I)
    dz/dmu = 1            dz/dlogvar = eps e^(logvar / 2) / 2

The KL divergence has a closed form (the same paper, appendix B). Per dimension, in nats:

    KL = (mu^2 + sigma^2 - 1 - logvar) / 2
    dKL/dmu = mu          dKL/dlogvar = (sigma^2 - 1) / 2

These are formulas of single numbers; on arrays (batch, latent) they give one number for each row and dimension.
"""

from tinyvae.backend import Array, array_module
from tinyvae.formula import backward_of, exp, expm1, formula


@formula
def reparameterize_forward(mu, logvar, eps):
    """z = mu + e^(logvar / 2) eps."""
    return mu + exp(0.5 * logvar) * eps


@backward_of(reparameterize_forward, "mu", "logvar")
def reparameterize_backward(dz, logvar, eps):
    """dmu = dz, dlogvar = dz eps e^(logvar / 2) / 2. `eps` is the noise of the forward pass."""
    return dz, dz * eps * (0.5 * exp(0.5 * logvar))


@formula
def kl_forward(mu, logvar):
    """KL(N(mu, sigma^2) || N(0, 1)), in nats: (mu^2 + e^logvar - 1 - logvar) / 2; expm1 keeps it exact near 0.

    The KL of a row is the sum over its dimensions.
    """
    return 0.5 * (mu * mu + (expm1(logvar) - logvar))


@backward_of(kl_forward, "mu", "logvar")
def kl_backward(dkl, mu, logvar):
    """dmu = dkl mu, dlogvar = dkl (e^logvar - 1) / 2."""
    return dkl * mu, dkl * (0.5 * expm1(logvar))


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
