"""Continuous Bernoulli: x in [0, 1], from logits l (Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli").

Binary cross-entropy on grey x, divided by what makes it a density: p(x) = e^(x l) l / (e^l - 1), and with a = |l|

    nll = softplus(l) - x l - log C(l) = max(l, 0) + log((1 - e^-a) / a) - x l          C(l) = l / tanh(l / 2)
    dnll/dl = m(l) - x                    m(l) = E[x] = 1 / (1 - e^-l) - 1 / l          dm/dl = var[x]

The mean m is not sigmoid(l): it goes to 0 and 1 as 1 / a only. In nll nothing cancels: 1 - e^-a is right to its last
digits, and so is its ratio to a, which is 1 at 0. In m both terms are near 1 / a, and lose a digit of m for each of
1 / a; the variance loses two. So below a = 1, where nothing is lost yet, both are series, whose radius is 2 pi:

    m = 1/2 + sum_k b_k l^(2k-1)          b_k = B_2k / (2k)!, B Bernoulli's numbers; |b_k| < 2.1 / (2 pi)^(2k)

The first term left out is less than (2 pi)^-22 2.1 = 6e-18 at a = 1: a fraction of float64's rounding.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinyvae.backend import Array, to_host
from tinyvae.formula import backward_of, exp, expm1, formula, log, maximum, minimum, where
from tinyvae.layers.layer import Views
from tinyvae.likelihoods.likelihood import Factors, Likelihood
from tinyvae.likelihoods.support import check_unit_interval, totals

TINY = 1e-30  # in place of a = 0, where (1 - e^-a) / a is 1
SWITCH = 1.0  # below it the series
SERIES = (
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600,
    -3617 / 10670622842880000, 43867 / 5109094217170944000, -174611 / 802857662698291200000,
)  # fmt: skip
HALVINGS = 64  # of the interval where a start lies: to float64's last digits


@formula
def log_normalizer(logits):
    """log of the integral of e^(x l) over [0, 1]: max(l, 0) + log((1 - e^-a) / a)."""
    a = maximum(abs(logits), TINY)
    return maximum(logits, 0) + log(-expm1(-a) / a)


@formula
def continuous_bernoulli_nll(logits, x):
    """max(l, 0) + log((1 - e^-a) / a) - x l, in nats (a density: it can be negative)."""
    return log_normalizer(logits) - x * logits


def _lower_mean(a: Any) -> Any:
    """m(-a) = 1 - m(a) of a >= SWITCH: 1 / a - e^-a / (1 - e^-a)."""
    return 1 / a + exp(-a) / expm1(-a)


@backward_of(continuous_bernoulli_nll, "logits")
def continuous_bernoulli_nll_backward(dnll, logits, x):
    """dlogits = dnll (m(l) - x); of a large l 1 - x is made first, so that x = 1 keeps its digits."""
    l = minimum(maximum(logits, -SWITCH), SWITCH)  # where the series is read
    series, square = 0.0, l * l
    for b in reversed(SERIES):
        series = series * square + b
    lower = _lower_mean(maximum(abs(logits), SWITCH))
    far = where(logits > 0, (1 - x) - lower, lower - x)
    return dnll * where(abs(logits) < SWITCH, 0.5 + l * series - x, far)


@formula
def continuous_bernoulli_variance(logits):
    """dm/dl: 1 / a^2 - e^-a / (1 - e^-a)^2, or the series."""
    l = minimum(abs(logits), SWITCH)
    series, square = 0.0, l * l
    for k in range(len(SERIES), 0, -1):
        series = series * square + (2 * k - 1) * SERIES[k - 1]
    a = maximum(abs(logits), SWITCH)
    below = expm1(-a)
    return where(abs(logits) < SWITCH, series, 1 / (a * a) - exp(-a) / (below * below))


@dataclass(frozen=True)
class ContinuousBernoulli(Likelihood):
    """Grey x in [0, 1], as a density."""

    outputs: ClassVar = ("logits",)
    replayed: ClassVar = True
    nll: ClassVar = continuous_bernoulli_nll
    slopes: ClassVar = continuous_bernoulli_nll_backward
    interval: ClassVar = (0.0, 1.0)

    def check(self, smallest: float, largest: float, whole: bool | None = None) -> None:
        """Raises ValueError outside [0, 1], with the line that most likely brings the data there."""
        check_unit_interval("a continuous Bernoulli likelihood", smallest, largest, whole)

    def start(self, x: np.ndarray) -> np.ndarray:
        """The logits whose mean is that of each column, with half a 0 and half a 1 more.

        m(-a) lies below 1 / a and falls from 1/2 to 0, so a lies between 0 and 1 / m: halved until it is found.
        """
        total, count = totals(x)
        mean = (total + 0.5) / (count + 1)  # (data,), neither 0 nor 1
        wanted = np.minimum(mean, 1 - mean)
        low, high = np.zeros_like(mean), 1 / wanted
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            above = self.mean({}, -middle) > wanted
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return np.where(mean > 0.5, low, -low)

    def mean(self, p: Views, output: Array) -> Array:
        """m(l)."""
        return continuous_bernoulli_nll_backward(1.0, output, 0.0)

    def draw(self, p: Views, output: Array, rng: np.random.Generator) -> np.ndarray:
        """Where the distribution (1 - e^-a x) / (1 - e^-a) of x under -a is a uniform number; 1 - x under +a."""
        output = to_host(output)
        a = np.maximum(np.abs(output.astype("float64")), TINY)
        x = np.log1p(rng.random(a.shape) * np.expm1(-a)) / -a
        return np.where(output > 0, 1 - x, x).astype(output.dtype)

    def information(self, p: Views, output: Array) -> Array:
        """The variance of x."""
        return continuous_bernoulli_variance(output)

    def factors(self, p: Views, output: Array, x: Array) -> Factors:
        """x l - log((e^l - 1) / l)."""
        return Factors([(x, output)], -log_normalizer(output), 0.0)
