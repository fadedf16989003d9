"""Mixtures of multivariate Student-t distributions, one mixture for each row: what importance sampling draws z from.

With location m, scale matrix S = L L^T and freedom v, in d dimensions (Kotz & Nadarajah 2004, equation 1.1):

    u = L^-1 (z - m)        log t(z) = lgamma((v + d) / 2) - lgamma(v / 2) - (d / 2) log(v pi) - log det L
                                       - ((v + d) / 2) log(1 + |u|^2 / v)

    z = m + L eps / sqrt(chi^2_v / v)        a draw

Their tails are heavier than those of any posterior under a normal prior, so no weight is unbounded.
"""

import math
from typing import NamedTuple

import numpy as np


class Mixture(NamedTuple):
    """C components for each row. Host arrays, float64."""

    share: np.ndarray  # (rows, C), adding up to 1
    location: np.ndarray  # (rows, C, d)
    whiten: np.ndarray  # (rows, C, d, d): L^-1, with S^-1 = L^-T L^-1
    factor: np.ndarray  # (rows, C, d, d): L

    @property
    def freedom(self) -> int:
        """v: 5, or as many as there are dimensions; with few in many, most draws would lie far out."""
        return max(5, self.location.shape[2])


def mixture_of(share: np.ndarray, location: np.ndarray, precision: np.ndarray) -> Mixture:
    """The mixture with these shares (rows, C), locations (rows, C, d) and S^-1 (rows, C, d, d), positive definite."""
    d = location.shape[2]
    largest = np.trace(precision, axis1=2, axis2=3)[:, :, None, None]  # (rows, C, 1, 1), at least
    whiten = np.linalg.cholesky(precision + 1e-13 * largest * np.eye(d)).swapaxes(2, 3)  # more than its own rounding
    return Mixture(share / share.sum(axis=1, keepdims=True), location, whiten, np.linalg.inv(whiten))


def join(mixture: Mixture, other: Mixture) -> Mixture:
    """All components of both; the shares no longer add up to 1."""
    return Mixture(*(np.concatenate(pair, axis=1) for pair in zip(mixture, other, strict=True)))


def log_densities(mixture: Mixture, z: np.ndarray) -> np.ndarray:
    """log t of every component, in nats, without its share: z (rows, B, d) -> (rows, C, B)."""
    components, d, v = mixture.share.shape[1], z.shape[2], mixture.freedom
    constant = math.lgamma((v + d) / 2) - math.lgamma(v / 2) - d / 2 * math.log(v * math.pi)
    log_det = np.log(np.diagonal(mixture.whiten, axis1=2, axis2=3)).sum(axis=2)  # (rows, C): of L^-1
    square = np.empty((z.shape[0], components, z.shape[1]))  # |u|^2
    for c in range(components):  # one at a time, or u of all would be held at once
        u = (z - mixture.location[:, c, None]) @ mixture.whiten[:, c].swapaxes(1, 2)  # (rows, B, d)
        square[:, c] = (u * u).sum(axis=2)
    return constant + log_det[:, :, None] - (v + d) / 2 * np.log1p(square / v)


def log_mixture(share: np.ndarray, each: np.ndarray) -> np.ndarray:
    """log sum_c a_c t_c, in nats: share (rows, C), log t_c (rows, C, N) -> (rows, N)."""
    each = each + np.log(share)[:, :, None]
    top = each.max(axis=1)  # (rows, N)
    return top + np.log(np.exp(each - top[:, None]).sum(axis=1))
