"""The importance-weighted bound (Burda et al. 2016, equation 8) and the log-weights that it is made of.

With K draws z_k = mu + sigma eps_k from q(z|x), the weight of a draw and the bound, in nats, are

    log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x)          L_K = log (1/K) sum_k w_k  <=  log p(x) on average

L_1 is the ELBO of one draw, and L_K rises with K on average. Its gradient weighs the draws by their share of the sum:

    dL_K / dlog w_k = w_k / sum_j w_j

Both Gaussians are known at z_k: log p(z) = -(z^2 + log 2 pi) / 2 and, since (z - mu) / sigma = eps,
log q(z|x) = -(eps^2 + logvar + log 2 pi) / 2, summed over dimensions. So, with eps held fixed,

    log p(z) - log q(z|x) = sum_j (eps_j^2 + logvar_j - z_j^2) / 2

    dz_j = -z_j     dlogvar_j = 1/2 (and more through z: see `gaussian.reparameterize_backward`)

Inequality on the same draws (Burda et al. 2016, theorem 1): L_K is at least the mean of the K bounds that each leave
one draw out, since the mean of all is a mean of these means, and the logarithm is concave.
"""

import math

from tinyvae.backend import Array, array_module
from tinyvae.formula import backward_of, formula


@formula
def log_prior_over_q(z, logvar, eps):
    """(eps^2 + logvar - z^2) / 2, of one dimension."""
    return 0.5 * (eps * eps + logvar - z * z)


@backward_of(log_prior_over_q, "z", "logvar")
def log_prior_over_q_slopes(d, z):
    """dz = -d z, dlogvar = d / 2."""
    return -d * z, 0.5 * d


def log_prior_over_q_forward(z: Array, logvar: Array, eps: Array) -> Array:
    """log p(z) - log q(z|x) = sum_j (eps_j^2 + logvar_j - z_j^2) / 2, in nats, at z = mu + e^(logvar / 2) eps.

    z, logvar, eps (rows, latent) -> (rows,).
    """
    return log_prior_over_q(z, logvar, eps).sum(axis=1)  # (rows,)


def log_prior_over_q_backward(d: Array, z: Array) -> tuple[Array, Array]:
    """dz = -d z, dlogvar = d / 2, where z is taken as given: the path from logvar through z comes on top.

    d (rows, 1); z (rows, latent) -> dz, dlogvar (rows, latent).
    """
    xp = array_module(d, z)
    dz, dlogvar = log_prior_over_q_slopes(d, z)
    return dz, xp.broadcast_to(dlogvar, z.shape)


def bound_forward(log_w: Array) -> Array:
    """L_K = log (1/K) sum_k e^(log w_k), in nats; the largest weight is taken out first, so nothing overflows.

    log_w (batch, K) -> (batch,).
    """
    xp = array_module(log_w)
    largest = log_w.max(axis=1, keepdims=True)  # (batch, 1)
    total = xp.exp(log_w - largest).sum(axis=1)  # (batch,)
    return largest[:, 0] + xp.log(total) - math.log(log_w.shape[1])


def bound_backward(dbound: Array | float, log_w: Array) -> Array:
    """dlog_w = dbound w_k / sum_j w_j.  dbound (batch, 1) or a number; log_w (batch, K) -> (batch, K)."""
    xp = array_module(log_w)
    w = xp.exp(log_w - log_w.max(axis=1, keepdims=True))  # (batch, K)
    return dbound * (w / w.sum(axis=1, keepdims=True))
