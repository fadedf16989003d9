"""Batch normalization as a layer: the pair of `ops.normalization`, columns that are channels, and running averages."""

from typing import Any

import numpy as np
import pytest
from planted import Plant, assert_killed, instead
from strategies import EVERY_FUSED, assert_within, eps_of, sampled

from layers.running import kernels_of, parameters, run
from tinyvae.formula import formula
from tinyvae.kernels.contract import Rows
from tinyvae.layers import BatchNorm
from tinyvae.layers import batch_norm as file
from tinyvae.layers.layer import Context
from tinyvae.loop import Loop
from tinyvae.ops.activations import LINEAR, activation
from tinyvae.ops.normalization import (
    EPSILON,
    MOMENTUM,
    batch_norm_backward,
    batch_norm_evaluate,
    batch_norm_forward,
    inverse_root,
)

EVERY = ["reference", *EVERY_FUSED]
EPS = eps_of("float64")


def agrees(kernels: str = "reference", rows: int = 6, places: int = 1, f: str = "tanh") -> None:
    """Each row holds `places` times 3 columns."""
    layer, rng = BatchNorm(3 * places, 3, f), np.random.default_rng(rows)
    p = parameters(layer)
    x, dy = 2 + rng.standard_normal((rows, 3 * places)), rng.standard_normal((rows, 3 * places))
    a, h, m, v = batch_norm_forward(x.reshape(-1, 3), p["scale"], p["bias"])
    y = activation(f).forward(a)
    read = {"y": y, "a": a}
    slope = activation(f).backward(dy.reshape(-1, 3), *(read[name] for name in activation(f).backward.inputs[1:]))
    da, dscale, dshift = batch_norm_backward(slope, h, v, p["scale"])
    old = {name: p[name].copy() for name in ("running_mean", "running_var")}
    ran = run(layer, x, p, dy, kernels=kernels)
    off = 200 * EPS / np.sqrt(v.min() + EPSILON)
    assert_within(ran.y, y.reshape(x.shape), off)
    assert_within(ran.dx, da.reshape(x.shape), 10 * off / np.sqrt(v.min() + EPSILON))
    assert_within(ran.g["scale"], dscale, 10 * off)
    assert_within(ran.g["bias"], dshift, off)
    n = len(a)
    moved = lambda old, new: (1 - MOMENTUM) * old + MOMENTUM * new
    assert_within(p["running_mean"], moved(old["running_mean"], m), off)
    assert_within(p["running_var"], moved(old["running_var"], v * n / (n - 1)), off)


@pytest.mark.parametrize("kernels", EVERY)
@pytest.mark.parametrize(("rows", "places"), [(6, 1), (2, 1), (4, 5), (1, 4)])
@pytest.mark.parametrize("f", ["linear", "tanh", "swish"])
def test_it_is_the_pair_of_operations_over_all_rows_and_places(f: str, rows: int, places: int, kernels: str) -> None:
    agrees(kernels, rows, places, f)


@pytest.mark.parametrize("kernels", EVERY)
def test_outside_of_training_it_is_the_operation_with_the_running_averages(kernels: str) -> None:
    layer, rng = BatchNorm(6, 3, "tanh"), np.random.default_rng(0)
    p = parameters(layer) | {"running_mean": rng.standard_normal(3), "running_var": rng.uniform(0.5, 2, 3)}
    before = {name: a.copy() for name, a in p.items()}
    x = rng.standard_normal((5, 6))
    a = batch_norm_evaluate(x.reshape(-1, 3), p["scale"], p["bias"], p["running_mean"], p["running_var"])
    assert_within(run(layer, x, p, training=False, kernels=kernels).y, np.tanh(a).reshape(5, 6), 100 * EPS)
    for name, value in p.items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("kernels", EVERY)
