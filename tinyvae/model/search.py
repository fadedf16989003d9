"""Where the posterior p(z|x) has its mass, looked for without asking q(z|x): a scan of many z, then a climb.

A decoded z costs the same whichever row it is held against. So thousands of z are decoded once, and their log p(x, z)
is a matrix product for all rows. From the best of them, log p(x, z) = log p(x|z) + log p(z) is climbed by Gauss-Newton
steps with Levenberg's damping (Nocedal & Wright 2006, section 10.3). With the decoder's output o(z), its Jacobian J,
the slope s of log p(x|o) and its Fisher information F (a diagonal),

    gradient = J^T s - z        H = J^T F J + I        step = (H + damping diag(H))^-1 gradient

H is positive definite, exact where the decoder is linear and the likelihood Gaussian, and H^-1 is the covariance of
Laplace's approximation of the posterior at a peak. J is made of differences, one more decoded z for each dimension: the
hand-written backward pass gives the slope alone, and destroys the gradients of the parameters on the way. A number x
that was not observed (NaN) has no part in any of it.
"""

import math
from typing import Any

import numpy as np

from tinyvae.backend import Array, to_host
from tinyvae.model.vae import CHUNK, VAE

LOG_2PI = math.log(2 * math.pi)
APART = 0.5  # between two starts of a row, in standard deviations of the prior
ELEMENTS = 2**22  # of the outputs and Jacobians that are held at a time
FURTHER = 10.0  # times more damping after a step that did not rise, the first time from 0 to 1


def log_prior(z: np.ndarray) -> np.ndarray:
    """log N(z; 0, I), in nats: z (..., latent) -> (...)."""
    return -0.5 * (z * z + LOG_2PI).sum(axis=-1)


def log_joint(model: VAE, x: Array, z: np.ndarray, y: Any = None) -> np.ndarray:
    """log p(x, z) = log p(x|z) + log p(z) of pairs of rows, in nats: x (rows, data), z (rows, latent) -> (rows,).

    -infinity where the numbers leave the range of floating point.
    """
    value = to_host(model.log_p_x_given_z(x, z, y)).astype("float64") + log_prior(z)
    return np.where(np.isnan(value), -np.inf, value)


def scan(model: VAE, x: Array, z: np.ndarray, y: Any = None) -> np.ndarray:
    """log p(x_i, z_j) of every row with every z, in nats.

    x (rows, data), z (M, latent), y (rows,) on the host -> (rows, M). Each label that there is decodes the z once.
    """
    values = np.empty((x.shape[0], len(z)))
    if y is None:
        values[...] = _scan(model, x, z, None)
    else:
        for label in np.unique(y):
            rows = np.flatnonzero(y == label)
            values[rows] = _scan(model, x[model.backend.asarray(rows)], z, label)
    return np.where(np.isnan(values), -np.inf, values) + log_prior(z)


def _scan(model: VAE, x: Array, z: np.ndarray, label: Any) -> np.ndarray:
    parts, step = [], _rows_at_a_time(model, 1)
    for start in range(0, len(z), step):
        few = z[start : start + step]
        output = model.output(few, None if label is None else np.full(len(few), label))  # (few, outputs data)
        parts.append(to_host(model.likelihood.log_p_of_pairs(model.own_params, output, x)))
    return np.concatenate(parts, axis=1)


def starts(values: np.ndarray, z: np.ndarray, count: int) -> np.ndarray:
    """The best z of the scan of each row, then the best that are half a standard deviation from all before them.

    values (rows, M), z (M, latent) -> (rows, count, latent).
    """
    found: list[np.ndarray] = []
    values = values.copy()
    sizes = (z * z).sum(axis=1)  # (M,)
    for _ in range(count):
        best = z[values.argmax(axis=1)]  # (rows, latent)
        square = sizes - 2 * (best @ z.T) + (best * best).sum(axis=1, keepdims=True)  # (rows, M): distances
        values[square < APART**2] = -np.inf
        found.append(best)
    return np.stack(found, axis=1)


def climb(model: VAE, x: Array, z: np.ndarray, steps: int, y: Any = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The highest log p(x, z) that some steps uphill from z reach, never lower than at z itself.

    x (rows, data), z (rows, latent) -> z (rows, latent), log p(x, z) (rows,), H there (rows, latent, latent).
    """
    value, gradient, H = slopes(model, x, z, y)
    damping = np.zeros(len(z))
    diagonal = np.eye(z.shape[1])
    for _ in range(steps):
        damped = H * (1 + damping[:, None, None] * diagonal)
        tried = z + np.linalg.solve(damped, gradient[:, :, None])[:, :, 0]
        new_value, new_gradient, new_H = slopes(model, x, tried, y)
        rises = new_value > value  # (rows,)
        z, value = np.where(rises[:, None], tried, z), np.where(rises, new_value, value)
        gradient, H = np.where(rises[:, None], new_gradient, gradient), np.where(rises[:, None, None], new_H, H)
        damping = np.where(rises, damping / FURTHER, np.maximum(FURTHER * damping, 1))
    return z, value, H


def slopes(model: VAE, x: Array, z: np.ndarray, y: Any = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log p(x, z) (rows,), its gradient (rows, latent), and H (rows, latent, latent): see the top of this file."""
    parts, step = [], _rows_at_a_time(model, z.shape[1])
    for start in range(0, len(z), step):
        rows = slice(start, start + step)
        parts.append(_slopes(model, x[rows], z[rows], None if y is None else y[rows]))
    value, gradient, H = (np.concatenate(part) for part in zip(*parts, strict=True))
    return value, gradient, H


def _rows_at_a_time(model: VAE, outputs: int) -> int:
    """How many rows with so many outputs of the decoder each are held at a time."""
    return max(1, min(CHUNK, ELEMENTS // (model.decoder[-1].layer.width * outputs)))


def _slopes(model: VAE, x: Array, z: np.ndarray, y: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    xp, latent = model.backend.xp, z.shape[1]
    output = model.output(z, y)  # (rows, out)
    h = float(np.finfo(model.dtype).eps) ** (1 / 3)
    J = xp.empty((len(z), latent, output.shape[1]), dtype=output.dtype)  # transposed: (rows, latent, out)
    for j in range(latent):
        J[:, j] = (model.output(z + h * np.eye(latent)[j], y) - output) / h
    J = J.astype("float64")  # or the rounding of H could leave it with no inverse
    nll, slope = _nll_and_slope(model, output, x)
    value = log_prior(z) - to_host(nll)  # (rows,)
    gradient = -to_host((J @ slope[:, :, None])[:, :, 0]) - z
    J = xp.where(model.likelihood.unseen(x)[:, None], 0, J)
    H = to_host(model.likelihood.curvature(model.own_params, output, J))
    sound = np.isfinite(value) & np.isfinite(gradient).all(axis=1) & np.isfinite(H).all(axis=(1, 2))  # (rows,)
    gradient, H = np.where(sound[:, None], gradient, 0), np.where(sound[:, None, None], H, 0)
    return np.where(sound, value, -np.inf), gradient, H + np.eye(latent)


def _nll_and_slope(model: VAE, output: Array, x: Array) -> tuple[Array, Array]:
    """-log p(x|o) (rows,), and its slope by o (rows, out)."""
    with model.lock, model.borrowed("slopes", *output.shape) as k:
        nll, slope = model.likelihood.slope(k, model.own_params, output, x, missing=True)
        return nll.astype("float64"), slope.astype("float64")
