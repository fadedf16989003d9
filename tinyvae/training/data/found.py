"""What a file, or a folder, holds: rows, labels, its own parts, the columns' names. One front for all formats: `find`.

Nothing is decided here about scaling, splitting or the likelihood; the rows are handed over as they came. NaN is a
number that was not observed and stays; infinite values are refused.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.convert import how_to_convert
from tinyvae.training.data.readers import FOLDERS, READERS, ending_of
from tinyvae.training.data.regular import FOLDER, problem
from tinyvae.training.data.table import Table


@dataclass(frozen=True)
class Part:
    """Rows of a file, or of the part of it that the file names itself."""

    x: np.ndarray  # (rows, columns) uint8, float32 or float64; of a .npy file a memory map, which is never read whole
    y: np.ndarray | None = None  # (rows,) labels as they came: whole numbers, floats, strings, bools; of one-hot rows k
    label_problem: str = ""  # why labels that there are cannot be used
    c: np.ndarray | None = None  # (rows, conditions) float64: what the rows are given, of a table


@dataclass(frozen=True)
class Found:
    """What there is to train on and to look at."""

    name: str
    train: Part  # all rows, where the file has no parts of its own
    valid: Part | None = None
    test: Part | None = None
    image_shape: tuple[int, ...] | None = None  # (height, width), or (height, width, 3); a row runs in this order
    columns: tuple[str, ...] | None = None  # a table's columns by name, after expansion (sex=female, sex=male)
    table: Table | None = None  # how the table's columns became numbers, and back
    condition: Table | None = None  # the same of the columns that are conditions
    notes: tuple[str, ...] = ()  # lines that a user must see: what was left out, what is missing

    def parts(self) -> dict[str, Part]:
        """The parts that there are, by name, in the order train, valid, test."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}


@dataclass(frozen=True)
class Wanted:
    """What is asked of a table beside its rows."""

    label: str | None = None
    condition: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    table: Table | None = None  # the rows are to be read as this one says, not as they look
    condition_table: Table | None = None


def find(
    path: Path,
    label: str | None = None,
    condition: Sequence[str] = (),
    kinds: Mapping[str, str] | None = None,
    table: Table | None = None,
    condition_table: Table | None = None,
) -> Found:
    """The rows of a file or of a folder of images, by the ending of its name. See `readers`.

    label      a table's column that names each row's class; it is not part of x
    condition  columns that rows are conditional on; they are not part of x either, but of c
    kinds      column -> its kind, where it is another than the one it looks like (see `table.KINDS`)
    table      a table read earlier (`Found.table`): the file's columns become numbers in the same way
    condition_table  the same for the conditions (`Found.condition`)

    Raises DataError, one line that names the file, the cause and the remedy, for all that cannot be read.
    """
    wanted = Wanted(label, tuple(condition), dict(kinds or {}), table, condition_table)
    wrong = problem(path)
    reader = FOLDERS if wrong == FOLDER else READERS.get(ending_of(path))
    if wrong == "there is no such file":
        raise DataError(f"{path}: {wrong}; if it has moved, name its folder with --data-dir")
    if wrong is not None and (wrong != FOLDER or ending_of(path)):
        raise DataError(f"{path}: {wrong}")
    if reader is None:
        raise DataError(f"{path}: is in a format that is not read; {how_to_convert(path)}")
    if not reader.columns and wanted != Wanted():
        raise DataError(f"{path}: has no columns with names, so no label, condition or kind can be chosen by one")
    module = importlib.import_module(f"tinyvae.training.data.readers.{reader.file}")
    return module.read(path, wanted) if reader.columns else module.read(path)
