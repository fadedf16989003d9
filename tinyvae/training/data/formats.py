"""The two published formats: IDX (MNIST, Fashion-MNIST) and .amat text (Larochelle's binarized MNIST)."""

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.regular import open_regular

IDX_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The unsigned bytes of a gzipped IDX file, which must have exactly this shape.

    Format: two zero bytes, the type (0x08), the number of dimensions, each dimension as a big-endian uint32, the data.
    """
    header_size = 4 + 4 * len(shape)
    size = int(np.prod(shape))
    with unzipped(path) as f:
        header = f.read(header_size)
        body = f.read(size + 1)  # one byte more than there should be shows trailing bytes, and bounds what is unpacked
    expected = struct.pack(f">HBB{len(shape)}I", 0, IDX_UNSIGNED_BYTE, len(shape), *shape)
    if header != expected:
        raise DataError(
            f"{path}: the header is not that of an IDX file of {' x '.join(map(str, shape))} unsigned bytes"
        )
    if len(body) != size:
        raise DataError(
            f"{path}: holds {'more' if len(body) > size else 'fewer'} than the {size:,} bytes its header names"
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def read_amat(path: Path, rows: int, columns: int, chunk: int = 1000) -> np.ndarray:
    """The 0s and 1s of an .amat file (gzipped or not) as bytes, (rows, columns).

    Each line is `columns` digits with single spaces between them. Read in chunks, for the text is twice the data.
    """
    x = np.empty((rows, columns), dtype=np.uint8)
    width = 2 * columns  # digit, separator, digit, separator, ..., newline
    separators = np.frombuffer(b" " * (columns - 1) + b"\n", dtype=np.uint8)
    with unzipped(path) as f:
        for start in range(0, rows, chunk):
            n = min(chunk, rows - start)
            text = f.read(n * width)
            if len(text) != n * width:
                raise DataError(f"{path}: ends before row {rows:,}")
            lines = np.frombuffer(text, dtype=np.uint8).reshape(n, width)
            digits = lines[:, 0::2] - ord("0")
            if (digits > 1).any() or (lines[:, 1::2] != separators).any():
                raise DataError(f"{path}: a row between {start:,} and {start + n:,} is not {columns} zeros and ones")
            x[start : start + n] = digits
        if f.read(1):
            raise DataError(f"{path}: goes on after row {rows:,}")
    return x


@contextmanager
def unzipped(path: Path) -> Iterator[gzip.GzipFile | BufferedReader]:
    """The file's bytes, unpacked if its name ends in .gz; damage is a DataError that names the file."""
    try:
        with open_regular(path) as file:
            if path.suffix != ".gz":
                yield file
                return
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: not an undamaged gzip file ({error}); delete it to have it downloaded again"
        ) from error
