"""Shapes in which one number is not known: how many rows there are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyvae.errors import ExportError


@dataclass(frozen=True)
class Many:
    """As many as there are rows, times `each`. It has a value only where the graph is run."""

    each: int = 1

    def __repr__(self) -> str:
        return "rows" if self.each == 1 else f"{self.each} rows"

    def __mul__(self, times: int) -> "Many":
        return Many(self.each * times)

    __rmul__ = __mul__

    def __index__(self) -> int:
        raise ExportError("how many rows there are is not known while a graph is written")


ROWS = Many()
Shape = tuple[Any, ...]  # whole numbers, and at most one Many


def size(shape: Sequence[Any]) -> tuple[bool, int]:
    """Whether there is one for each row, and how many numbers (for each row) it has."""
    return any(isinstance(n, Many) for n in shape), math.prod(n.each if isinstance(n, Many) else n for n in shape)


def reshaped(shape: Shape, wanted: Sequence[Any]) -> Shape:
    """What `wanted` means, -1 put in its place. Raises ExportError if it has not as many numbers."""
    many, total = size(shape)
    named = [n for n in wanted if n != -1]
    has_many, rest = size(named)
    if len(named) < len(wanted) and rest and total % rest == 0:
        missing = total // rest
        wanted = [(Many(missing) if many and not has_many else missing) if n == -1 else n for n in wanted]
    if size(wanted) != (many, total):
        raise ExportError(f"an array of shape {shape} has no shape {tuple(wanted)}")
    return tuple(wanted)


def broadcast(*shapes: Shape) -> Shape:
    """The shape that all of them are broadcast to, as by NumPy. Raises ExportError if there is none."""
    found: list[Any] = []
    for i in range(max(map(len, shapes), default=0)):
        wide = {shape[-1 - i] for shape in shapes if len(shape) > i} - {1}
        if len(wide) > 1:
            raise ExportError(f"arrays of the shapes {', '.join(map(str, shapes))} do not fit together")
        found.append(wide.pop() if wide else 1)
    return tuple(reversed(found))
