"""The latent Gaussian: formulas with 40 digits, quadrature, Monte Carlo, and what must hold of any draw and KL.

A forward that is wrong in step with its backward passes every check of gradients: here is what sees it.
"""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, note
from hypothesis import strategies as st
from mpmath import mp, mpf
from planted import Plant, after, assert_killed, both, instead
from scipy import integrate, stats
from strategies import DTYPES, SEEDS, ULP, assert_within, eps_of, normals, numbers, sampled, sizes

from tinyvae.formula import exp, expm1
from tinyvae.ops import gaussian
from tinyvae.ops.gaussian import (
    free_bits_backward,
    free_bits_forward,
    kl_backward,
    kl_forward,
    reparameterize_backward,
    reparameterize_forward,
)

EPS = eps_of("float64")
POINTS = [(-3.0, -2.5), (-0.7, 0.4), (0.0, 0.0), (0.3, -1.9), (2.5, 1.3), (0.01, 3.0)]  # (mu, logvar)


def with_40_digits(f: Any, *arrays: np.ndarray) -> np.ndarray:
    with mp.workdps(40):
        rows = zip(*(a.ravel() for a in arrays), strict=True)
        return np.array([float(f(*(mpf(float(v)) for v in row))) for row in rows]).reshape(arrays[0].shape)


# ---------------------------------------------------------------------------------------------------------------- draw


def test_the_draw_is_the_formula_and_its_derivatives() -> None:
    mu, logvar, eps, dz = normals(2, (7, 6), (7, 6), (7, 6), (7, 6))
    logvar *= 1.5
    sigma = np.exp(logvar / 2)
    # one exponential, whose argument is exact, and 4 roundings of terms of this sum
    bound = (ULP + 4) * EPS * (np.abs(mu) + sigma * np.abs(eps))
    z = with_40_digits(lambda m, s, e: m + mp.sqrt(mp.exp(s)) * e, mu, logvar, eps)
    assert_within(reparameterize_forward(mu, logvar, eps), z, bound)
    dmu, dlogvar = reparameterize_backward(dz, logvar, eps)
    np.testing.assert_array_equal(dmu, dz)
    assert_within(
        dlogvar, dz * with_40_digits(lambda s, e: e * mp.sqrt(mp.exp(s)) / 2, logvar, eps), bound * np.abs(dz)
    )


def test_the_slope_by_logvar_is_read_off_the_sample_itself() -> None:
    """dz/dlogvar = (z - mu) / 2, whatever the noise was: so the noise going back is the noise that was sampled."""
    mu, logvar, eps, dz = normals(3, (4, 3), (4, 3), (4, 3), (4, 3))
    z = reparameterize_forward(mu, logvar, eps)
    dlogvar = reparameterize_backward(dz, logvar, eps)[1]
    assert_within(dlogvar, dz * (z - mu) / 2, 10 * EPS * np.abs(dz) * (np.abs(mu) + np.abs(z)))


def test_the_noise_is_scaled_by_the_standard_deviation_and_not_by_the_variance() -> None:
    mu, logvar = normals(12, (7, 6), (7, 6))
    logvar *= 2
    sigma = np.sqrt(np.exp(logvar))
    z = reparameterize_forward(mu, logvar, np.ones(mu.shape))
    assert_within(z - mu, sigma, (2 * ULP + 3) * EPS * (np.abs(mu) + sigma))


@given(SEEDS, sizes(2), DTYPES, numbers(0.1, 5.0))
def test_opposite_noise_gives_samples_that_are_symmetric_about_mu(seed: int, shape: Any, dtype: str, s: float) -> None:
    mu, logvar, eps = normals(seed, shape, shape, shape, dtype=dtype, scale=s)
    plus, minus = reparameterize_forward(mu, logvar, eps), reparameterize_forward(mu, logvar, -eps)
    # sigma eps is rounded to the same number on both sides; z rounds once each, the sum of both once
    assert_within(plus + minus, 2 * mu, eps_of(dtype) * 2 * (np.abs(mu) + np.abs(np.exp(logvar / 2) * eps)))
    assert np.array_equal(reparameterize_forward(mu, logvar, 0 * eps), mu)


# ------------------------------------------------------------------------------------------------------------------ KL


