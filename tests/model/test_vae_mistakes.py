"""Mistakes that published hand-written VAEs were found to make: for each, a test that this one does not; and planted.

Sampling with the variance, the KL's closed form, and Adam's bias correction have theirs in tests/ops.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from planted import Plant, assert_killed, both, instead
from strategies import KERNELS, assert_within, eps_of, sampled

import tinyvae
from tinyvae.formula import backward_of, formula
from tinyvae.likelihoods.bernoulli import Bernoulli, bernoulli_nll, bernoulli_nll_backward
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.loop import Loop
from tinyvae.model import vae
from tinyvae.objectives.elbo import ELBO
from tinyvae.objectives.objective import Partials, Terms

EPS = eps_of("float64")
DATA, LATENT, ROWS = 6, 3, 5
EVERY = pytest.mark.parametrize("kernels", KERNELS)


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


def pixels_and_latents_are_both_summed(kernels: str = "reference", **arguments: Any) -> None:
    model = silent(kernels=kernels, **arguments)
    model.params["encoder.1.bias"][:LATENT] = 2.0  # mu = 2 in each dimension, whose KL is then 2 nats
    x, eps = batch()
    losses = model.loss(x, eps)
    assert_within(losses.nll, DATA * math.log(2), 20 * EPS * DATA)  # every pixel is a fair coin; the sum of DATA terms
    # a mean of ROWS equal numbers, each times its share of the rows
    assert_within(losses.kl, 2.0 * LATENT, (ROWS + 2) * EPS * 2 * LATENT)
    assert losses.loss == pytest.approx(losses.nll + losses.kl, rel=10 * EPS)
    nll, kl = model.rows_loss(x, eps)
    assert nll.shape == (ROWS,)
    assert kl.tolist() == [[2.0] * LATENT] * ROWS


@EVERY
def test_beta_is_1_because_pixels_and_latents_are_both_summed(kernels: str) -> None:
    pixels_and_latents_are_both_summed(kernels)


@pytest.mark.parametrize("objective", [ELBO(), ELBO(beta=2.0, free_bits=0.2), ELBO(draws=1)], ids=repr)
@EVERY
def test_the_loss_is_a_mean_over_the_batch_so_its_size_does_not_matter(kernels: str, objective: ELBO) -> None:
    x, eps = (np.tile(row, (ROWS, 1)) for row in (np.full(DATA, 0.5), np.zeros(LATENT)))
    one, many = make(kernels=kernels), make(kernels=kernels)
    few_losses = one.loss_and_grad(x[:1], eps[:1], objective=objective)
    many_losses = many.loss_and_grad(x, eps, objective=objective)
    # 30 roundings of sums of a few terms, none of which is larger than 10
    assert_within(many_losses, few_losses, 300 * EPS)
    assert_within(many.grads.flat, one.grads.flat, 300 * EPS)


@EVERY
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
    z = mu + np.exp(logvar / 2) * eps
    look = model.look(x, eps)
    assert_within(look.z, z, 10 * EPS * (np.abs(mu) + np.exp(logvar / 2) * np.abs(eps)))
    assert_within(look.output, model.output(z), 300 * EPS)
    assert model.loss(x, eps).nll != model.loss(x, -eps).nll
    assert model.loss(x, eps).kl == model.loss(x, -eps).kl  # analytic: the KL has no noise


def test_the_noise_of_the_backward_is_the_noise_that_was_sampled() -> None:
    """The decoder is a line, z W, so that dnll/dz is known from outside; dz/dlogvar = (z - mu) / 2."""
    model = tinyvae.VAE(DATA, (), LATENT, likelihood="gaussian:sigma=fixed:1", dtype="float64")
    rng = np.random.default_rng(2)
    model.params.flat += 0.3 * rng.standard_normal(model.params.flat.shape)
    x, eps = batch()
    look = model.look(x, eps)
    model.loss_and_grad(x, eps, beta=0.0)
    dz = (look.output - x) @ model.params["decoder.0.weight"].T / ROWS  # (rows, latent)
    expected = np.concatenate([dz, dz * (look.z - look.mu) / 2], axis=1).sum(axis=0)
    assert_within(model.grads["encoder.0.bias"], expected, 300 * EPS)


def test_the_target_is_x_and_not_the_sample() -> None:
    model = silent()
    model.params["decoder.1.bias"][...] = 30.0  # the decoder is sure of ones
    _, eps = batch()
    assert model.loss(np.ones((ROWS, DATA)), eps).nll < 1e-9  # DATA log(1 + e^-30)
    # 30 a pixel, and DATA log(1 + e^-30) that is below 1e-12
    assert_within(model.loss(np.zeros((ROWS, DATA)), eps).nll, 30.0 * DATA, 1e-11)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "laplace"])
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


def test_pixels_up_to_255_are_refused_and_told_to_be_divided() -> None:
    model = make()
    with pytest.raises(ValueError, match="divided by 255"):
        model.loss_and_grad(np.full((ROWS, DATA), 200.0), batch()[1])


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    x, eps = batch()
    first, again, other = (tinyvae.VAE(DATA, (4,), LATENT, seed=seed) for seed in (3, 3, 4))
    assert first.loss_and_grad(x, eps) == again.loss_and_grad(x, eps) != other.loss_and_grad(x, eps)
    assert np.array_equal(first.grads.flat, again.grads.flat)


# -------------------------------------------------------------------------------------------------------- planted bugs


@backward_of(bernoulli_nll, "logits")
def of_one_pixel(dnll, logits, x):
    return bernoulli_nll_backward(dnll / DATA, logits, x)


@dataclass(frozen=True)
class MeanOverPixels(Bernoulli):
    """Loss and slope alike: the gradient check sees nothing."""

    nll: ClassVar = formula(lambda logits, x: bernoulli_nll(logits, x) / DATA)
    slopes: ClassVar = of_one_pixel


def test_a_mean_over_the_pixels_is_noticed() -> None:
    with pytest.raises(AssertionError, match="off by"):
        pixels_and_latents_are_both_summed(likelihood=MeanOverPixels())


def objective(change: Callable[..., Any]) -> Plant:
    """The ELBO's terms and partials, changed: change(rows, terms, partials)."""
    true = ELBO.forward

    def forward(self: ELBO, k: Any, nll: Any, q: Any) -> Any:
        terms, back = true(self, k, nll, q)
        return change(len(q.mu), terms, back)[0], lambda: change(len(q.mu), terms, back)[1]

    return instead(ELBO, "forward", forward)


