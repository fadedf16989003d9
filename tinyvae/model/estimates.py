"""What a model says of data beyond its loss: active units, and log p(x) by importance sampling."""

from typing import Any, NamedTuple

import numpy as np

from tinyvae.backend import Array, as_generator, to_host
from tinyvae.model import adaptive
from tinyvae.model.description import checked_count
from tinyvae.model.vae import CHUNK, VAE
from tinyvae.model.weights import Summary, WeightSums
from tinyvae.ops import gaussian, importance, pareto

ACTIVE_VARIANCE = 0.01

LOOK_SEED = 4_061_995  # of draws of its own: the second look takes none from the caller's generator
MOST_ERROR = 0.25  # nats: the standard error of an estimate that is trusted, and of a look that confirms it
MOST_APART = 0.3  # nats between an estimate and the look that confirms it
REPAIRS = (  # a light one for every distrusted row, and a heavy one for what that leaves; with the draws of each
    (adaptive.Effort(starts=3, steps=4, draws=64, rounds=4, more=16), 250),
    (adaptive.Effort(starts=8, steps=8, draws=128, rounds=16, more=20), 1000),
)
LOOK_SCAN, REPAIR_SCAN = 1024, 4096  # draws of the prior to begin the search from; all rows share them
REPAIR_ROWS = 256  # rows that are repaired at a time
BLOCK = 50  # draws that are weighed at a time


def active_units(mu: Array) -> int:
    """How many latent dimensions carry information: those whose mu varies over the data by more than 0.01.

    mu (rows, latent). Burda et al. 2016, "Importance Weighted Autoencoders", section 5.2: Var_x(E_q[z_j]) > 0.01.
    """
    return int(to_host(mu.var(axis=0) > ACTIVE_VARIANCE).sum())


class LogLikelihood(NamedTuple):
    """Estimates of log p(x), in nats, and how far each can be trusted. All are (rows,), on the host."""

    log_p: np.ndarray
    standard_error: np.ndarray  # of log_p, in nats, by the weights that were seen; NaN from a single sample
    effective: np.ndarray  # effective sample size (sum w)^2 / sum w^2, from 1 to K: so many equal weights say as much
    pareto_k: np.ndarray  # of the tail of the weights; NaN with K < 25, -infinity if the weights are equal
    second_look: np.ndarray  # log p(x) by a few draws from elsewhere, in nats: coarse, but it sees what q misses
    second_error: np.ndarray  # its standard error, in nats
    trusted: np.ndarray  # True: log_p is right within half a nat, as far as all of these can tell


def log_likelihood(model: VAE, x: Any, samples: int, rng: Any, progress: Any = None, y: Any = None) -> LogLikelihood:
    """Estimate log p(x) of every row, or log p(x|y) under a conditional model, by importance sampling from q(z|x)
    (Burda et al. 2016, equation 8), and say which rows cannot be trusted.

        log p(x) ~ log (1/K) sum_k w_k,    w_k = p(x|z_k) p(z_k) / q(z_k|x),    z_k ~ q(z|x)

    x (rows, data), NaN where it was not observed: then log p is that of the other numbers; K = `samples`, rng a NumPy
    generator on any backend or a seed, y (rows,) a conditional model's labels; `progress(rows done)` is called now and
    then.
    The estimate lies below log p(x) on average and rises with K; at K = 1 it is the ELBO. A few rows at a time, and
    the sum of the weights is kept relative to the largest so far, so nothing overflows and memory does not grow with K.
    The standard error is that of log of the mean weight: std(w) / (mean(w) sqrt(K)). A row so far from the data that
    its numbers leave the range of floating point gets -infinity.

    Where q misses a part of the posterior, log p(x) comes out too low, by many nats even, and the weights that were
    seen may all be alike. So every row is looked at a second time, with some 100 decoded z that do not rely on q: see
    `adaptive`. A row is trusted if

        its standard error is at most 0.25 nats                         (K > 1)
        k of the tail of its weights is at most 0.7                     (K >= 25; Vehtari et al. 2024: see `ops.pareto`)
        the second look has a standard error of at most 0.25 nats, and says the same within 0.3 nats

    `repair_log_likelihood` gives a better estimate of the others.

    Raises ValueError if samples < 1, or for labels that do not fit; TypeError for another rng.
    """
    samples, rng = checked_count("samples", samples), as_generator(rng)
    y = None if y is None else to_host(y)
    model.label_codes(y, len(x))
    if model.standard is not None:
        x = to_host(model.checked_data(x))
        return _shifted(log_likelihood(model.plain, x, samples, rng, progress, y), -model.standard.log_std(x))
    parts = []
    for start in range(0, len(x), CHUNK):
        rows = slice(start, start + CHUNK)
        labels = None if y is None else y[rows]
        with np.errstate(all="ignore"):  # what overflows is looked at in the end
            parts.append((*_plain(model, x[rows], samples, rng, labels), *_second_look(model, x[rows], labels)))
        if progress is not None:
            progress(min(start + CHUNK, len(x)))
    plain, look = _joined([part[:4] for part in parts]), _joined([part[4:] for part in parts])
    return LogLikelihood(*plain, look.log_p, look.standard_error, _trusted(plain, look.log_p, look.standard_error))


