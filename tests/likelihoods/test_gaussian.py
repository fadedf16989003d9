"""Gaussian, by SciPy's normal distribution."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from scipy import stats
from strategies import SEEDS, assert_within, eps_of, normals, numbers, sampled

from likelihoods.oracles import ORACLES, assert_log_p, draws
from tinyvae.checking.likelihoods import check_likelihood
from tinyvae.formula import backward_of, formula
from tinyvae.likelihoods.gaussian import LOG_2PI, Gaussian, gaussian_nll, gaussian_nll_backward, gaussian_nll_forward

OTHERS = ["columns", "predicted", "fixed:0.3"]  # the contract test has the default


@pytest.mark.parametrize("sigma", sampled(OTHERS, 3))
def test_every_sigma_keeps_the_contract(sigma: str) -> None:
    check_likelihood(Gaussian(sigma))


def holds(likelihood: Gaussian) -> None:
    """log p is SciPy's."""
    x, mean = 3 * np.random.default_rng(0).standard_normal((2, 100))
    for logvar in (-6.0, 0.0, 0.7, 9.0):
        assert_log_p(likelihood, ORACLES["gaussian"], x, mean=mean, logvar=logvar)


@pytest.mark.parametrize("sigma", ["learned", "predicted"])
def test_log_p_is_scipys_normal_density(sigma: str) -> None:
    holds(Gaussian(sigma))


def test_a_fixed_sigma_is_that_number() -> None:
    x, mean = np.random.default_rng(1).standard_normal((2, 100))
    assert_log_p(Gaussian("fixed:0.3"), lambda x, mean: stats.norm.logpdf(x, mean, 0.3), x, mean=mean)


def test_far_from_0_log_p_is_the_normal_density() -> None:
    mean = np.concatenate([s * np.logspace(-4, 4, 33) for s in (-1, 1)])
    x = np.random.default_rng(2).standard_normal(66)
    assert_log_p(Gaussian("learned"), ORACLES["gaussian"], x, mean=mean, logvar=0.3)


@given(SEEDS, numbers(-3.0, 3.0), numbers(-100.0, 100.0))
def test_the_density_moves_and_scales_with_its_data(seed: int, log_scale: float, shift: float) -> None:
    mean, logvar, x = normals(seed, (3, 4), (3, 4), (3, 4))
    scale = 2.0 ** round(log_scale)  # exact in binary
    nll = gaussian_nll_forward(mean, logvar, x)
    scaled = gaussian_nll_forward(scale * mean + shift, logvar + 2 * math.log(scale), scale * x + shift)
    # Density: each of the 4 dimensions gains log scale. The shift costs x - m the roundings of shift + scale x,
    # relative to scale, twice in the square; logvar one of 6 more in the exponent, which is worth the term it scales.
    eps, term = eps_of("float64"), np.abs(x) + np.abs(mean)
    lost = 4 * eps * (np.abs(shift) / scale + term) * term * np.exp(-logvar)
    bound = lost.sum(axis=1) + 60 * eps * (term**2 * np.exp(-logvar) + np.abs(logvar) + 8).sum(axis=1)
    assert_within(scaled - nll, np.full(3, 4 * math.log(scale)), bound)


def test_draws_are_normal() -> None:
    x = draws(Gaussian("learned"), mean=1.5, logvar=-1.4)
    assert stats.kstest(x, stats.norm(1.5, math.exp(-0.7)).cdf).pvalue > 1e-3


@pytest.mark.parametrize("sigma", ["", "wide", "fixed", "fixed:0", "fixed:-1", "fixed:nan", "fixed:inf"])
def test_another_sigma_is_refused(sigma: str) -> None:
    with pytest.raises(ValueError, match="sigma must be 'learned', 'columns', 'predicted' or 'fixed:VALUE'"):
        Gaussian(sigma)


# -------------------------------------------------------------------------------------------------------- planted bugs


@dataclass(frozen=True)
class NoConstant(Gaussian):
    nll: ClassVar = formula(lambda mean, logvar, x: gaussian_nll(mean, logvar, x) - 0.5 * LOG_2PI)


@dataclass(frozen=True)
class SigmaForVariance(Gaussian):
    nll: ClassVar = formula(lambda mean, logvar, x: gaussian_nll(mean, 2 * logvar, x))


@pytest.mark.parametrize("planted", [NoConstant(), SigmaForVariance()], ids=lambda p: type(p).__name__)
def test_a_forgotten_constant_and_sigma_in_place_of_the_variance_are_found(planted: Gaussian) -> None:
    with pytest.raises(AssertionError, match="off by"):
        holds(planted)


@backward_of(gaussian_nll, "mean", "logvar")
def doubled(dnll, mean, logvar, x):
    dmean, dlogvar = gaussian_nll_backward(dnll, mean, logvar, x)
    return dmean, 2 * dlogvar


@dataclass(frozen=True)
class WithoutItsHalf(Gaussian):
    slopes: ClassVar = doubled  # pyright: ignore


@backward_of(gaussian_nll, "mean", "logvar")
def without_precision(dnll, mean, logvar, x):
    return dnll * (mean - x), gaussian_nll_backward(dnll, mean, logvar, x)[1]


@dataclass(frozen=True)
class WithoutPrecision(Gaussian):
    slopes: ClassVar = without_precision  # pyright: ignore


@pytest.mark.parametrize("planted", [WithoutItsHalf("predicted"), WithoutPrecision("predicted")], ids=repr)
def test_a_slope_without_its_half_or_its_precision_breaks_the_contract(planted: Gaussian) -> None:
    with pytest.raises(AssertionError, match="the slope by"):
        check_likelihood(planted)
