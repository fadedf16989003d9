"""The importance-weighted bound: inequalities on the same draws, a model where it is exact, and loops written out."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from strategies import KERNELS, SEEDS, ULP, assert_within, eps_of, normals, numbers
from test_estimates import at_the_posterior
from test_oracles import exact_log_p, linear_model

import tinyvae
from tinyvae.model.iwae import iwae_log_weights, iwae_loss_and_grad
from tinyvae.ops import importance
from tinyvae.training.batches import Batches
from tinyvae.training.metrics import evaluate

EPS = eps_of("float64")
DRAWS = st.integers(1, 9)
SPREADS = st.sampled_from([0.01, 1.0, 30.0])


def log_weights(seed: int, draws: int, spread: float) -> np.ndarray:
    return normals(seed, (4, draws), scale=spread)[0] - 100


def rounding(log_w: np.ndarray) -> np.ndarray:
    """Of a bound: the difference to the largest, then an exponential, a sum, a logarithm, and two sums."""
    return (2 * ULP + log_w.shape[1] + 4) * EPS * (1 + np.abs(log_w).max(axis=1) + math.log(log_w.shape[1]))


# ----------------------------------------------------------------------------------------------------------- operation


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


# --------------------------------------------------------------------------------------------------------- whole model


@pytest.mark.parametrize("draws", [1, 2, 7])
@pytest.mark.parametrize("kernels", KERNELS)
def test_at_the_true_posterior_the_bound_is_log_p_whatever_the_draws(kernels: str, draws: int) -> None:
    """p(x, z) / q(z|x) is p(x) at every z: all weights are equal, and no draw teaches anything."""
    model, x = at_the_posterior(kernels)
    eps = np.random.default_rng(draws).standard_normal((len(x), draws, 2))
    log_w = iwae_log_weights(model, x, eps)
    # sums of some 50 terms below 1e3, of matrices with condition numbers below 100, as for the ELBO
    off = 50 * 1e3 * 100 * EPS
    assert_within(log_w, np.tile(exact_log_p(model, x)[:, None], draws), off)
    losses = iwae_loss_and_grad(model, x, eps)
    assert_within(losses.loss, -exact_log_p(model, x).mean(), off)


def test_on_average_the_bound_rises_with_the_draws_towards_log_p() -> None:
    model, x = linear_model("fused", 2, orthogonal=False)
    truth = exact_log_p(model, x)[0]
    repeats, most = 400, 64
    eps = np.random.default_rng(0).standard_normal((repeats, most, 2))
    log_w = iwae_log_weights(model, np.repeat(x[:1], repeats, axis=0), eps)  # (repeats, most)
    # (repeats,) each: on the same 64 draws, as 64 bounds of one draw, 16 of 4, 4 of 16, and one of them all
    bounds = [importance.bound_forward(log_w.reshape(-1, k)).reshape(repeats, -1).mean(axis=1) for k in (1, 4, 16, 64)]
    for fewer, more in itertools.pairwise(bounds):
        gain = more - fewer
        assert gain.mean() > 5 * gain.std(ddof=1) / math.sqrt(repeats)  # standard errors
    error = bounds[-1].std(ddof=1) / math.sqrt(repeats)
    assert bounds[-1].mean() < truth + 5 * error
    assert truth - bounds[-1].mean() < 0.2 * (truth - bounds[0].mean())


def small(seed: int = 0, **options: Any) -> tuple[tinyvae.VAE, np.ndarray]:
    options = {"activation": "tanh", "dtype": "float64", "kernels": "reference", **options}
    model = tinyvae.VAE(4, (3,), 2, seed=seed, **options)
    rng = np.random.default_rng(seed)
    model.params.flat += 0.3 * rng.standard_normal(model.params.flat.shape)
    return model, rng.uniform(0, 1, (3, 4))


def written_out(model: tinyvae.VAE, flat: np.ndarray, x: np.ndarray, eps: np.ndarray) -> Any:
    """The loss of a Bernoulli model with one hidden layer, draw by draw, from parameters that may be complex."""
    p, offset = {}, 0
    for name, shape in model.params.shapes.items():
        p[name] = flat[offset : offset + math.prod(shape)].reshape(shape)
        offset += math.prod(shape)
    total: Any = 0
    for i in range(len(x)):
        head = np.tanh(x[i] @ p["encoder.0.weight"] + p["encoder.0.bias"]) @ p["encoder.1.weight"] + p["encoder.1.bias"]
        mu, sigma = head[:2], np.exp(head[2:] / 2)
        weights = []
        for noise in eps[i]:
            z = mu + sigma * noise
            l = np.tanh(z @ p["decoder.0.weight"] + p["decoder.0.bias"]) @ p["decoder.1.weight"] + p["decoder.1.bias"]
            probability = 1 / (1 + np.exp(-l))
            log_p_x = (x[i] * np.log(probability) + (1 - x[i]) * np.log(1 - probability)).sum()
            log_p_z = (-(z**2) / 2 - math.log(2 * math.pi) / 2).sum()
            log_q = (-(((z - mu) / sigma) ** 2) / 2 - np.log(sigma) - math.log(2 * math.pi) / 2).sum()
            weights.append(np.exp(log_p_x + log_p_z - log_q))
        total += np.log(sum(weights) / len(weights))
    return -total / len(x)


@pytest.mark.parametrize("draws", [1, 4])
def test_loss_and_gradient_are_those_of_loops_by_complex_steps(draws: int) -> None:
    model, x = small()
    eps = np.random.default_rng(1).standard_normal((3, draws, 2))
    loss = iwae_loss_and_grad(model, x, eps).loss
    flat, t = model.params.flat, 1e-30
    # some hundred roundings of terms that add up to less than 10, and their derivatives
    assert_within(loss, written_out(model, flat, x, eps), 1e3 * EPS)
    for i in range(flat.size):
        stepped = flat.astype(complex)
        stepped[i] += 1j * t
        assert_within(model.grads.flat[i], written_out(model, stepped, x, eps).imag / t, 2e3 * EPS)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("options", [{}, {"likelihood": "gaussian"}, {"likelihood": "gaussian", "sigma": "predicted"}])
def test_rows_and_draws_given_twice_change_neither_loss_nor_gradient(options: dict[str, Any], kernels: str) -> None:
    model, x = small(kernels=kernels, **options)
    eps = np.random.default_rng(2).standard_normal((3, 4, 2))
    once, grad = iwae_loss_and_grad(model, x, eps), model.grads.flat.copy()
    off = 500 * EPS * max(1, abs(once.loss), np.abs(grad).max())
    for x_, eps_ in [(np.tile(x, (2, 1)), np.tile(eps, (2, 1, 1))), (x, np.tile(eps, (1, 2, 1)))]:
        twice = iwae_loss_and_grad(model, x_, eps_)
        assert_within(twice, once, off)
        assert_within(model.grads.flat, grad, off)
    order = np.random.default_rng(3).permutation(4)
    assert_within(iwae_loss_and_grad(model, x, eps[:, order]), once, off)
    assert_within(model.grads.flat, grad, off)


def test_one_draw_is_the_elbo_with_the_prior_over_q_of_that_draw() -> None:
    model, x = small()
    eps = np.random.default_rng(4).standard_normal((3, 1, 2))
    loss, nll, kl = iwae_loss_and_grad(model, x, eps)
    rows_nll, rows_kl = model.rows_loss(x, eps[:, 0])
    mu, logvar = model.encode(x)
    sigma = np.exp(logvar / 2)
    z = mu + sigma * eps[:, 0]
    ratio = (stats.norm.logpdf(z) - stats.norm.logpdf(z, mu, sigma)).sum(axis=1)
    assert_within([nll, kl], [rows_nll.mean(), rows_kl.sum(axis=1).mean()], 100 * EPS * 10)
    assert_within(loss, (rows_nll - ratio).mean(), 100 * EPS * 10)


def test_the_loss_is_below_the_mean_loss_of_its_draws_alone() -> None:
    model, x = small()
    eps = np.random.default_rng(5).standard_normal((3, 6, 2))
    alone = [iwae_loss_and_grad(model, x, eps[:, k : k + 1]).loss for k in range(6)]
    assert iwae_loss_and_grad(model, x, eps).loss < np.mean(alone) - 1e-6  # by Jensen, strictly as the weights differ


@pytest.mark.parametrize("draws", [1, 5])
def test_the_evaluation_of_a_data_set_is_the_mean_over_its_rows(draws: int) -> None:
    model, _ = small()
    x = np.random.default_rng(6).uniform(0, 1, (17, 4))
    batches = Batches(model, x, 1.0, 5, False, None, draws)
    kept = [(batch.x.copy(), batch.eps.copy()) for batch in batches.in_order(seed=3)]
    assert [eps.shape for _, eps in kept] == [(n, draws, 2) for n in (5, 5, 5, 2)]
    log_w = np.concatenate([iwae_log_weights(model, x, eps) for x, eps in kept])
    parts = [model.rows_loss(x, eps[:, k]) for x, eps in kept for k in range(draws)]
    found = evaluate(model, batches, beta=1.0, seed=3)
    assert_within(found.loss, math.log(draws) - np.logaddexp.reduce(log_w, axis=1).mean(), 100 * EPS * 10)
    assert_within(found.nll, np.concatenate([nll for nll, _ in parts]).sum() / (17 * draws), 100 * EPS * 10)
    assert_within(found.kl, np.concatenate([kl for _, kl in parts]).sum() / (17 * draws), 100 * EPS * 10)


@pytest.mark.parametrize("shape", [(3, 2), (3, 0, 2), (3, 4, 3), (2, 4, 2)])
def test_noise_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    model, x = small()
    with pytest.raises(ValueError, match=r"eps must have shape \(batch, K, 2\)|each row needs its own noise"):
        iwae_loss_and_grad(model, x, np.zeros(shape))
