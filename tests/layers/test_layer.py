"""A chain of layers goes back once, in reverse, and never with memory that has been used again."""

import numpy as np
import pytest
from strategies import EVERY_FUSED, assert_within, eps_of

from layers.running import Numbers, kernels_of, parameters, run
from tinyvae.kernels.contract import Rows
from tinyvae.layers import BatchNorm, Dense, Residual
from tinyvae.layers.layer import Bound, Context, Layer, forward

EVERY = ["reference", *EVERY_FUSED]
CHAIN: list[Layer] = [Dense(3, 5, "swish"), BatchNorm(5, 5, "tanh"), Residual(5, 4), Dense(5, 2)]


def bound() -> list[Bound]:
    found = []
    for i, layer in enumerate(CHAIN):
        p = parameters(layer, seed=i)
        g: Numbers = {name: np.full_like(a, np.nan) for name, a in p.items()}
        found.append(Bound(layer, p, g))
    return found


def both(kernels: str) -> tuple[np.ndarray, list[Bound]]:
    """What the chain makes, on these kernels."""
    k, layers, rng = kernels_of(kernels), bound(), np.random.default_rng(0)
    k.begin("test")
    y, back = forward(k, layers, Rows(rng.standard_normal((6, 3)), None), Context(training=True))
    whole = y.copy()
    back(rng.standard_normal((6, 2)))
    k.finish()
    return whole, layers


@pytest.mark.parametrize("kernels", EVERY)
def test_a_chain_is_its_layers_one_by_one(kernels: str) -> None:
    """Each layer alone, with the gradient before its own activation worked out by hand where one follows another."""
    got, layers = both(kernels)
    x = np.random.default_rng(0).standard_normal((6, 3))
    for layer, p, _ in bound():
        x = run(layer, x, dict(p)).y
    off = 1e4 * eps_of("float64")  # four layers, of sums of less than 10 terms
    assert_within(got, x, off)
    reference = both("reference")[1]
    for mine, right in zip(layers, reference, strict=True):
        for name, g in right.g.items():
            if ".running" not in name and not name.startswith("running"):
                assert np.isfinite(g).all()
                assert_within(mine.g[name], g, off)


@pytest.mark.parametrize("kernels", EVERY)
def test_the_way_back_is_gone_once_and_before_the_next_pass(kernels: str) -> None:
    k, layers = kernels_of(kernels), bound()
    x, dy = Rows(np.ones((6, 3)), None), np.ones((6, 2))
    message = "a backward pass goes once, and before the next forward pass"
    k.begin("test")
    _, back = forward(k, layers, x, Context(training=True))
    back(dy)
    with pytest.raises(RuntimeError, match=message):
        back(dy)
    _, late = forward(k, layers, x, Context(training=True))
    k.begin("test")
    with pytest.raises(RuntimeError, match=message):
        late(dy)


def test_the_base_has_no_parameters_shares_nothing_and_asks_for_no_labels() -> None:
    layer = Layer()
    assert (list(layer.params()), layer.shares(), layer.classes()) == ([], {}, 0)
    with pytest.raises(NotImplementedError):
        layer.forward(kernels_of(), {}, Rows(np.ones((1, 1)), None), Context())
