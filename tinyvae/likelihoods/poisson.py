"""Poisson: counts x in {0, 1, 2, ...}, from a log-rate a, with mean and variance e^a.

    nll = e^a - x a + log x!              dnll/da = e^a - x

With counts in the millions each of the three terms is of order 1e8, and they all but cancel: so they are float64.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinyvae.backend import Array, array_module, to_host
from tinyvae.formula import backward_of, double, exp, formula, lgamma, log
from tinyvae.layers.layer import Views
from tinyvae.likelihoods.likelihood import Factors, Likelihood
from tinyvae.likelihoods.support import check_counts, log_means

LARGEST_RATE = 9e18  # of a draw that fits into 64 bits


@formula
def poisson_nll(log_rate, x):
    """e^a - x a + log x!, in nats."""
    return exp(double(log_rate)) - x * double(log_rate) + lgamma(double(x) + 1)


@backward_of(poisson_nll, "log_rate")
def poisson_nll_backward(dnll, log_rate, x):
    """dlog_rate = dnll (e^a - x)."""
    return dnll * (exp(double(log_rate)) - x)


@formula
def log_count(x):
    """log(1 + x)."""
    return log(1 + x)


@dataclass(frozen=True)
class Poisson(Likelihood):
    """Counts that vary as much as independent events do: the variance is the mean."""

    outputs: ClassVar = ("log_rate",)
    replayed: ClassVar = True
    nll: ClassVar = poisson_nll
    slopes: ClassVar = poisson_nll_backward
    encoder_input: ClassVar = log_count
    discrete: ClassVar = True
    bytes: ClassVar = "counts"

    def check(self, smallest: float, largest: float, whole: bool | None = None) -> None:
        """Raises ValueError for numbers that are no counts, with what to do."""
        check_counts("a Poisson likelihood", smallest, largest, whole)

    def start(self, x: np.ndarray) -> np.ndarray:
        """The logarithm of each column's mean: from a mean of 1, counts of 1e4 are many steep steps away."""
        return log_means(x)

    def mean(self, p: Views, output: Array) -> Array:
        """e^a."""
        return array_module(output).exp(output)

    def draw(self, p: Views, output: Array, rng: np.random.Generator) -> np.ndarray:
        """Counts."""
        output = to_host(output)
        with np.errstate(over="ignore"):
            rate = np.minimum(np.exp(output.astype("float64")), LARGEST_RATE)
        return rng.poisson(rate).astype(output.dtype)

    def information(self, p: Views, output: Array) -> Array:
        """e^a."""
        return self.mean(p, output)

    def factors(self, p: Views, output: Array, x: Array) -> Factors:
        """x a - e^a - log x!."""
        return Factors([(x, output)], -self.mean(p, output), -lgamma(x + 1))
