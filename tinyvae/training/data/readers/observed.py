"""Numbers that are no numbers: NaN was not observed and stays, with a note; infinite values are refused."""

from collections.abc import Sequence

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.readers.layout import chunks

LISTED = 10  # rows or columns that a line names


def check_observed(what: str, x: np.ndarray, columns: Sequence[str] | None = None) -> list[str]:
    """What a user must know about missing numbers, a line each; nothing if there are none. A chunk at a time.

    what  the file and the array, for messages
    Raises DataError if a number is infinite, or if none is observed.
    """
    if x.dtype.kind != "f":
        return []
    missing = np.zeros(x.shape[1], np.int64)  # (columns,) how many
    infinite = np.zeros(x.shape[1], bool)  # (columns,)
    first, rows, empty_rows = -1, 0, []
    for place in chunks(x):
        part = x[place]
        if np.isfinite(part).all():
            continue
        inf, nan = np.isinf(part), np.isnan(part)  # (chunk, columns)
        bad = inf.any(axis=1)  # (chunk,)
        if bad.any():
            first = place.start + int(bad.argmax()) if first < 0 else first
            rows += int(bad.sum())
            infinite |= inf.any(axis=0)
        missing += nan.sum(axis=0)
        empty_rows.extend((place.start + np.flatnonzero(nan.all(axis=1))).tolist())
    names = [str(i) for i in range(x.shape[1])] if columns is None else columns
    if rows:
        where = f"{rows:,} of {len(x):,} rows, the first is row {first}; in {_named(names, infinite)}"
        unseen = "if they stand for numbers that were not observed, make them NaN: x = np.where(np.isinf(x), np.nan, x)"
        raise DataError(f"{what} holds infinite values ({where}); {unseen}")
    if not missing.any():
        return []
    if missing.sum() == x.size:
        raise DataError(f"{what} holds no number at all, only NaN; save numbers")
    notes = [
        f"{what}: {missing.sum():,} of {x.size:,} numbers are missing (NaN), in {_named(names, missing > 0)}; "
        "training is on those that were observed"
    ]
    if (missing == len(x)).any():
        notes.append(f"{what}: no row has a number in {_named(names, missing == len(x))}: nothing is learned there")
    if empty_rows:
        listed = ", ".join(map(str, empty_rows[:LISTED])) + ("..." if len(empty_rows) > LISTED else "")
        notes.append(f"{what}: {len(empty_rows):,} rows have no number at all: {listed}")
    return notes


def _named(names: Sequence[str], which: np.ndarray) -> str:
    chosen = [name for name, chosen in zip(names, which, strict=True) if chosen]
    if len(chosen) > LISTED:
        return f"{len(chosen):,} of {len(names):,} columns"
    return f"column{'s' * (len(chosen) > 1)} {', '.join(chosen)}"
