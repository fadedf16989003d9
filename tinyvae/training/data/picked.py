"""Rows of an array that lies in a file: read when they are asked for, and never all at once."""

from typing import Any

import numpy as np


class Picked:
    """Some rows of `source` (all rows, columns), like an array of their own: shape, dtype, and `[...]` with a slice or
    row numbers, which reads those rows into memory."""

    def __init__(self, source: Any, rows: np.ndarray) -> None:
        self.source, self.rows = source, rows
        self.shape, self.dtype, self.ndim = (len(rows), *source.shape[1:]), source.dtype, source.ndim
        self.size = int(np.prod(self.shape))
        self.nbytes = self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self.source[self.rows[index]])


def lies_in_a_file(x: Any) -> bool:
    """Whether x is better read row by row than at once."""
    return isinstance(x, (np.memmap, Picked))


def picked(x: Any, rows: np.ndarray) -> Any:
    """Some rows of x: an array, or where x lies in a file a promise of one. rows: numbers, or truth values."""
    if not lies_in_a_file(x):
        return x[rows]
    numbers = np.flatnonzero(rows) if rows.dtype == bool else rows
    return Picked(x.source, x.rows[numbers]) if isinstance(x, Picked) else Picked(x, numbers)