def test_kl_is_the_formula_and_its_derivatives() -> None:
    mu, logvar, dkl = normals(3, (7, 6), (7, 6), (7, 6))
    logvar *= 1.5
    # one exponential and 5 roundings of terms of this sum
    bound = (ULP + 5) * EPS * (mu * mu + np.exp(logvar) + 1 + np.abs(logvar))
    assert_within(
        kl_forward(mu, logvar), with_40_digits(lambda m, s: (m * m + mp.exp(s) - 1 - s) / 2, mu, logvar), bound
    )
    dmu, dlogvar = kl_backward(dkl, mu, logvar)
    assert_within(dmu, dkl * mu, EPS * np.abs(dkl * mu))
    assert_within(dlogvar, dkl * with_40_digits(lambda s: (mp.exp(s) - 1) / 2, logvar), bound * np.abs(dkl))


@pytest.mark.parametrize(("mu", "logvar"), POINTS)
def test_kl_is_the_integral_of_q_times_log_q_over_p(mu: float, logvar: float) -> None:
    q: Any = stats.norm(mu, math.exp(logvar / 2))
    p: Any = stats.norm(0, 1)
    # 40 standard deviations hold all of q that a float64 can; the integrand is smooth, so quad meets its own estimate
    low, high = mu - 40 * q.std(), mu + 40 * q.std()
    integrand = lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z))
    integral, estimate = integrate.quad(integrand, low, high, points=[mu], epsabs=1e-12, epsrel=1e-12, limit=200)
    assert estimate < 1e-9
    assert_within(kl_forward(np.array([mu]), np.array([logvar])), [integral], 1e-9)


@pytest.mark.parametrize(("mu", "logvar"), POINTS)
def test_kl_is_the_mean_of_log_q_minus_log_p_over_the_librarys_own_samples(mu: float, logvar: float) -> None:
    n = 200_000
    m, s = np.full((n, 1), mu), np.full((n, 1), logvar)
    z = reparameterize_forward(m, s, np.random.default_rng(11).standard_normal((n, 1)))
    logs = stats.norm.logpdf(z, mu, math.exp(logvar / 2)) - stats.norm.logpdf(z)
    # The mean of n independent terms is normal with this deviation: beyond 5 of them once in two million draws. At the
    # standard normal itself every term is 0 and only rounding is left.
    bound = 5 * logs.std() / math.sqrt(n) + 10 * EPS
    assert abs(logs.mean() - kl_forward(m[:1], s[:1])[0, 0]) <= bound
    # Nor is the sampler's spread the variance: the standard error of a sample variance is sigma^2 sqrt(2 / n).
    assert abs(z.var() / math.exp(logvar) - 1) <= 5 * math.sqrt(2 / n)


@given(SEEDS, DTYPES, numbers(1e-7, 1.0))
@example(0, "float32", 1e-7)
def test_kl_is_never_negative_and_0_only_at_the_standard_normal(seed: int, dtype: str, scale: float) -> None:
    mu, logvar = normals(seed, (6, 4), (6, 4), dtype=dtype, scale=scale)
    mu[0] = logvar[0] = 0
    kl = kl_forward(mu, logvar)
    assert kl.dtype == dtype
    mu, logvar = mu.astype(float), logvar.astype(float)
    # expm1 and the subtraction round terms of |logvar|: where they cancel, that is what can be lost.
    lost = (ULP + 2) * eps_of(dtype) * (np.abs(logvar) + mu * mu)
    assert np.all(kl >= -lost)
    assert np.all(kl[0] == 0)
    least = 0.5 * mu * mu + logvar**2 / 4 * np.exp(-np.abs(logvar))  # e^s - 1 - s >= s^2 / 2 e^-|s|
    certain = least > lost
    note(f"{certain.sum()} of {certain.size} are certain to be positive")
    assert np.all(kl[certain] > 0)


@given(SEEDS, sizes(2), st.integers(1, 8))
def test_kl_adds_over_dimensions_and_the_parts_know_nothing_of_each_other(seed: int, shape: Any, split: int) -> None:
    mu, logvar = normals(seed, shape, shape)
    whole = kl_forward(mu, logvar)
    left, right = kl_forward(mu[:, :split], logvar[:, :split]), kl_forward(mu[:, split:], logvar[:, split:])
    # a vectorized loop and its scalar tail may round the exponential differently, by ULP each
    bound = 2 * ULP * EPS * (np.exp(logvar) + 1)
    assert_within(np.concatenate([left, right], axis=1), whole, bound)