def repair_log_likelihood(
    model: VAE, x: Any, estimate: LogLikelihood, samples: int, rng: Any, progress: Any = None, y: Any = None
) -> LogLikelihood:
    """Estimate log p(x) of the rows that `estimate` does not trust once more, by importance sampling from a mixture
    that is fitted to the posterior p(z|x) of each row, whatever q(z|x) says of it (see `adaptive`).

        log p(x) ~ log (1/K) sum_k w_k,    w_k = p(x|z_k) p(z_k) / sum_c a_c t_c(z_k),    z_k ~ sum_c a_c t_c

    x (rows, data) and y (rows,) as given to `log_likelihood`, `estimate` what it returned, K = `samples`, but at least
    250 (1,000 for rows that are hard), rng a NumPy generator; `progress(distrusted rows done)` is called now and then.
    It costs some 200 decoded z for each distrusted row beside the K draws, and 700 more for those that are hard.
    The estimate lies below log p(x) on average, too. It is trusted by the rules of `log_likelihood`: its own weights
    speak for it, and the second look says the same within 0.3 nats. Where not, a search of eight times the effort is
    made, and the two must say the same. A row that even this cannot do stays distrusted.
    The numbers of trusted rows stay as they are.

    Raises ValueError if samples < 1, for an estimate of other rows, or for labels that do not fit; TypeError for
    another rng.
    """
    samples, rng = checked_count("samples", samples), as_generator(rng)
    if len(estimate.trusted) != len(x):
        raise ValueError(f"x has {len(x)} rows, but the estimate is of {len(estimate.trusted)}")
    y = None if y is None else to_host(y)
    model.label_codes(y, len(x))
    if model.standard is not None:
        x = to_host(model.checked_data(x))
        lost = model.standard.log_std(x)  # (rows,)
        found = repair_log_likelihood(model.plain, x, _shifted(estimate, lost), samples, rng, progress, y)
        return _shifted(found, -lost)
    found = LogLikelihood(*(part.copy() for part in estimate))
    wrong = np.flatnonzero(~estimate.trusted)
    if len(wrong) == 0:
        return found
    x = to_host(x)
    noise = np.random.default_rng(rng.integers(2**63))  # it draws more than normal numbers
    with np.errstate(all="ignore"):
        z = adaptive.candidates(to_host(model.encode(x, y)[0]).astype("float64"), REPAIR_SCAN, noise)  # (M, latent)
    for start in range(0, len(wrong), REPAIR_ROWS):
        left = wrong[start : start + REPAIR_ROWS]
        other, other_error = found.second_look[left], found.second_error[left]
        for effort, fewest in REPAIRS:
            labels = None if y is None else y[left]
            with np.errstate(all="ignore"):
                new = _adaptive(model, x[left], z, effort, max(samples, fewest), noise, labels)
            for part, values in zip(found[:4], new, strict=True):
                part[left] = values
            right = found.trusted[left] = _trusted(new, other, other_error)
            left, other, other_error = left[~right], new.log_p[~right], new.standard_error[~right]
            if len(left) == 0:
                break
        if progress is not None:
            progress(min(start + REPAIR_ROWS, len(wrong)))
    return found


def _shifted(estimate: LogLikelihood, by: Any) -> LogLikelihood:
    """In other units: by (rows,) nats more."""
    return estimate._replace(log_p=estimate.log_p + by, second_look=estimate.second_look + by)


def _joined(parts: list[Any]) -> Summary:
    return Summary(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _trusted(estimate: Summary, other: np.ndarray, other_error: np.ndarray) -> np.ndarray:
    """Whether an estimate's own weights speak for it (NaN, where there are too few to tell, does not speak against it),
    and another estimate, from other draws and with this standard error, says the same.  All (rows,)."""
    sound = np.isfinite(estimate.log_p) & ~(estimate.standard_error > MOST_ERROR) & ~(estimate.pareto_k > pareto.LIMIT)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        return sound & (other_error <= MOST_ERROR) & (np.abs(estimate.log_p - other) <= MOST_APART)


def _plain(model: VAE, x: Any, samples: int, rng: Any, y: Any) -> Summary:
    x = model.backend.asarray(x, model.dtype)  # (rows, data)
    mu, logvar = model.encode(x, y)  # (rows, latent) each
    mu, logvar = mu.astype("float64"), logvar.astype("float64")
    sums = WeightSums(model.backend.xp, x.shape[0], samples)
    for _ in range(samples):
        eps = model.backend.asarray(rng.standard_normal(mu.shape))  # (rows, latent)
        z = gaussian.reparameterize_forward(mu, logvar, eps)  # (rows, latent)
        log_prior_over_q = importance.log_prior_over_q_forward(z, logvar, eps)  # (rows,)
        sums.add(model.log_p_x_given_z(x, z, y).astype("float64") + log_prior_over_q)
    return sums.summary()


def _second_look(model: VAE, x: Any, y: Any) -> Summary:
    """The same draws in every call, so that the same rows are distrusted."""
    rng = np.random.default_rng(LOOK_SEED)
    mu = to_host(model.encode(x, y)[0]).astype("float64")  # (rows, latent)
    effort = adaptive.look_effort(mu.shape[1])
    return _adaptive(model, x, adaptive.candidates(mu, LOOK_SCAN, rng), effort, effort.draws, rng, y)


def _adaptive(model: VAE, x: Any, z: np.ndarray, effort: adaptive.Effort, samples: int, rng: Any, y: Any) -> Summary:
    x = model.backend.asarray(x, model.dtype)  # (rows, data)
    mixture = adaptive.proposal(model, x, z, effort, rng, y)
    sums = WeightSums(np, x.shape[0], samples)
    for start in range(0, samples, BLOCK):
        for log_w in adaptive.log_weights(model, x, mixture, min(BLOCK, samples - start), rng, y).T:  # (rows,)
            sums.add(log_w)
    return sums.summary()
