"""The ELBO: written out draw by draw, its gradient by complex steps, exact where log p(x) is known; free bits, beta."""

import itertools
from typing import Any

import numpy as np
import pytest
from planted import Plant, assert_killed, instead
from strategies import EVERY_FUSED, assert_within, eps_of, sampled

from objectives.oracles import LATENT, ROWS, complex_steps, exact_log_p, linear_model, noise, small, written_out
from tinyvae.formula import formula, where
from tinyvae.loop import Loop
from tinyvae.objectives import elbo
from tinyvae.objectives.elbo import ELBO
from tinyvae.ops.gaussian import kl_backward, kl_forward

EVERY = ["reference", *EVERY_FUSED]
OFF = 2e3 * eps_of("float64")  # some hundred roundings of terms that add up to less than 10, and their derivatives
OPTIONS = [
    ELBO(), ELBO(beta=4.0), ELBO(beta=0.0), ELBO(draws=3), ELBO(beta=0.5, free_bits=0.4),
    ELBO(beta=2.0, free_bits=0.4, draws=3),
]  # fmt: skip


def plain(objective: ELBO, p: Any) -> tuple[Any, Any, Any]:
    """loss, nll and kl of a pass."""
    each = (p.mu**2 + np.exp(p.logvar) - 1 - p.logvar) / 2  # (rows, latent)
    charged = sum(m if m.real > objective.free_bits else objective.free_bits for m in each.mean(axis=0))
    return p.nll.mean() + objective.beta * charged, p.nll.mean(), each.sum(axis=1).mean()


def agrees(objective: ELBO, kernels: str) -> None:
    model, x = small(kernels=kernels)
    eps = noise(objective.draws)
    losses = model.loss_and_grad(x, eps, objective=objective)
    assert_within(losses, plain(objective, written_out(model, model.params.flat, x, eps)), OFF)
    assert_within(model.loss(x, eps, objective=objective), losses, OFF)
    f = lambda flat: plain(objective, written_out(model, flat, x, eps))[0]
    assert_within(model.grads.flat, complex_steps(f, model.params.flat), OFF)


@pytest.mark.parametrize("kernels", EVERY)
@pytest.mark.parametrize("objective", OPTIONS, ids=repr)
def test_loss_and_gradient_are_those_of_the_loss_written_out(objective: ELBO, kernels: str) -> None:
    agrees(objective, kernels)


def test_some_dimensions_are_above_the_allowance_and_some_below() -> None:
    """Or the cases with free bits would show nothing."""
    model, x = small()
    kl = model.look(x, noise(1)).kl.mean(axis=0)
    assert sorted(kl > 0.4) == [False, True]
    assert model.look(x, noise(1)).kl.shape[1] == LATENT


@pytest.mark.parametrize("kernels", EVERY)
def test_at_the_true_posterior_it_is_log_p_and_elsewhere_less(kernels: str) -> None:
    """nll is quadratic in eps here, so two Gauss-Hermite nodes (+-1) a dimension average it exactly: four draws."""
    nodes = np.tile(list(itertools.product([-1.0, 1.0], repeat=LATENT)), (ROWS, 1, 1))  # (rows, 4, latent)
    model, x = linear_model(kernels=kernels)
    log_p = exact_log_p(model, x).mean()
    off = 50 * 1e3 * eps_of("float64")  # sums of some 50 terms below 1e3
    assert_within(model.loss(x, nodes, objective=ELBO(draws=4)).loss, -log_p, off)
    model, x = linear_model(kernels=kernels, at_posterior=False)
    assert model.loss(x, nodes, objective=ELBO(draws=4)).loss > -log_p + 0.1


def test_beta_rises_in_a_straight_line_and_then_stays() -> None:
    objective = ELBO(beta=3.0, beta_warmup=4)
    betas = [objective.at(epochs).beta for epochs in (0.0, 1.0, 2.5, 4.0, 100.0)]
    assert betas == [0.0, 0.75, 1.875, 3.0, 3.0]
    assert ELBO(beta=3.0).at(0.0) == ELBO(beta=3.0)
    assert ELBO(3.0, beta_warmup=4, free_bits=0.2).measured() == ELBO(3.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, "beta must be at least 0 and finite, not -1"),
        ({"beta": float("nan")}, "beta must be at least 0 and finite, not nan"),
        ({"free_bits": float("inf")}, "free_bits must be at least 0 and finite, not inf"),
        ({"beta_warmup": -2}, "beta_warmup must be at least 0"),
        ({"draws": 0}, "draws must be at least 1, not 0"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ELBO(**options)


def test_beta_and_free_bits_are_short_for_the_objective() -> None:
    model, x = small()
    eps = noise(1)[:, 0]
    short = model.loss_and_grad(x, eps, beta=2.0, free_bits=0.4)
    grads = model.grads.flat.copy()
    assert model.loss_and_grad(x, eps, objective=ELBO(2.0, free_bits=0.4)) == short
    np.testing.assert_array_equal(model.grads.flat, grads)
    with pytest.raises(ValueError, match="beta and free_bits are short for objective=ELBO"):
        model.loss(x, eps, beta=2.0, objective=ELBO())


BUGS: dict[str, tuple[Plant, ELBO]] = {
    "free bits: charged below the allowance": (
        instead(elbo, "SLOPE", Loop([formula(lambda kl, share, free_bits, beta: beta * share + 0 * (kl + free_bits))])),
        OPTIONS[4]),
    "free bits: not divided by the rows": (
        instead(elbo, "SLOPE", Loop([formula(lambda kl, share, free_bits, beta: where(
            share * kl > free_bits, beta, 0.0))])), OPTIONS[4]),
    "free bits: the smaller of the two": (
        instead(elbo, "CHARGE", Loop(sums=[formula(lambda kl, share, free_bits: where(
            share * kl > free_bits, free_bits, share * kl))])), OPTIONS[4]),
    "beta forgotten in the loss": (
        instead(elbo, "MEANS", Loop(sums=[formula(lambda nll, kl, beta, nll_share, share: (
            nll_share * nll + 0 * beta + share * kl, nll_share * nll, share * kl))])), OPTIONS[1]),
    "beta forgotten in the slope": (
        instead(elbo, "KL", Loop([formula(lambda dkl, mu, logvar: tuple(d / 4 for d in kl_backward(dkl, mu, logvar)))],
                                 sums=[kl_forward])), OPTIONS[1]),
    "the KL's slope is not divided by the rows": (
        instead(elbo, "KL", Loop([formula(lambda dkl, mu, logvar: kl_backward(ROWS * dkl, mu, logvar))],
                                 sums=[kl_forward])), OPTIONS[0]),
    "the draws of a row are not averaged": (
        instead(elbo, "ROW_SUMS", Loop(sums=[formula(lambda nll: nll * 3)])), OPTIONS[3]),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, objective = BUGS[bug]
    assert_killed(monkeypatch, plant, lambda: agrees(objective, "reference"))
