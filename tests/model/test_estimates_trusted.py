"""Which estimates of log p(x) are trusted, and what is made of the others, where log p(x) is known exactly.

The oracles: a linear-Gaussian model, whose log p(x) is a normal density in any dimension; a sum over a fine grid of z
on a plane; SciPy's distributions for the parts.
"""

import math
from typing import Any

import numpy as np
import pytest
from linear_gaussian import at_the_posterior, exact_log_p
from replay import Replay
from scipy import stats
from small_models import two_modes
from strategies import assert_within, eps_of

import tinyvae
from tinyvae.model import adaptive
from tinyvae.model.estimates import LogLikelihood, log_likelihood, repair_log_likelihood
from tinyvae.ops import pareto, student_t

EPS = eps_of("float64")
RIGHT = 0.5  # nats: what is trusted must be right within this
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def both(model: tinyvae.VAE, x: np.ndarray, samples: int, y: Any = None) -> tuple[LogLikelihood, LogLikelihood]:
    estimate = log_likelihood(model, x, samples, np.random.default_rng(0), y=y)
    return estimate, repair_log_likelihood(model, x, estimate, samples, np.random.default_rng(1), y=y)


# ----------------------------------------------------------------------------------- a linear model, in any dimension


def linear(latent: int, dtype: str, sigma: float, shift: float, width: float) -> tuple[tinyvae.VAE, Any, np.ndarray]:
    """x = z W + b + sigma noise, rows of it, and their exact log p(x).

    q(z|x) is the posterior, but for a shift of its mean and a width of its deviation, both in deviations.
    """
    data, rng = latent + 4, np.random.default_rng(latent)
    model = tinyvae.VAE(data, (), latent, likelihood="gaussian", sigma=f"fixed:{sigma}", dtype=dtype)
    W = np.linalg.qr(rng.standard_normal((data, latent)))[0].T * rng.uniform(0.5, 1.5, (latent, 1))  # orthogonal rows
    b, variances = rng.standard_normal(data), 1 / (1 + (W * W).sum(axis=1) / sigma**2)
    gain = W.T * variances / sigma**2  # (data, latent)
    model.params["decoder.0.weight"][...], model.params["decoder.0.bias"][...] = W, b
    model.params["encoder.0.weight"][...] = np.concatenate([gain, 0 * gain], axis=1)
    mean, logvar = shift * np.sqrt(variances) - b @ gain, np.log(variances) + 2 * math.log(width)
    model.params["encoder.0.bias"][...] = np.concatenate([mean, logvar])
    x = (rng.standard_normal((6, latent)) @ W + b + sigma * rng.standard_normal((6, data))).astype(dtype)
    normal: Any = stats.multivariate_normal  # its stubs know no matrices
    return model, x, normal(b, W.T @ W + sigma**2 * np.eye(data)).logpdf(x)


@DTYPES
@pytest.mark.parametrize("latent", [1, 2, 20])
def test_a_q_near_the_posterior_is_trusted_and_right(latent: int, dtype: str) -> None:
    model, x, truth = linear(latent, dtype, sigma=0.3, shift=0.1, width=1.02)
    estimate, repaired = both(model, x, 200)
    assert np.all(estimate.trusted)
    assert_within(estimate.log_p, truth, RIGHT)
    for before, after in zip(estimate, repaired, strict=True):
        np.testing.assert_array_equal(before, after)


@DTYPES
@pytest.mark.parametrize("samples", [2, 100])
@pytest.mark.parametrize(("shift", "width"), [(0, 0.05), (6, 1), (8, 0.3), (-30, 1)], ids=str)
@pytest.mark.parametrize(("latent", "sigma"), [(1, 0.3), (2, 0.3), (2, 0.01), (20, 0.3)])
def test_a_q_that_is_too_narrow_or_elsewhere_is_distrusted_and_repaired(
    latent: int, sigma: float, shift: float, width: float, samples: int, dtype: str
) -> None:
    model, x, truth = linear(latent, dtype, sigma, shift, width)
    estimate, repaired = both(model, x, samples)
    wrong = np.abs(estimate.log_p - truth) > RIGHT
    assert wrong.sum() >= 3 or width < 1  # or this would show nothing; too narrow, some are right by luck
    assert not np.any(estimate.trusted & wrong)
    assert np.all(repaired.trusted)
    assert_within(repaired.log_p, truth, RIGHT)


# ------------------------------------------------------------------------------ a plane with a mode that q does not see


def by_quadrature(model: tinyvae.VAE, x: np.ndarray, y: Any = None) -> np.ndarray:
    """log p(x) of each row by a sum over the plane, in steps of a third of the narrowest posterior deviation."""
    step = 0.008
    ticks = np.arange(-3, 3, step)
    z = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    found = []
    for i, row in enumerate(x):
        labels = None if y is None else np.full(len(z), y[i])
        log_p = model.log_p_x_given_z(np.tile(row, (len(z), 1)), z, labels).astype("float64")
        found.append(np.logaddexp.reduce(log_p + stats.norm.logpdf(z).sum(axis=1)) + 2 * math.log(step))
    return np.array(found)


