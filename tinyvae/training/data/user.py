"""A user's own data: .npy, or .npz with `x` and optionally `y`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.arrays import Arrays, Stored, open_arrays
from tinyvae.training.data.dataset import Dataset, split
from tinyvae.training.data.memory import enough_memory
from tinyvae.training.data.regular import problem

TEST_FRACTION = 0.1
LISTED = 10  # arrays, or columns, that a message names


class UserRows(NamedTuple):
    """A file's rows, in its order."""

    x: np.ndarray  # (rows, data)
    y: np.ndarray | None  # (rows,) whole numbers
    image_shape: tuple[int, int] | None
    label_problem: str  # why there are labels that cannot be used; empty if there are none, or if they can


def load_user_file(path: Path) -> Dataset:
    """A user's rows, a tenth of them kept for testing. Raises DataError for anything that cannot be trained on."""
    x, y, image_shape, label_problem = read_user_rows(path)
    with enough_memory(x.nbytes, f"{path}: x, {x.shape} {x.dtype}", fewer(path), already=x.nbytes):  # and the parts
        return split(path.stem, x, y, TEST_FRACTION, image_shape=image_shape, label_problem=label_problem)


def read_user_rows(path: Path) -> UserRows:
    """The rows and labels of a file.

    The file's x is (rows, columns), or (rows, height, width) for images; its y (rows,) holds whole numbers.
    Raises DataError, naming the file, the cause and a remedy, for any other x; labels that are no such y are left out,
    with the reason: whoever needs them says it.
    """
    wrong = problem(path)
    if wrong == "there is no such file":
        raise DataError(f"{path}: {wrong}; if it has moved, name its folder with --data-dir")
    with open_arrays(path) as arrays:
        if "x" not in arrays.names:
            raise DataError(f"{path}: {_without_x(path, arrays)}")
        stored = arrays.find("x")
        _check(path, stored)
        target = _kept_as(stored.dtype)
        needed = stored.size + (0 if target == stored.dtype else stored.size // stored.dtype.itemsize * target.itemsize)
        with enough_memory(needed, f"{path}: x, {stored}", fewer(path)):
            x = stored.read()
            image_shape = (x.shape[1], x.shape[2]) if x.ndim == 3 else None
            x = x.reshape(x.shape[0], -1)
            if x.dtype.kind == "f":
                _check_finite(path, x)
            with np.errstate(over="ignore"):
                x = x.astype(target, copy=False)
            if stored.dtype.itemsize > 8 and not np.isfinite(x).all():
                raise DataError(
                    f"{path}: x holds long doubles beyond float64; bring them there: x = x / np.abs(x).max()"
                )
        y, label_problem = _labels(path, arrays, len(x)) if "y" in arrays.names else (None, "")
    return UserRows(x, y, image_shape, label_problem)


def _kept_as(dtype: np.dtype) -> np.dtype:
    """Bytes stay bytes, floats of at most 4 bytes become float32, all other numbers float64."""
    if dtype in (bool, np.uint8):
        return np.dtype(np.uint8)
    return np.dtype(np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64)


# --------------------------------------------------------------------------------------- what x must be, and what helps


def _check(path: Path, x: Stored) -> None:
    """Raises DataError unless x holds numbers, in rows or images."""
    if x.dtype.kind not in "buif":
        kind = f"{len(x.dtype.names)} fields (records)" if x.dtype.names else f"dtype {x.dtype}"
        raise DataError(f"{path}: x has {kind}, but numbers are needed; {_as_numbers(path, x.dtype)}")
    if len(x.shape) not in (2, 3) or 0 in x.shape:
        right = "(rows, columns) or (rows, height, width) is needed"
        raise DataError(f"{path}: x has shape {x.shape}, but {right}{_as_rows(x.shape)}")


def _as_numbers(path: Path, dtype: np.dtype) -> str:
    if dtype.hasobject:
        return (
            f"it holds Python objects, which are never unpickled; if you trust the file: x = np.load({str(path)!r}, "
            "allow_pickle=True).astype(float), and save that with numpy.save"
        )
    if dtype.names:
        return "put its fields side by side: x = np.stack([x[name].astype(float) for name in x.dtype.names], axis=1)"
    return {
        "U": "if they are numbers written out: x = x.astype(float)",
        "S": "if they are numbers written out: x = x.astype(float)",
        "c": "real and imaginary parts side by side: x = np.concatenate([x.real, x.imag], axis=1)",
        "M": "as days since the first: x = (x - x.min()) / np.timedelta64(1, 'D')",
        "m": "as days: x = x / np.timedelta64(1, 'D')",
    }.get(dtype.kind, "save numbers with numpy.save")


def _as_rows(shape: tuple[int, ...]) -> str:
    """How such an array becomes rows; nothing for an empty one."""
    if 0 in shape or not shape:
        return ""
    if len(shape) == 1:
        return "; rows of one number: x = x[:, None]"
    if len(shape) == 4 and shape[1] == 1:
        return f"; grey images: x = x[:, 0], which is ({shape[0]}, {shape[2]}, {shape[3]})"
    if len(shape) == 4 and shape[3] == 1:
        return f"; grey images: x = x[..., 0], which is {shape[:3]}"
    if len(shape) == 4 and (shape[3] in (3, 4) or shape[1] in (3, 4)):
        axis = -1 if shape[3] in (3, 4) else 1
        return (
            f"; colour is not drawn: x = x.mean(axis={axis}) makes grey images, x = x.reshape(len(x), -1) flat rows of "
            "all the colours"
        )
    return "; flat rows: x = x.reshape(len(x), -1)"


def _check_finite(path: Path, x: np.ndarray) -> None:
    """Raises DataError if a number is NaN or infinite: where, how many, and what to take away."""
    bad = ~np.isfinite(x)  # (rows, data)
    rows, columns = np.flatnonzero(bad.any(axis=1)), np.flatnonzero(bad.any(axis=0))
    if not rows.size:
        return
    where = f"{rows.size} of {len(x)} rows, the first is row {rows[0]}"
    if columns.size <= LISTED:
        where += f"; in column{'s' * (columns.size > 1)} {', '.join(map(str, columns))}"
    if rows.size <= len(x) / 2:
        remedy = f"remove these rows: x = x[np.isfinite(x).all(axis=1)] leaves {len(x) - rows.size}"
    elif columns.size <= x.shape[1] / 2:
        remedy = f"remove these columns: x = x[:, np.isfinite(x).all(axis=0)] leaves {x.shape[1] - columns.size}"
    else:
        remedy = "fill in the mean of the column: x[~np.isfinite(x)] = np.nan; x = np.where(np.isnan(x), "
        remedy += "np.nanmean(x, axis=0), x)"
    raise DataError(f"{path}: x holds NaN or infinite values ({where}); {remedy}")


def _without_x(path: Path, arrays: Arrays) -> str:
    """What an .npz file without x holds, and the line that makes one with x of it."""
    names = arrays.names
    if {"data", "indices", "indptr", "shape"} <= set(names):
        line = f"import numpy as np, scipy.sparse; np.save({path.stem + '.npy'!r}, "
        return f"is a sparse matrix of SciPy; in Python: {line}scipy.sparse.load_npz({str(path)!r}).toarray())"
    found: dict[str, Stored] = {}
    for name in names[:LISTED]:
        try:
            found[name] = arrays.find(name)
        except DataError:  # of one array; the others may be what is wanted
            continue
    listed = [f"{name} {found[name]}" if name in found else name for name in names[:LISTED]]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"holds {', '.join(listed) or 'nothing'}{more}, but the data must be called x{_renamed(path, found)}"


def _renamed(path: Path, found: dict[str, Stored]) -> str:
    """The line that calls the likeliest arrays x and y: the largest of numbers, and whole numbers for its rows."""
    train, test = (
        next((n for n in found if n.lower() in (f"x_{part}", f"{part}_x", f"{part}_images")), None)
        for part in ("train", "test")
    )
    tables = {n: a for n, a in found.items() if a.dtype.kind in "buif" and len(a.shape) > 1}
    if not tables:
        return ""
    parts = [train, test] if train in tables and test in tables else [max(tables, key=lambda n: tables[n].size)]
    whole = {n: a for n, a in found.items() if len(a.shape) == 1 and a.dtype.kind in "bui"}
    y = [next((n for n, a in whole.items() if a.shape[0] == tables[p].shape[0]), None) for p in parts]
    x, labels = _joined(parts), "" if None in y else f", y={_joined(y)}"
    out = f"{path.stem}-x.npz"
    return f"; in Python: import numpy as np; f = np.load({str(path)!r}); np.savez({out!r}, x={x}{labels})"


def _joined(names: Sequence[str | None]) -> str:
    arrays = ", ".join(f"f[{name!r}]" for name in names)
    return arrays if len(names) == 1 else f"np.concatenate([{arrays}])"


def fewer(path: Path) -> str:
    """The remedy for too little memory."""
    if path.suffix.lower() == ".npy":
        name = str(path)
        return f"take every tenth row: np.save('fewer.npy', np.load({name!r}, mmap_mode='r')[::10])"
    return "save fewer rows, or the same as float32 or as bytes"


# --------------------------------------------------------------------------------------------------------------- labels


def _labels(path: Path, arrays: Arrays, rows: int) -> tuple[np.ndarray | None, str]:
    """y, or None and the reason why it is of no use."""
    try:
        stored = arrays.find("y")
    except DataError as error:
        return None, str(error)
    if stored.shape == (rows,) and stored.dtype.kind in "bui":
        y = stored.read()
        return y.astype(np.uint8) if y.dtype == bool else y, ""
    message = f"{path}: y must be {rows} whole numbers, one for each row of x, not {stored.dtype} {stored.shape}"
    return None, f"{message}{_as_labels(stored, rows)}"


def _as_labels(y: Stored, rows: int) -> str:
    if y.shape in ((rows, 1), (1, rows)):
        return "; y = y.ravel()" + (".astype(int)" if y.dtype.kind == "f" else "")
    if len(y.shape) == 2 and y.shape[0] == rows and y.dtype.kind in "buif":
        return "; if y is one-hot: y = y.argmax(axis=1)"
    if y.shape != (rows,):
        return ""
    if y.dtype.kind == "f":
        return "; y = y.astype(int)"
    if y.dtype.hasobject:
        return "; save it as an array of strings or numbers, not of objects: y = y.astype(str)"
    return "; number the labels: y = np.unique(y, return_inverse=True)[1]"
