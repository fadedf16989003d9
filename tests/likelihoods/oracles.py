"""SciPy's word on each likelihood, and how a likelihood's numbers are held against it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special, stats
from strategies import assert_within

from tinyvae import kernels as kernel_files
from tinyvae.backend import get_backend
from tinyvae.checking.agreement import usable_kernels
from tinyvae.likelihoods.likelihood import Likelihood

NODES, WEIGHTS = special.roots_legendre(64)  # exact to 1e-15 for an exponential function that falls by e^-50


def continuous_bernoulli(x: Any, logits: Any) -> np.ndarray:
    """x l - log of the integral of e^(t l) over [0, 1], by Gauss's quadrature of where it is not below e^-50."""
    a = np.abs(logits)
    end = np.minimum(1, 50 / np.maximum(a, 1))
    t = end[..., None] * (1 + NODES) / 2
    integral = end / 2 * (np.exp(-a[..., None] * t) @ WEIGHTS)  # of e^-at: on the side where it falls
    return x * logits - np.maximum(logits, 0) - np.log(integral)


def discretized_logistic(x: Any, mean: Any, log_scale: Any) -> np.ndarray:
    """log of the difference of two values of SciPy's logistic distribution, on the side where both are small."""
    scale, half = np.exp(np.clip(log_scale, -12, 12)), 1 / 510
    u, v = (x + half - mean) / scale, (x - half - mean) / scale
    u, v = np.where(x > 1 - half, np.inf, u), np.where(x < half, -np.inf, v)
    large, small = np.where(u + v > 0, -v, u), np.where(u + v > 0, -u, v)  # of infinities, u + v is the other's sign
    log_large, log_small = stats.logistic.logcdf(large), stats.logistic.logcdf(small)
    return log_large + np.log(-np.expm1(log_small - log_large))


# name -> log p(x) of each number, from what the decoder says and the own parameters, by their names
ORACLES: dict[str, Callable[..., np.ndarray]] = {
    "bernoulli": lambda x, logits: stats.bernoulli.logpmf(x, special.expit(logits)),
    "continuous-bernoulli": continuous_bernoulli,
    "categorical": lambda x, logits: x * special.log_softmax(logits, axis=1),  # of one group
    "discretized-logistic": discretized_logistic,
    "gaussian": lambda x, mean, logvar: stats.norm.logpdf(x, mean, np.exp(logvar / 2)),
    "laplace": lambda x, median, log_scale: stats.laplace.logpdf(x, median, np.exp(log_scale)),
    "mixed": lambda x, numbers, **own: stats.norm.logpdf(
        x, numbers, np.exp(own["gaussian.0.logvar"] / 2)
    ),  # its default
    "negative-binomial": lambda x, log_mean, log_dispersion: stats.nbinom.logpmf(
        x, np.exp(log_dispersion), special.expit(log_dispersion - log_mean)
    ),
    "poisson": lambda x, log_rate: stats.poisson.logpmf(x, np.exp(log_rate)),
}
# Of the number, and in nats. In float64 a few roundings, SciPy's among them; counts of 1e7 are differences of terms of
# 1.6e8, each with some 10 roundings
ALLOWED = {"float32": 1e-4, "float64": 1e-12}
ALLOWED_OF_COUNTS = {"float32": 1e-4, "float64": 4e-7}


def assert_log_p(
    likelihood: Likelihood, log_p: Callable[..., np.ndarray], x: Any, least: float = 0, **said: Any
) -> None:
    """-nll of each number is log_p(x, **said), in both precisions and on all kernels.

    x (n,) and what is said of it: outputs (n,) and own parameters, a number each. All are rounded to float32 first, so
    that every precision is given the same. least: what may be off by in any precision, where the caller says why.
    """
    own = [p.name for p in likelihood.own(1)]
    allowed = ALLOWED_OF_COUNTS if np.max(x) > 1 and likelihood.discrete else ALLOWED
    x, said = np.float32(x), {name: np.float32(a) for name, a in said.items()}
    wide = {name: a.astype("float64") for name, a in said.items()}
    expected = -log_p(x.astype("float64"), **wide)
    assert np.isfinite(expected).all()
    for kernels in usable_kernels():
        for dtype, off in allowed.items():
            k = kernel_files.select(kernels, get_backend("numpy"), dtype)[1]()
            p = {name: said[name].reshape(1).astype(dtype) for name in own}
            output = np.stack([np.broadcast_to(said[n], x.shape) for n in likelihood.outputs], axis=1).astype(dtype)
            k.begin("test")
            with np.errstate(over="ignore", under="ignore"):
                loss = likelihood.loss(k, p, output, x.reshape(-1, 1).astype(dtype))
            assert_within(loss, expected, max(off, least) * (1 + np.abs(expected)))


def draws(likelihood: Likelihood, count: int = 50_000, **said: float) -> np.ndarray:
    """Draws (count,) with a seed of their own, and that their average is the mean, within 5 standard errors."""
    p = {p.name: np.array([said[p.name]]) for p in likelihood.own(1)}
    output = np.tile([[said[name] for name in likelihood.outputs]], (count, 1)).astype("float64")
    x = likelihood.draw(p, output, np.random.default_rng(20))[:, 0]
    mean = likelihood.mean(p, output[:1])[0, 0]
    assert_within(x.mean(), mean, 5 * x.std() / np.sqrt(count))
    return x


def assert_counts_follow(x: np.ndarray, pmf: Callable[[np.ndarray], np.ndarray]) -> None:
    """A chi-square test of draws of whole numbers: of values that 20 are expected of, and all others together."""
    values = np.arange(0, x.max() + 1)
    expected = len(x) * pmf(values)
    often = expected >= 20
    seen = np.array([(x == v).sum() for v in values])
    f_obs = np.append(seen[often], len(x) - seen[often].sum())
    f_exp = np.append(expected[often], len(x) - expected[often].sum())
    if f_exp[-1] < 20:
        f_obs, f_exp = f_obs[:-1], f_exp[:-1] * (f_obs[:-1].sum() / f_exp[:-1].sum())
    assert (
        stats.chisquare(f_obs, f_exp, sum_check=False).pvalue > 1e-3
    )  # with this seed; a wrong formula is below 1e-20
