"""Which estimates of log p(x) are trusted, and what is made of the others, where log p(x) is known exactly.

The oracles: a linear-Gaussian model, whose log p(x) is a normal density in any dimension; a sum over a fine grid of z
on a plane; SciPy's distributions for the parts.
"""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from strategies import assert_within, eps_of
from test_estimates import Replay, at_the_posterior
from test_model import make
from test_oracles import exact_log_p

import tinyvae
from tinyvae.model import adaptive, search
from tinyvae.model.estimates import LogLikelihood, log_likelihood, repair_log_likelihood
from tinyvae.model.weights import WeightSums
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


def two_modes(dtype: str, classes: int = 0) -> tinyvae.VAE:
    """The decoder folds the plane: its mean is (3 |z_0|, z_0 if positive, 3 z_1, -3 z_1). q sits at z_0 < 0 always.

    A label 1 of a conditional model moves z_1 by 1.
    """
    model = tinyvae.VAE(
        4, (), 2, decoder_hidden=(4,), likelihood="gaussian", sigma="fixed:0.1", dtype=dtype, classes=classes
    )
    model.params.flat[...] = 0
    W = model.params["decoder.0.weight"]  # (2 + classes, 4): then relu
    W[:2] = [[1, -1, 0, 0], [0, 0, 1, -1]]
    if classes:
        W[3] = [0, 0, 1, -1]
    model.params["decoder.1.weight"][...] = [[3, 1, 0, 0], [3, 0, 0, 0], [0, 0, 3, -3], [0, 0, -3, 3]]
    model.params["encoder.0.bias"][...] = [-1.2, 0, 2 * math.log(1 / 30), 2 * math.log(1 / 42)]
    return model


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


# ------------------------------------------------------------------------------------------------------------ the parts


