"""Rows to look at with a trained model: a part of a data set, or all of a user's file in the file's own order."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyvae.training.data import load
from tinyvae.training.data.convert import is_path
from tinyvae.training.data.memory import enough_memory
from tinyvae.training.data.published import Progress
from tinyvae.training.data.readers.layout import fewer
from tinyvae.training.data.table import Table
from tinyvae.training.data.user import read_user_rows

PARTS = ("test", "train", "all")


@dataclass(frozen=True)
class Rows:
    """Rows as real numbers, with their labels where there are some."""

    name: str
    x: np.ndarray  # (rows, data)
    y: np.ndarray | None  # (rows,) labels
    image_shape: tuple[int, ...] | None
    label_problem: str = ""  # why there are labels that cannot be used


def load_rows(
    data: str, part: str = "test", data_dir: Path | None = None, seed: int = 0, progress: Progress = lambda file: None,
    table: Table | None = None, scale: float = 1.0, label: str | None = None,
) -> Rows:  # fmt: skip
    """The rows of a data set: its "test" part, its "train" part, or "all" (first train, then test).

    A user's file has no parts here: all its rows, in the file's order. See `tinyvae.load_data` for names.
    table, scale, label: the file becomes numbers as this table says, its bytes times this; its column of labels.
    Raises DataError if the data cannot be had.
    """
    if is_path(data):
        x, y, image_shape, label_problem = read_user_rows(Path(data), table, label)
        with enough_memory(x.size * 8, f"{data}: x, {x.shape} as float64", fewer(Path(data)), x.nbytes):
            values = np.multiply(x, scale if x.dtype == np.uint8 else 1.0, dtype=np.float64)
            return Rows(data, values, y, image_shape, label_problem)
    dataset = load(data, data_dir, seed, progress)
    parts = ("train", "test") if part == "all" else (part,)
    x = np.concatenate([dataset.values(getattr(dataset, f"x_{p}")) for p in parts])  # (rows, data)
    labels = [getattr(dataset, f"y_{p}") for p in parts]
    y = None if labels[0] is None else np.concatenate(labels)  # (rows,)
    return Rows(data if part == "all" else f"{data}, {part}", x, y, dataset.image_shape)
