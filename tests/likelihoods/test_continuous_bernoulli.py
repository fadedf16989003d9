"""Continuous Bernoulli, by SciPy's quadrature of e^(x l), and against its moments by the same integrals."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import example, given
from scipy import integrate, stats
from strategies import DTYPES, ULP, assert_within, eps_of, numbers

from likelihoods.oracles import ORACLES, assert_log_p, draws
from tinyvae.backend import get_backend
from tinyvae.checking.agreement import usable_kernels
from tinyvae.checking.likelihoods import check_likelihood
from tinyvae.formula import backward_of, formula, log, sigmoid, tanh
from tinyvae.kernels import select
from tinyvae.likelihoods.bernoulli import bernoulli_nll
from tinyvae.likelihoods.continuous_bernoulli import (
    SWITCH,
    ContinuousBernoulli,
    continuous_bernoulli_nll,
    continuous_bernoulli_variance,
)

AWAY = np.logspace(-9, 4, 40)
NEAR_THE_SWITCH = SWITCH * (1 + np.array([-0.3, -1e-3, -1e-6, 0, 1e-6, 1e-3, 0.3]))
LOGITS = np.concatenate([-AWAY, -NEAR_THE_SWITCH, [0.0], NEAR_THE_SWITCH, AWAY])


def moments(l: float) -> tuple[float, float, float]:
    """log of the integral of e^(t l), the mean and the variance, by adaptive quadrature of the side that falls."""
    a, end = abs(l), min(1.0, 50 / max(abs(l), 1))
    quad: Any = lambda f: integrate.quad(lambda t: f(t) * np.exp(-a * t), 0, end, epsabs=0, epsrel=1e-13)[0]
    total = quad(lambda t: 1.0)
    mean = quad(lambda t: t) / total
    variance = quad(lambda t: (t - mean) ** 2) / total
    return max(l, 0) + np.log(total), 1 - mean if l > 0 else mean, variance


def holds(likelihood: ContinuousBernoulli) -> None:
    """log p is the integral's word, from logits of 1e-9 to 1e4 and at 0."""
    for x in (0.0, 0.3, 1.0):
        assert_log_p(likelihood, ORACLES["continuous-bernoulli"], np.full(LOGITS.shape, x), logits=LOGITS)


def test_log_p_is_that_of_the_integral() -> None:
    holds(ContinuousBernoulli())


@pytest.mark.parametrize("l", [-1e4, -30.0, -1.0, -0.999, -1e-3, 0.0, 1e-9, 0.5, 1.0, 1.001, 7.0, 1e4])
def test_normalizer_mean_and_variance_are_scipys_integrals(l: float) -> None:
    """The closed forms lose a digit for each of 1 / a, and two: at SWITCH = 1 that is none, on either side.

    What is allowed is some roundings of the terms, which are at most 1, and 1e-12 of the quadrature itself.
    """
    normalizer, mean, variance = moments(l)
    at = np.array([[l]])
    assert_within(-ORACLES["continuous-bernoulli"](0.0, at)[0, 0], normalizer, 1e-12 * (1 + abs(normalizer)))
    assert_within(continuous_bernoulli_nll(at, 0.0)[0, 0], normalizer, 1e-12 * (1 + abs(normalizer)))
    off = 16 * eps_of("float64") + 1e-12 * mean
    assert_within(ContinuousBernoulli().mean({}, at)[0, 0], mean, off)
    assert_within(continuous_bernoulli_variance(at)[0, 0], variance, 16 * eps_of("float64") + 1e-12 * variance)


@pytest.mark.parametrize("kernels", usable_kernels())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_slope_is_right_to_its_last_digits_on_both_sides_of_the_switch(dtype: str, kernels: str) -> None:
    """It is m(l) - x, of numbers at most 1: within 16 roundings, and as many units in the last place of exp."""
    logits = LOGITS.astype(dtype)[:, None]
    k = select(kernels, get_backend("numpy"), dtype)[1]()
    expected = np.array([moments(float(l))[1] for l in logits[:, 0]])
    for x in (0.0, 0.25, 1.0):
        k.begin("test")
        _, slope = ContinuousBernoulli().slope(k, {}, logits, np.full_like(logits, x))
        assert_within(slope[:, 0], expected - x, (16 + 4 * ULP) * eps_of(dtype) + 1e-12)