@pytest.mark.parametrize("samples", [25, 60, 400])
def test_the_sums_as_they_come_are_those_of_all_weights_at_once(samples: int) -> None:
    log_w = 3 * np.random.default_rng(samples).standard_normal((samples, 5)) + 700  # beyond the largest number
    sums = WeightSums(np, 5, samples)
    for each in log_w:
        sums.add(each)
    found, w = sums.summary(), np.exp(log_w - 700)
    assert_within(found.log_p, 700 + np.log(w.mean(axis=0)), 1000 * samples * EPS)
    assert_within(found.effective, w.sum(axis=0) ** 2 / (w * w).sum(axis=0), 1e-9 * samples)
    tail = pareto.tail_length(samples)
    assert tail == min(samples // 5, math.ceil(3 * math.sqrt(samples)))
    whole = pareto.tail_shape(np.sort(log_w.T, axis=1)[:, -tail - 1 :])
    assert_within(found.pareto_k, whole, np.full(5, 1e-9))


def test_the_weights_of_no_consequence_do_not_spoil_the_others() -> None:
    sums = WeightSums(np, 2, 4)
    for log_w in ([-math.inf, -math.inf], [0.0, -math.inf], [-math.inf, -math.inf], [0.0, -math.inf]):
        with np.errstate(all="ignore"):
            sums.add(np.array(log_w))
    with np.errstate(all="ignore"):
        found = sums.summary()
    assert found.log_p.tolist() == [math.log(0.5), -math.inf]
    assert found.effective[0] == 2


def test_what_is_kept_does_not_grow_with_the_draws() -> None:
    assert WeightSums(np, 1, 10**9).tail.shape == WeightSums(np, 1, 10**4).tail.shape
    assert pareto.tail_length(24) == 0


@pytest.mark.parametrize("k", [-0.3, 0.001, 0.4, 0.7, 1.5])
def test_the_shape_of_a_tail_is_that_of_scipys_generalized_pareto(k: float) -> None:
    M = 20_000
    y = np.sort(stats.genpareto(k, scale=3.0).rvs((4, M), random_state=1), axis=1)
    log_w = np.log(np.concatenate([np.ones((4, 1)), 1 + y], axis=1)) + 500
    # asymptotically normal with deviation (1 + k) / sqrt(M), as the maximum of the likelihood; 5 of them
    assert_within(pareto.tail_shape(log_w), np.full(4, k), 5 * (1 + k) / math.sqrt(M) + 10 / M)


def test_a_short_tail_is_told_heavy_from_light_on_average() -> None:
    M, means = 20, []
    for k in (0.0, 0.5, 1.0):
        y = np.sort(stats.genpareto(k).rvs((500, M), random_state=2), axis=1)
        means.append(pareto.tail_shape(np.log(np.concatenate([np.ones((500, 1)), 1 + y], axis=1))).mean())
        # drawn to 1/2 by ten excesses more; the bias of the estimator at M = 20 is about 0.1
        assert abs(means[-1] - (M * k + 5) / (M + 10)) < 0.1
    assert means == sorted(means)


def test_tails_at_the_edge() -> None:
    equal, lonely = np.zeros((1, 21)), np.concatenate([np.full((1, 20), -800.0), [[0.0]]], axis=1)
    assert pareto.tail_shape(equal) == -math.inf
    assert pareto.tail_shape(equal + 1e-6 * np.arange(21)) == -math.inf  # the rounding of float32
    assert pareto.tail_shape(lonely) == math.inf
    assert np.isnan(pareto.tail_shape(equal[:, :5]))


def mixture(d: int) -> tuple[student_t.Mixture, np.ndarray]:
    """A mixture for each of two rows, and the precisions it was made of."""
    rng = np.random.default_rng(d)
    A = rng.standard_normal((2, 3, d, d))
    precision = A @ A.swapaxes(2, 3) + np.eye(d)
    return student_t.mixture_of(rng.uniform(0.1, 1, (2, 3)), rng.standard_normal((2, 3, d)), precision), precision


@pytest.mark.parametrize("d", [1, 2, 7])
def test_the_density_of_a_mixture_is_that_of_scipys_multivariate_t(d: int) -> None:
    (mix, precision), z = mixture(d), np.random.default_rng(0).standard_normal((2, 11, d))
    assert_within(mix.share.sum(axis=1), np.ones(2), 4 * EPS)
    each = student_t.log_densities(mix, z)
    student: Any = stats.multivariate_t  # its stubs know no density
    for row in range(2):
        for c in range(3):
            t = student(mix.location[row, c], np.linalg.inv(precision[row, c]), df=max(5, d))
            assert_within(each[row, c], t.logpdf(z[row]), 1e-9)
        whole = np.log((np.exp(each[row]) * mix.share[row][:, None]).sum(axis=0))
        assert_within(student_t.log_mixture(mix.share, each)[row], whole, 1e-12)


@pytest.mark.parametrize("d", [1, 3])
def test_the_draws_of_a_mixture_have_its_density(d: int) -> None:
    (mix, _), n = mixture(d), 20_000
    z = adaptive.draw(mix, n, np.random.default_rng(3))
    log_t = student_t.log_mixture(mix.share, student_t.log_densities(mix, z))
    for mean, deviation in [(0.0, 0.7), (0.6, 0.4)]:  # the mean of p / t over draws of t is 1, for any density p
        p: Any = stats.norm(mean, deviation)
        w = np.exp(p.logpdf(z).sum(axis=2) - log_t)
        assert_within(w.mean(axis=1), np.ones(2), 5 * w.std(axis=1) / math.sqrt(n))


KINDS = ["bernoulli", "gaussian, fixed", "gaussian, learned", "gaussian, predicted"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_scan_is_the_log_joint_of_all_pairs(kind: str) -> None:
    model, rng = make(kind), np.random.default_rng(0)
    x, z = rng.uniform(0, 1, (3, 6)), rng.standard_normal((4, 2))
    expected = [search.log_joint(model, np.tile(row, (4, 1)), z) for row in x]
    assert_within(search.scan(model, x, z), expected, 1e-9)


def test_the_scan_knows_the_labels() -> None:
    model, rng = two_modes("float64", classes=2), np.random.default_rng(0)
    x, z, y = rng.standard_normal((4, 4)), rng.standard_normal((3, 2)), np.array([1, 0, 0, 1])
    expected = [
        search.log_joint(model, np.tile(row, (3, 1)), z, np.full(3, label)) for row, label in zip(x, y, strict=True)
    ]
    assert_within(search.scan(model, x, z, y), expected, 1e-9 * np.abs(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_finite_differences_and_the_climb_never_falls(kind: str) -> None:
    model, rng, h = make(kind), np.random.default_rng(1), 1e-5
    x, z = rng.uniform(0, 1, (3, 6)), rng.standard_normal((3, 2))
    value, gradient, H = search.slopes(model, x, z)
    assert_within(value, search.log_joint(model, x, z), 1e-10)
    for j in range(2):
        e = h * np.eye(2)[j]
        difference = (search.log_joint(model, x, z + e) - search.log_joint(model, x, z - e)) / (2 * h)
        # the Jacobian is made of one-sided differences of 6e-6, the others of 1e-5 squared
        np.testing.assert_allclose(gradient[:, j], difference, rtol=1e-3, atol=1e-3)
    assert np.all(np.linalg.eigvalsh(H) >= 1 - 1e-9)
    heights = [search.climb(model, x, z, steps)[1] for steps in (0, 1, 2, 4, 8)]
    assert np.all(np.diff(heights, axis=0) >= 0)
    top, _, _ = search.climb(model, x, z, 30)
    assert np.abs(search.slopes(model, x, top)[1]).max() < 1e-2 * max(1, np.abs(gradient).max())


def test_the_second_look_takes_nothing_from_the_callers_generator() -> None:
    model, x = at_the_posterior("reference")
    rng, replay = np.random.default_rng(5), np.random.default_rng(5).standard_normal((3, 4, 2))
    log_likelihood(model, x, 3, rng)
    log_likelihood(model, x, 3, Replay(replay))  # it has no more to give
    after = np.random.default_rng(5)
    after.standard_normal((3, 4, 2))
    assert rng.standard_normal() == after.standard_normal()
