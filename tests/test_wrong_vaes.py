"""Mistakes that published hand-written VAEs were found to make: for each, a test that this one does not.

Sampling with the variance instead of the standard deviation, the KL's closed form, and Adam's bias correction have
their oracles in test_oracles.py.
"""

import math
from typing import Any

import numpy as np
import pytest
from strategies import KERNELS, assert_within, eps_of

import tinyvae
from tinyvae import kernels as kernel_files
from tinyvae.backend import get_backend

EPS = eps_of("float64")
DATA, LATENT, ROWS = 6, 3, 5


def kernels_of(name: str) -> Any:
    return kernel_files.select(name, get_backend("numpy"), "float64")[1]


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, (ROWS, DATA)), rng.standard_normal((ROWS, LATENT))


def make(**arguments: Any) -> tinyvae.VAE:
    """A small model with nothing at 0."""
    arguments = {"activation": "tanh"} | arguments
    model = tinyvae.VAE(DATA, (4,), LATENT, dtype="float64", **arguments)
    model.params.flat += 0.3 * np.random.default_rng(1).standard_normal(model.params.flat.shape)
    return model


def silent(**arguments: Any) -> tinyvae.VAE:
    """A model whose every parameter is 0: mu = 0, logvar = 0, logits = 0."""
    model = tinyvae.VAE(DATA, (4,), LATENT, dtype="float64", **arguments)
    model.params.flat[...] = 0
    return model


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_noise_of_the_backward_is_the_noise_that_was_sampled(kernels: str) -> None:
    rng = np.random.default_rng(2)
    head, eps, dz = rng.standard_normal((4, 6)), rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    z, kl = np.empty((2, 4, 3))
    dhead, work = np.empty((4, 6)), np.empty(24)
    kernels_of(kernels).latent_forward(head, eps, z=z, kl=kl, work=work)
    kernels_of(kernels).latent_backward(dz, head, eps, np.zeros(3), dhead=dhead, work=work)
    # dz/dlogvar = (z - mu) / 2, whatever the noise was: the sample itself says it. 10 roundings of |mu| + |z|.
    mu = head[:, :3]
    assert_within(dhead[:, 3:], dz * (z - mu) / 2, 10 * EPS * np.abs(dz) * (np.abs(mu) + np.abs(z)))


@pytest.mark.parametrize("kernels", KERNELS)
def test_beta_is_1_because_pixels_and_latents_are_both_summed(kernels: str) -> None:
    model = silent(kernels=kernels)
    model.params["encoder.1.bias"][:LATENT] = 2.0  # mu = 2 in each dimension, whose KL is then 2 nats
    x, eps = batch()
    losses = model.loss(x, eps)
    assert_within(losses.nll, DATA * math.log(2), 20 * EPS * DATA)  # every pixel is a fair coin; the sum of DATA terms
    assert losses.kl == 2.0 * LATENT
    assert losses.loss == losses.nll + losses.kl
    nll, kl = model.rows_loss(x, eps)
    assert nll.shape == (ROWS,)
    assert kl.tolist() == [[2.0] * LATENT] * ROWS


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_loss_is_a_mean_over_the_batch_so_its_size_does_not_matter(kernels: str) -> None:
    x, eps = (np.tile(row, (ROWS, 1)) for row in (np.full(DATA, 0.5), np.zeros(LATENT)))
    one, many = make(kernels=kernels), make(kernels=kernels)
    few_losses, many_losses = one.loss_and_grad(x[:1], eps[:1]), many.loss_and_grad(x, eps)
    # 30 roundings of sums of a few terms, none of which is larger than 10
    assert_within(many_losses, few_losses, 300 * EPS)
    assert_within(many.grads.flat, one.grads.flat, 300 * EPS)


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_kl_is_a_cost_so_more_beta_costs_more_and_pulls_mu_to_0(kernels: str) -> None:
    model = silent(kernels=kernels)  # a decoder of zeros: only the KL has a gradient in the encoder
    mean = np.array([1.5, -0.5, 0.0])
    model.params["encoder.1.bias"][:LATENT] = mean
    x, eps = batch()
    costs = [model.loss_and_grad(x, eps, beta).loss for beta in (0.0, 1.0, 4.0)]
    kl = 0.5 * float(mean @ mean)
    assert_within(np.diff(costs), [kl, 3 * kl], 50 * EPS * (DATA + 4 * kl))
    gradient = model.grads["encoder.1.bias"]
    assert_within(gradient[:LATENT], 4 * mean, 20 * EPS * 4 * np.abs(mean))  # downhill is towards 0
    assert np.all(gradient[LATENT:] == 0)  # at sigma = 1 the KL wants no other sigma