def times_rows(rows: int, terms: Terms, back: Callable[[], Partials]) -> Any:
    """A sum over the batch, both ways."""
    d = back()
    nll = np.full((rows, 1), 1.0)
    return Terms(*(rows * a for a in terms)), d._replace(nll=nll, mu=rows * d.mu, logvar=rows * d.logvar)  # pyright: ignore


def negative_kl(rows: int, terms: Terms, back: Callable[[], Partials]) -> Any:
    """Both ways."""
    d = back()
    return terms._replace(loss=2 * terms.nll - terms.loss), d._replace(mu=-d.mu, logvar=-d.logvar)  # pyright: ignore


def wrong_loop(name: str, function: Any) -> Plant:
    return instead(vae, name, Loop([formula(function)]))


def of_the_output(true: Any) -> Any:
    """The loss of what the decoder says, rounded, in the place of x."""
    return lambda self, k, p, output, x, *more: true(self, k, p, output, (output > 0) * 1.0, *more)


MEAN = wrong_loop("DRAW", lambda mu, logvar, eps: mu + 0 * (logvar + eps))
BUGS: dict[str, tuple[Plant, Any]] = {
    "a sum over the batch": (
        objective(times_rows),
        lambda: test_the_loss_is_a_mean_over_the_batch_so_its_size_does_not_matter("reference", ELBO())),
    "the KL is a gain": (
        objective(negative_kl), lambda: test_the_kl_is_a_cost_so_more_beta_costs_more_and_pulls_mu_to_0("reference")),
    "the decoder gets the mean": (
        both(MEAN, wrong_loop("THROUGH_BOTH", lambda dz, logvar, eps, dmu, dlogvar: (
            dz + dmu, dlogvar + 0 * (logvar + eps)))), test_the_decoder_gets_a_sample_and_not_the_mean),
    "other noise in the backward": (
        wrong_loop("THROUGH_BOTH", lambda dz, logvar, eps, dmu, dlogvar: vae.through_both(
            dz, logvar, 0.5 - eps, dmu, dlogvar)), test_the_noise_of_the_backward_is_the_noise_that_was_sampled),
    "the objective's part overwrites the one through z": (
        wrong_loop("THROUGH_BOTH", lambda dz, logvar, eps, dmu, dlogvar: (
            dmu + 0 * (dz + logvar + eps), dlogvar)), test_the_noise_of_the_backward_is_the_noise_that_was_sampled),
    "the target is the reconstruction": (
        both(instead(Likelihood, "loss", of_the_output(Likelihood.loss)),
             instead(Likelihood, "forward", of_the_output(Likelihood.forward))),
        test_the_target_is_x_and_not_the_sample),
    "mu and logvar change places": (
        instead(vae.VAE, "halves", lambda self, head: (head[:, LATENT:], head[:, :LATENT])),
        test_the_head_is_split_into_mu_and_logvar_of_the_full_latent_width),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, *BUGS[bug])
