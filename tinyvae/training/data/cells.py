"""The cells of one column, whatever library made them: numbers, words or dates, each present or missing."""

import datetime
import decimal
import math
import numbers
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tinyvae.errors import DataError

MARKS = {
    "?",
    "-",
    "--",
    ".",
    "*",
    "na",
    "n/a",
    "nan",
    "null",
    "none",
    "missing",
    "unknown",
}  # in small letters: missing
EXACT = 2.0**53  # beyond it, float64 has no more all whole numbers
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?)?")


@dataclass(frozen=True)
class Cells:
    """(rows,) float64 with NaN, or texts with None, or datetime64[us] with NaT."""

    cells: np.ndarray
    is_bool: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def is_numbers(self) -> bool:
        """Numbers, and bools."""
        return self.cells.dtype.kind == "f"

    @property
    def is_dates(self) -> bool:
        """Dates."""
        return self.cells.dtype.kind == "M"

    @cached_property
    def _present(self) -> np.ndarray:
        """(rows,) whether there is something."""
        if self.is_numbers:
            return ~np.isnan(self.cells)
        if self.is_dates:
            return ~np.isnat(self.cells)
        return np.array([cell is not None for cell in self.cells], dtype=bool)

    @property
    def missing(self) -> int:
        """How many cells are empty."""
        return int((~self._present).sum())

    @cached_property
    def whole(self) -> bool:
        """All are whole numbers, no larger than float64 tells apart."""
        if not self.is_numbers:
            return False
        x = self.cells[self._present]
        return bool((x == np.floor(x)).all() and (np.abs(x) <= EXACT).all())

    @cached_property
    def _different(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, how often each occurs, and which each cell has (-1: missing)."""
        present = self.cells[self._present]
        if self.is_numbers or self.is_dates:
            values, inverse, often = np.unique(present, return_inverse=True, return_counts=True)
            if self.is_bool:
                values = values.astype(bool)
            elif self.is_numbers and self.whole:
                values = values.astype(np.int64)
        else:
            ordered = sorted(set(present))
            places = {word: i for i, word in enumerate(ordered)}
            inverse = np.array([places[word] for word in present], dtype=np.int64)
            often = np.bincount(inverse, minlength=len(ordered))
            values = np.array(ordered, dtype=object)
        which = np.full(len(self), -1, dtype=np.int64)
        which[self._present] = inverse
        return values, often, which

    def different(self) -> tuple[np.ndarray, np.ndarray]:
        """The different values, ascending, and how often each occurs."""
        return self._different[:2]

    def coded(self) -> tuple[np.ndarray, np.ndarray]:
        """The different values, ascending, and which each cell has, (rows,); -1 where it is missing."""
        return self._different[0], self._different[2]

    def moments(self) -> tuple[float, float]:
        """Mean and variance of numbers, without overflow."""
        x = self.cells[self._present]
        unit = float(np.abs(x).max()) or 1.0
        mean = float((x / unit).mean())
        var = float(np.square(x / unit - mean).mean())
        return mean * unit, float(np.multiply(var * unit, unit))

    def numbers(self) -> np.ndarray:
        """(rows,) float64."""
        return self.cells

    def dates(self) -> np.ndarray:
        """(rows,) datetime64[us]."""
        return self.cells


def cells_of(column: Any, where: str) -> Cells:
    """The cells of a pandas Series, an array or a list. Raises DataError for what is no cell, and for infinite numbers.

    Words that are numbers become numbers; those of MARKS among numbers are missing. Dates as ISO 8601 writes them
    (2024-05-17) are dates. An empty text is missing.
    """
    dtype = getattr(column, "dtype", None)
    known = isinstance(dtype, np.dtype) and dtype.kind in "buifMm"
    values = np.asarray(column) if known else _plain(column, where)
    if values.dtype.kind == "b":
        return Cells(values.astype(np.float64), is_bool=True)
    if values.dtype.kind == "M":
        return Cells(values.astype("M8[us]"))
    if values.dtype.kind == "m":
        days = values / np.timedelta64(1, "D")
        return Cells(np.where(np.isnat(values), np.nan, days), notes=("spans of time, taken as days",))
    if values.dtype.kind in "uif":
        return _finite(values.astype(np.float64), where)
    return _of_objects(values, where)


def _plain(column: Any, where: str) -> np.ndarray:
    """The column as an array of Python objects."""
    if hasattr(column, "to_numpy"):
        values = column.to_numpy(dtype=object)
    else:
        given = list(column)
        values = np.empty(len(given), dtype=object)
        values[:] = given
    if values.ndim != 1:
        raise DataError(f"{where} holds arrays, not one cell for each row")
    return values


def _of_objects(values: np.ndarray, where: str) -> Cells:
    cells = [None if _is_missing(v) else v for v in values]
    there = [v for v in cells if v is not None]
    strange = next((v for v in there if not isinstance(v, _KNOWN)), None)
    if strange is not None:
        raise DataError(
            f"{where} holds {type(strange).__name__} in its cells; a cell is one number, one text or one date: leave "
            "the column out (its kind: identifier), or spread it over several"
        )
    if all(isinstance(v, (bool, np.bool_)) for v in there) and there:
        return Cells(np.array([np.nan if v is None else float(v) for v in cells]), is_bool=True)
    if all(isinstance(v, _NUMBERS) and not isinstance(v, (bool, np.bool_)) for v in there):
        return _finite(np.array([np.nan if v is None else float(v) for v in cells], dtype=np.float64), where)
    if all(isinstance(v, _DATES) for v in there):
        return Cells(np.array([np.datetime64("NaT", "us") if v is None else _instant(v) for v in cells], "M8[us]"))
    return _of_words([None if v is None else _text(v) for v in cells], where)


def _of_words(words: list[str | None], where: str) -> Cells:
    words = [word if word else None for word in words]
    there = {word for word in words if word is not None}
    if there and all(_DATE.fullmatch(word) for word in there):
        try:
            return Cells(np.array([np.datetime64("NaT") if word is None else word for word in words], dtype="M8[us]"))
        except ValueError:  # the 31st of February
            pass
    read = {word: number for word in there if (number := _number(word)) is not None}
    others = there - set(read)
    if read and all(word.lower() in MARKS for word in others):
        numbers_ = np.array([read.get(word, np.nan) if word is not None else np.nan for word in words])
        count = sum(word in others for word in words)
        marks = ", ".join(sorted(map(repr, others)))
        notes = (f"{count:,} cells with {marks} among numbers are taken as missing",) if others else ()
        return Cells(_finite(numbers_, where).cells, notes=notes)
    found = np.empty(len(words), dtype=object)
    found[:] = words
    return Cells(found)


def _number(word: str) -> float | None:
    try:
        return None if word.strip().lower() in MARKS or "_" in word else float(word)
    except ValueError:
        return None


def _finite(x: np.ndarray, where: str) -> Cells:
    bad = np.flatnonzero(np.isinf(x))
    if bad.size:
        raise DataError(
            f"{where} holds infinite values ({bad.size:,} of {len(x):,} rows, the first is row {bad[0]}); leave such a "
            "cell empty if nothing was observed there"
        )
    return Cells(x)


_NUMBERS = (numbers.Real, decimal.Decimal)
_DATES = (datetime.date, np.datetime64)
_KNOWN = (bool, np.bool_, *_NUMBERS, *_DATES, str, bytes)


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, np.datetime64):
        return bool(np.isnat(value))
    return isinstance(value, (float, np.floating, decimal.Decimal)) and math.isnan(value)


def _instant(value: Any) -> np.datetime64:
    """The time in UTC."""
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        value = value.astimezone(datetime.UTC).replace(tzinfo=None)
    return np.datetime64(value, "us")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return str(value)
