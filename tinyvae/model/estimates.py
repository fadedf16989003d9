"""What a model says of data beyond its loss: active units, and log p(x) by importance sampling."""

import math
from typing import Any, NamedTuple

import numpy as np

from tinyvae.backend import Array, as_generator, to_host
from tinyvae.model.architecture import checked_count
from tinyvae.model.vae import CHUNK, VAE
from tinyvae.ops import gaussian, importance

ACTIVE_VARIANCE = 0.01


def active_units(mu: Array) -> int:
    """How many latent dimensions carry information: those whose mu varies over the data by more than 0.01.

    mu (rows, latent). Burda et al. 2016, "Importance Weighted Autoencoders", section 5.2: Var_x(E_q[z_j]) > 0.01.
    """
    return int(to_host(mu.var(axis=0) > ACTIVE_VARIANCE).sum())


class LogLikelihood(NamedTuple):
    """Estimates of log p(x) for each row, in nats, with the standard error of each (nan from a single sample)."""

    log_p: np.ndarray  # (rows,)
    standard_error: np.ndarray  # (rows,)


def log_likelihood(model: VAE, x: Any, samples: int, rng: Any, progress: Any = None, y: Any = None) -> LogLikelihood:
    """Estimate log p(x) of every row, or log p(x|y) under a conditional model, by importance sampling from q(z|x)
    (Burda et al. 2016, equation 8).

        log p(x) ~ log (1/K) sum_k w_k,    w_k = p(x|z_k) p(z_k) / q(z_k|x),    z_k ~ q(z|x)

    x (rows, data), K = `samples`, rng a NumPy generator on any backend or a seed, y (rows,) a conditional model's
    labels; `progress(rows done)` is called now and then.
    The estimate lies below log p(x) on average and rises with K; at K = 1 it is the ELBO. A few rows at a time, and
    the sum of the weights is kept relative to the largest so far, so nothing overflows and memory does not grow with K.
    The standard error is that of log of the mean weight: std(w) / (mean(w) sqrt(K)). A row so far from the data that
    its numbers leave the range of floating point gets -infinity.

    Raises ValueError if samples < 1, or for labels that do not fit; TypeError for another rng.
    """
    samples, rng = checked_count("samples", samples), as_generator(rng)
    y = y if y is None or hasattr(y, "dtype") else np.asarray(y)
    model.architecture.check_labels(y, len(x))
    log_p, error = np.empty(len(x)), np.empty(len(x))
    for start in range(0, len(x), CHUNK):
        rows = slice(start, start + CHUNK)
        with np.errstate(all="ignore"):  # what overflows is looked at in the end
            log_p[rows], error[rows] = _chunk(model, x[rows], samples, rng, None if y is None else y[rows])
        if progress is not None:
            progress(min(start + CHUNK, len(x)))
    return LogLikelihood(log_p, error)


def _chunk(model: VAE, x: Any, samples: int, rng: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    xp = model.backend.xp
    x = model.backend.asarray(x, model.dtype)  # (rows, data)
    mu, logvar = model.encode(x, y)  # (rows, latent) each
    mu, logvar = mu.astype("float64"), logvar.astype("float64")
    largest = xp.full(x.shape[0], -math.inf)  # (rows,): the largest log w so far
    total, squares = xp.zeros(x.shape[0]), xp.zeros(x.shape[0])  # sums of w and w^2, relative to it
    for _ in range(samples):
        eps = model.backend.asarray(rng.standard_normal(mu.shape))  # (rows, latent)
        z = gaussian.reparameterize_forward(mu, logvar, eps)  # (rows, latent)
        log_prior_over_q = importance.log_prior_over_q_forward(z, logvar, eps)  # (rows,)
        log_w = model.log_p_x_given_z(x, z, y).astype("float64") + log_prior_over_q  # (rows,)
        new = xp.maximum(largest, log_w)
        shrink, w = xp.exp(largest - new), xp.exp(log_w - new)
        total = total * shrink + w
        squares = squares * shrink * shrink + w * w
        largest = new
    log_p = largest + xp.log(total / samples)
    spread = xp.maximum(squares - total * total / samples, 0) / max(samples - 1, 1)  # the variance of w
    error = xp.sqrt(spread * samples) / total
    log_p = xp.where(xp.isnan(log_p), -math.inf, log_p)  # its numbers have left the range of floating point
    return to_host(log_p), to_host(error) if samples > 1 else np.full(x.shape[0], math.nan)
