"""What a loop runs over, from its operands; they are checked here, since compiled loops look at no bounds."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyvae.backend import Array
from tinyvae.kernels.contract import Lookup

NUMBERS = (float, int, np.floating, np.integer)  # operands that are one number


def address(a: Array) -> Any:
    """Where its first number lies."""
    return a.__array_interface__["data"] if isinstance(a, np.ndarray) else a.data.ptr


class Domain(NamedTuple):
    """Rows and columns, and how many rows one row of the smaller matrices serves."""

    rows: int
    cols: int
    K: int


def domain(
    inputs: Iterable[Any], out: Sequence[Array] = (), into: Sequence[Array] = (), sums: Sequence[Array] = (),
    columns: Sequence[Array] = (),
) -> Domain:  # fmt: skip
    """The domain of a loop with these operands: see `Kernels.map`. Raises ValueError if they do not fit together."""
    inputs = list(inputs)
    shapes = [_shape(a) for a in (*inputs, *out)]
    rows = max((shape[0] for shape in shapes if len(shape) == 2), default=1)
    cols = max((shape[-1] for shape in shapes if shape), default=1)
    fits = lambda shape: len(shape) < 2 or (len(shape) == 2 and shape[0] > 0 and rows % shape[0] == 0)
    for a, shape in zip((*inputs, *out), shapes, strict=True):
        widths = (cols,) if isinstance(a, Lookup) else (1, cols)
        if not fits(shape) or (shape and shape[-1] not in widths):
            raise ValueError(f"an input of shape {shape} does not fit a loop over ({rows}, {cols})")
    for kind, targets, size in (("out", out, rows * cols), ("sums", sums, rows), ("columns", columns, cols)):
        for a in targets:
            if a.size != size:
                raise ValueError(f"{kind} of shape {a.shape} does not fit a loop over ({rows}, {cols})")
    for a in into:
        if a.ndim != 2 or a.shape[1] != cols or not fits(a.shape):
            raise ValueError(f"into of shape {a.shape} does not fit a loop over ({rows}, {cols})")
    heights = {shape[0] for shape in shapes if len(shape) == 2} - {1, rows} | {a.shape[0] for a in into} - {rows}
    if len(heights) > 1:
        raise ValueError(f"matrices of {', '.join(map(str, sorted(heights)))} rows in one loop over {rows} rows")
    return Domain(rows, cols, rows // heights.pop() if heights else 1)


def _shape(a: Any) -> tuple[int, ...]:
    if isinstance(a, Lookup):
        return (a.labels.shape[0], a.table.shape[1])
    return getattr(a, "shape", ())


def check_dtypes(operands: Iterable[Any], dtype: Any) -> None:
    """Raises TypeError for an array of another dtype, which every kernel would round in its own way."""
    for a in operands:
        table = a.table if isinstance(a, Lookup) else a
        if isinstance(a, Lookup) and a.labels.dtype.kind not in "iu":
            raise TypeError(f"labels must be whole numbers, not {a.labels.dtype}")
        if not isinstance(table, NUMBERS) and (not hasattr(table, "dtype") or table.dtype != dtype):
            raise TypeError(f"an operand must be an array of {dtype} or a number, not {_kind(table)}")


def checked_groups(a: Array, groups: tuple[int, ...]) -> tuple[int, ...]:
    """The groups. Raises ValueError if these are not all of the columns of `a`."""
    if a.ndim != 2 or min(groups, default=0) < 1 or sum(groups) != a.shape[1]:
        raise ValueError(f"groups of {groups} columns do not fit an array of shape {a.shape}")
    return groups


def _kind(a: Any) -> str:
    return f"an array of {a.dtype}" if hasattr(a, "dtype") else repr(a)


def seen_as(a: Array, *shape: int) -> Array:
    """A view of `a`. Raises ValueError where that would be a copy: it would be of this moment, and what is written into
    it would be lost."""
    view = a.reshape(shape)
    if address(view) != address(a):
        raise ValueError(f"an array of shape {a.shape}, strides {a.strides}, cannot be seen as {shape}: copy it first")
    return view