def test_the_decoder_gets_a_sample_and_not_the_mean() -> None:
    model = make()
    x, eps = batch()
    mu, logvar = model.encode(x)
    model.loss(x, eps)
    assert_within(model.z, mu + np.exp(logvar / 2) * eps, 10 * EPS * (np.abs(mu) + np.exp(logvar / 2) * np.abs(eps)))
    assert model.loss(x, eps).nll != model.loss(x, -eps).nll
    assert model.loss(x, eps).kl == model.loss(x, -eps).kl  # analytic: the KL has no noise


def test_the_target_is_x_and_not_the_sample() -> None:
    model = silent()
    model.params["decoder.1.bias"][...] = 30.0  # the decoder is sure of ones
    _, eps = batch()
    assert model.loss(np.ones((ROWS, DATA)), eps).nll < 1e-9  # DATA log(1 + e^-30)
    # 30 a pixel, and DATA log(1 + e^-30) that is below 1e-12
    assert_within(model.loss(np.zeros((ROWS, DATA)), eps).nll, 30.0 * DATA, 1e-11)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_no_layer_is_built_and_never_used(likelihood: str, tied: bool) -> None:
    model = make(likelihood=likelihood, tied=tied)
    x, eps = batch()
    model.loss_and_grad(x, eps)
    for name, gradient in model.grads.items():
        assert np.all(gradient != 0), name


def test_the_head_is_split_into_mu_and_logvar_of_the_full_latent_width() -> None:
    model = make()
    x, _ = batch()
    mu, logvar = model.encode(x)
    assert mu.shape == logvar.shape == (ROWS, LATENT)
    before = mu.copy(), logvar.copy()
    model.params["encoder.1.bias"][:LATENT] += 1.0
    mu, logvar = model.encode(x)
    assert_within(mu, before[0] + 1, 2 * EPS * (2 + np.abs(mu)))
    assert np.array_equal(logvar, before[1])


def test_real_valued_data_is_decoded_without_a_sigmoid() -> None:
    model = silent(likelihood="gaussian", sigma="learned")
    model.params["decoder.1.bias"][...] = -7.5
    assert np.all(model.decode(np.zeros((2, LATENT))) == -7.5)


def test_nothing_is_clamped_where_a_gradient_would_have_to_know() -> None:
    # Far out the KL is what the formula says, value and slope: mu^2 / 2 = 5000, e^20 / 2, and -(-40) / 2.
    for name in KERNELS:
        head = np.array([[100.0, 0.0, 0.0, 0.0, 20.0, -40.0]])
        zeros, dhead, z, kl = np.zeros((1, 3)), np.empty((1, 6)), np.empty((1, 3)), np.empty((1, 3))
        kernels_of(name).latent_forward(head, zeros, z=z, kl=kl, work=np.empty(6))
        kernels_of(name).latent_backward(zeros, head, zeros, np.ones(3), dhead=dhead, work=np.empty(6))
        expected = np.array([[5000.0, (math.exp(20) - 21) / 2, (math.exp(-40) + 39) / 2]])
        assert_within(kl, expected, 10 * EPS * expected)
        slopes = np.array([[100.0, 0.0, 0.0, 0.0, math.expm1(20) / 2, math.expm1(-40) / 2]])
        assert_within(dhead, slopes, 10 * EPS * np.abs(slopes))


def test_pixels_up_to_255_are_refused_and_told_to_be_divided() -> None:
    model = make()
    with pytest.raises(ValueError, match="divided by 255"):
        model.loss_and_grad(np.full((ROWS, DATA), 200.0), batch()[1])


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    x, eps = batch()
    first, again, other = (tinyvae.VAE(DATA, (4,), LATENT, seed=seed) for seed in (3, 3, 4))
    assert first.loss_and_grad(x, eps) == again.loss_and_grad(x, eps) != other.loss_and_grad(x, eps)
    assert np.array_equal(first.grads.flat, again.grads.flat)
