"""Laplace, by SciPy's distribution of that name."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from scipy import stats
from strategies import sampled

from likelihoods.oracles import ORACLES, assert_log_p, draws
from tinyvae.checking.likelihoods import check_likelihood
from tinyvae.formula import backward_of, exp, formula
from tinyvae.likelihoods.laplace import Laplace, laplace_dmedian


@pytest.mark.parametrize("scale", sampled(["columns", "fixed:0.3"], 2))  # the contract test has the default
def test_every_scale_keeps_the_contract(scale: str) -> None:
    check_likelihood(Laplace(scale))


def holds(likelihood: Laplace) -> None:
    """log p is SciPy's, near and far."""
    x, median = 3 * np.random.default_rng(0).standard_normal((2, 100))
    far = np.concatenate([s * np.logspace(-4, 4, 50) for s in (-1, 1)])
    for log_scale, m in [(-3.0, median), (0.0, median), (0.4, x), (5.0, far), (9.0, far)]:  # SciPy's density is not 0
        assert_log_p(likelihood, ORACLES["laplace"], x, median=m, log_scale=log_scale)


def test_log_p_is_scipys_density() -> None:
    holds(Laplace())


def test_a_fixed_scale_is_that_number() -> None:
    x, median = np.random.default_rng(1).standard_normal((2, 100))
    assert_log_p(Laplace("fixed:0.3"), lambda x, median: stats.laplace.logpdf(x, median, 0.3), x, median=median)


def test_draws_are_laplaces() -> None:
    x = draws(Laplace(), median=-0.4, log_scale=0.8)
    assert stats.kstest(x, stats.laplace(-0.4, math.exp(0.8)).cdf).pvalue > 1e-3


def test_at_the_median_itself_the_slope_is_0() -> None:
    assert laplace_dmedian(1.0, 2.0, 0.3, 2.0) == 0


@pytest.mark.parametrize("scale", ["", "predicted", "fixed:0", "fixed:nan"])
def test_another_scale_is_refused(scale: str) -> None:
    with pytest.raises(ValueError, match="scale must be 'learned', 'columns' or 'fixed:VALUE' with VALUE > 0, not"):
        Laplace(scale)


# -------------------------------------------------------------------------------------------------------- planted bugs


@formula
def gaussian(median, log_scale, x):
    """A Gaussian whose deviation is the scale: right in itself."""
    return 0.5 * (x - median) * (x - median) * exp(-2 * log_scale) + log_scale + 0.5 * math.log(2 * math.pi)


@backward_of(gaussian, "median")
def gaussian_dmedian(dnll, median, log_scale, x):
    return dnll * (median - x) * exp(-2 * log_scale)


@backward_of(gaussian, "log_scale")
def gaussian_dlog_scale(dnll, median, log_scale, x):
    return dnll * (1 - (x - median) * (x - median) * exp(-2 * log_scale))


@dataclass(frozen=True)
class Disguised(Laplace):
    nll: ClassVar = gaussian
    slopes: ClassVar = gaussian_dmedian
    own_slopes: ClassVar = gaussian_dlog_scale  # pyright: ignore


@dataclass(frozen=True)
class DisguisedToTheLast(Disguised):
    """Of one piece: its draws and its information are a Gaussian's too."""

    def draw(self, p, output, rng):
        return output + self.scales(p, output) * rng.standard_normal(output.shape).astype(output.dtype)


@dataclass(frozen=True)
class WithoutItsConstant(Laplace):
    nll: ClassVar = formula(lambda median, log_scale, x: abs(x - median) * exp(-log_scale) + log_scale)


def test_a_laplace_that_is_a_gaussian_is_found_by_its_oracle() -> None:
    check_likelihood(DisguisedToTheLast())  # the contract cannot know
    for planted in (Disguised(), DisguisedToTheLast(), WithoutItsConstant()):
        with pytest.raises(AssertionError, match="off by"):
            holds(planted)


def test_a_laplace_that_draws_as_one_but_computes_a_gaussian_breaks_the_contract() -> None:
    with pytest.raises(AssertionError, match="of the draws lie below"):
        check_likelihood(Disguised())