def test_nothing_is_clamped_where_a_gradient_would_have_to_know() -> None:
    """Far out the KL is what the formula says, value and slope: mu^2 / 2 = 5000, e^20 / 2, and -(-40) / 2."""
    mu, logvar = np.array([[100.0, 0.0, 0.0]]), np.array([[0.0, 20.0, -40.0]])
    expected = np.array([[5000.0, (math.exp(20) - 21) / 2, (math.exp(-40) + 39) / 2]])
    assert_within(kl_forward(mu, logvar), expected, 10 * EPS * expected)
    dmu, dlogvar = kl_backward(1.0, mu, logvar)
    np.testing.assert_array_equal(dmu, mu)
    slopes = np.array([[0.0, math.expm1(20) / 2, math.expm1(-40) / 2]])
    assert_within(dlogvar, slopes, 10 * EPS * np.abs(slopes))


@given(SEEDS, sizes(2))
def test_float32_is_float64_up_to_rounding(seed: int, shape: Any) -> None:
    low = normals(seed, shape, shape, shape, shape, dtype="float32")
    m, s, e, d = (a.astype(float) for a in low)
    m_, s_, e_, d_ = low
    roundings = (2 * ULP + 6) * eps_of("float32")
    sigma, spread = np.exp(s / 2), m * m + np.exp(s) + 1 + np.abs(s)
    for got, expected, magnitude in [
        (reparameterize_forward(m_, s_, e_), reparameterize_forward(m, s, e), np.abs(m) + sigma * np.abs(e)),
        (reparameterize_backward(d_, s_, e_)[1], reparameterize_backward(d, s, e)[1], np.abs(d * e) * sigma),
        (kl_forward(m_, s_), kl_forward(m, s), spread),
        (kl_backward(d_, m_, s_)[1], kl_backward(d, m, s)[1], np.abs(d) * spread),
    ]:
        assert got.dtype == np.float32
        assert_within(got, expected, roundings * magnitude)


# ----------------------------------------------------------------------------------------------------------- free bits


def test_free_bits_charge_for_the_batch_mean_above_the_allowance() -> None:
    kl = np.array([[0.25, 3.0, 1.0], [0.25, 1.0, 0.5]])  # means 0.25, 2, 0.75
    assert gaussian.free_bits_forward(kl, 0.5).tolist() == [0.5, 2.0, 0.75]
    assert gaussian.free_bits_backward(3.0, kl, 0.5).tolist() == [0.0, 1.5, 1.5]  # 3 / batch, or nothing


@given(SEEDS, st.integers(1, 9), numbers(0.0, 2.0))
def test_free_bits_never_charge_less_than_the_kl_and_nothing_more_above_the_allowance(
    seed: int, rows: int, allowance: float
) -> None:
    kl = np.abs(normals(seed, (rows, 4))[0])
    charged, mean = free_bits_forward(kl, allowance), kl.mean(axis=0)
    assert np.all(charged >= mean)
    assert np.all(charged >= allowance)
    assert np.all((charged == mean) | (charged == allowance))
    assert np.array_equal(free_bits_backward(1.0, kl, allowance) != 0, mean > allowance)


def test_at_its_allowance_exactly_a_dimension_gets_no_gradient() -> None:
    kl = np.full((4, 3), 0.5)
    assert np.array_equal(free_bits_backward(1.0, kl, 0.5), np.zeros(3))
    assert np.array_equal(free_bits_backward(1.0, kl, 0.25), np.full(3, 0.25))


# -------------------------------------------------------------------------------------------------------- planted bugs

RNG = np.random.default_rng(0)


def draw(forward: Any = None, backward: Any = None) -> Plant:
    return _pair(reparameterize_forward, reparameterize_backward, forward, backward)


def kl(forward: Any = None, backward: Any = None) -> Plant:
    return _pair(kl_forward, kl_backward, forward, backward)


def _pair(value: Any, slopes: Any, forward: Any, backward: Any) -> Plant:
    wrong = [(f, g) for f, g in ((value, forward), (slopes, backward)) if g is not None]
    return both(*(instead(f, "function", g) for f, g in wrong))


