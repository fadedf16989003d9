"""How unlikely a row is under a trained model, and how well that number tells anomalies from ordinary rows.

The score of a row is an estimate of -log p(x), in nats; a high one is unusual.

    elbo         the mean over K draws of z of   -log p(x|z) + KL(q(z|x) || p(z))      an upper bound on average
    likelihood   -log (1/K) sum_k p(x|z_k) p(z_k) / q(z_k|x)                           closer, and slower

Where q(z|x) misses a part of the posterior, the plain sum of `likelihood` is too high, by many nats even, and more so
for rows unlike the data. So the rows that cannot be trusted are estimated anew (`estimates.repair_log_likelihood`), and
those that even this cannot do are named.

A low score is no proof that a row is like the data. Density is not typicality: a model gives simple rows, such as an
image that is all background, a higher density than its own data (Nalisnick et al. 2019, "Do deep generative models know
what they don't know?"). So compare the scores of anomalies that you know before you trust the ones that you do not.
"""

import warnings
from typing import Any

import numpy as np

from tinyvae.backend import as_generator, to_host
from tinyvae.model.description import checked_count
from tinyvae.model.estimates import log_likelihood, repair_log_likelihood
from tinyvae.model.vae import CHUNK, VAE

METHODS = ("elbo", "likelihood")


def anomaly_scores(
    model: VAE, x: Any, rng: Any, method: str = "elbo", samples: int = 10, y: Any = None, progress: Any = None
) -> np.ndarray:
    """An estimate of -log p(x) of every row, in nats; with labels y, of -log p(x|y).

    x (rows, data), y (rows,) for a conditional model, rng a NumPy generator or a seed, K = `samples` draws of z for
    each row; `progress(rows done)` is called now and then. -> (rows,), float64

    The weight of the KL is 1 whatever beta the model was trained with. See the top of this file for the two methods.
    A row so far from the data that its numbers leave the range of floating point scores infinity.
    With `likelihood`, a warning says how many scores cannot be trusted (`likelihood_scores` says which).

    Raises ValueError for another method, for samples < 1, and for rows that the model cannot have made; TypeError for
    another rng.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if method == "likelihood":
        scores, trusted = likelihood_scores(model, x, rng, samples, y, progress)
        if not trusted.all():
            message = f"{(~trusted).sum():,} of {len(trusted):,} scores cannot be trusted: likelihood_scores says which"
            warnings.warn(message, stacklevel=2)
        return scores
    samples, rng = checked_count("samples", samples), as_generator(rng)
    x = np.asarray(x)
    model.architecture.check_values(x)
    with np.errstate(all="ignore"):  # what overflows ends as infinity or NaN, and is looked at here
        scores = _minus_elbo(model, x, rng, samples, y, progress)  # (rows,)
    return np.where(np.isnan(scores), np.inf, scores)


def likelihood_scores(
    model: VAE, x: Any, rng: Any, samples: int = 100, y: Any = None, progress: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """The scores of method `likelihood`, and which of them are right within half a nat, as far as can be told.

    Arguments and errors as of `anomaly_scores` -> scores (rows,), float64, and trusted (rows,), True or False.
    """
    samples, rng = checked_count("samples", samples), as_generator(rng)  # once: an int would begin anew in each chunk
    x = np.asarray(x)
    model.architecture.check_values(x)
    model.label_codes(y if y is None else np.asarray(y), len(x))
    scores, trusted = np.empty(len(x)), np.empty(len(x), dtype=bool)
    for start in range(0, len(x), CHUNK):
        rows = slice(start, start + CHUNK)
        labels = None if y is None else y[rows]
        estimate = log_likelihood(model, x[rows], samples, rng, y=labels)
        estimate = repair_log_likelihood(model, x[rows], estimate, samples, rng, y=labels)
        scores[rows], trusted[rows] = -estimate.log_p, estimate.trusted
        if progress is not None:
            progress(min(start + CHUNK, len(x)))
    return scores, trusted


def _minus_elbo(model: VAE, x: np.ndarray, rng: Any, samples: int, y: Any, progress: Any) -> np.ndarray:
    scores = np.zeros(len(x))  # (rows,)
    for start in range(0, len(x), CHUNK):
        rows = slice(start, start + CHUNK)
        chunk, labels = x[rows], None if y is None else y[rows]
        for _ in range(samples):
            eps = rng.standard_normal((len(chunk), model.architecture.latent_dim))  # (chunk, latent)
            nll, kl = model.rows_loss(chunk, eps, y=labels)  # (chunk,), (chunk, latent)
            scores[rows] += to_host(nll.astype("float64") + kl.sum(axis=1, dtype="float64"))
        scores[rows] /= samples
        if progress is not None:
            progress(min(start + CHUNK, len(x)))
    return scores


def threshold(scores: np.ndarray, quantile: float) -> float:
    """The smallest score that at least this share of the given ones do not exceed: the empirical quantile.

    So at most a share of 1 - quantile of `scores` lies above it. scores (rows,): of the training rows.

    Raises ValueError if there are no scores, for one that is NaN, and for a quantile outside of [0, 1].
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must lie in [0, 1], not {quantile}")
    if len(scores) == 0 or np.isnan(scores).any():
        raise ValueError("there are no scores, or one is NaN")
    return float(np.quantile(scores, quantile, method="inverted_cdf"))


def auroc(scores: np.ndarray, is_anomaly: np.ndarray) -> float:
    """The area under the ROC curve: the probability that an anomaly scores higher than an ordinary row.

    With ranks r (equal scores share the mean of their ranks), over the a anomalies and o ordinary rows, the statistic
    of Mann & Whitney 1947:

        AUROC = (sum of r over the anomalies - a (a + 1) / 2) / (a o)

    1: every anomaly scores higher than every ordinary row; 1/2: the score tells nothing; below: it points the wrong
    way.

    scores (rows,), is_anomaly (rows,) of truth values. Raises ValueError if one kind is missing or a score is NaN.
    """
    scores, is_anomaly = np.asarray(scores), np.asarray(is_anomaly, dtype=bool)
    if scores.ndim != 1 or scores.shape != is_anomaly.shape:
        raise ValueError(f"scores and is_anomaly must be (rows,) both, not {scores.shape} and {is_anomaly.shape}")
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    anomalies = int(is_anomaly.sum())
    ordinary = len(scores) - anomalies
    if not anomalies or not ordinary:
        raise ValueError("AUROC needs anomalies and ordinary rows, at least one of each")
    _, place, ties = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[place]  # (rows,), from 1
    return float((ranks[is_anomaly].sum() - anomalies * (anomalies + 1) / 2) / (anomalies * ordinary))
