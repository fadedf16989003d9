"""Discretized logistic, by mpmath's numbers of 60 digits and SciPy's logistic distribution."""

from dataclasses import dataclass
from typing import Any, ClassVar

import mpmath
import numpy as np
import pytest
from scipy import special, stats
from strategies import assert_within

import tinyvae
from likelihoods.oracles import ORACLES, assert_counts_follow, assert_log_p
from tinyvae.backend import get_backend
from tinyvae.checking.agreement import usable_kernels
from tinyvae.checking.likelihoods import check_likelihood
from tinyvae.formula import backward_of, exp, formula, log, sigmoid, where
from tinyvae.kernels import select
from tinyvae.likelihoods.discretized_logistic import (
    HALF,
    LARGEST,
    DiscretizedLogistic,
    discretized_logistic_dmean,
    discretized_logistic_nll,
)

VALUES = np.arange(256) / 255
SOME = np.array([0, 1, 2, 100, 128, 253, 254, 255]) / 255


@pytest.mark.parametrize("scale", ["columns", "predicted", "fixed:0.1"])  # the contract test has the default
def test_every_scale_keeps_the_contract(scale: str) -> None:
    check_likelihood(DiscretizedLogistic(scale))


def exact(x: np.ndarray, mean: Any, log_scale: Any) -> np.ndarray:
    """log(sigmoid(u) - sigmoid(v)) with 60 digits and more, where no cancellation matters."""
    half, found = mpmath.mpf(1) / 510, []
    with mpmath.workdps(60):
        for one, m, t in zip(*np.broadcast_arrays(x, mean, log_scale), strict=True):
            one, m, s = mpmath.mpf(float(one)), mpmath.mpf(float(m)), mpmath.exp(mpmath.mpf(float(t)))
            away = float(abs(one - m) / s)
            with mpmath.workdps(60 + int(away / 2.3)):
                cdf = lambda at, m=m, s=s: 1 / (1 + mpmath.exp((m - at) / s))
                first = cdf(one + half) if one < 1 - half else mpmath.mpf(1)
                second = cdf(one - half) if one > half else mpmath.mpf(0)
                found.append(float(mpmath.log(first - second)))
    return np.array(found)


def holds(likelihood: DiscretizedLogistic) -> None:
    """log p is the difference of two sigmoids with 60 digits: scales from a hundredth of a bin to 1e5, means far off.

    Half a bin is known to a rounding of x - m only, of numbers at most 1: at s = e^-9 that is 1e4 times as much of u.
    """
    for t in (-9.0, -6.0, -3.0, 0.0, 5.0, 11.0):
        for m in (-0.5, 0.0, 0.3, 0.5, 128 / 255, 1.0, 1.2):
            least = 8 * np.exp(-t) * 2**-24 if t < -6 else 0
            assert_log_p(likelihood, exact, SOME, least, mean=np.full(SOME.shape, m), log_scale=t)


@pytest.mark.parametrize("scale", ["learned", "predicted"])
def test_log_p_is_exact_where_the_difference_of_sigmoids_cancels(scale: str) -> None:
    holds(DiscretizedLogistic(scale))


def test_log_p_is_that_of_scipys_distribution() -> None:
    x, mean, t = (a.ravel() for a in np.meshgrid(VALUES, [-0.2, 0.4, 1.1], [-4.0, -2.0, 0.0]))
    assert_within(-discretized_logistic_nll(mean, t, x), ORACLES["discretized-logistic"](x, mean, t), 1e-9)


@pytest.mark.parametrize("log_scale", [-1e4, -20.0, -7.0, -2.0, 0.0, 12.0, 1e4])
@pytest.mark.parametrize("mean", [-1e4, -0.1, 0.0, 0.5, 1.0, 3.0, 1e4])
def test_the_256_probabilities_add_to_1(mean: float, log_scale: float) -> None:
    assert_within(np.exp(-discretized_logistic_nll(mean, log_scale, VALUES)).sum(), 1, 1e-12)


