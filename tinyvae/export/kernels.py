"""Kernels that compute nothing: each of their methods writes down, as nodes of an ONNX graph, what it would compute.

So a layer's `forward` is exported by running it, and no layer need say anything of ONNX. Only the way forward is here,
outside of training. Images lie channels last in the rows, as everywhere in tinyvae, and channels first in ONNX's
convolutions: where one follows another, the ways back and forth undo each other (`Graph.transpose`).
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from tinyvae.backend import Array
from tinyvae.errors import ExportError
from tinyvae.export.arrays import Tensor
from tinyvae.export.blank import Blank
from tinyvae.export.graph import Graph
from tinyvae.export.shapes import ROWS, broadcast
from tinyvae.export.words import word, write_loop
from tinyvae.kernels.contract import Lookup, Rows, Window
from tinyvae.kernels.domain import checked_groups
from tinyvae.kernels.ends import forward_end
from tinyvae.kernels.reference import Reference
from tinyvae.loop import Loop
from tinyvae.ops.activations import Activation
from tinyvae.ops.groups import Groups, group_max, group_sum

CHANNELS_FIRST, CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class Nodes:
    """See `Kernels` for what each method means. Arrays of numbers (parameters) are constants of the graph."""

    name = "onnx"
    xp = np
    generation = 0

    def __init__(self, graph: Graph) -> None:
        self.graph, self.dtype = graph, graph.dtype

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise ExportError(f"{name} of the kernels is no part of the way forward, or has no text in ONNX")

    def halves(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """The left and the right half of the columns."""
        width = a.shape[1] // 2
        return a[:, :width], a[:, width:]

    def new(self, *shape: Any) -> Tensor:
        """An array to write into, before it is read."""
        return Blank(self.graph, shape)

    def map(self, loop: Loop, /, *, out: Sequence[Tensor] | None = None, **given: Any) -> Any:
        """The formulas, node by node. What is made of numbers alone is computed here and now."""
        if not any(isinstance(a, (Tensor, Lookup)) for a in (*given.values(), *(out or ()))):
            return Reference(np, self.dtype).map(loop, out=out, **given)
        for place in set(given) - set(loop.inputs):
            raise ExportError(f"{loop} writes into an array ({place}): a graph has results of nodes")
        operands = {name: self._row_of(a) if isinstance(a, Lookup) else a for name, a in given.items()}
        rows, columns = (1, 1, *broadcast(*(getattr(a, "shape", ()) for a in operands.values())))[-2:]
        outputs, along = write_loop(self.graph, loop, operands)
        whole = lambda a: self.graph.cast(self.graph.broadcast_to(a, (rows, columns)), self.dtype)
        made = [whole(a) for a in outputs]
        for target, a in zip(out or (), made, strict=out is not None):
            target[...] = a
        results = [*(out or made), *(whole(a).sum(axis=1) for a in along)]
        return results[0] if len(results) == 1 else tuple(results)

    def _row_of(self, label: Lookup) -> Tensor:
        """The label's row of the table. Gather would take a label below 0 for one from the end: it is made one too
        large, which no table has."""
        count, columns = label.table.shape
        y = self.graph.tensor(label.labels)
        known = word(self.graph, "where", word(self.graph, "less", y, 0), count, y)
        return self.graph.node("Gather", label.table, known, shape=(*y.shape, columns), axis=0)

    def row_max(self, a: Tensor) -> Tensor:
        """The largest of each row."""
        return a.max(axis=1, keepdims=True)

    def group_max(self, a: Tensor, groups: Groups) -> Tensor:
        """The largest of each number's group."""
        return group_max(a, checked_groups(a, groups))

    def group_sum(self, a: Tensor, groups: Groups) -> Tensor:
        """The sum of each number's group."""
        return group_sum(a, checked_groups(a, groups))

    # -------------------------------------------------------------------------------------------------------- products

    def product(self, x: Tensor, W: Array, b: Array | None, f: Activation, label: Lookup | None = None) -> Rows:
        """Gemm, or MatMul without a bias; then the end."""
        operands = (x, W) if b is None else (x, W, b)
        shape = (x.shape[0], W.shape[1])
        if x.shape[1] != W.shape[0]:
            raise ExportError(f"a product of the shapes {x.shape} and {W.shape}")
        return self._end(self.graph.node("MatMul" if b is None else "Gemm", *operands, shape=shape), f, label)

    def _end(self, a: Tensor, f: Activation, label: Lookup | None = None) -> Rows:
        loop = forward_end(f, False, label is not None)
        if loop is None:
            return Rows(a, f)
        given = {"a": a} if label is None else {"a": a, "v": self._row_of(label)}
        (*before, y), _ = write_loop(self.graph, loop, given)
        return Rows(self.graph.cast(y, self.dtype), f, *before)

    # ---------------------------------------------------------------------------------------------------- convolutions

    def convolve(self, x: Tensor, W: Array, b: Array | None, f: Activation, window: Window) -> Rows:
        """Conv. W (patch, out) -> (out, channels, kernel, kernel)."""
        w = window
        images = self._channels_first(x, w.height, w.width, w.channels)
        return self._convolution("Conv", images, W, (3, 2, 0, 1), b, f, (w.down, w.across), w)

    def spread(self, x: Tensor, W: Array, b: Array | None, f: Activation, window: Window) -> Rows:
        """ConvTranspose. W (patch, in) -> (in, channels, kernel, kernel). Of several images that have so many places
        it is told which one is meant, by what is left over at the end."""
        w = window
        places = self._channels_first(x, w.down, w.across, W.shape[1])
        least = ((n - 1) * w.stride + w.kernel - 2 * w.pad for n in (w.down, w.across))
        over = [n - m for n, m in zip((w.height, w.width), least, strict=True)]
        size = (w.height, w.width)
        return self._convolution("ConvTranspose", places, W, (3, 2, 0, 1), b, f, size, w, output_padding=over)

    def _convolution(
        self, op: str, x: Tensor, W: Array, order: tuple[int, ...], b: Array | None, f: Activation,
        size: tuple[int, int], w: Window, **more: Any,
    ) -> Rows:  # fmt: skip
        """Images channels first through the operator and the end, and back into rows."""
        weight = np.asarray(W).reshape(w.kernel, w.kernel, w.channels, -1).transpose(order)
        kernels = self.graph.tensor(np.ascontiguousarray(weight), like=W)
        out = w.channels if more else W.shape[1]
        a = self.graph.node(
            op, x, kernels, *(() if b is None else (b,)), shape=(ROWS, out, *size),
            kernel_shape=[w.kernel] * 2, strides=[w.stride] * 2, pads=[w.pad] * 4, **more,
        )  # fmt: skip
        rows = self._end(a, f)
        flat = lambda t: None if t is None else t.transpose(*CHANNELS_LAST).reshape(ROWS, out * size[0] * size[1])
        return Rows(flat(rows.y), f, flat(rows.a))

    def _channels_first(self, x: Tensor, down: int, across: int, channels: int) -> Tensor:
        return x.reshape(ROWS, down, across, channels).transpose(*CHANNELS_FIRST)
