"""Decoupled weight decay: what shrinks, and what knows nothing of it."""

from typing import Any

import numpy as np
import pytest
from planted import assert_killed, instead
from trainer_loops import LATENT, model

import tinyvae
from tinyvae.ops.adam import adam_step
from tinyvae.training.adam import Adam


def one_step(decay: float, **more: Any) -> tuple[tinyvae.VAE, dict[str, np.ndarray], np.ndarray]:
    """A model after a step of Adam, its parameters before, and the gradient."""
    made = model(dtype="float64", **more)
    rng = np.random.default_rng(0)
    made.params.flat += 0.3 * rng.standard_normal(made.params.flat.size)
    made.loss_and_grad(rng.random((9, made.data_dim)), rng.standard_normal((9, LATENT)))
    before, g = {name: p.copy() for name, p in made.params.items()}, made.grads.flat.copy()
    Adam(made).step(lr=0.01, weight_decay=decay)
    return made, before, g


@pytest.mark.parametrize("more", [{}, {"tied": True}, {"batch_norm": True}, {"likelihood": "gaussian:sigma=columns"}])
def test_weight_matrices_shrink_by_lr_times_the_rate_and_nothing_else_does(more: dict[str, Any]) -> None:
    """Loshchilov & Hutter 2019, algorithm 2: p - lr (m^ / (sqrt(v^) + eps) + decay p); at t = 1 m^ = g, v^ = g^2."""
    made, before, _ = one_step(0.5, **more)
    for name, p in made.params.items():
        g = made.grads[name]
        decay = 0.5 * before[name] if name.endswith("weight") and p.ndim == 2 else 0.0
        expected = before[name] - 0.01 * (g / (np.abs(g) + 1e-8) + decay)
        # a few roundings of numbers below 2; sqrt(c2) and c1 cost a few more, of a step of 0.01
        np.testing.assert_allclose(p, expected, rtol=0, atol=1e-15, err_msg=name)
    shrunk = one_step(0.5, **more)[0].params
    plain = one_step(0.0, **more)[0].params
    assert {name for name in plain if (plain[name] != shrunk[name]).any()} == {n for n in plain if plain[n].ndim > 1}


def test_the_moments_know_nothing_of_the_decay() -> None:
    made, _, g = one_step(0.0)
    adam = Adam(made)
    made.grads.flat[...] = g
    adam.step(lr=0.01, weight_decay=0.5)
    zeros = np.zeros_like(g)
    _, m, v = adam_step(zeros, g, zeros, zeros, t=1, lr=0.01)
    np.testing.assert_allclose(adam.m, m, rtol=1e-15)
    np.testing.assert_allclose(adam.v, v, rtol=1e-14)


def decays_all(self: Adam) -> None:
    Adam_set_up(self)
    self.matrices = list(self.model.params.values())


def through_the_gradient(
    self: Adam, k: Any, g: Any, lr: float, clip: Any = None, norm2: Any = None, decay: float = 0.0
) -> None:
    if decay:
        for name, p in self.model.params.items():
            if p.ndim > 1:
                self.model.grads[name][...] += decay * p
    Adam_update(self, k, g, lr, clip, norm2, 0.0)


Adam_set_up, Adam_update = Adam._set_up, Adam.update
DECAY_BUGS = {
    "of biases": (Adam, "_set_up", decays_all),
    "through the gradient": (Adam, "update", through_the_gradient),
}


@pytest.mark.parametrize("bug", ["of biases", "through the gradient"])
def test_a_wrong_decay_is_seen(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    killer = lambda: test_weight_matrices_shrink_by_lr_times_the_rate_and_nothing_else_does({})
    assert_killed(monkeypatch, instead(*DECAY_BUGS[bug]), killer)