@pytest.mark.parametrize("kernels", usable_kernels())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_all_but_impossible_has_a_finite_loss_and_a_slope(dtype: str, kernels: str) -> None:
    """Of the smallest s and a mean far from x; the slope by the mean is 1 / s, towards x."""
    output = np.array([[1e4, -1e9], [-1e4, -12.0], [0.9, -11.9], [0.9, -11.9]], dtype)
    x = np.array([[0.0], [1.0], [0.0], [0.5]], dtype)
    x = np.round(x * 255) / dtype_of(dtype)(255)
    k = select(kernels, get_backend("numpy"), dtype)[1]()
    k.begin("test")
    nll, slope = (np.array(a) for a in DiscretizedLogistic("predicted").slope(k, {}, output, x))
    assert np.isfinite(nll).all()
    away = np.abs(x[:, 0] - output[:, 0]) - HALF
    held = np.exp(-np.maximum(output[:, 1].astype(float), -LARGEST))
    assert_within(nll, away * held, 1e-4 * away * held)
    assert_within(slope[:, 0], np.sign(output[:, 0] - x[:, 0]) * held, 1e-4 * held)
    assert slope[:2, 1].tolist() == [0, 0]  # where t is held
    assert_within(slope[2:, 1], -(away * held)[2:], 1e-4 * (away * held)[2:])


def dtype_of(name: str) -> Any:
    return np.dtype(name).type


def test_draws_are_bytes_with_these_probabilities() -> None:
    output = np.tile([[0.4, -3.2]], (50_000, 1))
    x = DiscretizedLogistic("predicted").draw({}, output, np.random.default_rng(20))[:, 0]
    assert_counts_follow(np.round(255 * x), lambda v: np.exp(-discretized_logistic_nll(0.4, -3.2, v / 255)))
    DiscretizedLogistic().check_rows(x.reshape(-1, 1))


@pytest.mark.parametrize("log_scale", [-9.0, -5.0, -2.0, 1.0])
@pytest.mark.parametrize("mean", [-0.3, 0.0, 0.2505, 1.0])
def test_mean_and_information_are_sums_over_all_values(mean: float, log_scale: float) -> None:
    output, of = np.array([[mean, log_scale]]), DiscretizedLogistic("predicted")
    p = np.exp(ORACLES["discretized-logistic"](VALUES, mean, log_scale))
    assert_within(of.mean({}, output)[0, 0], (p * VALUES).sum(), 1e-9)
    h = 1e-5
    log_p = lambda m, t: ORACLES["discretized-logistic"](VALUES, m, t)
    slopes = [
        (log_p(mean + h, log_scale) - log_p(mean - h, log_scale)) / (2 * h),
        (log_p(mean, log_scale + h) - log_p(mean, log_scale - h)) / (2 * h),
    ]
    for found, slope in zip(of.information({}, output)[0], slopes, strict=True):
        likely = p > 1e-30
        expected = (p[likely] * slope[likely] ** 2).sum()
        # central differences: (h / s)^2 / 6 of a slope, and the roundings of log p over h
        assert_within(found, expected, ((h * np.exp(-log_scale)) ** 2 + 1e-7) * (1 + expected))


# ------------------------------------------------------------------------------------------------------------ the data


@pytest.mark.parametrize(
    ("x", "line"),
    [
        ([[0.0, 0.3334]], r"holds 0.3334, but .* 8 bits: .*x = np.round\(255 \* x\) / np.float32\(255\)"),
        ([[np.nan, 0.5]], "holds 0.5, but"),
    ],
)
def test_what_lies_between_bytes_is_refused(x: Any, line: str) -> None:
    model = tinyvae.VAE(2, likelihood="discretized-logistic", kernels="numpy")
    for refuses in (lambda: DiscretizedLogistic().check_rows(np.array(x)), lambda: model.loss(x, np.zeros((1, 20)))):
        with pytest.raises(ValueError, match=line) as raised:
            refuses()
        assert "\n" not in str(raised.value)


def test_bytes_over_255_are_taken_in_both_precisions_and_others_are_not() -> None:
    of = DiscretizedLogistic()
    for x in (
        np.arange(256) / 255,
        np.arange(256, dtype="f4") / np.float32(255),
        np.arange(256, dtype="f4") * np.float32(1 / 255),
    ):
        of.check(float(x.min()), float(x.max()))
        of.check_rows(x.reshape(2, -1))
    of.check_rows(np.array([[np.nan, 1]]))
    with pytest.raises(ValueError, match=r"a discretized logistic likelihood needs \[0, 1\]; pixels in 0..255"):
        of.check(0, 255, True)


