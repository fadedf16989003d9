"""Models with batch normalization: training beside evaluation, and running averages that only a step moves."""

from typing import Any

import numpy as np
import pytest
from planted import assert_killed, instead
from strategies import EVERY_FUSED, assert_within, eps_of

import tinyvae
from tinyvae.layers import BatchNorm
from tinyvae.ops.normalization import MOMENTUM

EPS = eps_of("float64")
EVERY = ["reference", *EVERY_FUSED]


def moved(**options: Any) -> tuple[tinyvae.VAE, np.ndarray, np.ndarray]:
    """A model whose running averages are somewhere; x and eps."""
    model = tinyvae.VAE(6, (5, 4), 2, batch_norm=True, dtype="float64", activation="tanh", **options)
    rng = np.random.default_rng(0)
    model.params.flat += 0.3 * rng.standard_normal(model.params.flat.shape)
    for name in (n for n in model.params if n.endswith("running_var")):
        model.params[name][...] = np.abs(model.params[name]) + 0.1
    return model, rng.uniform(0, 1, (8, 6)), rng.standard_normal((8, 2))


@pytest.mark.parametrize("kernels", EVERY)
def test_in_evaluation_a_row_is_alone_and_in_training_it_is_not(kernels: str) -> None:
    model, x, eps = moved(kernels=kernels)
    nll, kl = model.rows_loss(x, eps)
    for i in range(len(x)):
        alone = model.rows_loss(x[i : i + 1], eps[i : i + 1])
        assert_within(alone[0], nll[i : i + 1], 200 * EPS * np.abs(nll[i]))
        assert_within(alone[1], kl[i : i + 1], 200 * EPS * (1 + np.abs(kl[i])))
    assert model.loss(x, eps).loss == pytest.approx(float(nll.mean() + kl.sum(axis=1).mean()), rel=1e-13)
    training = model.loss(x, eps, training=True)
    assert abs(training.loss - model.loss(x, eps).loss) > 1e-3
    assert_within(training, model.loss_and_grad(x, eps), 100 * EPS * training.loss)


@pytest.mark.parametrize("kernels", EVERY)
def test_a_look_changes_nothing_and_a_step_moves_every_running_average(kernels: str) -> None:
    model, x, eps = moved(kernels=kernels)
    before = model.params.flat.copy()
    model.loss(x, eps, training=True)
    model.look(x, eps, training=True)
    model.loss(x, eps)
    model.encode(x)
    np.testing.assert_array_equal(model.params.flat, before)
    old = {name: p.copy() for name, p in model.params.items()}
    model.loss_and_grad(x, eps)
    for name, p in model.params.items():
        assert np.any(p != old[name]) == (".running_" in name), name
        assert np.any(model.grads[name] != 0) != (".running_" in name), name


def test_the_first_layers_running_averages_are_those_of_its_own_products() -> None:
    model, x, eps = moved()
    old = {part: model.params[f"encoder.0.running_{part}"].copy() for part in ("mean", "var")}
    model.loss_and_grad(x, eps)
    a = x @ model.params["encoder.0.weight"]
    for part, new in [("mean", a.mean(axis=0)), ("var", a.var(axis=0, ddof=1))]:
        got = model.params[f"encoder.0.running_{part}"]
        assert_within(got, (1 - MOMENTUM) * old[part] + MOMENTUM * new, 100 * EPS * (1 + np.abs(a).max() ** 2))


def test_planted_bugs_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    true = BatchNorm.forward

    def eager(self: Any, k: Any, p: Any, x: Any, context: Any) -> Any:
        if context.training:
            p["running_mean"][...] *= 1 - MOMENTUM
        return true(self, k, p, x, context)

    def of_the_batch(self: Any, k: Any, p: Any, x: Any, context: Any) -> Any:
        return true(self, k, p, x, context._replace(training=True))

    look = lambda: test_a_look_changes_nothing_and_a_step_moves_every_running_average("reference")
    alone = lambda: test_in_evaluation_a_row_is_alone_and_in_training_it_is_not("reference")
    assert_killed(monkeypatch, instead(BatchNorm, "forward", eager), look)
    assert_killed(monkeypatch, instead(BatchNorm, "forward", of_the_batch), alone)
