"""The importance-weighted bound on given weights: SciPy, inequalities, and what moves it."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import Plant, assert_killed, instead
from scipy import special, stats
from strategies import SEEDS, ULP, assert_within, eps_of, normals, numbers, sampled

from tinyvae.ops import importance

EPS = eps_of("float64")
DRAWS = st.integers(1, 9)
SPREADS = st.sampled_from([0.01, 1.0, 30.0])


def log_weights(seed: int, draws: int, spread: float) -> np.ndarray:
    return normals(seed, (4, draws), scale=spread)[0] - 100


def rounding(log_w: np.ndarray) -> np.ndarray:
    """Of a bound: the difference to the largest, then an exponential, a sum, a logarithm, and two sums."""
    return (2 * ULP + log_w.shape[1] + 4) * EPS * (1 + np.abs(log_w).max(axis=1) + math.log(log_w.shape[1]))


@given(SEEDS, DRAWS, SPREADS)
def test_the_bound_is_scipys_log_of_the_mean_weight(seed: int, draws: int, spread: float) -> None:
    log_w = log_weights(seed, draws, spread)
    expected = np.asarray(special.logsumexp(log_w, axis=1)) - math.log(draws)
    assert_within(importance.bound_forward(log_w), expected, 2 * rounding(log_w))
    d = normals(seed + 1, (4, 1))[0]
    # a weight is off by the roundings of its own exponent, below 200, and of the sum
    bound = (2 * ULP + draws + 6) * EPS * 200 * np.abs(d)
    assert_within(importance.bound_backward(d, log_w), d * special.softmax(log_w, axis=1), bound)


@given(SEEDS, st.integers(2, 9), SPREADS)
def test_the_bound_is_at_least_the_mean_of_those_that_leave_one_draw_out(seed: int, draws: int, spread: float) -> None:
    log_w = log_weights(seed, draws, spread)
    without = [importance.bound_forward(np.delete(log_w, k, axis=1)) for k in range(draws)]
    assert np.all(importance.bound_forward(log_w) >= np.mean(without, axis=0) - 4 * rounding(log_w))
    # and it lies between the mean and the largest of the log-weights
    assert np.all(importance.bound_forward(log_w) >= log_w.mean(axis=1) - 4 * rounding(log_w))
    assert np.all(importance.bound_forward(log_w) <= log_w.max(axis=1) + rounding(log_w))


@given(SEEDS, DRAWS, SPREADS, numbers(-1e4, 1e4))
def test_the_bound_moves_with_the_weights_and_knows_no_order(
    seed: int, draws: int, spread: float, offset: float
) -> None:
    log_w = log_weights(seed, draws, spread)
    L, order = importance.bound_forward(log_w), np.random.default_rng(seed).permutation(draws)
    assert_within(importance.bound_forward(log_w[:, order]), L, 2 * rounding(log_w))
    off = rounding(log_w) + rounding(log_w + offset)
    assert_within(importance.bound_forward(log_w + offset), L + offset, 2 * off)
    d = importance.bound_backward(1.0, log_w)
    np.testing.assert_allclose(importance.bound_backward(1.0, log_w[:, order]), d[:, order], rtol=1e-13, atol=0)
    assert_within(importance.bound_backward(1.0, log_w + offset), d, 4 * (offset**2 + 1e4) ** 0.5 * EPS)


@given(SEEDS, DRAWS, SPREADS)
def test_the_shares_are_positive_and_add_up_to_what_the_bound_is_worth(seed: int, draws: int, spread: float) -> None:
    log_w = log_weights(seed, draws, spread)
    d = np.abs(normals(seed + 1, (4, 1))[0])
    shares = importance.bound_backward(d, log_w)
    assert np.all(shares >= 0)
    assert_within(shares.sum(axis=1), d[:, 0], (draws + 4) * EPS * d[:, 0])
    assert_within(importance.bound_backward(-0.25, log_w).sum(axis=1), np.full(4, -0.25), (draws + 4) * EPS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e4, -1e4, 3e38])
def test_huge_weights_stay_finite(size: float, dtype: str) -> None:
    log_w = np.array([[size, size], [size, 0.0], [0.0, -abs(size)]], dtype=dtype)
    L, shares = importance.bound_forward(log_w), importance.bound_backward(1.0, log_w)
    assert L.dtype == shares.dtype == dtype
    larger = max(size, 0.0)
    expected = [size, larger - math.log(2), -math.log(2)]
    assert_within(L, expected, 8 * eps_of(dtype) * (1 + np.abs(expected)))
    assert_within(shares, [[0.5, 0.5], [float(size > 0), float(size < 0)], [1, 0]], 8 * eps_of(dtype))


def test_a_single_draw_is_its_own_bound() -> None:
    log_w = log_weights(0, 1, 30.0)
    np.testing.assert_array_equal(importance.bound_forward(log_w), log_w[:, 0])
    np.testing.assert_array_equal(importance.bound_backward(-0.5, log_w), np.full((4, 1), -0.5))


@given(SEEDS)
def test_log_prior_over_q_is_scipys(seed: int) -> None:
    mu, logvar, eps = normals(seed, (5, 3), (5, 3), (5, 3))
    sigma = np.exp(logvar / 2)
    z = mu + sigma * eps
    expected = (stats.norm.logpdf(z) - stats.norm.logpdf(z, mu, sigma)).sum(axis=1)
    # (z - mu) / sigma is eps but for the roundings of z, beside sigma
    size = 1 + eps**2 + z**2 + np.abs(logvar) + np.abs(eps) * (np.abs(mu) + np.abs(z)) / sigma
    got = importance.log_prior_over_q_forward(z, logvar, eps)
    assert_within(got, expected, 40 * EPS * size.sum(axis=1))


# ---------------------------------------------------------------------------------------------------------------- bugs

TRUE_BACKWARD = importance.bound_backward


def naive(log_w: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.log(np.exp(log_w).mean(axis=1))


BUGS: dict[str, tuple[Plant, Any]] = {
    "the weights are not normalized": (
        instead(importance, "bound_backward", lambda d, log_w: d * np.exp(log_w - log_w.max(axis=1, keepdims=True))),
        test_the_shares_are_positive_and_add_up_to_what_the_bound_is_worth),
    "every draw weighs the same": (
        instead(importance, "bound_backward", lambda d, log_w: d + 0 * log_w / log_w.shape[1]),
        test_the_bound_is_scipys_log_of_the_mean_weight),
    "the weights squared": (
        instead(importance, "bound_backward", lambda d, log_w: TRUE_BACKWARD(d, 2 * log_w)),
        test_the_bound_is_scipys_log_of_the_mean_weight),
    "log K forgotten": (
        instead(importance, "bound_forward", lambda log_w: np.logaddexp.reduce(log_w, axis=1)),
        test_the_bound_is_scipys_log_of_the_mean_weight),
    "the mean of the log-weights": (
        instead(importance, "bound_forward", lambda log_w: log_w.mean(axis=1)),
        test_the_bound_is_scipys_log_of_the_mean_weight),
    "the weights overflow": (
        instead(importance, "bound_forward", naive), lambda: test_huge_weights_stay_finite(1e4, "float64")),
    "the prior over q without eps^2": (
        instead(importance, "log_prior_over_q_forward", lambda z, logvar, eps: 0.5 * (logvar - z * z).sum(axis=1)),
        test_log_prior_over_q_is_scipys),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, *BUGS[bug])
