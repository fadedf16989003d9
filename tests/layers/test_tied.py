"""A tied layer is a dense one with the other layer's weight, transposed; the weight has both gradients."""

import numpy as np
import pytest
from planted import assert_killed, instead
from strategies import EVERY_FUSED, assert_within, eps_of

from layers.running import parameters, run
from tinyvae.layers import Conv, Dense, Labelled, Residual, Tied
from tinyvae.layers.layer import Layer

EVERY = ["reference", *EVERY_FUSED]
OFF = 200 * eps_of("float64")  # sums of less than 10 terms of size 10
OWNERS = {"dense": Dense(4, 5, "tanh"), "labelled": Labelled(4, 5, "tanh", count=3)}


def agrees(owner: str = "dense", inputs: int = 5, kernels: str = "reference", f: str = "tanh") -> None:
    tied = Tied(OWNERS[owner], inputs, f)
    assert (tied.inputs, tied.width, [p.name for p in tied.params()]) == (inputs, 4, ["bias"])
    p, rng = parameters(tied), np.random.default_rng(1)
    x, dy = rng.standard_normal((6, inputs)), rng.standard_normal((6, 4))
    V = p["of.weight"][:4, :inputs]  # of all that makes mu, without the labels' rows
    expected = run(Dense(inputs, 4, f), x, {"weight": V.T.copy(), "bias": p["bias"]}, dy)
    before = {name: rng.standard_normal(a.shape) if "." in name else np.full_like(a, np.nan) for name, a in p.items()}
    got = run(tied, x, p, dy, kernels=kernels, g={name: a.copy() for name, a in before.items()})
    assert_within(got.y, expected.y, OFF)
    assert_within(got.dx, expected.dx, OFF)
    assert_within(got.g["bias"], expected.g["bias"], OFF)
    whole = before["of.weight"].copy()
    whole[:4, :inputs] += expected.g["weight"].T
    assert_within(got.g["of.weight"], whole, OFF)
    np.testing.assert_array_equal(got.g["of.bias"], before["of.bias"])


@pytest.mark.parametrize("kernels", EVERY)
@pytest.mark.parametrize("inputs", [5, 2])  # all, or the half of a head that makes mu
@pytest.mark.parametrize("owner", OWNERS)
def test_it_is_a_dense_layer_with_the_weight_transposed_and_adds_to_its_gradient(
    owner: str, inputs: int, kernels: str
) -> None:
    agrees(owner, inputs, kernels)


@pytest.mark.parametrize("f", ["linear", "relu", "gelu"])
def test_whatever_the_activation(f: str) -> None:
    agrees(f=f)


@pytest.mark.parametrize(
    ("of", "inputs", "message"),
    [
        (Conv((5, 5, 2), 3), 3, "Tied needs a dense layer to share the weight of, not a Conv"),
        (Tied(OWNERS["dense"], 5), 4, "Tied needs a dense layer to share the weight of, not a Tied"),
        (Residual(4, 3), 4, "Tied needs a dense layer to share the weight of, not a Residual"),
        (OWNERS["dense"], 6, "Tied takes 6 numbers, but the other layer makes 5"),
    ],
)
def test_what_has_no_such_weight_is_refused(of: Layer, inputs: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tied(of, inputs)


def test_planted_bugs_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(what: str) -> object:
        def forward(self: Tied, k: object, p: dict, x: object, context: object, true: object = Tied.forward) -> object:
            y, back = true(self, k, p, x, context)  # pyright: ignore[reportCallIssue]

            def backward(da: np.ndarray, g: dict) -> object:
                d = back(da, g)
                if what == "twice":
                    k.gradient(da, x.y, g["of.weight"][:4, : self.inputs], add=True)  # pyright: ignore
                elif what == "dropped":
                    k.later.clear()  # pyright: ignore
                else:
                    g["of.weight"].fill(0)  # overwritten: the other layer's share is lost
                return d

            return y, backward

        return forward

    for what in ("twice", "dropped", "overwritten"):
        assert_killed(monkeypatch, instead(Tied, "forward", changed(what)), agrees)
