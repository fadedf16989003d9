"""Losses written out, row by row and draw by draw, of a small model whose parameters may be complex.

Im f(p + i t) / t is the derivative of f without a difference to cancel in: exact but for rounding. And a linear model,
whose posterior and log p(x) are known.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

import tinyvae

ROWS, DATA, LATENT = 4, 5, 2
T = 1e-30


def small(seed: int = 1, **options: Any) -> tuple[tinyvae.VAE, np.ndarray]:
    """A Bernoulli model with one hidden layer and nothing at 0; x (rows, data)."""
    model = tinyvae.VAE(DATA, (3,), LATENT, seed=seed, **{"activation": "tanh", "dtype": "float64", **options})
    rng = np.random.default_rng(seed)
    model.params.flat += 0.4 * rng.standard_normal(model.params.flat.shape)
    return model, rng.uniform(0, 1, (ROWS, DATA))


def noise(draws: int, seed: int = 1) -> np.ndarray:
    """eps (rows, K, latent)."""
    return np.random.default_rng(seed).standard_normal((ROWS, draws, LATENT))


class Pass(NamedTuple):
    """mu, logvar (rows, latent); z (rows, K, latent); nll (rows, K)."""

    mu: Any
    logvar: Any
    z: Any
    nll: Any


def parameters(model: tinyvae.VAE, flat: Any) -> dict[str, Any]:
    """The tensors in a flat buffer of this model's layout."""
    found, offset = {}, 0
    for name, shape in model.params.shapes.items():
        found[name] = flat[offset : offset + math.prod(shape)].reshape(shape)
        offset += math.prod(shape)
    return found


def written_out(model: tinyvae.VAE, flat: Any, x: np.ndarray, eps: np.ndarray, z: Any = None) -> Pass:
    """A pass with these parameters; with z given, what the decoder makes of that."""
    p = parameters(model, flat)
    head = np.tanh(x @ p["encoder.0.weight"] + p["encoder.0.bias"]) @ p["encoder.1.weight"] + p["encoder.1.bias"]
    mu, logvar = head[:, :LATENT], head[:, LATENT:]
    z = mu[:, None] + np.exp(logvar[:, None] / 2) * eps if z is None else z
    l = np.tanh(z @ p["decoder.0.weight"] + p["decoder.0.bias"]) @ p["decoder.1.weight"] + p["decoder.1.bias"]
    probability = 1 / (1 + np.exp(-l))
    nll = -(x[:, None] * np.log(probability) + (1 - x[:, None]) * np.log(1 - probability)).sum(axis=2)
    return Pass(mu, logvar, z, nll)


def log_normal(z: Any, mu: Any, logvar: Any) -> Any:
    """log N(z; mu, e^logvar), a number for each, by its definition."""
    return -((z - mu) ** 2) / (2 * np.exp(logvar)) - logvar / 2 - math.log(2 * math.pi) / 2


def complex_steps(f: Callable[[Any], Any], flat: np.ndarray) -> np.ndarray:
    """The gradient of f."""
    found = np.empty(flat.shape)
    for i in range(flat.size):
        stepped = flat.astype(complex)
        stepped[i] += 1j * T
        found[i] = f(stepped).imag / T
    return found


def linear_model(seed: int = 2, at_posterior: bool = True, **options: Any) -> tuple[tinyvae.VAE, np.ndarray]:
    """x = W z + b + 0.6 e, without a hidden layer, W's columns orthogonal: q can be the posterior. x (rows, data)."""
    model = tinyvae.VAE(DATA, (), LATENT, likelihood="gaussian:sigma=fixed:0.6", dtype="float64", **options)
    rng = np.random.default_rng(seed)
    W = np.linalg.qr(rng.standard_normal((DATA, LATENT)))[0].T * [[0.9], [1.7]]  # (latent, data)
    b = rng.standard_normal(DATA)
    variance = 1 / (1 + (W**2).sum(axis=1) / 0.36)  # (latent,): of the posterior
    p = model.params
    p["decoder.0.weight"][...], p["decoder.0.bias"][...] = W, b
    to_mu = W.T / 0.36 * variance  # (data, latent)
    p["encoder.0.weight"][:, :LATENT], p["encoder.0.weight"][:, LATENT:] = to_mu, 0
    p["encoder.0.bias"][...] = np.concatenate([-b @ to_mu, np.log(variance)])
    if not at_posterior:
        p["encoder.0.bias"][...] += [0.3, -0.4, 0.8, -0.5]
    return model, rng.standard_normal((ROWS, LATENT)) @ W + b + 0.6 * rng.standard_normal((ROWS, DATA))


def exact_log_p(model: tinyvae.VAE, x: np.ndarray) -> np.ndarray:
    """log p(x) of the linear model, (rows,)."""
    W, b = model.params["decoder.0.weight"], model.params["decoder.0.bias"]
    return np.atleast_1d(stats.multivariate_normal.logpdf(x, b, W.T @ W + 0.36 * np.eye(DATA)))
