"""Negative binomial: counts x that vary more than a Poisson's, from a log-mean a and a log-dispersion s.

With mean m = e^a, dispersion r = e^s and variance m + m^2 / r, and with t = a - s = log(m / r):

    p(x) = Gamma(x + r) / (Gamma(r) x!) (r / (r + m))^r (m / (r + m))^x
    nll = lgamma(r) + lgamma(x + 1) - lgamma(x + r) + r softplus(t) + x softplus(-t)

    dnll/da = r sigmoid(t) - x sigmoid(-t)
    dnll/ds = r (digamma(r) - digamma(x + r) + softplus(t)) - dnll/da

since (r + m) / r = 1 + e^t. As r grows it becomes a Poisson. It is Hilbe's NB2 (2011, "Negative Binomial Regression").
The lgamma are of order 1e8 for counts in the millions, and all but cancel: so they are float64. Beyond r = e^20 even
that is not enough, and a count of 1e4 no longer tells it from a Poisson: so s is held within +-20.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinyvae.backend import Array, array_module, to_host
from tinyvae.formula import (
    backward_of,
    digamma,
    double,
    exp,
    formula,
    lgamma,
    log1p,
    maximum,
    minimum,
    sigmoid,
    where,
)
from tinyvae.layers.layer import Param, Views
from tinyvae.likelihoods.likelihood import Factors, Likelihood
from tinyvae.likelihoods.poisson import LARGEST_RATE, log_count
from tinyvae.likelihoods.support import check_counts, log_means

LARGEST = 20.0  # of |s|


@formula
def held(log_dispersion):
    """s within +-20, in float64."""
    return maximum(minimum(double(log_dispersion), LARGEST), -LARGEST)


@formula
def softplus_of_both(t):
    """softplus(t) and softplus(-t), neither a difference."""
    small = log1p(exp(-abs(t)))
    return maximum(t, 0.0) + small, maximum(-t, 0.0) + small


@formula
def negative_binomial_nll(log_mean, log_dispersion, x):
    """lgamma(r) + lgamma(x + 1) - lgamma(x + r) + r softplus(t) + x softplus(-t), in nats."""
    s = held(log_dispersion)
    r = exp(s)
    up, down = softplus_of_both(log_mean - s)
    return lgamma(r) + lgamma(double(x) + 1) - lgamma(x + r) + r * up + x * down


@backward_of(negative_binomial_nll, "log_mean")
def negative_binomial_dlog_mean(dnll, log_mean, log_dispersion, x):
    """dlog_mean = dnll (r sigmoid(t) - x sigmoid(-t))."""
    s = held(log_dispersion)
    t = log_mean - s
    return dnll * (exp(s) * sigmoid(t) - x * sigmoid(-t))


@backward_of(negative_binomial_nll, "log_dispersion")
def negative_binomial_dlog_dispersion(dnll, log_mean, log_dispersion, x):
    """dlog_dispersion = dnll (r (digamma(r) - digamma(x + r) + softplus(t)) - dnll/da); 0 where s is held."""
    s = held(log_dispersion)
    r, t = exp(s), log_mean - s
    up, _ = softplus_of_both(t)
    slope = r * (digamma(r) - digamma(x + r) + up) - (r * sigmoid(t) - x * sigmoid(-t))
    return where(abs(log_dispersion) < LARGEST, dnll * slope, 0.0)


@dataclass(frozen=True)
class NegativeBinomial(Likelihood):
    """Counts that vary more than independent events do, with a dispersion for each column."""

    outputs: ClassVar = ("log_mean",)
    replayed: ClassVar = True
    nll: ClassVar = negative_binomial_nll
    slopes: ClassVar = negative_binomial_dlog_mean
    own_slopes: ClassVar = negative_binomial_dlog_dispersion
    encoder_input: ClassVar = log_count
    discrete: ClassVar = True
    bytes: ClassVar = "counts"

    def own(self, data_dim: int) -> Iterator[Param]:
        """log_dispersion, (data,)."""
        yield Param("log_dispersion", (data_dim,), 0.0)

    def check(self, smallest: float, largest: float, whole: bool | None = None) -> None:
        """Raises ValueError for numbers that are no counts, with what to do."""
        check_counts("a negative binomial likelihood", smallest, largest, whole)

    def start(self, x: np.ndarray) -> np.ndarray:
        """The logarithm of each column's mean: from a mean of 1, counts of 1e4 are many steep steps away."""
        return log_means(x)

    def mean(self, p: Views, output: Array) -> Array:
        """e^a."""
        return array_module(output).exp(output)

    def draw(self, p: Views, output: Array, rng: np.random.Generator) -> np.ndarray:
        """Counts of a Poisson whose rate is drawn from a gamma distribution."""
        output = to_host(output)
        r = np.exp(held(to_host(p["log_dispersion"])))
        with np.errstate(over="ignore"):
            mean = np.minimum(np.exp(output.astype("float64")), LARGEST_RATE)
            rate = np.minimum(rng.gamma(r, mean / r), LARGEST_RATE)
        return rng.poisson(rate).astype(output.dtype)

    def information(self, p: Views, output: Array) -> Array:
        """r sigmoid(t)."""
        s = held(p["log_dispersion"])
        return (array_module(output).exp(s) * sigmoid(output - s)).astype(output.dtype)

    def factors(self, p: Views, output: Array, x: Array) -> Factors:
        """-x softplus(-t) - r softplus(t), and what depends on x alone."""
        s = held(p["log_dispersion"])
        r: Any = array_module(output).exp(s)
        up, down = softplus_of_both(output - s)
        return Factors([(x, -down)], -r * up, lgamma(x + r) - lgamma(r) - lgamma(x + 1))