DRAW, SAMPLES = test_the_draw_is_the_formula_and_its_derivatives, POINTS[3]
KL, INTEGRAL = test_kl_is_the_formula_and_its_derivatives, POINTS[4]
BUGS: dict[str, tuple[Plant, Any]] = {
    "the variance, with a backward that matches": (
        draw(lambda mu, s, eps: mu + exp(s) * eps, lambda dz, s, eps: (dz, dz * eps * exp(s))),
        test_the_noise_is_scaled_by_the_standard_deviation_and_not_by_the_variance),
    "half the noise, with a backward that matches": (
        draw(lambda mu, s, eps: mu + 0.5 * exp(0.5 * s) * eps, lambda dz, s, eps: (dz, 0.25 * dz * eps * exp(0.5 * s))),
        lambda: test_kl_is_the_mean_of_log_q_minus_log_p_over_the_librarys_own_samples(*SAMPLES)),
    "no noise in the backward": (draw(backward=lambda dz, s, eps: (dz, dz * 0.5 * exp(0.5 * s))), DRAW),
    "the half is missing": (draw(backward=lambda dz, s, eps: (dz, dz * eps * exp(0.5 * s))), DRAW),
    "mu does not reach z": (draw(backward=lambda dz, s, eps: (0 * dz, dz * eps * 0.5 * exp(0.5 * s))), DRAW),
    "fresh noise in the backward": (
        draw(backward=lambda dz, s, eps: (dz, dz * RNG.standard_normal(eps.shape) * 0.5 * exp(0.5 * s))),
        test_the_slope_by_logvar_is_read_off_the_sample_itself),
    "kl: logvar's gradient halved": (kl(backward=lambda d, mu, s: (d * mu, d * 0.25 * expm1(s))), KL),
    "kl: mu's gradient dropped": (kl(backward=lambda d, mu, s: (0 * d * mu, d * 0.5 * expm1(s))), KL),
    "kl: the wrong sign, both ways": (
        kl(lambda mu, s: -0.5 * (mu * mu + expm1(s) - s), lambda d, mu, s: (-d * mu, -d * 0.5 * expm1(s))),
        test_kl_is_never_negative_and_0_only_at_the_standard_normal),
    "kl: doubled, both ways": (
        kl(lambda mu, s: mu * mu + expm1(s) - s, lambda d, mu, s: (2 * d * mu, d * expm1(s))),
        lambda: test_kl_is_the_integral_of_q_times_log_q_over_p(*INTEGRAL)),
    "kl: logvar read as log sigma, both ways": (
        kl(lambda mu, s: 0.5 * (mu * mu + expm1(2 * s) - 2 * s), lambda d, mu, s: (d * mu, d * expm1(2 * s))),
        lambda: test_kl_is_the_integral_of_q_times_log_q_over_p(*INTEGRAL)),
    "kl: e^s - 1 cancels": (
        kl(lambda mu, s: 0.5 * (mu * mu + (exp(s) - 1 - s))),
        test_kl_is_never_negative_and_0_only_at_the_standard_normal),
    "kl: clamped": (kl(lambda mu, s: 0.5 * (mu * mu + (np.expm1(np.clip(s, -10, 10)) - s))),
        test_nothing_is_clamped_where_a_gradient_would_have_to_know),
    "free bits: not divided by the batch": (
        after(gaussian, "free_bits_backward", lambda d: 2 * d),
        test_free_bits_charge_for_the_batch_mean_above_the_allowance),
    "free bits: charged below the allowance": (
        instead(gaussian, "free_bits_backward", lambda d, kl, free: d * np.ones(kl.shape[1]) / len(kl)),
        test_free_bits_charge_for_the_batch_mean_above_the_allowance),
    "free bits: the smaller of the two, both ways": (
        both(instead(gaussian, "free_bits_forward", lambda kl, free: np.minimum(kl.mean(axis=0), free)),
             instead(gaussian, "free_bits_backward", lambda d, kl, free: d * (kl.mean(axis=0) < free) / len(kl))),
        test_free_bits_charge_for_the_batch_mean_above_the_allowance),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, *BUGS[bug])