def test_the_running_averages_become_the_datas_moments(kernels: str) -> None:
    """Of N(3, 2^2), in batches of 2 rows: the biased variance would come out as 2, the unbiased one as 4."""
    width, batches = 400, 150
    layer, rng = BatchNorm(width, width), np.random.default_rng(0)
    p = parameters(layer)
    for _ in range(batches):
        run(layer, 3 + 2 * rng.standard_normal((2, width)), p, np.ones((2, width)), kernels=kernels)
    # The average's variance is that of one batch times MOMENTUM / (2 - MOMENTUM); the start has weight 0.9^150 ~ 1e-7.
    share = MOMENTUM / (2 - MOMENTUM) / width
    assert abs(p["running_mean"].mean() - 3) < 5 * np.sqrt(share * 4 / 2)  # 5 standard errors
    assert abs(p["running_var"].mean() - 4) < 5 * np.sqrt(share * 2 * 4**2)


@pytest.mark.parametrize("kernels", EVERY)
def test_they_follow_their_recursion_and_only_in_backward(kernels: str) -> None:
    layer, rng = BatchNorm(3, 3, "tanh"), np.random.default_rng(1)
    p, mean, var = parameters(layer), np.zeros(3), np.ones(3)
    for rows in (5, 2, 1, 8):
        x = rng.standard_normal((rows, 3)) + np.arange(3)
        before = p["running_mean"].copy(), p["running_var"].copy()
        for training in (False, True):
            run(layer, x, p, training=training, kernels=kernels)
        np.testing.assert_array_equal((p["running_mean"], p["running_var"]), before)
        run(layer, x, p, rng.standard_normal((rows, 3)), kernels=kernels)
        mean = 0.9 * mean + 0.1 * x.mean(axis=0)
        var = 0.9 * var + 0.1 * x.var(axis=0, ddof=1) if rows > 1 else var  # one row knows nothing of it
        assert_within(p["running_mean"], mean, 20 * EPS * np.abs(x).max())
        assert_within(p["running_var"], var, 20 * EPS * (1 + np.abs(x).max() ** 2))


def test_what_it_cannot_be_is_refused() -> None:
    for inputs, columns in ((10, 4), (4, 0)):
        with pytest.raises(ValueError, match=f"of {columns} columns cannot take {inputs} numbers a row"):
            BatchNorm(inputs, columns)


def test_there_is_no_way_back_outside_of_training() -> None:
    layer, k = BatchNorm(3, 3), kernels_of()
    y, back = layer.forward(k, parameters(layer), Rows(np.ones((4, 3)), LINEAR), Context(training=False))
    with pytest.raises(RuntimeError, match="begins with a forward pass in training"):
        back(y.y, {})


def changed_after(change: Any) -> Plant:
    """Something more at the end of the way back."""
    forward = BatchNorm.forward

    def wrong(self: Any, k: Any, p: Any, x: Any, context: Any) -> Any:
        y, back = forward(self, k, p, x, context)
        return y, lambda da, g: (back(da, g), change(p, g))[0]

    return instead(BatchNorm, "forward", wrong)


BUGS: dict[str, Plant] = {
    "the gradient forgets that the batch's moments move": instead(file, "THROUGH", Loop([formula(
        lambda da, a, m, r, scale, dscale, dshift, share: scale * r * da + 0 * (a + m + dscale + dshift + share))])),
    "the sum of squares in place of its mean": instead(
        file, "ROOT_OF_SHARE", Loop([formula(lambda squares, factor: inverse_root(squares) + 0 * factor)])),
    "the newest batch has weight 0.9": instead(
        file, "MOVED", Loop([formula(lambda average, new: MOMENTUM * average + (1 - MOMENTUM) * new)])),
    "the biased variance in the running average": changed_after(  # of 12 rows, where it was 1 before
        lambda p, g: np.copyto(p["running_var"], 1 - MOMENTUM + (p["running_var"] - 1 + MOMENTUM) * 11 / 12)),
    "the running averages stand still": changed_after(
        lambda p, g: (p["running_mean"].fill(0), p["running_var"].fill(1))),
    "the gradient of scale without h": changed_after(lambda p, g: np.copyto(g["scale"], g["bias"])),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, BUGS[bug], lambda: agrees(places=2))
