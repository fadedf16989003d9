"""A step that the kernels repeat by themselves is the step of the model's code; only parts that say so are repeated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from planted import assert_killed
from strategies import EVERY_FUSED, sampled

import tinyvae
from tinyvae import likelihoods, objectives
from tinyvae.checking.contracts import check_layer, check_likelihood, check_objective
from tinyvae.checking.models import CASES, ModelCase, build, inputs
from tinyvae.checking.replay import check_replayed
from tinyvae.kernels.contract import Rows
from tinyvae.kernels.remembered import Remembered
from tinyvae.layers import Dense
from tinyvae.likelihoods.bernoulli import Bernoulli
from tinyvae.objectives.elbo import ELBO
from tinyvae.parts import replayed
from tinyvae.training.adam import Adam

SIZES = [8, 8, 8, 3, 8, 3, 3, 8]  # rows of each batch: full ones, and the last of an epoch


def train(case: ModelCase, kernels: str, of: Callable[[tinyvae.VAE], Callable[..., Any]]) -> list[np.ndarray]:
    """Losses, gradients and parameters of some steps, on arrays that stay the same and get new numbers."""
    model, rng = build(case, kernels=kernels), np.random.default_rng(0)
    adam, objective, step = Adam(model), case.loss.on(100), of(model)
    x, eps, y, missing = model.checked_batch(*inputs(case, model, rng), objective.samples)
    views = {n: (x[:n], eps[: n * objective.samples], None if y is None else y[:n]) for n in set(SIZES)}
    found = []
    for n in SIZES:
        x[...], noise, labels = inputs(case, model, rng)
        eps[...] = noise.reshape(eps.shape)
        if y is not None:
            y[...] = rng.permutation(labels)
        a, b, c = views[n]
        with model.borrowed("step", n) as k:
            found.append(np.concatenate(step(k, a, b, objective, c, missing)))
            found.append(model.grads.flat.copy())
            adam.update(k, model.grads.flat, 1e-3, 1.0, k.squared_norm(model.grads.flat))
        found.append(model.params.flat.copy())
    return found


@pytest.mark.parametrize("kernels", EVERY_FUSED)
@pytest.mark.parametrize("case", sampled(list(CASES), 3), ids=lambda case: case.name)
def test_repeated_steps_are_the_steps_of_the_code_bit_for_bit(case: ModelCase, kernels: str) -> None:
    repeated, own = (train(case, kernels, of) for of in (lambda m: m.step, lambda m: m.forward_backward))
    for a, b in zip(repeated, own, strict=True):
        np.testing.assert_array_equal(a, b)


def asked(model: tinyvae.VAE, objective: Any, steps: int = 5) -> int:
    """How often the model's code ran in so many steps."""
    truth, count = model.forward_backward, []
    model.forward_backward = lambda *a: count.append(1) or truth(*a)  # type: ignore[method-assign]  # counts
    x, eps = np.full((4, 7), 0.5, "f4"), np.ones((4 * objective.samples, 3), "f4")
    for _ in range(steps):
        with model.borrowed("step", 4) as k:
            model.step(k, x, eps, objective)
    return len(count)


def test_all_our_parts_but_array_code_are_repeated() -> None:
    for name in likelihoods.names():
        assert asked(tinyvae.VAE(7, (5,), 3, likelihood=name, kernels="numpy"), ELBO()) == 2
    model = tinyvae.VAE(7, (5,), 3, kernels="numpy", batch_norm=True)
    counts = {name: asked(model, objectives.objective(name)) for name in objectives.names()}
    assert counts == {"beta-tc": 5, "elbo": 2, "iwae": 2}
    assert asked(tinyvae.VAE(7, (5,), 3, kernels="reference"), ELBO()) == 5


class Own(Dense):
    """Inherits what it is and does not say that it may be repeated."""


def test_what_only_inherits_it_is_asked_each_time() -> None:
    assert replayed(Dense(3, 3))
    assert not replayed(Own(3, 3))
    model = tinyvae.VAE(encoder=[Own(7, 6)], decoder=[Dense(3, 7)], kernels="numpy")
    assert asked(model, ELBO()) == 5


# --------------------------------------------------------------------------------------------------------- planted lies


class Doubled(Dense):
    """Array code makes y, and the gradient."""

    replayed: ClassVar = True

    def forward(self, k: Any, p: Any, x: Rows, context: Any) -> Any:
        y, back = super().forward(k, p, x, context)
        y.y[...] *= 2

        def backward(da: Any, g: Any) -> Any:
            da[...] *= 2
            return back(da, g)

        return y, backward


@dataclass(frozen=True)
class Halved(Bernoulli):
    """Its loss is halved by array code."""

    replayed: ClassVar = True

    def forward(self, k: Any, *a: Any, **given: Any) -> Any:
        nll, back = super().forward(k, *a, **given)
        nll *= 0.5
        return nll, back


@dataclass(frozen=True)
class Dearer(ELBO):
    """Its loss is doubled by array code."""

    replayed: ClassVar = True

    def forward(self, k: Any, nll: Any, q: Any) -> Any:
        terms, back = super().forward(k, nll, q)
        terms.kl[...] = 2 * terms.kl
        return terms, back


@pytest.mark.parametrize(
    ("check", "part", "what"),
    [(check_layer, Doubled(3, 4), "the loss"), (check_objective, Dearer(), "the loss")],
)
def test_a_part_that_says_it_wrongly_is_refused(check: Any, part: Any, what: str) -> None:
    with pytest.raises(AssertionError, match=rf"says replayed, but .* more than the kernels' calls: see {what}"):
        check(part)


def test_a_likelihood_that_says_it_wrongly_is_refused() -> None:
    check_replayed(Bernoulli(), "Bernoulli")
    with pytest.raises(AssertionError, match="says replayed"):
        check_replayed(Halved(), "Halved")
    with pytest.raises(AssertionError):
        check_likelihood(Halved())


def test_planted_bugs_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that is taken for the same after another number, other arrays, or without the calls behind it."""
    truth = Remembered._fits

    def unnoticed(self: Any, call: Any, operands: Any) -> bool:
        news = self.news
        found = truth(self, call, operands)
        self.news = news
        return found

    warm = next(case for case in CASES if case.name == "bernoulli, beta 4")

    def warming_up() -> None:
        model, x, eps = build(warm, kernels="numpy"), np.full((4, 7), 0.5, "f4"), np.ones((4, 3), "f4")
        losses, betas = [], iter([1.0, 2.0, 3.0, 4.0])
        given: Any = object()
        for _ in range(4):
            with model.borrowed("step", 4) as k:
                code = lambda k=k: model.forward_backward(k, x, eps, ELBO(next(betas)))
                losses.append(float(k.replayed((given,), code).loss[0]))
        assert len({round(loss, 4) for loss in losses}) == 4

    assert_killed(monkeypatch, lambda patch: patch.setattr(Remembered, "_fits", unnoticed), warming_up)
