"""A dense layer whose weight is (a part of) another layer's, transposed: y = f(x V^T + b).

    d/dV: V serves both layers, so its gradient is the sum of what each would have: dV = dV_other + da^T x

V is made of the other layer's first rows, which are all but those of its labels, and of its first columns: of a head,
those that make mu.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from tinyvae.kernels.contract import Kernels, Rows
from tinyvae.layers.layer import Backward, Context, Layer, Param, Views
from tinyvae.ops.activations import Activation, activation


@dataclass(frozen=True, eq=False)
class Tied(Layer):
    """y = f(x V^T + b).  x (rows, inputs), V (width, inputs) -> (rows, width), the width that the other layer takes.

    Raises ValueError if the other layer has no such weight.
    """

    replayed: ClassVar = True

    of: Layer
    inputs: int
    f: str | Activation = "linear"

    def __post_init__(self) -> None:
        shape = next((p.shape for p in self.of.params() if p.name == "weight"), ())
        if len(shape) != 2 or shape[0] < self.of.inputs or shape[1] != self.of.width:
            raise ValueError(f"Tied needs a dense layer to share the weight of, not a {type(self.of).__name__}")
        if self.inputs > self.of.width:
            raise ValueError(f"Tied takes {self.inputs} numbers, but the other layer makes {self.of.width}")

    @property
    def width(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the other layer takes."""
        return self.of.inputs

    def params(self) -> Iterator[Param]:
        """bias (width,)."""
        yield Param("bias", (self.width,), 0.0)

    def shares(self) -> dict[str, Layer]:
        """The other layer."""
        return {"of": self.of}

    def forward(self, k: Kernels, p: Views, x: Rows, context: Context) -> tuple[Rows, Backward]:
        """y = f(x V^T + b); back: dV += da^T x, db = column sums of da, da_below = (da V) f'(below)."""
        V = p["of.weight"][: self.width, : self.inputs]
        y = k.product(x.y, V.T, p["bias"], activation(self.f))

        def backward(da, g):
            k.gradient(da, x.y, g["of.weight"][: self.width, : self.inputs], add=True)
            k.column_sums(da, g["bias"])
            return k.back(da, V.T, x)

        return y, backward
