"""Labels as they came: of any kind, one for each row; or why they cannot be used."""

from pathlib import Path

import numpy as np

from tinyvae.errors import DataError
from tinyvae.model.labels import is_one_hot
from tinyvae.training.data.arrays import Stored
from tinyvae.training.data.memory import enough_memory

SHARE = 2  # floats that are not whole are names of classes if each occurs so often, on average


def take_labels(path: Path, name: str, stored: Stored, rows: int) -> tuple[np.ndarray | None, str]:
    """The labels of an array in a file, or None and the reason why they are of no use. Nothing is unpickled."""
    what = f"{path}: {name}"
    if stored.dtype.hasobject:
        return None, _unfit(what, rows, stored.dtype, stored.shape) + (
            "; save it as an array of strings or numbers, not of objects: y = y.astype(str)"
        )
    with enough_memory(stored.size, f"{what}, {stored}", "save whole numbers as labels"):
        try:
            return stored_labels(stored.read(), rows, what)
        except DataError as error:
            return None, str(error)


def stored_labels(y: np.ndarray, rows: int, what: str) -> tuple[np.ndarray | None, str]:
    """(rows,) labels of y: itself, a column's or a row's numbers, where the 1 is in rows of one 1; or None and why.

    They keep their dtype, as the messages about a file name what is in it.
    """
    if y.size == rows and y.ndim > 1 and rows in y.shape:  # (rows, 1), (1, rows)
        y = y.reshape(rows)
    elif y.ndim == 2 and len(y) == rows and y.shape[1] > 1 and y.dtype.kind in "buif":
        if is_one_hot(y):
            return y.argmax(axis=1), ""
        problem = _unfit(what, rows, y.dtype, y.shape)
        return None, f"{problem}; if the largest of a row is its class: y = y.argmax(axis=1)"
    if y.shape != (rows,):
        return None, _unfit(what, rows, y.dtype, y.shape)
    if y.dtype.kind == "S":
        try:
            return np.char.decode(y, "utf-8"), ""
        except UnicodeDecodeError:
            return None, f"{what} holds bytes that are no UTF-8 text; y = np.char.decode(y, 'latin-1')"
    if y.dtype.kind == "f":
        wrong = _unusable_floats(y, what)
        if wrong:
            return None, wrong
    elif y.dtype.kind not in "buiU":
        return None, _unfit(what, rows, y.dtype, y.shape) + "; y = y.astype(str)"
    return np.ascontiguousarray(y, y.dtype.newbyteorder("=")), ""


def _unusable_floats(y: np.ndarray, what: str) -> str:
    bad = np.flatnonzero(~np.isfinite(y))
    if bad.size:
        return (
            f"{what} has no label in {bad.size:,} of {len(y):,} rows, the first is row {bad[0]} ({y[bad[0]]}); remove "
            "these rows, or give them a label: y = np.where(np.isfinite(y), y, -1)"
        )
    if (y == np.floor(y)).all():
        return ""
    different = len(np.unique(y))
    if different * SHARE <= len(y):
        return ""
    return (
        f"{what} has {different:,} different numbers in {len(y):,} rows: those are measurements, not labels; classes "
        "of a third each: y = np.digitize(y, np.quantile(y, [1/3, 2/3]))"
    )


def _unfit(what: str, rows: int, dtype: np.dtype, shape: tuple[int, ...]) -> str:
    return f"{what} must be {rows:,} labels, one for each row of x, not {dtype} {shape}"
