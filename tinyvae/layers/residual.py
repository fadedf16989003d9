"""The residual block (He et al. 2016): y = x + f(x W + b) V + c, so that a gradient finds a way past it.

dx = da + (da V^T f'(h)) W^T,   h = x W + b
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from tinyvae.formula import formula
from tinyvae.kernels.contract import Kernels, Rows
from tinyvae.layers.layer import Backward, Context, Layer, Param, Views
from tinyvae.layers.starts import weights
from tinyvae.loop import Loop
from tinyvae.ops.activations import LINEAR, Activation, activation


@formula
def total(a, b):
    """a + b."""
    return a + b


TOTAL = Loop([total])


@dataclass(frozen=True, eq=False)
class Residual(Layer):
    """y = x + f(x W + b) V + c.  x (rows, inputs) -> (rows, inputs), by way of `hidden` numbers."""

    replayed: ClassVar = True

    inputs: int
    hidden: int
    f: str | Activation = "relu"

    @property
    def width(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As many as it takes."""
        return self.inputs

    def params(self) -> Iterator[Param]:
        """weight (inputs, hidden), bias (hidden,), weight_out (hidden, inputs), bias_out (inputs,)."""
        there, back = (self.inputs, self.hidden), (self.hidden, self.inputs)
        yield Param("weight", there, weights(there, *there, self.f))
        yield Param("bias", (self.hidden,), 0.0)
        yield Param("weight_out", back, weights(back, *back, LINEAR, gain=0.1))  # near the identity at first
        yield Param("bias_out", (self.inputs,), 0.0)

    def forward(self, k: Kernels, p: Views, x: Rows, context: Context) -> tuple[Rows, Backward]:
        """The block, and back through both ways."""
        h = k.product(x.y, p["weight"], p["bias"], activation(self.f))
        aside = k.product(h.y, p["weight_out"], p["bias_out"], LINEAR)
        y = k.map(TOTAL, a=x.y, b=aside.y)

        def backward(da, g):
            k.gradient(h.y, da, g["weight_out"], g["bias_out"])
            dh = k.back(da, p["weight_out"], h)
            k.gradient(x.y, dh, g["weight"], g["bias"])
            if x.f is None:
                return None
            dx = k.back(dh, p["weight"], Rows(x.y, LINEAR))
            return k.end(k.map(TOTAL, a=dx, b=da, out=(dx,)), x)

        return Rows(y, LINEAR), backward
