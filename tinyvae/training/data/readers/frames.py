"""A table that was read, whatever its format: its columns become rows, labels and conditions."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.cells import cells_of
from tinyvae.training.data.found import Found, Part, Wanted
from tinyvae.training.data.memory import enough_memory
from tinyvae.training.data.readers import ending_of
from tinyvae.training.data.readers.labels import stored_labels
from tinyvae.training.data.readers.observed import check_observed
from tinyvae.training.data.table import KINDS, Table, check_names, kind_of

PIXELS = 49  # so many columns of whole numbers in 0..255 are pixels of an image, not properties of something
FEWER_ROWS = "save fewer rows, or fewer columns"
INSTALL = "python -m pip install 'tinyvae[tables]'"


def library(path: Path, name: str) -> ModuleType:
    """pandas or pyarrow. Raises DataError with the line that installs them, if it is not there or does not load."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(f"{path}: to read it, {name.partition('.')[0]} is needed ({error}): {INSTALL}") from error


def found_in(path: Path, frame: Any, wanted: Wanted, notes: tuple[str, ...] = ()) -> Found:
    """The rows of a pandas DataFrame, with its labels and conditions."""
    frame = frame.rename(columns=str)
    names, rows = list(frame.columns), len(frame)
    where, name = str(path), path.name[: -len(ending_of(path))]
    chosen = [*([wanted.label] if wanted.label is not None else []), *wanted.condition]
    check_names(where, names, chosen)
    if not rows:
        raise DataError(f"{path}: has names of columns, but no rows")
    if len(set(chosen)) < len(chosen):
        raise DataError(f"{path}: a column cannot be two of label and conditions: {', '.join(chosen)}")
    y, label_problem = None, ""
    if wanted.label is not None:
        y, label_problem = _labels(frame[wanted.label], f"{path}: column {wanted.label}")
    kinds = {name: kind for name, kind in wanted.kinds.items() if name not in wanted.condition}
    if wanted.label in kinds:
        raise DataError(f"{path}: column {wanted.label} is the label; it has no kind")
    c, condition = None, None
    if wanted.condition:
        c, condition = _conditions(path, {name: frame[name] for name in wanted.condition}, wanted)
    data = frame.drop(columns=chosen)
    if not len(data.columns):
        raise DataError(f"{path}: has no column beside the label and the conditions; nothing is left to learn")
    pixels = None if wanted.table or kinds else _pixels(data)
    if pixels is not None:
        side = int(np.sqrt(pixels.shape[1]))
        image_shape = (side, side) if side * side == pixels.shape[1] else None
        as_images = f"images of {side} x {side} pixels" if image_shape else f"{pixels.shape[1]} pixels, not a square"
        notes = (*notes, f"{path}: all columns are whole numbers in 0..255, taken as bytes: {as_images}")
        named = [name for name in data.columns if name.lower() in ("label", "class", "y", "target")]
        if named:
            notes = (
                *notes,
                f"{path}: column {named[0]} is taken as a pixel; if it is the label, say label={named[0]!r}",
            )
        part = Part(pixels, y, label_problem, c)
        return Found(name, part, image_shape=image_shape, columns=tuple(data.columns), condition=condition,
                     notes=notes)  # fmt: skip
    table = wanted.table or Table.read(data, kinds, where)
    with enough_memory(16 * rows * table.width, f"{path}: {rows:,} rows of {table.width:,} numbers", FEWER_ROWS):
        x = table.numbers(data, where)
        own_notes = () if wanted.table else table.notes
        more = [line for line in check_observed(where, x, table.names) if "rows have no number" in line]
    return Found(
        name, Part(x, y, label_problem, c),
        columns=table.names, table=table, condition=condition,
        notes=(*notes, *own_notes, *more),
    )  # fmt: skip


def _conditions(path: Path, given: dict[str, Any], wanted: Wanted) -> tuple[np.ndarray, Table]:
    """(rows, conditions), and how they were made. Raises DataError for a column that tells nothing, or lacks cells."""
    kinds = {name: kind for name, kind in wanted.kinds.items() if name in given}
    for name, series in given.items():
        what = f"{path}: column {name}"
        cells = cells_of(series, what)
        if cells.missing:
            raise DataError(
                f"{what} is a condition, but {cells.missing:,} of {len(cells):,} rows have nothing there; fill these "
                "cells, or remove the rows"
            )
        kind, why = kind_of(cells, name)
        if name in kinds or wanted.condition_table or kind in KINDS:
            continue
        if not cells.is_numbers or len(cells.different()[0]) < 2:
            raise DataError(f"{what} cannot be a condition ({why}); a condition is a number, or a word that recurs")
        kinds[name] = "real"  # numbers that are all different are no names here
    condition = wanted.condition_table or Table.read(given, kinds, str(path))
    return condition.numbers(given, str(path)), condition


def _labels(series: Any, what: str) -> tuple[np.ndarray | None, str]:
    """A column's values as they came; words as NumPy's strings."""
    try:
        cells = cells_of(series, what)
    except DataError as error:
        return None, str(error)
    if cells.missing:
        values, which = cells.coded()
        first = int(np.flatnonzero(which < 0)[0])
        return None, (
            f"{what} has no label in {cells.missing:,} of {len(cells):,} rows, the first is row {first}; fill these "
            "cells, or remove the rows"
        )
    values, which = cells.coded()
    if cells.is_dates:
        return None, f"{what} holds dates, not labels; save the year or the month, say, in a column"
    if not cells.is_numbers:
        values = np.array(values.tolist(), dtype=str)
    return stored_labels(values[which], len(cells), what)


def _pixels(data: Any) -> np.ndarray | None:
    """The table as bytes, if it is one of pixels: many columns, all of whole numbers in 0..255, not just 0 and 1."""
    if len(data.columns) < PIXELS or any(dtype.kind not in "ui" for dtype in data.dtypes if hasattr(dtype, "kind")):
        return None
    if not all(isinstance(dtype, np.dtype) for dtype in data.dtypes):
        return None
    low, high = int(data.min().min()), int(data.max().max())
    return data.to_numpy(dtype=np.uint8) if low >= 0 and 1 < high <= 255 else None
