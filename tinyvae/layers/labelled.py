"""A dense layer that sees labels (Sohn et al. 2015): y = f(x W + V[label] + b).

It is a dense layer of [x, onehot]: a label's one-hot row times V is a row of V, so no one-hot row is made.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from tinyvae.kernels.contract import Kernels, Lookup, Rows
from tinyvae.layers.dense import Dense
from tinyvae.layers.layer import Backward, Context, Param, Views
from tinyvae.layers.starts import weights
from tinyvae.ops.activations import activation


@dataclass(frozen=True, eq=False)
class Labelled(Dense):
    """y = f(x W + V[label] + b).  x (rows, inputs) -> (rows, width); labels are 0 .. count - 1.

    weight (inputs + count, width) holds W, and below it V. The other options are those of `Dense`.
    """

    replayed: ClassVar = True

    count: int = field(kw_only=True)

    def __post_init__(self) -> None:
        """Raises ValueError for no label."""
        if self.count < 1:
            raise ValueError(f"count must be at least 1, not {self.count}")

    def classes(self) -> int:
        """How many labels it tells apart."""
        return self.count

    def params(self) -> Iterator[Param]:
        """weight (inputs + count, width), bias (width,)."""
        shape = (self.inputs + self.count, self.width)
        yield Param("weight", shape, weights(shape, *shape, self.start or self.f, self.gain))
        if self.bias:
            yield Param("bias", (self.width,), 0.0)

    def forward(self, k: Kernels, p: Views, x: Rows, context: Context) -> tuple[Rows, Backward]:
        """As `Dense`, and dV[c] = the sum of da's rows with label c."""
        W, V = p["weight"][: self.inputs], p["weight"][self.inputs :]
        labels = context.labels
        if labels is None:
            raise ValueError("a layer of this model needs labels y")
        y = k.product(x.y, W, p.get("bias"), activation(self.f), Lookup(V, labels))

        def backward(da, g):
            k.gradient(x.y, da, g["weight"][: self.inputs], g.get("bias"))
            k.scatter(labels, da, g["weight"][self.inputs :])
            return k.back(da, W, x)

        return y, backward
