"""The residual block, written out."""

from typing import Any

import numpy as np
import pytest
from planted import assert_killed, instead
from strategies import EVERY_FUSED, assert_within, eps_of

from layers.running import parameters, run
from tinyvae.layers import Residual
from tinyvae.ops.activations import ACTIVATIONS

EVERY = ["reference", *EVERY_FUSED]
OFF = 500 * eps_of("float64")  # two layers, sums of less than 10 terms of size 10


def agrees(f: str = "tanh", kernels: str = "reference") -> None:
    layer, act, rng = Residual(3, 5, f), ACTIVATIONS[f], np.random.default_rng(1)
    assert (layer.inputs, layer.width) == (3, 3)
    p = parameters(layer)
    x, dy = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    a = x @ p["weight"] + p["bias"]
    h = act.forward(a)
    dh = dy @ p["weight_out"].T
    read = {"a": a, "y": h}
    da = act.backward(dh, *(read[name] for name in act.backward.inputs[1:]))
    ran = run(layer, x, p, dy, kernels=kernels)
    assert_within(ran.y, x + h @ p["weight_out"] + p["bias_out"], OFF)
    assert_within(ran.dx, dy + da @ p["weight"].T, OFF)
    expected = {"weight": x.T @ da, "bias": da.sum(axis=0), "weight_out": h.T @ dy, "bias_out": dy.sum(axis=0)}
    assert set(ran.g) == set(expected)
    for name, g in expected.items():
        assert_within(ran.g[name], g, OFF)


@pytest.mark.parametrize("kernels", EVERY)
@pytest.mark.parametrize("f", ["relu", "tanh", "gelu", "linear"])
def test_it_is_x_and_what_two_layers_make_of_it(f: str, kernels: str) -> None:
    agrees(f, kernels)


@pytest.mark.parametrize("kernels", EVERY)
def test_where_the_way_aside_is_0_it_is_the_identity_both_ways(kernels: str) -> None:
    layer, rng = Residual(3, 5), np.random.default_rng(1)
    p = parameters(layer)
    p["weight_out"][...] = p["bias_out"][...] = 0
    x, dy = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    ran = run(layer, x, p, dy, kernels=kernels)
    np.testing.assert_array_equal(ran.y, x)
    np.testing.assert_array_equal(ran.dx, dy)


def test_it_starts_near_the_identity() -> None:
    layer, rng = Residual(200, 300), np.random.default_rng(0)
    p = {q.name: q.start(rng) if callable(q.start) else np.full(q.shape, q.start) for q in layer.params()}
    x = rng.standard_normal((50, 200))
    aside = run(layer, x, p).y - x
    assert 0 < aside.std() < 0.15 * x.std()


def test_planted_bugs_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_aside(self: Any, k: Any, p: Any, x: Any, context: Any, true: Any = Residual.forward) -> Any:
        y, back = true(self, k, p, x, context)
        return y._replace(y=y.y - x.y), back

    def one_way(self: Any, k: Any, p: Any, x: Any, context: Any, true: Any = Residual.forward) -> Any:
        y, back = true(self, k, p, x, context)
        return y, lambda da, g: back(da, g) - da

    for wrong in (only_aside, one_way):
        assert_killed(monkeypatch, instead(Residual, "forward", wrong), agrees)
