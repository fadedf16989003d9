"""What must hold for every input: exactly, or up to a rounding bound that is derived where it is used."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, note
from hypothesis import strategies as st
from strategies import DTYPES, KERNELS, SEEDS, ULP, assert_within, eps_of, normals, numbers, sizes

import tinyvae
from tinyvae import kernels as kernel_files
from tinyvae.backend import get_backend
from tinyvae.ops import activations, adam, dense, gaussian, likelihoods

NAMES = st.sampled_from(KERNELS)
ACTIVATION = st.sampled_from(list(activations.ACTIVATIONS))
EPS64 = eps_of("float64")


def kernels_of(name: str) -> Any:
    return kernel_files.select(name, get_backend("numpy"), "float64")[1]


# -------------------------------------------------------------------------------------------------------------- dense


@given(SEEDS, sizes(3), DTYPES)
@example(0, (1, 2, 3), "float32")
def test_the_backward_of_dense_is_the_adjoint_of_each_linear_part(seed: int, shape: Any, dtype: str) -> None:
    rows, fan_in, fan_out = shape
    x, W, b, dy = normals(seed, (rows, fan_in), (fan_in, fan_out), (fan_out,), (rows, fan_out), dtype=dtype)
    dx, dW, db = dense.dense_backward(dy, x, W)
    assert (dx.shape, dW.shape, db.shape) == (x.shape, W.shape, b.shape)
    zero = np.zeros(fan_out, dtype=dtype)
    # <J v, u> and <v, J^T u> are the same sum of rows * fan_in * fan_out products, added up in two orders: each has at
    # most rows + fan_in + fan_out + 3 roundings on the way, so the two differ by at most twice that.
    roundings = 2 * (rows + fan_in + fan_out + 3)
    for forward, v, adjoint, terms in [
        (dense.dense_forward(x, W, zero), x, dx, np.abs(x) @ np.abs(W)),
        (dense.dense_forward(x, W, zero), W, dW, np.abs(x) @ np.abs(W)),
        (dense.dense_forward(0 * x, W, b), b, db, np.tile(np.abs(b), (rows, 1))),
    ]:
        left, right = float((forward * dy).sum()), float((v * adjoint).sum())
        note(f"<J v, u> = {left}, <v, J^T u> = {right}")
        assert_within(left, right, roundings * eps_of(dtype) * float((terms * np.abs(dy)).sum()))


@given(SEEDS, sizes(3), ACTIVATION, NAMES)
def test_each_row_of_dense_depends_on_its_own_row_only(seed: int, shape: Any, activation: str, kernels: str) -> None:
    rows, fan_in, fan_out = shape
    x, W, b = normals(seed, (rows, fan_in), (fan_in, fan_out), (fan_out,))
    y, alone = np.empty((rows, fan_out)), np.empty((1, fan_out))
    work = np.empty(2 * y.size)
    kernels_of(kernels).dense_forward(x, W, b, activation, y=y, work=work)
    kernels_of(kernels).dense_forward(x[-1:], W, b, activation, y=alone, work=work)
    # every activation has slopes of at most 1, and ULP of its own value
    bound = (2 * fan_in + 2 * ULP + 6) * EPS64 * (np.abs(x[-1:]) @ np.abs(W) + np.abs(b) + 1)
    assert_within(y[-1:], alone, bound)


# -------------------------------------------------------------------------------------------------------- activations


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "value", "slope"),
    [("relu", 0, 0), ("leaky-relu", 0, 0.01), ("elu", 0, 1), ("tanh", 0, 1), ("sigmoid", 0.5, 0.25), ("linear", 0, 1),
     ("softplus", math.log(2), 0.5)],
)  # fmt: skip
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_the_activations_keep_their_conventions_at_exactly_0(
    zero: float, name: str, value: float, slope: float, dtype: str, kernels: str
) -> None:
    x, W, b = np.ones((1, 1), dtype), np.full((1, 1), zero, dtype), np.zeros(1, dtype)
    y, dx, dW, db = np.empty((1, 1), dtype), np.empty((1, 1), dtype), np.empty((1, 1), dtype), np.empty(1, dtype)
    work = np.empty(4, dtype)
    kernels_of(kernels).dense_forward(x, W, b, name, y=y, work=work)
    kept = y.copy()
    kernels_of(kernels).dense_backward(np.ones((1, 1), dtype), x, W, y, name, dx=dx, dW=dW, db=db, work=work)
    assert_within(kept, [[value]], 2 * ULP * eps_of(dtype) * value)
    assert_within(db, [slope], 2 * ULP * eps_of(dtype) * slope)


@given(SEEDS, ACTIVATION, DTYPES)
def test_activations_grow_and_never_overflow(seed: int, name: str, dtype: str) -> None:
    a = np.sort(normals(seed, (50,), dtype=dtype, scale=1e4)[0])
    forward, backward = activations.ACTIVATIONS[name]
    y = forward(a)
    assert np.all(np.isfinite(y))
    assert np.all(np.diff(y) >= 0)
    slope = backward(np.ones_like(a), y)
    assert np.all((slope >= 0) & (slope <= 1))


# ------------------------------------------------------------------------------------------------------------- latent


@given(SEEDS, sizes(2), DTYPES, numbers(0.1, 5.0))
def test_opposite_noise_gives_samples_that_are_symmetric_about_mu(seed: int, shape: Any, dtype: str, s: float) -> None:
    mu, logvar, eps = normals(seed, shape, shape, shape, dtype=dtype, scale=s)
    plus = gaussian.reparameterize_forward(mu, logvar, eps)
    minus = gaussian.reparameterize_forward(mu, logvar, -eps)
    # sigma eps is rounded to the same number on both sides; z rounds once each, the sum of both once
    assert_within(plus + minus, 2 * mu, eps_of(dtype) * 2 * (np.abs(mu) + np.abs(np.exp(logvar / 2) * eps)))
    assert np.array_equal(gaussian.reparameterize_forward(mu, logvar, 0 * eps), mu)


@given(SEEDS, DTYPES, numbers(1e-7, 1.0), NAMES)
@example(0, "float32", 1e-7, "fused")
def test_kl_is_never_negative_and_0_only_at_the_standard_normal(s: int, dtype: str, scale: float, name: str) -> None:
    head = normals(s, (6, 8), dtype=dtype, scale=scale)[0]
    head[0] = 0
    kl, z = np.empty((6, 4), dtype), np.empty((6, 4), dtype)
    kernels_of(name).latent_forward(head, np.ones_like(kl), z=z, kl=kl, work=np.empty(48, dtype))
    mu, logvar = head[:, :4].astype(float), head[:, 4:].astype(float)
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
    whole = gaussian.kl_forward(mu, logvar)
    left = gaussian.kl_forward(mu[:, :split], logvar[:, :split])
    right = gaussian.kl_forward(mu[:, split:], logvar[:, split:])
    # a vectorized loop and its scalar tail may round the exponential differently, by ULP each
    bound = 2 * ULP * EPS64 * (np.exp(logvar) + 1)
    assert_within(np.concatenate([left, right], axis=1), whole, bound)
    total = left.sum(axis=1) + right.sum(axis=1)
    assert_within(total, whole.sum(axis=1), (bound + (shape[1] + 1) * EPS64 * np.abs(whole)).sum(axis=1))


@given(SEEDS, st.integers(1, 9), numbers(0.0, 2.0))
def test_free_bits_never_charge_less_than_the_kl_and_nothing_more_above_the_allowance(
    seed: int, rows: int, allowance: float
) -> None:
    kl = np.abs(normals(seed, (rows, 4))[0])
    charged, mean = gaussian.free_bits_forward(kl, allowance), kl.mean(axis=0)
    assert np.all(charged >= mean)
    assert np.all(charged >= allowance)
    assert np.all((charged == mean) | (charged == allowance))
    slopes = gaussian.free_bits_backward(1.0, kl, allowance)
    assert np.array_equal(slopes != 0, mean > allowance)


# -------------------------------------------------------------------------------------------------------- likelihoods


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bernoulli_is_finite_and_right_at_logits_of_10000(dtype: str, kernels: str) -> None:
    logits = np.array([[1e4], [1e4], [-1e4], [-1e4], [1e4], [0.0]], dtype)
    x = np.array([[1], [0], [0], [1], [0.25], [1]], dtype)
    nll, dlogits = np.empty(6, dtype), np.empty((6, 1), dtype)
    kernels_of(kernels).bernoulli_loss(logits, x, 1.0, nll=nll, dlogits=dlogits, work=np.empty(12, dtype))
    assert nll[:5].tolist() == [0, 1e4, 0, 1e4, 7500]  # exact in both dtypes
    assert_within(nll[5], math.log(2), 2 * eps_of(dtype))
    assert dlogits[:, 0].tolist() == [0, 1, 0, -1, 0.75, -0.5]


@given(SEEDS, numbers(0.1, 1e4), DTYPES)
@example(0, 1e4, "float32")
def test_the_two_sides_of_a_coin_have_probabilities_that_add_to_1(seed: int, scale: float, dtype: str) -> None:
    logits = normals(seed, (30, 1), dtype=dtype, scale=scale)[0]
    heads = likelihoods.bernoulli_nll_forward(logits, np.ones_like(logits))
    tails = likelihoods.bernoulli_nll_forward(logits, np.zeros_like(logits))
    magnitude = 1 + np.abs(logits[:, 0])
    bound = (2 * ULP + 3) * eps_of(dtype) * magnitude
    # -log p + log(1 - p) = -l, and p + (1 - p) = 1, where an error in -log p is as large a relative error in p
    assert_within(heads - tails, -logits[:, 0], 2 * bound)
    total = np.exp(-heads.astype(float)) + np.exp(-tails.astype(float))
    assert_within(total, np.ones(30), 2 * np.expm1(bound.astype(float)))
    # swapping the sides is the same as negating the logit, bit for bit: no side is computed with less care
    swapped = likelihoods.bernoulli_nll_forward(-logits, np.ones_like(logits))
    assert_within(swapped, tails, bound)


@given(SEEDS, numbers(-3.0, 3.0), numbers(-100.0, 100.0))
def test_the_gaussian_density_moves_and_scales_with_its_data(seed: int, log_scale: float, shift: float) -> None:
    mean, logvar, x = normals(seed, (3, 4), (3, 4), (3, 4))
    scale = 2.0 ** round(log_scale)  # exact in binary
    nll = likelihoods.gaussian_nll_forward(mean, logvar, x)
    scaled = likelihoods.gaussian_nll_forward(scale * mean + shift, logvar + 2 * math.log(scale), scale * x + shift)
    # Density: each of the 4 dimensions gains log scale. The shift costs x - m the roundings of shift + scale x,
    # relative to scale, twice in the square; logvar one of 6 more in the exponent, which is worth the term it scales.
    term = np.abs(x) + np.abs(mean)
    lost = 4 * EPS64 * (np.abs(shift) / scale + term) * term * np.exp(-logvar)
    bound = lost.sum(axis=1) + 60 * EPS64 * (term**2 * np.exp(-logvar) + np.abs(logvar) + 8).sum(axis=1)
    assert_within(scaled - nll, np.full(3, 4 * math.log(scale)), bound)


@given(SEEDS, sizes(2))
def test_float32_losses_and_gradients_are_the_float64_ones_up_to_rounding(seed: int, shape: Any) -> None:
    low = normals(seed, shape, shape, shape, shape, dtype="float32")
    m, s, x, e = (a.astype(float) for a in low)
    m_, s_, x_, e_ = low
    eps, roundings = eps_of("float32"), 2 * ULP + shape[1] + 6
    spread = (np.abs(x) + np.abs(m)) ** 2 * np.exp(-s) + np.abs(s) + 2
    for low_result, result, magnitude in [
        (gaussian.reparameterize_forward(m_, s_, e_), gaussian.reparameterize_forward(m, s, e),
         np.abs(m) + np.exp(s / 2) * np.abs(e)),
        (gaussian.kl_forward(m_, s_), gaussian.kl_forward(m, s), m * m + np.exp(s) + 1 + np.abs(s)),
        (likelihoods.bernoulli_nll_forward(m_, abs(x_)), likelihoods.bernoulli_nll_forward(m, abs(x)),
         (1 + np.abs(m) * (1 + np.abs(x))).sum(axis=1)),
        (likelihoods.gaussian_nll_forward(m_, s_, x_), likelihoods.gaussian_nll_forward(m, s, x), spread.sum(axis=1)),
        (likelihoods.gaussian_nll_backward(1.0, m_, s_, x_)[0], likelihoods.gaussian_nll_backward(1.0, m, s, x)[0],
         (np.abs(x) + np.abs(m)) * np.exp(-s)),
        (likelihoods.gaussian_nll_backward(1.0, m_, s_, x_)[1], likelihoods.gaussian_nll_backward(1.0, m, s, x)[1],
         spread),
    ]:  # fmt: skip
        assert low_result.dtype == np.float32
        assert_within(low_result, result, roundings * eps * magnitude)


# ----------------------------------------------------------------------------------------------------- Adam, clipping


@given(SEEDS, numbers(1e-6, 10.0), numbers(-12.0, 3.0), NAMES)
@example(0, 1.0, -8.0, "fused")
def test_the_first_step_of_adam_is_the_learning_rate_in_the_direction_of_the_sign(
    seed: int, lr: float, exponent: float, kernels: str
) -> None:
    p, g = normals(seed, (20,), (20,))
    g *= 10.0**exponent
    expected = p - lr * g / (np.abs(g) + adam.EPSILON)
    # 1 - beta and its correction cancel to 4 roundings each, the square root halves; the step is at most lr
    bound = EPS64 * np.abs(p) + 16 * EPS64 * lr + EPS64 * np.abs(p - expected)
    assert_within(adam.adam_step(p, g, np.zeros(20), np.zeros(20), 1, lr)[0], expected, bound)
    kernels_of(kernels).adam_step(p, g, np.zeros(20), np.zeros(20), 1, lr, work=np.empty(20))
    assert_within(p, expected, bound)


@given(SEEDS, st.integers(1, 2000), st.integers(-30, 30), DTYPES)
@example(0, 1, 30, "float32")
def test_scaling_gradients_and_epsilon_by_a_power_of_two_changes_no_bit_of_adam(
    seed: int, t: int, power: int, dtype: str
) -> None:
    scale = 2.0**power
    p, g, m = normals(seed, (20,), (20,), (20,), dtype=dtype)
    v = normals(seed + 1, (20,), dtype=dtype)[0] ** 2
    one = adam.adam_step(p, g, m, v, t, 1e-3, epsilon=2.0**-20)
    s = p.dtype.type(scale)
    two = adam.adam_step(p, g * s, m * s, v * s * s, t, 1e-3, epsilon=2.0**-20 * scale)
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1] * s, two[1])
    assert np.array_equal(one[2] * s * s, two[2])


@given(st.sampled_from([0.5, 0.9, 0.99, 0.999, 1 - 2**-30]), st.integers(1, 60))
@example(0.999, 1)
@example(1 - 2**-30, 1)
def test_bias_correction_is_accurate_at_small_t(beta: float, t: int) -> None:
    exact = float(1 - Fraction(beta) ** t)
    # log rounds once, relative to log beta; t log beta once more; expm1 passes relative errors on, and adds its own
    assert_within(adam.bias_correction(beta, t), exact, 2 * ULP * EPS64 * exact)


@given(SEEDS, numbers(-12.0, 12.0), numbers(-6.0, 6.0), DTYPES, NAMES)
@example(0, 0.0, 6.0, "float32", "fused")
@example(0, 12.0, -6.0, "float32", "fused")
def test_clipping_never_lengthens_keeps_the_direction_and_meets_the_bound(
    seed: int, exponent: float, log_max: float, dtype: str, kernels: str
) -> None:
    g = normals(seed, (30,), dtype=dtype, scale=10.0**exponent)[0]
    max_norm, before, norm2 = 10.0**log_max, g.copy(), np.empty((), dtype)
    kernels_of(kernels).squared_norm(g, out=norm2)
    assert_within(norm2, np.sum(before.astype(float) ** 2), 32 * eps_of(dtype) * np.sum(before.astype(float) ** 2))
    kernels_of(kernels).clip(g, norm2, max_norm)
    length, was = np.linalg.norm(g.astype(float)), np.linalg.norm(before.astype(float))
    note(f"|g| {was} became {length}, allowed {max_norm}")
    assert np.all(np.abs(g) <= np.abs(before))
    # the norm has 32 / 2 roundings, the factor 3, the product 1: of a length of max_norm
    assert length <= max_norm * (1 + 20 * eps_of(dtype))
    assert_within(g / length, before / was, 24 * eps_of(dtype))
    if was < max_norm * (1 - 20 * eps_of(dtype)):
        assert np.array_equal(g, before)


def test_a_gradient_of_zeros_survives_clipping() -> None:
    for name in KERNELS:
        g = np.zeros(3, np.float32)
        kernels_of(name).clip(g, np.zeros((), np.float32), 1.0)
        assert g.tolist() == [0, 0, 0]


# ---------------------------------------------------------------------------------------------------- the whole model


def model_and_batch(seed: int, rows: int, kernels: str, **arguments: Any) -> tuple[tinyvae.VAE, np.ndarray, np.ndarray]:
    model = tinyvae.VAE(5, (6,), 2, activation="tanh", dtype="float64", kernels=kernels, **arguments)
    rng = np.random.default_rng(seed)
    model.params.flat[...] = 0.5 * rng.standard_normal(model.params.flat.shape)
    return model, rng.uniform(0, 1, (rows, 5)), rng.standard_normal((rows, 2))


ARGUMENTS = st.sampled_from(
    [{}, {"tied": True}, {"likelihood": "gaussian"}, {"likelihood": "gaussian", "sigma": "predicted"}]
)
# Random tanh networks this small have activations, slopes and losses below 100; a gradient is a sum of at most rows * 6
# terms of a chain of 12 operations of at most 6 terms each. Two orders of the same sums differ by this much:
MODEL_ROUNDING = 2 * (12 * 8 + 60) * EPS64 * 100


@given(SEEDS, st.integers(1, 7), ARGUMENTS, NAMES)
def test_the_gradient_of_a_batch_is_the_mean_over_its_rows(seed: int, rows: int, arguments: Any, kernels: str) -> None:
    model, x, eps = model_and_batch(seed, rows, kernels, **arguments)
    loss, batch = model.loss_and_grad(x, eps).loss, model.grads.flat.copy()
    each = []
    for row in range(rows):
        row_loss = model.loss_and_grad(x[row : row + 1], eps[row : row + 1]).loss
        each.append((row_loss, model.grads.flat.copy()))
    largest = max(1.0, max(np.abs(g).max() / 100 for _, g in each))
    assert_within(loss, np.mean([row_loss for row_loss, _ in each]), MODEL_ROUNDING)
    assert_within(batch, np.mean([g for _, g in each], axis=0), MODEL_ROUNDING * largest)


@given(SEEDS, st.integers(1, 5), ARGUMENTS, NAMES, st.sampled_from([0.0, 0.3]))
def test_duplicating_the_batch_changes_nothing(
    seed: int, rows: int, arguments: Any, kernels: str, free_bits: float
) -> None:
    model, x, eps = model_and_batch(seed, rows, kernels, **arguments)
    once, gradient = model.loss_and_grad(x, eps, 2.0, free_bits), model.grads.flat.copy()
    twice = model.loss_and_grad(np.tile(x, (2, 1)), np.tile(eps, (2, 1)), 2.0, free_bits)
    largest = max(1.0, np.abs(gradient).max() / 100)
    assert_within(twice, once, MODEL_ROUNDING * largest)
    assert_within(model.grads.flat, gradient, MODEL_ROUNDING * largest)


@given(SEEDS, NAMES)
def test_permuting_hidden_units_leaves_the_elbo_and_permutes_the_gradients(seed: int, kernels: str) -> None:
    model, x, eps = model_and_batch(seed, 4, kernels)
    before, gradients = model.loss_and_grad(x, eps), {name: g.copy() for name, g in model.grads.items()}
    order = np.random.default_rng(seed).permutation(6)
    permute = {
        "encoder.0.weight": lambda a: a[:, order], "encoder.0.bias": lambda a: a[order],
        "encoder.1.weight": lambda a: a[order], "encoder.1.bias": lambda a: a,
        "decoder.0.weight": lambda a: a, "decoder.0.bias": lambda a: a,
        "decoder.1.weight": lambda a: a, "decoder.1.bias": lambda a: a,
    }  # fmt: skip
    for name, change in permute.items():
        model.params[name][...] = change(model.params[name].copy())
    largest = max(1.0, max(np.abs(g).max() / 100 for g in gradients.values()))
    assert_within(model.loss_and_grad(x, eps), before, MODEL_ROUNDING)
    for name, change in permute.items():
        assert_within(model.grads[name], change(gradients[name]), MODEL_ROUNDING * largest)


@given(SEEDS, numbers(0.0, 8.0), NAMES)
def test_the_loss_is_linear_in_beta(seed: int, beta: float, kernels: str) -> None:
    model, x, eps = model_and_batch(seed, 3, kernels)
    losses = model.loss(x, eps, beta)
    assert_within(losses.loss, losses.nll + beta * losses.kl, 2 * EPS64 * (abs(losses.nll) + beta * losses.kl))
    assert losses[1:] == model.loss(x, eps, 1.0)[1:]


def test_at_its_allowance_exactly_a_dimension_gets_no_gradient() -> None:
    kl = np.full((4, 3), 0.5)
    assert np.array_equal(gaussian.free_bits_backward(1.0, kl, 0.5), np.zeros(3))
    assert np.array_equal(gaussian.free_bits_backward(1.0, kl, 0.25), np.full(3, 0.25))
