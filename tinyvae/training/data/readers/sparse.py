"""Sparse matrices of SciPy in an .npz file, made dense. Read without SciPy, and held to what they claim.

The formats (https://docs.scipy.org/doc/scipy/reference/sparse.html): csr and csc list, for each row (column), where it
begins in `indices` and `data`; bsr does so for blocks; coo lists row, column, value; dia lists diagonals.
"""

from pathlib import Path

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.arrays import Arrays
from tinyvae.training.data.found import Found, Part
from tinyvae.training.data.memory import enough_memory
from tinyvae.training.data.readers.layout import check_numbers
from tinyvae.training.data.readers.observed import check_observed

_COMPRESSED = {"data", "indices", "indptr"}
_NEEDED = {b"csr": _COMPRESSED, b"csc": _COMPRESSED, b"bsr": _COMPRESSED, b"coo": {"data", "row", "col"},
           b"dia": {"data", "offsets"}}  # fmt: skip
_AT_ONCE = 1 << 20  # entries


def is_sparse(arrays: Arrays) -> bool:
    """The file is one of scipy.sparse.save_npz."""
    return {"format", "shape", "data"} <= set(arrays.names)


def read_sparse(path: Path, arrays: Arrays) -> Found:
    """The matrix as (rows, columns): float32 if that holds every entry exactly, else float64. Entries that are given
    twice are added, as SciPy does.
    """
    kind = arrays.find("format")
    name = kind.read().item() if kind.shape == () and kind.dtype.kind in "SU" else b"?"
    name = name.encode() if isinstance(name, str) else name
    needed = _NEEDED.get(name, {"?"})
    lacking = sorted(needed - set(arrays.names))
    if lacking:
        raise DataError(
            f"{path}: is a sparse matrix of the format {name.decode(errors='replace')!r}, which is not read; in "
            f"Python: import scipy.sparse as s; s.save_npz({path.stem + '-csr.npz'!r}, "
            f"s.csr_matrix(s.load_npz({str(path)!r})))"
        )
    whole = {key: arrays.find(key) for key in (*needed, "shape")}
    check_numbers(path, "data", whole["data"])
    for key in needed - {"data"} | {"shape"}:
        if whole[key].dtype.kind not in "ui" or len(whole[key].shape) != 1:
            raise _broken(path, f"{key} is {whole[key]}, not a line of whole numbers")
    if whole["shape"].shape != (2,):
        raise DataError(f"{path}: is a sparse array of {whole['shape'].shape[0]} dimensions; (rows, columns) is needed")
    held = sum(a.size for a in whole.values())
    with enough_memory(held, f"{path}: its entries", "save fewer rows"):
        a = {key: stored.read() for key, stored in whole.items()}
    rows, columns = (int(n) for n in a["shape"])
    if rows < 1 or columns < 1:
        raise DataError(f"{path}: is a sparse matrix of shape ({rows}, {columns}); it must have rows and columns")
    data = a["data"]
    with np.errstate(over="ignore"):
        exact = bool((data.astype(np.float32) == data).all())
    dtype = np.dtype(np.float32 if exact else np.float64)
    dense = rows * columns * dtype.itemsize
    remedy = "as a dense table it is so large: save fewer rows, or fewer columns"
    with enough_memory(dense, f"{path}: x, ({rows}, {columns}) {dtype}", remedy, already=held):
        x = np.zeros((rows, columns), dtype)
        {b"csr": _csr, b"csc": _csc, b"bsr": _bsr, b"coo": _coo, b"dia": _dia}[name](path, x, a)
        notes = check_observed(f"{path}: x", x)
    return Found(path.stem, Part(x), notes=tuple(notes))


def _coo(path: Path, x: np.ndarray, a: dict[str, np.ndarray]) -> None:
    _add(path, x, a["row"], a["col"], a["data"])


def _csr(path: Path, x: np.ndarray, a: dict[str, np.ndarray]) -> None:
    _add(path, x, _lines(path, a, len(x)), a["indices"], a["data"])


def _csc(path: Path, x: np.ndarray, a: dict[str, np.ndarray]) -> None:
    _add(path, x, a["indices"], _lines(path, a, x.shape[1]), a["data"])


def _bsr(path: Path, x: np.ndarray, a: dict[str, np.ndarray]) -> None:
    """data is (blocks, height, width)."""
    data = a["data"]
    if data.ndim != 3 or 0 in data.shape[1:] or x.shape[0] % data.shape[1] or x.shape[1] % data.shape[2]:
        raise _broken(path, f"its blocks, {data.shape}, do not fill {x.shape}")
    _, height, width = data.shape
    block = _lines(path, a, len(x) // height)  # (blocks,)
    if a["indices"].max(initial=0) >= x.shape[1] // width:
        raise _broken(path, f"a block is outside of {x.shape}")
    for i in range(height):
        for j in range(width):
            _add(path, x, block * height + i, a["indices"].astype(np.int64) * width + j, data[:, i, j])


def _dia(path: Path, x: np.ndarray, a: dict[str, np.ndarray]) -> None:
    """data is (diagonals, length): data[d, j] stands in column j, in row j - offsets[d]."""
    data, offsets = a["data"], a["offsets"].astype(np.int64)
    if data.ndim != 2 or len(data) != len(offsets):
        raise _broken(path, f"{len(offsets)} diagonals, but data {data.shape}")
    for line, offset in zip(data, offsets, strict=True):
        j = np.arange(min(len(line), x.shape[1]))
        inside = (j - offset >= 0) & (j - offset < len(x))
        j = j[inside]
        _add(path, x, j - offset, j, line[: len(inside)][inside])


def _lines(path: Path, a: dict[str, np.ndarray], lines: int) -> np.ndarray:
    """The row (csc: the column) of each entry: line i has the entries from indptr[i] to indptr[i + 1]."""
    start = a["indptr"].astype(np.int64)
    if len(start) != lines + 1 or start[0] != 0 or (np.diff(start) < 0).any() or start[-1] > len(a["indices"]):
        raise _broken(path, f"indptr does not divide {len(a['indices']):,} entries into {lines:,}")
    a["indices"], a["data"] = a["indices"][: start[-1]], a["data"][: start[-1]]
    return np.repeat(np.arange(lines), np.diff(start))


def _add(path: Path, x: np.ndarray, row: np.ndarray, column: np.ndarray, data: np.ndarray) -> None:
    if data.ndim != 1 or not len(row) == len(column) == len(data):
        raise _broken(path, f"{len(row):,} rows, {len(column):,} columns and values {data.shape} do not go together")
    for start in range(0, len(data), _AT_ONCE):
        place = slice(start, start + _AT_ONCE)
        i, j = row[place], column[place]
        if i.min() < 0 or j.min() < 0 or i.max() >= x.shape[0] or j.max() >= x.shape[1]:
            raise _broken(path, f"an entry is outside of {x.shape}")
        np.add.at(x, (i, j), data[place].astype(x.dtype))


def _broken(path: Path, why: str) -> DataError:
    return DataError(f"{path}: is not a readable sparse matrix ({why}); save it again with scipy.sparse.save_npz")
