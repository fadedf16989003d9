"""What `new` of the kernels gives while a graph is written: an array to write into, whole or some columns at a time.

A graph has no such thing. So what is written is kept, and joined when the array is read; from then on it stays.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.errors import ExportError
from tinyvae.export.arrays import Tensor
from tinyvae.export.shapes import Shape

if TYPE_CHECKING:
    from tinyvae.export.graph import Graph

EVERY = slice(None)


class Blank(Tensor):
    """An array, or with `of` its columns from `at` on: (rows, columns)."""

    __slots__ = ("at", "of", "pieces", "read")

    def __init__(self, graph: "Graph", shape: Shape, of: "Blank | None" = None, at: int = 0) -> None:
        self.graph, self.shape, self.dtype = graph, shape, graph.dtype
        self.of, self.at = self if of is None else of, at
        self.pieces: dict[int, Tensor] = {}  # what is written, by its first column
        self.read: Tensor | None = None

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of what has been written until now. Raises ExportError where something is missing."""
        if self.of is not self:
            piece = self.of.pieces.get(self.at)
            if piece is None or piece.shape != self.shape:
                piece = Tensor.__getitem__(self.of, (EVERY, slice(self.at, self.at + self.shape[1])))
            return piece.name
        if self.read is None:
            pieces = [self.pieces[at] for at in sorted(self.pieces)]
            ends = np.cumsum([0, *(piece.shape[-1] for piece in pieces)]).tolist()
            if [*sorted(self.pieces), self.shape[-1]] != ends:
                raise ExportError("an array is read before it is written, or its columns are written twice")
            self.read = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)  # pyright: ignore
        return self.read.name  # pyright: ignore[reportOptionalMemberAccess]

    def __getitem__(self, key: Any) -> Tensor:
        """Columns to write into, or to read; once all of it is read, as of any array."""
        if self.of is self and self.read is None:
            if key is Ellipsis:
                return self
            if isinstance(key, tuple) and len(key) == len(self.shape) == 2 and isinstance(key[1], slice):
                start, stop, step = key[1].indices(self.shape[1])
                if key[0] in (Ellipsis, EVERY) and step == 1:
                    return Blank(self.graph, (self.shape[0], stop - start), self, start)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Write all of it, or some columns. Raises ExportError for anything else, and once it has been read."""
        part = self if key is Ellipsis else self[key]
        if not isinstance(part, Blank):
            super().__setitem__(key, value)
        elif part.of.read is not None:
            raise ExportError("array code writes into an array that has been read")
        else:
            part.of.pieces[part.at] = self.graph.cast(self.graph.broadcast_to(value, part.shape), self.dtype)
