"""The negative binomial, by SciPy's mass function and mpmath, with counts to 1e7 and any dispersion."""

from dataclasses import dataclass
from typing import Any, ClassVar

import mpmath
import numpy as np
import pytest
from scipy import stats

from likelihoods.oracles import ORACLES, assert_counts_follow, assert_log_p, draws
from tinyvae.formula import backward_of, formula
from tinyvae.likelihoods.negative_binomial import (
    NegativeBinomial,
    negative_binomial_dlog_dispersion,
    negative_binomial_dlog_mean,
    negative_binomial_nll,
)

COUNTS = np.array([0, 1, 2, 3, 17, 1e3, 1e4, 1e5, 1e6, 1e7])
DISPERSIONS = [-8.0, -1.0, 0.0, 0.7, 4.0, 12.0]


def log_p_of(x: Any, a: Any, s: Any) -> Any:
    """log p of a number x, in mpmath's numbers."""
    r, m = mpmath.exp(s), mpmath.exp(a)
    log_c = mpmath.loggamma(x + r) - mpmath.loggamma(r) - mpmath.loggamma(x + 1)
    return log_c + r * mpmath.log(r / (r + m)) + x * mpmath.log(m / (r + m))


def with_many_digits(x: np.ndarray, log_mean: np.ndarray, log_dispersion: np.ndarray) -> np.ndarray:
    """log p with 60 digits, for where SciPy has too few."""
    with mpmath.workdps(60):
        each = np.broadcast_arrays(x, log_mean, log_dispersion)
        rows = zip(*map(np.ravel, each), strict=True)
        return np.array([float(log_p_of(*map(mpmath.mpf, map(float, row)))) for row in rows])


def holds(likelihood: NegativeBinomial, log_p: Any = with_many_digits) -> None:
    """log p is the oracle's, at means near each count and far from it."""
    x, away = (a.ravel() for a in np.meshgrid(COUNTS, [-3, -3e-3, 0, 0.3, 3]))
    for s in DISPERSIONS:
        assert_log_p(likelihood, log_p, x, log_mean=np.log(x + 0.5) + away, log_dispersion=s)


def test_log_p_is_the_formula_with_many_digits() -> None:
    holds(NegativeBinomial())


def test_log_p_is_scipys_mass_function() -> None:
    x, away = (a.ravel() for a in np.meshgrid(COUNTS[:6], [-1, 0, 0.3, 1]))
    for s in (-1.0, 0.0, 0.7, 2.0):
        assert_log_p(
            NegativeBinomial(), ORACLES["negative-binomial"], x, log_mean=np.log(x + 0.5) + away, log_dispersion=s
        )


def test_log_means_up_to_1e4_are_no_error() -> None:
    x, a = (g.ravel() for g in np.meshgrid(COUNTS, [-1e4, -100.0, 100.0, 1e4]))
    assert_log_p(NegativeBinomial(), with_many_digits, x, log_mean=a, log_dispersion=0.7)


@pytest.mark.parametrize("s", [18.0, 20.0, 25.0, 1e4])
def test_with_little_dispersion_it_is_a_poisson(s: float) -> None:
    """log p of the two differs by (m + (x - m)^2) / 2r, 1e-5 at r = e^18; and lgamma(e^20) is 9e9, good for 1e-5."""
    x = np.array([0, 1, 5, 100, 1000.0])
    log_p = lambda x, log_mean, log_dispersion: stats.poisson.logpmf(x, np.exp(log_mean))
    assert_log_p(NegativeBinomial(), log_p, x, 2e-5, log_mean=np.log(x + 2), log_dispersion=s)
    slope = [negative_binomial_dlog_dispersion(1.0, np.log(v + 2), s, v) for v in x]
    assert np.all(np.abs(slope) < 1e-3)


