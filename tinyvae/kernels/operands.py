"""What an operand of a loop is, for the texts that compilers are given."""

from enum import Enum
from typing import Any

from tinyvae.kernels.contract import Lookup
from tinyvae.kernels.domain import NUMBERS


class Operand(Enum):
    """What an operand of a loop is."""

    NUMBER = "number"
    CELL = "cell"  # an array of one
    ROW = "row"  # (cols,), the same for all rows
    COLUMN = "column"  # (rows / K, 1)
    MATRIX = "matrix"  # (rows / K, cols)
    LOOKUP = "lookup"


def operand(a: Any, cols: int) -> Operand:
    """The kind of `a` in a loop over so many columns."""
    if isinstance(a, NUMBERS):
        return Operand.NUMBER
    if isinstance(a, Lookup):
        return Operand.LOOKUP
    if a.size == 1 and a.ndim < 2:
        return Operand.CELL
    if a.ndim == 1:
        return Operand.ROW
    return Operand.COLUMN if a.shape[1] == 1 and cols > 1 else Operand.MATRIX
