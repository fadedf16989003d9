"""One file of this folder for each kind of data that is read. The table says which: the ending of a name -> the file.

A reader has `read(path) -> Found`; one of tables, whose columns have names, `read(path, wanted) -> Found`.
"""

from pathlib import Path
from typing import NamedTuple


class Reader(NamedTuple):
    """Where the reader is."""

    file: str
    columns: bool = False  # has columns with names


_ARRAYS, _TEXT = Reader("arrays"), Reader("text", columns=True)
_SEPARATED, _PARQUET = Reader("separated", columns=True), Reader("parquet", columns=True)
FOLDERS = Reader("images")
READERS = {  # longer endings first: the first that fits is taken
    ".npy": _ARRAYS, ".npz": _ARRAYS,
    ".csv.gz": _SEPARATED, ".csv": _SEPARATED, ".tsv.gz": _SEPARATED, ".tsv": _SEPARATED,
    ".parquet": _PARQUET, ".pq": _PARQUET,
    ".amat.gz": _TEXT, ".amat": _TEXT, ".txt.gz": _TEXT, ".txt": _TEXT, ".dat.gz": _TEXT, ".dat": _TEXT,
    ".data": _TEXT,
}  # fmt: skip


def ending_of(path: Path) -> str:
    """The ending of a name that is in the table, in any case; "" if there is none."""
    name = path.name.lower()
    return next((ending for ending in READERS if name.endswith(ending) and name != ending), "")
