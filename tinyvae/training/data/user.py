"""A user's own data as a `Dataset`: what `find` finds, with whole-number labels and numbers that are all there."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.dataset import MIN_ROWS, MIN_TEST_ROWS, Dataset, split
from tinyvae.training.data.found import Found, Part, find
from tinyvae.training.data.memory import enough_memory
from tinyvae.training.data.readers.layout import chunks, fewer, looking
from tinyvae.training.data.readers.observed import LISTED

TEST_FRACTION = 0.1


class UserRows(NamedTuple):
    """A file's rows, in its order."""

    x: np.ndarray  # (rows, data)
    y: np.ndarray | None  # (rows,) whole numbers
    image_shape: tuple[int, int] | None
    label_problem: str  # why there are labels that cannot be used; empty if there are none, or if they can


def load_user_file(path: Path) -> Dataset:
    """A user's rows, a tenth of them kept for testing where the file has no rows for that of its own.

    Raises DataError for anything that cannot be trained on.
    """
    found = find(path)
    if found.test is None:
        x, y, image_shape, label_problem = _all_rows(path, found)
        held = 0 if isinstance(x, np.memmap) else x.nbytes
        with enough_memory(x.nbytes, f"{path}: x, {x.shape} {x.dtype}", fewer(path), already=held):  # and the parts
            return split(found.name, x, y, TEST_FRACTION, image_shape=image_shape, label_problem=label_problem)
    train, y_train, image_shape, train_problem = _joined(path, found, [found.train, found.valid])
    test, y_test, _, test_problem = _joined(path, found, [found.test])
    if len(train) < MIN_ROWS or len(test) < MIN_TEST_ROWS:
        raise DataError(f"{path}: {len(train)} rows to train on and {len(test)} to test on are too few")
    if y_train is None or y_test is None:
        y_train = y_test = None
    return Dataset(found.name, train, test, y_train, y_test, image_shape=image_shape,
                   label_problem=train_problem or test_problem)  # fmt: skip


def read_user_rows(path: Path) -> UserRows:
    """The rows and labels of a file: of all its parts, in the order train, valid, test.

    Raises DataError, naming the file, the cause and a remedy, for any other x; labels that are no such y are left out,
    with the reason: whoever needs them says it.
    """
    return _all_rows(path, find(path))


def _all_rows(path: Path, found: Found) -> UserRows:
    return _joined(path, found, [found.train, found.valid, found.test])


def _joined(path: Path, found: Found, parts: list[Part | None]) -> UserRows:
    there = [part for part in parts if part is not None]
    for part in there:
        _check_observed(path, part.x)
    labels = [_whole_numbers(path, part) for part in there]
    label_problem = next((problem for _, problem in labels if problem), "")
    y = None if any(y is None for y, _ in labels) else np.concatenate([y for y, _ in labels if y is not None])
    if len(there) == 1:
        x = there[0].x
    else:
        size = sum(part.x.nbytes for part in there)
        with enough_memory(size, f"{path}: all its parts", fewer(path), already=size):
            x = np.concatenate([part.x for part in there])
    shape = found.image_shape
    grey = (shape[0], shape[1]) if shape is not None and len(shape) == 2 else None
    return UserRows(x, y, grey, label_problem)


def _whole_numbers(path: Path, part: Part) -> tuple[np.ndarray | None, str]:
    """Labels as whole numbers, or None and the reason why they are of no use."""
    y = part.y
    if y is None or y.dtype.kind in "ui":
        return y, part.label_problem
    if y.dtype.kind == "b":
        return y.astype(np.uint8), ""
    remedy = (
        "y = y.astype(int)" if y.dtype.kind == "f" else "number the labels: y = np.unique(y, return_inverse=True)[1]"
    )
    return None, f"{path}: y must be {len(y)} whole numbers, one for each row of x, not {y.dtype} {y.shape}; {remedy}"


def _check_observed(path: Path, x: np.ndarray) -> None:
    """Raises DataError if a number is NaN: where, how many, and what to take away."""
    if x.dtype.kind != "f":
        return
    with looking(path, "x", x):
        if not any(np.isnan(x[place]).any() for place in chunks(x)):
            return
        missing = [(np.isnan(x[place]).any(axis=1), np.isnan(x[place]).any(axis=0)) for place in chunks(x)]
        bad_rows = np.concatenate([rows for rows, _ in missing])  # (rows,)
        bad_columns = np.any([columns for _, columns in missing], axis=0)  # (data,)
    rows, columns = np.flatnonzero(bad_rows), np.flatnonzero(bad_columns)
    where = f"{rows.size} of {len(x)} rows, the first is row {rows[0]}"
    if columns.size <= LISTED:
        where += f"; in column{'s' * (columns.size > 1)} {', '.join(map(str, columns))}"
    if rows.size <= len(x) / 2:
        remedy = f"remove these rows: x = x[np.isfinite(x).all(axis=1)] leaves {len(x) - rows.size}"
    elif columns.size <= x.shape[1] / 2:
        remedy = f"remove these columns: x = x[:, np.isfinite(x).all(axis=0)] leaves {x.shape[1] - columns.size}"
    else:
        remedy = "fill in the mean of the column: x = np.where(np.isnan(x), np.nanmean(x, axis=0), x)"
    raise DataError(f"{path}: x holds NaN ({where}); {remedy}")