def test_bits_per_dimension() -> None:
    assert DiscretizedLogistic.bits
    assert_within(DiscretizedLogistic().bits_per_dimension(784 * np.log(256), 784), 8, 1e-12)


def test_a_predicted_scale_starts_where_it_fits() -> None:
    rng = np.random.default_rng(0)
    x = np.round(255 * np.clip(rng.logistic([0.5, 0.3], [0.02, 0.2], (4000, 2)), 0, 1)) / 255
    x = np.concatenate([x, np.zeros((4000, 1)), np.full((4000, 1), np.nan)], axis=1)
    start = DiscretizedLogistic("predicted").start(x)
    assert_within(start[:4], [0.5, x[:, 1].mean(), 0, 0.5], 0.01)
    assert_within(start[4:6], np.log([0.02, 0.2]), 0.5)
    assert start[6] == -5.5
    assert_within(DiscretizedLogistic().start(x), start[:4], 0)


# -------------------------------------------------------------------------------------------------------- planted bugs


@formula
def by_difference(mean, log_scale, x):
    """As it is first written down."""
    rate = exp(-log_scale)
    first = where(x > 1 - HALF, 1.0, sigmoid((x + HALF - mean) * rate))
    return -log(first - where(x < HALF, 0.0, sigmoid((x - HALF - mean) * rate)))


@dataclass(frozen=True)
class ByDifference(DiscretizedLogistic):
    nll: ClassVar = by_difference


@dataclass(frozen=True)
class WithoutTails(DiscretizedLogistic):
    """The outermost bins are as wide as the others."""

    nll: ClassVar = formula(lambda mean, log_scale, x: discretized_logistic_nll(mean - x + 0.5, log_scale, 0 * x + 0.5))


@pytest.mark.parametrize("planted", [ByDifference(), WithoutTails()], ids=lambda p: type(p).__name__)
@pytest.mark.filterwarnings("ignore:divide by zero")  # which is the bug
def test_a_difference_of_sigmoids_and_lost_tails_are_found(planted: DiscretizedLogistic) -> None:
    with pytest.raises(AssertionError, match="off by"):
        holds(planted)


@backward_of(discretized_logistic_nll, "mean")
def of_inner_bins(dnll, mean, log_scale, x):
    return discretized_logistic_dmean(dnll, mean - x + 0.5, log_scale, 0 * x + 0.5)


@dataclass(frozen=True)
class OfInnerBins(DiscretizedLogistic):
    @property
    def slopes(self):
        return of_inner_bins


@dataclass(frozen=True)
class NotRounded(DiscretizedLogistic):
    def draw(self, p, output, rng):
        x = output + np.exp(self.log_scale(p, output)) * rng.logistic(size=output.shape)
        return np.clip(x, 0, 1).astype(output.dtype)


@dataclass(frozen=True)
class MeanOfTheLogistic(DiscretizedLogistic):
    def mean(self, p, output):
        return output


@pytest.mark.parametrize(
    ("planted", "line"),
    [
        (OfInnerBins(), "the slope by the output"),
        (NotRounded(), "check refuses what draw drew"),
        (MeanOfTheLogistic(), "mean is"),
    ],
    ids=lambda p: type(p).__name__,
)
def test_a_likelihood_of_two_minds_breaks_the_contract(planted: DiscretizedLogistic, line: str) -> None:
    with pytest.raises(AssertionError, match=line):
        check_likelihood(planted)


def test_the_distribution_is_that_of_a_rounded_logistic() -> None:
    """Against the integral of the density over a bin, by SciPy."""
    x, m, s = 100 / 255, 0.42, 0.03
    inside = stats.logistic.cdf((x + HALF - m) / s) - stats.logistic.cdf((x - HALF - m) / s)
    assert_within(np.exp(-discretized_logistic_nll(m, np.log(s), x)), inside, 1e-12)
    assert_within(np.exp(-discretized_logistic_nll(m, np.log(s), 0.0)), special.expit((HALF - m) / s), 1e-12)
