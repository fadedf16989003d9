"""A user's own data as a `Dataset`: what `find` finds, and a tenth of it for testing where it has no such rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyvae.errors import DataError
from tinyvae.model.labels import flat_labels
from tinyvae.training.data.dataset import MIN_ROWS, MIN_TEST_ROWS, Dataset, split
from tinyvae.training.data.found import Found, Part, find
from tinyvae.training.data.memory import enough_memory
from tinyvae.training.data.picked import lies_in_a_file
from tinyvae.training.data.readers.layout import fewer
from tinyvae.training.data.table import Table

TEST_FRACTION = 0.1


class UserRows(NamedTuple):
    """A file's rows, in its order."""

    x: np.ndarray  # (rows, data)
    y: np.ndarray | None  # (rows,) labels
    image_shape: tuple[int, ...] | None
    label_problem: str  # why there are labels that cannot be used; empty if there are none, or if they can


def load_user_file(path: Path, label: str | None = None, kinds: Mapping[str, str] | None = None) -> Dataset:
    """A user's rows, a tenth of them kept for testing where the file has no rows for that of its own.

    label, kinds: of a table, see `find`. Raises DataError for anything that cannot be trained on.
    """
    found = find(path, label=label, kinds=kinds)
    labels = {name: _labels(part) for name, part in found.parts().items()}
    problem = next((why for _, why in labels.values() if why), "")
    y = {name: None if problem else values for name, (values, _) in labels.items()}
    notes = (*found.notes, *(() if found.table is None else found.table.summary()))
    about: dict[str, Any] = {
        "image_shape": found.image_shape, "label_problem": problem, "notes": notes, "table": found.table,
    }  # fmt: skip
    if found.valid is not None:
        about |= {"x_valid": found.valid.x, "y_valid": y["valid"]}
    x = found.train.x
    if found.test is not None:
        if len(x) < MIN_ROWS or len(found.test.x) < MIN_TEST_ROWS:
            raise DataError(f"{path}: {len(x)} rows to train on and {len(found.test.x)} to test on are too few")
        return Dataset(found.name, x, found.test.x, y["train"], y["test"], **about)
    copied = 0 if lies_in_a_file(x) else x.nbytes  # for the parts
    with enough_memory(copied, f"{path}: x, {x.shape} {x.dtype}", fewer(path), already=copied):
        return split(found.name, x, y["train"], TEST_FRACTION, **about)


def read_user_rows(path: Path, table: Table | None = None, label: str | None = None) -> UserRows:
    """The rows and labels of a file: of all its parts, in the order train, valid, test.

    table: the columns become numbers as this one says. Raises DataError, naming the file, the cause and a remedy, for
    any other x; labels that are of no use are left out, with the reason: whoever needs them says it.
    """
    found = find(path, label=label, table=table)
    parts = list(found.parts().values())
    labels = [_labels(part) for part in parts]
    problem = next((why for _, why in labels if why), "")
    there = [y for y, _ in labels if y is not None]
    y = np.concatenate(there) if len(there) == len(parts) and not problem else None
    return UserRows(_joined(path, found, [part.x for part in parts]), y, found.image_shape, problem)


def _joined(path: Path, found: Found, parts: Sequence[np.ndarray]) -> np.ndarray:
    if len(parts) == 1:
        return parts[0]
    size = sum(x.nbytes for x in parts)
    with enough_memory(size, f"{path}: all parts of {found.name}", fewer(path), already=size):
        return np.concatenate(parts)


def _labels(part: Part) -> tuple[np.ndarray | None, str]:
    """Labels, or None and the reason why they are of no use."""
    if part.y is None:
        return None, part.label_problem
    try:
        return flat_labels(part.y), ""
    except ValueError as error:
        return None, str(error)
