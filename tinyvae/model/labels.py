"""Labels by their own names: strings, numbers from anywhere, what occurs in the data. Layers see numbers from 0 on."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Label = str | int | float | bool
SHOWN = 20


def flat_labels(y: Any) -> np.ndarray:
    """y as (rows,), without a change of meaning: one-hot rows and (rows, 1) are made flat, floats that are whole become
    whole numbers. Raises ValueError for what are no labels."""
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.dtype.kind in "buif" and is_one_hot(y):
        y = y.argmax(axis=1)
    if y.dtype == object and all(isinstance(v, str) for v in y.ravel()):
        y = y.astype(str)
    if y.ndim != 1 or y.dtype.kind not in "buifU":
        raise ValueError(f"labels must be one for each row: numbers or strings, not {y.dtype} {y.shape}")
    if y.dtype.kind == "f":
        if not np.isfinite(y).all():
            first = int((~np.isfinite(y)).argmax())
            raise ValueError(f"labels hold NaN or infinity, the first is {y[first]} in row {first}")
        if (y == np.floor(y)).all() and (np.abs(y) < 2**53).all():
            y = y.astype(np.int64)
    return y.astype(np.uint8) if y.dtype == bool else y


def is_one_hot(y: np.ndarray) -> bool:
    """Whether every row of y (rows, classes) is one 1 among zeros."""
    return bool(((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all())


def label_values(parts: Iterable[np.ndarray]) -> tuple[Label, ...]:
    """The labels that occur, ascending."""
    return tuple(np.unique(np.concatenate([np.unique(y) for y in parts])).tolist())


def are_plain(values: Sequence[Label]) -> bool:
    """Whether they are 0, 1, 2, ... already."""
    return list(values) == list(range(len(values)))


def named_labels(names: Any) -> tuple[Label, ...]:
    """The labels of a list of all of them, ascending. Raises ValueError for two that are alike, or no labels."""
    if len({isinstance(name, str) for name in names}) > 1:
        raise ValueError(f"labels must be all strings or all numbers, not {in_words(list(names))}")
    found = label_values([flat_labels(np.asarray(names))])
    if len(found) != len(names):
        raise ValueError(f"{len(names)} labels were named, but {len(found)} differ: {in_words(found)}")
    return found


def codes_of(y: np.ndarray, values: Sequence[Label]) -> np.ndarray:
    """The place of each label among the values: y (rows,) -> (rows,). Raises ValueError for one that is not there."""
    y, known = flat_labels(y), np.array(values)
    if (y.dtype.kind == "U") != (known.dtype.kind == "U"):
        raise ValueError(f"labels must be of {in_words(values)}, not {y.dtype}")
    at = np.minimum(np.searchsorted(known, y), len(known) - 1)
    strange = np.unique(y[known[at] != y])
    if len(strange):
        raise ValueError(f"labels must be of {in_words(values)}, not {in_words(strange.tolist())}")
    return at


def in_words(values: Sequence[Label]) -> str:
    """ "cat, dog", or the first of many."""
    first = ", ".join(map(str, values[:SHOWN]))
    return first if len(values) <= SHOWN else f"{first} and {len(values) - SHOWN} more"


def label_typed(text: str, values: Sequence[Any]) -> Any:
    """The one of the values that is written so. Raises ValueError if there is none."""
    for value in values:
        if str(value) == text:
            return value
    raise ValueError(f"must be one of {in_words(list(values))}, not {text}")