@pytest.mark.parametrize("s", [-25.0, -1e4])
def test_a_dispersion_beyond_all_is_held_and_has_no_slope(s: float) -> None:
    for x in (0.0, 3.0):
        assert negative_binomial_nll(0.5, s, x) == negative_binomial_nll(0.5, -20.0, x)
        assert negative_binomial_dlog_dispersion(1.0, 0.5, s, x) == 0


@pytest.mark.parametrize("s", DISPERSIONS)
def test_the_slopes_are_the_derivatives_with_many_digits(s: float) -> None:
    h = mpmath.mpf(10) ** -20
    for x, a in [(0.0, -1.0), (3.0, 0.4), (1e4, 9.0), (1e7, 16.0)]:
        with mpmath.workdps(60):
            a_, s_ = mpmath.mpf(a), mpmath.mpf(s)
            da = float((log_p_of(x, a_ - h, s_) - log_p_of(x, a_ + h, s_)) / (2 * h))
            ds = float((log_p_of(x, a_, s_ - h) - log_p_of(x, a_, s_ + h)) / (2 * h))
        # terms of 1e7 cancel, each with a few roundings; in ds terms of r * 20
        assert negative_binomial_dlog_mean(1.0, a, s, x) == pytest.approx(da, rel=1e-9, abs=1e-7)
        assert negative_binomial_dlog_dispersion(1.0, a, s, x) == pytest.approx(ds, rel=1e-7, abs=1e-6)


def test_draws_are_negative_binomials() -> None:
    r, m = np.exp(0.6), np.exp(1.2)
    x = draws(NegativeBinomial(), log_mean=1.2, log_dispersion=0.6)
    assert_counts_follow(x, lambda v: stats.nbinom.pmf(v, r, r / (r + m)))
    assert x.var() == pytest.approx(m + m * m / r, rel=0.05)  # a standard error of 1 %, by the fourth moment


def test_draws_at_any_mean_are_counts() -> None:
    output = np.array([[-1e4, 0, 16, 40, 90, 1e4]], dtype="float32")
    for s in (-30.0, 0.0, 30.0):
        own = {"log_dispersion": np.full(6, s, "float32")}
        x = NegativeBinomial().draw(own, output, np.random.default_rng(0))
        assert np.isfinite(x).all()
        assert np.all(x == np.floor(x))


def test_every_column_has_a_dispersion_of_its_own() -> None:
    (own,) = NegativeBinomial().own(7)
    assert (own.name, own.shape, own.start) == ("log_dispersion", (7,), 0.0)


def test_what_is_no_count_is_refused() -> None:
    with pytest.raises(ValueError, match="a negative binomial likelihood needs counts"):
        NegativeBinomial().check(0, 3.5, False)
    NegativeBinomial().check(0, 1e7, True)


# -------------------------------------------------------------------------------------------------------- planted bugs


@formula
def failures(log_mean, log_dispersion, x):
    """m and r exchanged in one place."""
    return negative_binomial_nll(log_mean, log_dispersion, x) + 2 * x * (log_mean - log_dispersion)


@backward_of(failures, "log_mean")
def dfailures(dnll, log_mean, log_dispersion, x):
    return negative_binomial_dlog_mean(dnll, log_mean, log_dispersion, x) + 2 * dnll * x


@dataclass(frozen=True)
class Exchanged(NegativeBinomial):
    nll: ClassVar = failures
    slopes: ClassVar = dfailures


@dataclass(frozen=True)
class Geometric(NegativeBinomial):
    """One dispersion for all: right where r = 1, and blind elsewhere."""

    nll: ClassVar = formula(lambda log_mean, log_dispersion, x: negative_binomial_nll(log_mean, 0.0, x))


@pytest.mark.parametrize("planted", [Exchanged(), Geometric()], ids=lambda p: type(p).__name__)
def test_a_wrong_mass_function_is_found(planted: NegativeBinomial) -> None:
    with pytest.raises(AssertionError, match="off by"):
        holds(planted)
