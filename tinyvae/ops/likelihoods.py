"""Negative log-likelihoods -log p(x|z), in nats: one number for each row, the sum over its dimensions.

Bernoulli, from logits l (probability p = sigmoid(l)), for x in {0, 1}:

    nll = -x log p - (1 - x) log(1 - p) = softplus(l) - x l        dnll/dl = sigmoid(l) - x

On grey x in [0, 1] the same formula is binary cross-entropy. It is a fine loss, but no log-likelihood: e^-nll does not
integrate to 1 over [0, 1] (Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli").

Gaussian, with mean m and logvar s = log sigma^2:

    nll = ((x - m)^2 e^-s + s + log 2 pi) / 2
    dnll/dm = (m - x) e^-s                dnll/ds = (1 - (x - m)^2 e^-s) / 2
"""

import math

from tinyvae.backend import Array, array_module

LOG_2PI = math.log(2 * math.pi)


def bernoulli_nll_forward(logits: Array, x: Array) -> Array:
    """nll = sum_j softplus(l_j) - x_j l_j, in nats; exact at any finite logit.

    logits, x (batch, data), x in [0, 1] -> nll (batch,).
    """
    xp = array_module(logits, x)
    softplus = xp.maximum(logits, 0) + xp.log1p(xp.exp(-xp.abs(logits)))  # (batch, data)
    return (softplus - x * logits).sum(axis=1)  # (batch,)


def bernoulli_nll_backward(dnll: Array | float, logits: Array, x: Array) -> Array:
    """dlogits = dnll (sigmoid(l) - x).

    dnll (batch, 1) or a number; logits, x (batch, data) -> dlogits (batch, data).
    """
    xp = array_module(logits, x)
    p = 0.5 * (1 + xp.tanh(0.5 * logits))  # (batch, data), sigmoid(logits)
    return dnll * (p - x)  # (batch, data)


def gaussian_nll_forward(mean: Array, logvar: Array, x: Array) -> Array:
    """nll = sum_j ((x_j - m_j)^2 e^-s_j + s_j + log 2 pi) / 2, in nats (a density: it can be negative).

    mean, x (batch, data); logvar (batch, data) or one number as (1,) -> nll (batch,).
    """
    xp = array_module(mean, logvar, x)
    residual = x - mean  # (batch, data)
    return 0.5 * (residual * residual * xp.exp(-logvar) + logvar + LOG_2PI).sum(axis=1)  # (batch,)


def gaussian_nll_backward(dnll: Array | float, mean: Array, logvar: Array, x: Array) -> tuple[Array, Array]:
    """dmean = dnll (m - x) e^-s, dlogvar = dnll (1 - (x - m)^2 e^-s) / 2.

    dnll (batch, 1) or a number; mean, x (batch, data); logvar (batch, data) or (1,) -> dmean, dlogvar (batch, data).
    A logvar that is shared by all outputs gets the sum of dlogvar.
    """
    xp = array_module(mean, logvar, x)
    residual = x - mean  # (batch, data)
    precision = xp.exp(-logvar)  # as logvar
    dmean = -dnll * residual * precision  # (batch, data)
    dlogvar = dnll * 0.5 * (1 - residual * residual * precision)  # (batch, data)
    return dmean, dlogvar
