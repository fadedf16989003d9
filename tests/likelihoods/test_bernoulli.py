"""Bernoulli, by SciPy's mass function and logistic distribution."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import example, given
from scipy import special, stats
from strategies import DTYPES, SEEDS, ULP, assert_within, eps_of, normals, numbers

from likelihoods.oracles import ORACLES, assert_counts_follow, assert_log_p, draws
from tinyvae.backend import get_backend
from tinyvae.checking.agreement import usable_kernels
from tinyvae.checking.likelihoods import check_likelihood
from tinyvae.formula import backward_of, exp, formula, log, sigmoid
from tinyvae.kernels import select
from tinyvae.likelihoods.bernoulli import Bernoulli, bernoulli_nll, bernoulli_nll_forward


def by_the_logistic(x: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """log p of x in [0, 1], exact far out: log sigmoid(l) is the logistic distribution's log CDF."""
    return x * stats.logistic.logcdf(logits) + (1 - x) * stats.logistic.logsf(logits)


def test_log_p_is_scipys_mass_function() -> None:
    logits = np.tile(np.linspace(-12, 12, 49), 2)
    assert_log_p(Bernoulli(), ORACLES["bernoulli"], np.repeat([0, 1], 49), logits=logits)


def far_out(likelihood: Bernoulli) -> None:
    """Grey values, and logits up to 1e4."""
    logits = np.concatenate([s * np.logspace(-4, 4, 33) for s in (-1, 1)])
    for x in (0.0, 0.25, 1.0):
        assert_log_p(likelihood, by_the_logistic, np.full(66, x), logits=logits)


def test_grey_values_and_logits_up_to_1e4_are_binary_cross_entropy() -> None:
    far_out(Bernoulli())


@pytest.mark.parametrize("kernels", usable_kernels())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_of_10000_are_exact(dtype: str, kernels: str) -> None:
    logits = np.array([[1e4], [1e4], [-1e4], [-1e4], [1e4], [0.0]], dtype)
    x = np.array([[1], [0], [0], [1], [0.25], [1]], dtype)
    k = select(kernels, get_backend("numpy"), dtype)[1]()
    k.begin("test")
    nll, dlogits = Bernoulli().slope(k, {}, logits, x)
    assert nll[:5].tolist() == [0, 1e4, 0, 1e4, 7500]  # exact in both dtypes
    assert_within(nll[5], math.log(2), 2 * eps_of(dtype))
    assert dlogits[:, 0].tolist() == [0, 1, 0, -1, 0.75, -0.5]


@given(SEEDS, numbers(0.1, 1e4), DTYPES)
@example(0, 1e4, "float32")
def test_the_two_sides_of_a_coin_have_probabilities_that_add_to_1(seed: int, scale: float, dtype: str) -> None:
    logits = normals(seed, (30, 1), dtype=dtype, scale=scale)[0]
    heads = bernoulli_nll_forward(logits, np.ones_like(logits))
    tails = bernoulli_nll_forward(logits, np.zeros_like(logits))
    assert heads.dtype == dtype
    bound = (2 * ULP + 3) * eps_of(dtype) * (1 + np.abs(logits[:, 0]))
    # -log p + log(1 - p) = -l, and p + (1 - p) = 1, where an error in -log p is as large a relative error in p
    assert_within(heads - tails, -logits[:, 0], 2 * bound)
    total = np.exp(-heads.astype(float)) + np.exp(-tails.astype(float))
    assert_within(total, np.ones(30), 2 * np.expm1(bound.astype(float)))
    # swapping the sides is the same as negating the logit: no side is computed with less care
    assert_within(bernoulli_nll_forward(-logits, np.ones_like(logits)), tails, bound)


def test_draws_are_1_as_often_as_the_mean_says() -> None:
    x = draws(Bernoulli(), logits=-0.7)
    assert_counts_follow(x, lambda v: stats.bernoulli.pmf(v, special.expit(-0.7)))


@pytest.mark.parametrize(
    ("low", "high", "remedy"), [(0, 255, "x = x / np.float32.255."), (-1, 1, ".x . 1. / 2"), (0, 1.001, "np.clip")]
)
def test_data_outside_the_unit_interval_is_refused_with_the_line_that_brings_it_there(
    low: float, high: float, remedy: str
) -> None:
    with pytest.raises(ValueError, match=rf"the data lies in \[{low}, {high}\], but a Bernoulli .*{remedy}"):
        Bernoulli().check(low, high, whole=False)
    Bernoulli().check(0, 1)


# -------------------------------------------------------------------------------------------------------- planted bugs


@dataclass(frozen=True)
class Naive(Bernoulli):
    """As it is first written down: log(1 + e^l) overflows."""

    nll: ClassVar = formula(lambda logits, x: log(1 + exp(logits)) - x * logits)


@dataclass(frozen=True)
class OfTheOther(Bernoulli):
    """The probability of 0."""

    nll: ClassVar = formula(lambda logits, x: bernoulli_nll(-logits, x))


@pytest.mark.parametrize("planted", [Naive(), OfTheOther()], ids=lambda p: type(p).__name__)
@pytest.mark.filterwarnings("ignore:overflow")  # which is the bug
def test_a_loss_that_overflows_and_one_of_the_other_class_are_found(planted: Bernoulli) -> None:
    with pytest.raises(AssertionError, match="off by"):
        far_out(planted)


@backward_of(bernoulli_nll, "logits")
def from_x_to_p(dnll, logits, x):
    return dnll * (x - sigmoid(logits))


@backward_of(bernoulli_nll, "logits")
def through_a_sigmoid(dnll, logits, x):
    p = sigmoid(logits)
    return dnll * (p - x) * p * (1 - p)


@dataclass(frozen=True)
class Uphill(Bernoulli):
    slopes: ClassVar = from_x_to_p


@dataclass(frozen=True)
class OfSquares(Bernoulli):
    """The slope of a sigmoid's squared error."""

    slopes: ClassVar = through_a_sigmoid


@pytest.mark.parametrize("planted", [Uphill(), OfSquares()], ids=lambda p: type(p).__name__)
def test_a_slope_uphill_and_one_through_the_sigmoid_break_the_contract(planted: Bernoulli) -> None:
    check_likelihood(Bernoulli())
    with pytest.raises(AssertionError, match=r"the slope by the output \(logits\)"):
        check_likelihood(planted)


def test_it_starts_at_the_logit_of_each_columns_mean() -> None:
    """With half a 0 and half a 1 more, so that a pixel which is never on stays possible."""
    x = np.array([[1, np.nan, 0, np.nan], [1, 0.5, 0, np.nan]])
    np.testing.assert_allclose(Bernoulli().start(x), np.log([2.5 / 0.5, 1, 0.5 / 2.5, 1]), rtol=1e-12)