@given(numbers(1.0, 1e4), DTYPES)
@example(1e4, "float32")
def test_far_out_the_slope_keeps_its_digits_where_it_is_nearly_0(a: float, dtype: str) -> None:
    """x = 0 under -a and x = 1 under a: 1 / a, to as many digits as that has."""
    l = np.array([[-a], [a]], dtype)
    k = select("reference", get_backend("numpy"), dtype)[1]()
    with np.errstate(under="ignore"):
        _, slope = ContinuousBernoulli().slope(k, {}, l, np.array([[0], [1]], dtype))
    wide = abs(float(l[0, 0]))
    lower = 1 / wide - 1 / np.expm1(wide) if wide < 700 else 1 / wide
    assert_within(slope[:, 0], [lower, -lower], (16 + 4 * ULP) * eps_of(dtype) * 2 / wide)


@pytest.mark.parametrize("logits", [-40.0, -1.3, 1e-7, 0.8, 12.0])
def test_draws_have_its_distribution(logits: float) -> None:
    x = draws(ContinuousBernoulli(), logits=logits)
    assert x.min() >= 0
    assert x.max() <= 1
    assert stats.kstest(x, lambda v: np.expm1(v * logits) / np.expm1(logits)).pvalue > 1e-3


def test_draws_at_any_logit_lie_in_the_interval() -> None:
    output = np.array([[-np.inf, -1e30, -1e4, 0, 1e4, 1e30]], dtype="float32")
    x = ContinuousBernoulli().draw({}, output[:, 1:], np.random.default_rng(0))
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    assert x.min() >= 0
    assert x.max() <= 1


def test_it_starts_where_the_mean_is_that_of_each_column() -> None:
    """With half a 0 and half a 1 more: a column of nothing but 0s or 1s is no error."""
    x = np.array([[0, 1, 0.2, np.nan, 0.5, np.nan], [0, 1, 0.7, 0.9, 0.5, np.nan], [0, 1, 0.1, 0.9, 0.5, np.nan]])
    start = ContinuousBernoulli().start(x)
    expected = [0.5 / 4, 3.5 / 4, 1.5 / 4, 2.3 / 3, 0.5, 0.5]
    assert_within(ContinuousBernoulli().mean({}, start[None])[0], expected, 32 * eps_of("float64"))
    many = ContinuousBernoulli().start(np.concatenate([np.zeros((100_000, 1)), np.ones((100_000, 1))], axis=1))
    assert_within(ContinuousBernoulli().mean({}, many[None])[0], [0.5 / 100_001, 1 - 0.5 / 100_001], 1e-15)


def test_data_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 255\], but a continuous Bernoulli .*x = x / np.float32.255."):
        ContinuousBernoulli().check(0, 255, whole=True)
    ContinuousBernoulli().check(0, 1)


# -------------------------------------------------------------------------------------------------------- planted bugs


@dataclass(frozen=True)
class CrossEntropy(ContinuousBernoulli):
    """Without its normalizer: no density."""

    nll: ClassVar = formula(lambda logits, x: bernoulli_nll(logits, x))


@dataclass(frozen=True)
class ByTheClosedForm(ContinuousBernoulli):
    """As the paper writes C: 0 / 0 at 0, and in float32 the sum of two large numbers far out."""

    nll: ClassVar = formula(lambda logits, x: bernoulli_nll(logits, x) - log(logits / tanh(logits / 2)))


@pytest.mark.parametrize("planted", [CrossEntropy(), ByTheClosedForm()], ids=lambda p: type(p).__name__)
@pytest.mark.filterwarnings("ignore:invalid value")  # which is the bug
def test_a_missing_normalizer_and_one_of_0_over_0_are_found(planted: ContinuousBernoulli) -> None:
    with pytest.raises(AssertionError, match="off by"):
        holds(planted)


@backward_of(continuous_bernoulli_nll, "logits")
def of_the_bernoulli(dnll, logits, x):
    return dnll * (sigmoid(logits) - x)


@dataclass(frozen=True)
class SigmoidForMean(ContinuousBernoulli):
    slopes: ClassVar = of_the_bernoulli


@dataclass(frozen=True)
class SigmoidForItsMean(ContinuousBernoulli):
    def mean(self, p, output):
        return sigmoid(output)


@dataclass(frozen=True)
class BernoullisDraws(ContinuousBernoulli):
    def draw(self, p, output, rng):
        return (rng.random(output.shape) < self.mean(p, output)).astype(output.dtype)


@pytest.mark.parametrize(
    ("planted", "line"),
    [
        (SigmoidForMean(), "the slope by the output"),
        (SigmoidForItsMean(), "mean is"),
        (BernoullisDraws(), "of the draws lie below"),
    ],
    ids=lambda p: type(p).__name__,
)
def test_what_is_a_bernoullis_breaks_the_contract(planted: ContinuousBernoulli, line: str) -> None:
    with pytest.raises(AssertionError, match=line):
        check_likelihood(planted)
