"""A proposal for importance sampling that looks for the posterior p(z|x) itself, whatever q(z|x) says.

For each row a mixture of Student-t's: at the peaks of p(x, z) that a search finds, with the covariance of Laplace; at
q(z|x), and wider around it; and the prior. Draws are weighted by the density of the whole mixture (the balance
heuristic of Veach & Guibas 1995),

    w = p(x, z) / sum_c a_c t_c(z)

so that where any one component draws, no weight is large. To fit it better, a component is added where the weight is
largest, round by round, with the covariance of the local curvature (incremental mixture importance sampling, Raftery &
Bao 2010), and at last the shares a_c become those of the posterior that each component answers for (Cappe et al. 2008,
"Adaptive importance sampling in general mixture classes", equation 14). The draws that fit it are thrown away: the
estimate is made of fresh ones, and so lies below log p(x) on average, as any of importance sampling.
"""

from typing import Any, NamedTuple

import numpy as np

from tinyvae.backend import Array, to_host
from tinyvae.model import search
from tinyvae.model.vae import CHUNK, VAE
from tinyvae.ops import student_t
from tinyvae.ops.student_t import Mixture

DEFENSIVE = 0.2  # the share that stays with all components alike, however little they seem to answer for
FITS = 5  # steps of expectation and maximization
WIDER = 3.0  # times q's standard deviation


class Effort(NamedTuple):
    """How hard to look, in decoded z for each row: starts * (steps + 1) * (latent + 1) for the search, then draws."""

    starts: int  # peaks to look for
    steps: int  # uphill, from each start
    draws: int  # of the first mixture
    rounds: int = 0  # each adds one component,
    more: int = 0  # and draws from it


def look_effort(latent: int) -> Effort:
    """What looks at every row: about a hundred decoded z for each, and more than that beyond some 20 dimensions."""
    return Effort(starts=3 if latent <= 3 else 1, steps=3 if latent <= 10 else 2, draws=64)


def candidates(mu: np.ndarray, draws: int, rng: Any) -> np.ndarray:
    """z to scan: draws of the prior, and up to CHUNK means of q of the rows at hand.  mu (rows, latent)."""
    mu = mu[np.isfinite(mu).all(axis=1)]
    if len(mu) > CHUNK:
        mu = mu[rng.choice(len(mu), CHUNK, replace=False)]
    return np.concatenate([rng.standard_normal((draws, mu.shape[1])), mu])


def proposal(model: VAE, x: Array, z: np.ndarray, effort: Effort, rng: Any, y: Any = None) -> Mixture:
    """The mixture for each row: x (rows, data), z (M, latent) to scan, y (rows,), all of them checked."""
    mixture = _at_peaks(model, x, z, effort, y)
    return mixture if effort.rounds == 0 else _grown(model, x, mixture, effort, rng, y)


def _grown(model: VAE, x: Array, mixture: Mixture, effort: Effort, rng: Any, y: Any) -> Mixture:
    drawn = draw(mixture, effort.draws, rng)  # (rows, N, latent); N grows
    joint = log_joint(model, x, drawn, y)  # (rows, N)
    each = student_t.log_densities(mixture, drawn)  # (rows, C, N); C grows
    counts = mixture.share * effort.draws  # (rows, C): draws of each component
    row = np.arange(len(counts))
    for _ in range(effort.rounds):
        log_w = joint - _log_mixture_of_counts(counts, each)  # (rows, N)
        worst = drawn[row, log_w.argmax(axis=1)]  # (rows, latent)
        _, _, H = search.slopes(model, x, worst, y)
        one = student_t.mixture_of(np.ones((len(row), 1)), worst[:, None], H[:, None])
        new = draw(one, effort.more, rng)  # (rows, more, latent)
        mixture = student_t.join(mixture, one)
        each = np.concatenate([each, student_t.log_densities(one, drawn)], axis=1)
        each = np.concatenate([each, student_t.log_densities(mixture, new)], axis=2)
        drawn = np.concatenate([drawn, new], axis=1)
        joint = np.concatenate([joint, log_joint(model, x, new, y)], axis=1)
        counts = np.concatenate([counts, np.full((len(row), 1), float(effort.more))], axis=1)
    return mixture._replace(share=_fitted_shares(joint, counts, each))


