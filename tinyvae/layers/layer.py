"""What a layer is: its parameters, its forward pass, and inside that its backward pass.

A layer is an object with options. It holds no results and no buffers: `forward` returns its output and a function that
goes back, which sees all that forward has seen. Parameters come by their names in the layer, as views `p` on the
model's one flat buffer, and gradients go into views `g` of the same names.

A layer is handed the gradient before its own activation, and makes that of the layer below: see `kernels.contract`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tinyvae.backend import Array
from tinyvae.kernels.contract import Kernels, Rows

Views = Mapping[str, Array]
Backward = Callable[[Any, Views], Any]  # da (rows, width), g -> the gradient before the activation below, or None


class Param(NamedTuple):
    """A tensor that a part of the model owns."""

    name: str
    shape: tuple[int, ...]
    start: Callable[[np.random.Generator], np.ndarray] | float  # drawn on the host in float64, or one number
    trainable: bool = True  # False: a running statistic, which stands among the parameters and gets no gradient


class Context(NamedTuple):
    """What a pass knows besides its numbers."""

    training: bool = False  # batch normalization by the batch's own mean and variance
    labels: Array | None = None  # (rows,), of a conditional model; with K draws each serves K rows in a row


class Layer:
    """The base of every layer. `inputs` and `width` are how many numbers a row has before and after it.

    replayed: said by a class that computes by the kernels alone (no array code of its own), and whose calls depend on
    nothing but its options, its input's shape and the context. Then a training step need not ask it again each time:
    see `Kernels.replayed`. It is not inherited: a class that inherits from another says it anew.
    """

    replayed: ClassVar[bool] = False
    inputs: int
    width: int

    def params(self) -> Iterator[Param]:
        """Its parameters, in the order of the flat buffer."""
        return iter(())

    def shares(self) -> dict[str, "Layer"]:
        """Other layers whose parameters it uses: prefix -> layer; `p["prefix.weight"]` is that layer's weight."""
        return {}

    def classes(self) -> int:
        """How many labels it tells apart; 0: it asks for none."""
        return 0

    def forward(self, k: Kernels, p: Views, x: Rows, context: Context) -> tuple[Rows, Backward]:
        """x (rows, inputs) -> (rows, width), and the way back."""
        raise NotImplementedError


class Bound(NamedTuple):
    """A layer with its views on parameters and gradients."""

    layer: Layer
    p: Views
    g: Views


def forward(
    k: Kernels, layers: Sequence[Bound], x: Rows, context: Context
) -> tuple[Array, Callable[[Array], Array | None]]:
    """x through the layers -> the last one's output, and the mirror: d output -> d x before its activation.

    Raises RuntimeError if the way back is gone twice, or after the kernels' memory has been used again.
    """
    steps: list[tuple[Backward, Views]] = []
    for layer, p, g in layers:
        x, back = layer.forward(k, p, x, context)
        steps.append((back, g))
    generation = k.generation

    def backward(da: Array) -> Array | None:
        if k.generation != generation or not steps:
            raise RuntimeError("a backward pass goes once, and before the next forward pass: its memory is used again")
        d: Any = da
        while steps:
            back, g = steps.pop()
            d = back(d, g)
        return d

    return x.y, backward
