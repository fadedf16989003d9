"""The dense layer: y = f(x W + b). Derived in `ops.dense`; tutorial 2."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from tinyvae.kernels.contract import Kernels, Rows
from tinyvae.layers.layer import Backward, Context, Layer, Param, Views
from tinyvae.layers.starts import weights
from tinyvae.ops.activations import Activation, activation


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """y = f(x W + b).  x (rows, inputs), W (inputs, width), b (width,) -> (rows, width).

    bias: without, what follows adds one, as batch normalization does
    start: the activation that W starts for, if another layer applies it (default: f);  gain: narrows W's start
    """

    replayed: ClassVar = True

    inputs: int
    width: int
    f: str | Activation = "linear"
    _: KW_ONLY
    bias: bool = True
    start: str | Activation | None = None
    gain: float = 1.0

    def params(self) -> Iterator[Param]:
        """weight (inputs, width), bias (width,)."""
        shape = (self.inputs, self.width)
        yield Param("weight", shape, weights(shape, *shape, self.start or self.f, self.gain))
        if self.bias:
            yield Param("bias", (self.width,), 0.0)

    def forward(self, k: Kernels, p: Views, x: Rows, context: Context) -> tuple[Rows, Backward]:
        """y = f(x W + b); back: dW = x^T da, db = column sums of da, da_below = (da W^T) f'(below)."""
        y = k.product(x.y, p["weight"], p.get("bias"), activation(self.f))

        def backward(da, g):
            k.gradient(x.y, da, g["weight"], g.get("bias"))
            return k.back(da, p["weight"], x)

        return y, backward