def _at_peaks(model: VAE, x: Array, z: np.ndarray, effort: Effort, y: Any) -> Mixture:
    mu, logvar = (to_host(part).astype("float64") for part in model.encode(x, y))  # (rows, latent) each
    sound = np.isfinite(mu).all(axis=1, keepdims=True) & np.isfinite(logvar).all(axis=1, keepdims=True)
    mu, logvar = np.where(sound, mu, 0), np.where(sound, logvar, 0).clip(-30, 5)
    rows, d = mu.shape
    first = search.starts(search.scan(model, x, z, y), z, effort.starts)  # (rows, starts, latent)
    better = search.log_joint(model, x, mu, y) > search.log_joint(model, x, first[:, 0], y)  # mu need not be in z
    first[better, 0] = mu[better]
    climbs = [search.climb(model, x, first[:, s], effort.steps, y) for s in range(effort.starts)]
    peaks, values, H = (np.stack(part, axis=1) for part in zip(*climbs, strict=True))
    mass = _shares(values - 0.5 * np.linalg.slogdet(H)[1])  # (rows, starts): Laplace's
    share = np.concatenate([0.6 * mass + 0.1 / effort.starts, np.full((rows, 3), 0.1)], axis=1)  # (rows, starts + 3)
    location = np.concatenate([peaks, mu[:, None], mu[:, None], 0 * mu[:, None]], axis=1)
    q = np.exp(-logvar)[:, :, None] * np.eye(d)  # (rows, latent, latent): its precision
    others = np.stack([q, q / WIDER**2, np.broadcast_to(np.eye(d), q.shape)], axis=1)  # (rows, 3, latent, latent)
    return student_t.mixture_of(share, location, np.concatenate([H, others], axis=1))


def draw(mixture: Mixture, count: int, rng: Any) -> np.ndarray:
    """`count` draws from each row's mixture -> (rows, count, d).

    Each component is drawn from as often as its share says, up to one draw (systematic sampling: the components along
    a line, and a comb on it at a random offset), which leaves less to chance than `count` independent choices.
    """
    rows, _, d = mixture.location.shape
    comb = (np.arange(count) + rng.random((rows, 1))) / count  # (rows, count)
    ends = np.cumsum(mixture.share, axis=1)[:, :-1]  # (rows, C - 1): where each component but the last ends
    chosen = (comb[:, :, None] >= ends[:, None]).sum(axis=2)  # (rows, count)
    chi = np.sqrt(rng.chisquare(mixture.freedom, (rows, count, 1)) / mixture.freedom)
    eps = rng.standard_normal((rows, count, d)) / chi
    z = np.empty((rows, count, d))
    row = np.arange(rows)
    for b in range(count):  # one at a time, or the factors of all draws would be held at once
        factor = mixture.factor[row, chosen[:, b]]  # (rows, d, d)
        z[:, b] = mixture.location[row, chosen[:, b]] + (factor @ eps[:, b, :, None])[:, :, 0]
    return z


def log_joint(model: VAE, x: Array, z: np.ndarray, y: Any = None) -> np.ndarray:
    """log p(x, z) of B draws for each row, in nats: x (rows, data), z (rows, B, latent) -> (rows, B)."""
    return np.stack([search.log_joint(model, x, z[:, b], y) for b in range(z.shape[1])], axis=1)


def log_weights(model: VAE, x: Array, mixture: Mixture, count: int, rng: Any, y: Any = None) -> np.ndarray:
    """log w of `count` draws of the mixture for each row, in nats -> (rows, count)."""
    z = draw(mixture, count, rng)  # (rows, count, latent)
    return log_joint(model, x, z, y) - student_t.log_mixture(mixture.share, student_t.log_densities(mixture, z))


def _log_mixture_of_counts(counts: np.ndarray, each: np.ndarray) -> np.ndarray:
    return student_t.log_mixture(counts / counts.sum(axis=1, keepdims=True), each)


def _shares(log_mass: np.ndarray) -> np.ndarray:
    """e^m / sum e^m along the rows, and even shares for a row that is -infinity everywhere."""
    log_mass = np.where(np.isneginf(log_mass.max(axis=1, keepdims=True)), 0, log_mass)
    mass = np.exp(log_mass - log_mass.max(axis=1, keepdims=True))
    return mass / mass.sum(axis=1, keepdims=True)


def _fitted_shares(joint: np.ndarray, counts: np.ndarray, each: np.ndarray) -> np.ndarray:
    """a_c: what share of the posterior component c answers for, by all draws; joint (rows, N), each (rows, C, N)."""
    w = _shares(joint - _log_mixture_of_counts(counts, each))  # (rows, N)
    share = counts / counts.sum(axis=1, keepdims=True)  # (rows, C)
    for _ in range(FITS):
        log_mixture = student_t.log_mixture(share, each)  # (rows, N)
        answers = np.exp(each + np.log(share)[:, :, None] - log_mixture[:, None])  # (rows, C, N)
        share = DEFENSIVE / counts.shape[1] + (1 - DEFENSIVE) * (answers * w[:, None]).sum(axis=2)
        share /= share.sum(axis=1, keepdims=True)
    return share
