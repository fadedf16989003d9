"""What must hold of every model: batches are means of rows, hidden units have no order, the ELBO is linear in beta; and
a linear model, whose log p(x) and posterior are known, at whatever q."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear_gaussian import LATENT, at_the_posterior, exact_elbo, exact_log_p, linear_model, posterior
from planted import Plant, assert_killed, instead
from strategies import KERNELS, SEEDS, assert_within, eps_of, numbers, sampled

import tinyvae
from tinyvae.formula import formula
from tinyvae.layers import Dense
from tinyvae.loop import Loop
from tinyvae.model import vae
from tinyvae.objectives import elbo
from tinyvae.objectives.elbo import ELBO

EPS = eps_of("float64")
NAMES = st.sampled_from(KERNELS)


def model_and_batch(seed: int, rows: int, kernels: str, **arguments: Any) -> tuple[tinyvae.VAE, np.ndarray, np.ndarray]:
    model = tinyvae.VAE(5, (6,), 2, **{"activation": "tanh", "dtype": "float64", "kernels": kernels, **arguments})
    rng = np.random.default_rng(seed)
    model.params.flat[...] = 0.5 * rng.standard_normal(model.params.flat.shape)
    return model, rng.uniform(0, 1, (rows, 5)), rng.standard_normal((rows, 2))


ARGUMENTS = st.sampled_from([
    {}, {"tied": True}, {"likelihood": "gaussian"}, {"likelihood": "gaussian:sigma=columns"},
    {"likelihood": "gaussian:sigma=predicted"}, {"likelihood": "laplace"}, {"activation": "swish"},
])  # fmt: skip
# Random tanh networks this small have activations, slopes and losses below 100; a gradient is a sum of at most rows * 6
# terms of a chain of 12 operations of at most 6 terms each. Two orders of the same sums differ by this much:
MODEL_ROUNDING = 2 * (12 * 8 + 60) * EPS * 100


@given(SEEDS, st.integers(1, 7), ARGUMENTS, NAMES)
def test_the_gradient_of_a_batch_is_the_mean_over_its_rows(seed: int, rows: int, arguments: Any, kernels: str) -> None:
    model, x, eps = model_and_batch(seed, rows, kernels, **arguments)
    loss, batch = model.loss_and_grad(x, eps).loss, model.grads.flat.copy()
    each = []
    for row in range(rows):
        row_loss = model.loss_and_grad(x[row : row + 1], eps[row : row + 1]).loss
        each.append((row_loss, model.grads.flat.copy()))
    largest = max(1.0, max(np.abs(g).max() / 100 for _, g in each), max(abs(row_loss) / 100 for row_loss, _ in each))
    assert_within(loss, np.mean([row_loss for row_loss, _ in each]), MODEL_ROUNDING * largest)
    assert_within(batch, np.mean([g for _, g in each], axis=0), MODEL_ROUNDING * largest)


@given(SEEDS, st.integers(1, 5), ARGUMENTS, NAMES, st.sampled_from([0.0, 0.3]))
def test_duplicating_the_batch_changes_nothing(
    seed: int, rows: int, arguments: Any, kernels: str, free_bits: float
) -> None:
    model, x, eps = model_and_batch(seed, rows, kernels, **arguments)
    once, gradient = model.loss_and_grad(x, eps, 2.0, free_bits), model.grads.flat.copy()
    twice = model.loss_and_grad(np.tile(x, (2, 1)), np.tile(eps, (2, 1)), 2.0, free_bits)
    largest = max(1.0, np.abs(gradient).max() / 100, abs(once.loss) / 100)
    assert_within(twice, once, MODEL_ROUNDING * largest)
    assert_within(model.grads.flat, gradient, MODEL_ROUNDING * largest)


@given(SEEDS, NAMES)
def test_permuting_hidden_units_leaves_the_elbo_and_permutes_the_gradients(seed: int, kernels: str) -> None:
    model, x, eps = model_and_batch(seed, 4, kernels)
    before, gradients = model.loss_and_grad(x, eps), {name: g.copy() for name, g in model.grads.items()}
    order = np.random.default_rng(seed).permutation(6)
    permute: dict[str, Callable[[Any], Any]] = {
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
    # sums of 3 rows and of 3 rows by 2 dimensions, in one order and in another
    assert_within(losses.loss, losses.nll + beta * losses.kl, 10 * EPS * (abs(losses.nll) + beta * losses.kl))
    assert losses[1:] == model.loss(x, eps, 1.0)[1:]


# ------------------------------------------------------- a linear-Gaussian model, where log p(x) and q(z|x) are exact


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kernels", KERNELS)
def test_the_elbo_is_log_p_minus_the_kl_to_the_true_posterior(kernels: str, seed: int) -> None:
    model, x = linear_model(kernels, seed, orthogonal=False)
    mean, covariance = posterior(model, x)
    mu, logvar = model.encode(x)
    precision, logdet = np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1]
    trace = (np.diag(precision) * np.exp(logvar)).sum(axis=1)
    gap = 0.5 * (
        trace + np.einsum("ni,ij,nj->n", mean - mu, precision, mean - mu) - LATENT + logdet - logvar.sum(axis=1)
    )
    assert np.all(gap > 0.01)  # or the inequality would say nothing
    # Sums of some 50 terms below 1e3, of matrices with condition numbers below 100
    assert_within(exact_elbo(model, x), exact_log_p(model, x) - gap, 50 * 1e3 * 100 * EPS)
    assert np.all(exact_elbo(model, x) < exact_log_p(model, x))


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_elbo_of_each_row_is_log_p_at_the_true_posterior(kernels: str) -> None:
    model, x = at_the_posterior(kernels)
    _, covariance = posterior(model, x)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 10 * EPS  # as W W^T is diagonal
    assert_within(exact_elbo(model, x), exact_log_p(model, x), 50 * 1e3 * 100 * EPS)


# -------------------------------------------------------------------------------------------------------- planted bugs


def first_row_counts_twice(true: Any) -> Any:
    """In the gradient of the likelihood."""

    def forward(self: ELBO, k: Any, nll: Any, q: Any) -> Any:
        terms, back = true(self, k, nll, q)
        weights = np.full((len(nll), 1), 1 / len(nll))
        weights[0] *= 2
        return terms, lambda: back()._replace(nll=weights)

    return forward


def in_order(true: Any) -> Any:
    """A constant for each unit by its place: a gradient that is right for a model that is not."""

    def forward(self: Dense, k: Any, p: Any, x: Any, context: Any) -> Any:
        places = 0.1 * np.arange(self.width)
        return true(self, k, {**p, "bias": p["bias"] + places}, x, context)

    return forward


def doubled(mu: Any, logvar: Any) -> Any:
    return 2 * vae.kl_forward(mu, logvar)


def by_log_sigma(mu: Any, logvar: Any) -> Any:
    return vae.kl_forward(mu, 2 * logvar)


BUGS: dict[str, tuple[Plant, Any]] = {
    "the first row counts twice": (
        instead(ELBO, "forward", first_row_counts_twice(ELBO.forward)),
        test_the_gradient_of_a_batch_is_the_mean_over_its_rows),
    "free bits of a sum over the batch": (
        instead(elbo, "CHARGE", Loop(sums=[formula(lambda kl, share, free_bits: elbo.charged(kl, 1.0, free_bits)
                                                   + 0 * share)])), test_duplicating_the_batch_changes_nothing),
    "hidden units have an order": (
        instead(Dense, "forward", in_order(Dense.forward)),
        test_permuting_hidden_units_leaves_the_elbo_and_permutes_the_gradients),
    "beta counts twice": (
        instead(elbo, "MEANS", Loop(sums=[formula(lambda nll, kl, beta, nll_share, share: (
            nll_share * nll + beta * beta * share * kl, nll_share * nll, share * kl))])),
        test_the_loss_is_linear_in_beta),
    "the KL is doubled": (
        instead(vae, "KL", Loop([formula(doubled)])),
        lambda: test_the_elbo_is_log_p_minus_the_kl_to_the_true_posterior("reference", 0)),
    "logvar is read as log sigma": (
        instead(vae, "KL", Loop([formula(by_log_sigma)])),
        lambda: test_the_elbo_of_each_row_is_log_p_at_the_true_posterior("reference")),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, *BUGS[bug])
