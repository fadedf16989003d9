"""The arrays of an .npz file: which are rows, which labels, which parts. By their names; else only if nothing is left
to choose.
"""

import re
from pathlib import Path

from tinyvae.errors import DataError
from tinyvae.training.data.arrays import Arrays, Stored
from tinyvae.training.data.found import Found, Part
from tinyvae.training.data.readers.labels import take_labels
from tinyvae.training.data.readers.layout import looking, take
from tinyvae.training.data.readers.observed import LISTED, check_observed
from tinyvae.training.data.readers.sparse import is_sparse, read_sparse

_ROWS = "xs?|images?|imgs?|data|features|inputs?|samples"
_LABELS = "ys?|labels?|targets?|class(?:es)?"
_PARTS = {"train": "train|training|trn", "valid": "valid|val|validation|dev", "test": "test|testing|tst"}
_PART = "|".join(f"(?P<{part}>{words})" for part, words in _PARTS.items())
_ROLE = f"(?P<x>{_ROWS})|(?P<y>{_LABELS})"
_NAMES = (
    re.compile(f"(?:{_ROLE})", re.IGNORECASE),
    re.compile(f"(?:{_PART})", re.IGNORECASE),  # the part alone: its rows
    re.compile(f"(?:{_ROLE})[_ .-]?(?:{_PART})", re.IGNORECASE),
    re.compile(f"(?:{_PART})[_ .-]?(?:{_ROLE})", re.IGNORECASE),
)
_Chosen = dict[tuple[str, str], str]  # (part, "x" or "y") -> the array's name; the part "" is that of all rows


def read_archive(path: Path, arrays: Arrays) -> Found:
    """The rows, labels and parts of an open .npz file."""
    if is_sparse(arrays):
        return read_sparse(path, arrays)
    chosen = _by_name(path, arrays) or _by_elimination(arrays)
    if ("", "x") not in chosen and ("train", "x") not in chosen:
        raise DataError(f"{path}: {_unclear(path, arrays, chosen)}")
    parts: dict[str, Part] = {}
    shapes: dict[str, tuple[int, ...] | None] = {}
    notes: list[str] = []
    used: list[str] = []
    for part in ("", *_PARTS):
        name = chosen.get((part, "x"))
        if name is None:
            continue
        stored = arrays.find(name)
        x, shapes[name] = take(path, name, stored)
        with looking(path, name, x):
            notes += check_observed(f"{path}: {name}", x)
        used.append(name)
        y_name = chosen.get((part, "y"))
        y, label_problem = None, ""
        if y_name is not None:
            used.append(y_name)
            try:
                y, label_problem = take_labels(path, y_name, arrays.find(y_name), len(x))
            except DataError as error:  # labels stop nothing where they are not used
                label_problem = str(error)
        parts[part or "train"] = Part(x, y, label_problem)
    names = list(shapes)
    widths = {part.x.shape[1] for part in parts.values()}
    if len(widths) > 1 or len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {arrays.find(name)}" for name in names)
        raise DataError(f"{path}: its parts differ in the shape of a row: {listed}; save parts of one shape")
    unused = [name for name in arrays.names if name not in used]
    if unused:
        more = "..." if len(unused) > LISTED else ""
        notes.append(f"{path}: not used: {', '.join(unused[:LISTED])}{more}")
    return Found(path.stem, parts["train"], parts.get("valid"), parts.get("test"), shapes[names[0]], notes=tuple(notes))


def _by_name(path: Path, arrays: Arrays) -> _Chosen:
    """The arrays whose names say what they are. Raises DataError if two say the same."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in arrays.names:
        match = next((m for pattern in _NAMES if (m := pattern.fullmatch(name))), None)
        if match:
            says = match.groupdict()
            part = next((part for part in _PARTS if says.get(part)), "")
            found.setdefault((part, "y" if says.get("y") else "x"), []).append(name)
    chosen: _Chosen = {}
    for (part, role), names in found.items():
        exact = [name for name in names if name.lower() in ("x", "y")]  # x is x, whatever else could be
        if len(names) > 1 and len(exact) != 1:
            raise DataError(f"{path}: {_unclear(path, arrays, {})}")
        chosen[part, role] = (exact or names)[0]
    if ("", "x") in chosen and any(part and role == "x" for part, role in chosen):
        raise DataError(
            f"{path}: holds both {chosen['', 'x']}, all rows, and parts of them "
            f"({', '.join(name for (part, _), name in chosen.items() if part)}); save the one or the others"
        )
    return chosen if any(role == "x" for _, role in chosen) else {}


def _by_elimination(arrays: Arrays) -> _Chosen:
    """numpy.savez's arr_0 and arr_1, or arrays of any name: one of rows, and perhaps one that can be its labels."""
    if not 0 < len(arrays.names) <= 2:
        return {}
    tables, others = {}, {}
    for name in arrays.names:
        stored = arrays.find(name)
        rows = stored.dtype.kind in "buif" and len(stored.shape) > 1
        (tables if rows else others)[name] = stored
    if len(tables) == 2:  # the narrow one may be labels in a column, or one-hot
        names = arrays.names
        if set(names) != {"arr_0", "arr_1"} or not _fits(tables["arr_1"], tables["arr_0"]):
            return {}
        return {("", "x"): "arr_0", ("", "y"): "arr_1"}
    if len(tables) != 1:
        return {}
    (x,) = tables
    labels = [name for name, stored in others.items() if _fits(stored, tables[x])]
    if len(labels) != len(others):
        return {}
    return {("", "x"): x} | ({("", "y"): labels[0]} if labels else {})


def _fits(y: Stored, x: Stored) -> bool:
    """y can be the labels of x: as many, in a line, in a column, or one-hot and no wider than a tenth of x."""
    rows = x.shape[0]
    if y.shape in ((rows,), (rows, 1), (1, rows)):
        return y.dtype.kind in "buifUS"
    return len(y.shape) == 2 and y.shape[0] == rows and 10 * y.size <= rows * x.size / max(rows, 1)


# --------------------------------------------------------------------------------------------------------- what helps


def _unclear(path: Path, arrays: Arrays, chosen: _Chosen) -> str:
    """What the file holds, and the line that makes one with x of it."""
    names = arrays.names
    found: dict[str, Stored] = {}
    for name in names[:LISTED]:
        try:
            found[name] = arrays.find(name)
        except DataError:  # of one array; the others may be what is wanted
            continue
    listed = [f"{name} {found[name]}" if name in found else name for name in names[:LISTED]]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    needed = "the data must be called x, or x_train and x_test"
    if any(role == "x" for _, role in chosen):
        needed = "there are no rows to train on, x_train"
    return f"holds {', '.join(listed) or 'nothing'}{more}, but {needed}{_renamed(path, found)}"


def _renamed(path: Path, found: dict[str, Stored]) -> str:
    """The line that calls the likeliest arrays x and y: the largest of numbers, and what can be its labels."""
    tables = {n: a for n, a in found.items() if a.dtype.kind in "buif" and len(a.shape) > 1}
    if not tables:
        return ""
    x = max(tables, key=lambda n: tables[n].size)
    whole = [n for n, a in found.items() if a.dtype.kind in "bui" and len(a.shape) == 1]
    y = [n for n in whole if found[n].shape[0] == tables[x].shape[0]]
    labels = f", y=f[{y[0]!r}]" if y else ""
    out = f"{path.stem}-x.npz"
    return f"; in Python: import numpy as np; f = np.load({str(path)!r}); np.savez({out!r}, x=f[{x!r}]{labels})"
