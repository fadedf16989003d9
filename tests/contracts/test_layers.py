"""Every layer in the folder keeps the contract, and a layer that does not is found, with what it breaks."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from tinyvae import layers, parts
from tinyvae.checking.contracts import check_layer
from tinyvae.checking.examples import all_layers, text
from tinyvae.formula import formula
from tinyvae.kernels.contract import Rows
from tinyvae.layers import BatchNorm, Dense, Layer
from tinyvae.layers.layer import Param
from tinyvae.loop import Loop
from tinyvae.ops.activations import LINEAR, activation

EXAMPLES = list(all_layers())


@pytest.mark.parametrize("layer", EXAMPLES, ids=text)
def test_the_layer_keeps_the_contract(layer: Layer) -> None:
    check_layer(layer)


def test_every_layer_of_the_folder_has_examples_with_each_of_its_options() -> None:
    found = {parts.name_of(type(layer)) for layer in EXAMPLES}
    assert found == set(parts.names(layers, Layer))
    shown = {(type(a).__name__, name) for a in EXAMPLES for name, v in vars(a).items() if v != Dense(1, 1).start}
    wanted = {("Conv", name) for name in ("kernel", "stride", "pad", "bias", "image", "channels", "f")}
    assert wanted <= shown


# -------------------------------------------------------------------------------------- what the contract must notice


@dataclass(frozen=True, eq=False)
class Wrong(Dense):
    """A dense layer with its mistakes, one by one."""

    def forward(self, k: Any, p: Any, x: Any, context: Any) -> Any:
        y, back = super().forward(k, p, x, context)
        return self.changed(k, p, x, context, y, back)

    def changed(self, k: Any, p: Any, x: Any, context: Any, y: Any, back: Any) -> Any:
        return y, back


class HalfTheWeight(Wrong):
    def changed(self, k: Any, p: Any, x: Any, context: Any, y: Any, back: Any) -> Any:
        def backward(da: Any, g: Any) -> Any:
            d = back(da, g)
            g["weight"][...] *= 0.5
            return d

        return y, backward


class NoSlopeBelow(Wrong):
    def changed(self, k: Any, p: Any, x: Any, context: Any, y: Any, back: Any) -> Any:
        return y, lambda da, g: (back(da, g), None if x.f is None else k.back(da, p["weight"], Rows(x.y, LINEAR)))[1]


class AddsToItsGradient(Wrong):
    def changed(self, k: Any, p: Any, x: Any, context: Any, y: Any, back: Any) -> Any:
        def backward(da: Any, g: Any) -> Any:
            before = g["bias"].copy()
            d = back(da, g)
            g["bias"][...] += before
            return d

        return y, backward


class Transposed(Wrong):
    def changed(self, k: Any, p: Any, x: Any, context: Any, y: Any, back: Any) -> Any:
        return Rows(np.ascontiguousarray(y.y.T), y.f), back


class SpoilsItsInput(Wrong):
    def changed(self, k: Any, p: Any, x: Any, context: Any, y: Any, back: Any) -> Any:
        x.y[0, 0] += 1
        return y, back


class SpoilsItsWeight(Wrong):
    def changed(self, k: Any, p: Any, x: Any, context: Any, y: Any, back: Any) -> Any:
        def backward(da: Any, g: Any) -> Any:
            d = back(da, g)
            p["weight"][...] *= 2
            return d

        return y, backward


KEPT: dict[Any, Any] = {}


class HoldsResults(Wrong):
    def changed(self, k: Any, p: Any, x: Any, context: Any, y: Any, back: Any) -> Any:
        KEPT["back"] = back  # of the last pass, whichever goes back
        return y, lambda da, g: KEPT["back"](da, g)


@cache
def frozen(shift: float) -> Loop:
    return Loop([formula(lambda a: a + shift)])


class FreezesANumber(Wrong):
    """What the loop adds is taken from the first batch."""

    def changed(self, k: Any, p: Any, x: Any, context: Any, y: Any, back: Any) -> Any:
        if k.name == "reference":
            return y, back
        shift = KEPT.setdefault(k, float(p["bias"][0]))
        made = k.map(frozen(shift), a=k.map(frozen(-float(p["bias"][0])), a=y.y))
        return Rows(made, y.f), back


class CopiesAtFirst(Wrong):
    """The weight as it was when the kernels saw it first."""

    def forward(self, k: Any, p: Any, x: Any, context: Any) -> Any:
        if k.name == "reference":
            return super().forward(k, p, x, context)
        W = KEPT.setdefault((k, "W"), p["weight"].copy())
        return super().forward(k, {**p, "weight": W}, x, context)


class KeepsAToItself(Wrong):
    def changed(self, k: Any, p: Any, x: Any, context: Any, y: Any, back: Any) -> Any:
        return Rows(y.y, activation("swish")), back


class MixesRows(Wrong):
    def changed(self, k: Any, p: Any, x: Any, context: Any, y: Any, back: Any) -> Any:
        if not context.training:
            y.y[...] -= y.y.mean(axis=0)
        return y, back


class WritesWhatIsNotLearned(BatchNorm):
    def forward(self, k: Any, p: Any, x: Any, context: Any) -> Any:
        y, back = super().forward(k, p, x, context)
        return y, lambda da, g: (back(da, g), g["running_mean"].fill(0))[0]


class BadStart(Wrong):
    def params(self) -> Any:
        yield Param("weight", (self.inputs, self.width), lambda rng: rng.normal(size=(self.width, self.inputs)))
        yield Param("bias", (self.width,), 0.0)


WRONG = {
    HalfTheWeight: "gradient by weight is wrong: off by",
    NoSlopeBelow: "gradient by x is wrong",
    AddsToItsGradient: "backward does not overwrite the gradient of bias",
    Transposed: r"y has shape \(2, 6\), not \(6, 2\)",
    SpoilsItsInput: "forward: changes x, which it is given",
    SpoilsItsWeight: "backward: changes weight, which it is given",
    HoldsResults: "holds results between calls",
    FreezesANumber: "at the second pass with other numbers in the same arrays y is off by",
    CopiesAtFirst: "at the second pass with other numbers in the same arrays y is off by",
    KeepsAToItself: "the slope of swish reads a, which forward must hand on",
    MixesRows: "outside of training y depends on other rows",
    BadStart: r"weight starts in the shape \(2, 3\), but has \(3, 2\)",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda cls: cls.__name__)
def test_a_layer_that_breaks_the_contract_is_found_in_one_line(wrong: type[Wrong]) -> None:
    KEPT.clear()
    layer = dataclass(frozen=True, eq=False)(wrong)(3, 2, "linear" if wrong is KeepsAToItself else "tanh")
    with pytest.raises((AssertionError, ValueError), match=WRONG[wrong]) as error:
        check_layer(layer)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(wrong.__name__)


def test_a_gradient_for_a_running_statistic_is_found() -> None:
    with pytest.raises(AssertionError, match="writes a gradient of running_mean, which gets none"):
        check_layer(dataclass(frozen=True, eq=False)(WritesWhatIsNotLearned)(4, 2))


def test_what_is_no_layer_and_what_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match=r"int must be a dataclass and a subclass of tinyvae\.layers\.layer\.Layer"):
        check_layer(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="check a smaller one, of less than 10,000 numbers"):
        check_layer(Dense(784, 400))
    with pytest.raises(ValueError, match="width must be a whole number, at least 1, not 0"):
        check_layer(replace(Dense(3, 2), width=0))
