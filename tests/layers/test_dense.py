"""The dense layer: the pair of `ops.dense` with an activation after it, on all kernels."""

from dataclasses import replace

import numpy as np
import pytest
from planted import assert_killed, instead
from strategies import EVERY_FUSED, assert_within, eps_of

from layers.running import parameters, run
from tinyvae.layers import Dense
from tinyvae.ops.activations import ACTIVATIONS
from tinyvae.ops.dense import dense_backward, dense_forward

EVERY = ["reference", *EVERY_FUSED]
ROWS, OFF = 5, 200 * eps_of("float64")  # sums of less than 10 terms of size 10


def agrees(f: str, kernels: str = "reference", bias: bool = True) -> None:
    layer = Dense(4, 3, f, bias=bias)
    p, rng = parameters(layer), np.random.default_rng(1)
    x, dy = rng.standard_normal((ROWS, 4)), rng.standard_normal((ROWS, 3))
    a = dense_forward(x, p["weight"], p["bias"] if bias else np.zeros(3))
    y = ACTIVATIONS[f].forward(a)
    read = {"y": y, "a": a}
    da = ACTIVATIONS[f].backward(dy, *(read[name] for name in ACTIVATIONS[f].backward.inputs[1:]))
    ran = run(layer, x, p, dy, kernels=kernels)
    assert_within(ran.y, y, OFF)
    dx, dW, db = dense_backward(da, x, p["weight"])
    assert_within(ran.dx, dx, OFF)
    assert_within(ran.g["weight"], dW, OFF)
    if bias:
        assert_within(ran.g["bias"], db, OFF)
    assert run(layer, x, p, dy, kernels=kernels, below=None).dx is None


@pytest.mark.parametrize("kernels", EVERY)
@pytest.mark.parametrize("f", ACTIVATIONS)
def test_it_is_the_pair_of_the_operations_and_then_the_activation(f: str, kernels: str) -> None:
    agrees(f, kernels)


def test_without_a_bias_it_has_none() -> None:
    assert [p.name for p in Dense(4, 3, bias=False).params()] == ["weight"]
    agrees("tanh", bias=False)


@pytest.mark.parametrize("below", ["relu", "swish"])
def test_the_slope_of_what_is_below_is_in_what_it_hands_down(below: str) -> None:
    """What it hands down is the gradient before the activation below."""
    layer, f = Dense(4, 3), ACTIVATIONS[below]
    p, rng = parameters(layer), np.random.default_rng(1)
    a, dy = rng.standard_normal((ROWS, 4)), rng.standard_normal((ROWS, 3))
    x = f.forward(a)
    dx = dense_backward(dy, x, p["weight"])[0]
    read = {"y": x, "a": a}
    expected = f.backward(dx, *(read[name] for name in f.backward.inputs[1:]))
    for kernels in EVERY:
        got = run(layer, x, p, dy, below=f, a=a if f.reads_a else None, kernels=kernels)
        assert_within(got.dx, expected, OFF)


def test_a_planted_bug_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    tanh = ACTIVATIONS["tanh"]
    for name, wrong in (("forward", ACTIVATIONS["sigmoid"].forward), ("backward", ACTIVATIONS["linear"].backward)):
        changed = replace(tanh, **{name: wrong})  # pyright: ignore[reportArgumentType]
        plant = instead(Dense, "forward", lambda self, *a, f=changed, true=Dense.forward: true(Dense(4, 3, f), *a))
        assert_killed(monkeypatch, plant, lambda: agrees("tanh"))