@DTYPES
@pytest.mark.parametrize("classes", [0, 2])
def test_a_q_on_the_wrong_mode_is_distrusted_and_repaired_though_all_its_own_weights_are_alike(
    classes: int, dtype: str
) -> None:
    model = two_modes(dtype, classes)
    x = np.array([[3.6, 1.2, 0, 0], [3.6, 0, 0, 0]], dtype=dtype)  # made by z_0 = 1.2; by z_0 = -1.2, where q is
    y = None
    if classes:
        x, y = np.concatenate([x, x + np.array([0, 0, 3, -3])]).astype(dtype), np.array([0, 0, 1, 1])
    truth = by_quadrature(model, x, y)
    estimate, repaired = both(model, x, 1000, y)
    wrong = np.array([True, False] * (len(x) // 2))
    assert np.all(estimate.log_p[wrong] < truth[wrong] - 20)
    assert np.all(estimate.effective > 500)  # the weights of q's own draws see nothing
    assert np.all(estimate.pareto_k <= pareto.LIMIT)
    assert np.all(estimate.standard_error < 0.05)
    np.testing.assert_array_equal(estimate.trusted, ~wrong)
    assert_within(estimate.log_p[~wrong], truth[~wrong], RIGHT)
    assert np.all(repaired.trusted)
    assert_within(repaired.log_p, truth, RIGHT)
    one = log_likelihood(model, x[:1], 1000, np.random.default_rng(0), y=None if y is None else y[:1])
    assert not one.trusted[0]  # without any other row to learn from


def test_as_many_rows_as_it_takes_are_repaired_each_by_itself() -> None:
    model, few = two_modes("float64", 2), np.array([[3.6, 1.2, 0, 0], [3.6, 1.2, 3, -3]])
    rows = 300  # more than are repaired at a time
    y = np.random.default_rng(0).integers(0, 2, rows)
    x, told = few[y], []
    estimate = log_likelihood(model, x, 50, np.random.default_rng(0), y=y)
    repaired = repair_log_likelihood(model, x, estimate, 50, np.random.default_rng(1), told.append, y)
    assert told == [256, 300]
    assert not np.any(estimate.trusted)
    assert np.all(repaired.trusted)
    assert_within(repaired.log_p, by_quadrature(model, few, np.array([0, 1]))[y], RIGHT)


# --------------------------------------------------------------------------------------------------- when is it trusted


@pytest.mark.parametrize("samples", [1, 2, 24, 25, 100])
def test_equal_weights_are_trusted_however_few(samples: int) -> None:
    model, x = at_the_posterior("reference")
    estimate = log_likelihood(model, x, samples, np.random.default_rng(0))
    assert np.all(estimate.trusted)
    assert_within(estimate.effective, np.full(4, samples), 1e-6 * samples)
    assert np.all(np.isnan(estimate.pareto_k) if samples < 25 else estimate.pareto_k == -math.inf)
    assert_within(estimate.second_look, exact_log_p(model, x), 5 * estimate.second_error)


@pytest.mark.parametrize("samples", [1, 3, 30])
def test_a_row_out_of_range_is_distrusted_and_stays_so(samples: int) -> None:
    model, x = at_the_posterior("reference")
    x[1], x[3] = 1e200, np.inf
    estimate, repaired = both(model, x, samples)
    for found in (estimate, repaired):
        assert np.isneginf(found.log_p).tolist() == [False, True, False, True]
        assert found.trusted.tolist() == [True, False, True, False]


def test_neither_a_large_error_nor_a_heavy_tail_is_trusted_though_the_second_look_says_the_same() -> None:
    model, x, _ = linear(2, "float64", sigma=0.3, shift=0, width=0.6)
    estimate = log_likelihood(model, np.tile(x, (50, 1)), 100, np.random.default_rng(0))  # 300 rows of their own noise
    large, heavy = estimate.standard_error > 0.25, estimate.pareto_k > 0.7
    same = (np.abs(estimate.second_look - estimate.log_p) <= 0.3) & (estimate.second_error <= 0.25)
    assert np.any(large & ~heavy & same)  # or this would show nothing
    assert np.any(heavy & ~large & same)
    np.testing.assert_array_equal(estimate.trusted, same & ~large & ~heavy)


def test_a_row_that_no_effort_can_do_stays_distrusted(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, _ = linear(2, "float64", sigma=0.3, shift=6, width=1)
    estimate = log_likelihood(model, x, 100, np.random.default_rng(0))
    prior = lambda model, x, *_: student_t.mixture_of(
        np.ones((len(x), 1)), np.full((len(x), 1, 2), 9.0), np.tile(np.eye(2), (len(x), 1, 1, 1))
    )
    monkeypatch.setattr(adaptive, "proposal", prior)  # nine standard deviations away
    repaired = repair_log_likelihood(model, x, estimate, 100, np.random.default_rng(1))
    assert not np.any(repaired.trusted)


def test_what_is_repaired_must_be_the_same_rows() -> None:
    model, x = at_the_posterior("reference")
    estimate = log_likelihood(model, x, 5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="x has 3 rows, but the estimate is of 4"):
        repair_log_likelihood(model, x[:3], estimate, 5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="samples must be a whole number, at least 1, not 0"):
        repair_log_likelihood(model, x, estimate, 0, np.random.default_rng(0))


def test_the_second_look_takes_nothing_from_the_callers_generator() -> None:
    model, x = at_the_posterior("reference")
    rng, replay = np.random.default_rng(5), np.random.default_rng(5).standard_normal((3, 4, 2))
    log_likelihood(model, x, 3, rng)
    log_likelihood(model, x, 3, Replay(replay))  # it has no more to give
    after = np.random.default_rng(5)
    after.standard_normal((3, 4, 2))
    assert rng.standard_normal() == after.standard_normal()
