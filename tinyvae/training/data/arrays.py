"""The arrays of a .npy or .npz file: known by their headers, read only when they are what is wanted.

What a file claims about itself is compared with its size before anything is unpacked, and a reader can compare what an
array asks for (`Stored.size`) with the memory there is. Nothing is ever unpickled. Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import errno
import io
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.convert import other_kind
from tinyvae.training.data.regular import open_regular, reason

HEADER = 10_000  # bytes of a header at most, as NumPy has it
PREFIX = 12  # bytes before it, at most: the magic string, the version, the header's length
LARGEST_READ = 1 << 26  # bytes at once; the table of contents of an .npz file is read so, and could claim any size
DEFLATE = 1032  # as many bytes as one packed byte can become (zlib's own bound)
MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class Stored:
    """An array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    map: Callable[[], np.ndarray] | None = None  # the array where it lies in the file, read-only, if it can be had so
    fortran: bool = False  # the first index is the fastest one

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        dtype = str(self.dtype)  # of records, it has the names of all fields
        return f"{self.shape} {dtype if len(dtype) <= 100 else dtype[:100] + '...'}"


@dataclass(frozen=True)
class Arrays:
    """What a file holds. A .npy file's one array is called x; `is_archive` tells it from an .npz file."""

    names: list[str]
    is_archive: bool
    find: Callable[[str], Stored]


@contextmanager
def open_arrays(path: Path) -> Iterator[Arrays]:
    """The arrays of a file, which stays open for as long. Raises DataError, naming it, if it is damaged or another."""
    with open_regular(path) as file:
        with _damage(path):
            magic = file.read(len(MAGIC))
            size = os.fstat(file.fileno()).st_size
        if magic == MAGIC:
            yield Arrays(["x"], False, lambda name: _npy(path, file, size))
            return
        if magic[:2] != b"PK":
            kind, line = other_kind(path, magic)
            raise DataError(f"{path}: is not a readable .npy or .npz file ({kind}); {line}")
        with _damage(path):
            archive = zipfile.ZipFile(_Careful(file.raw))
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        yield Arrays(list(members), True, lambda name: _member(path, archive, members[name], size))


def _npy(path: Path, file: io.BufferedReader, size: int) -> Stored:
    with _damage(path):
        file.seek(0)
        shape, fortran, dtype, start = _header(file.read(PREFIX + HEADER))

    def read() -> np.ndarray:
        with _damage(path):
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)

    def mapped() -> np.ndarray:
        with _damage(path):  # the map lives on when the file is closed
            order = "F" if fortran else "C"
            return np.memmap(file, dtype, "r", start, shape, order)  # pyright: ignore - any open file will do

    stored = Stored(shape, dtype, read, None if dtype.hasobject else mapped, fortran)
    if not dtype.hasobject and size - start < stored.size:
        with _damage(path):
            raise ValueError(f"it is cut short: {stored} is {stored.size:,} bytes, but {size - start:,} follow")
    return stored


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> Stored:
    name = info.filename.removesuffix(".npy")
    with _damage(path):
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is packed in another way than NumPy's")
        if info.compress_size > size or info.file_size > DEFLATE * info.compress_size:
            raise ValueError(f"{name} claims to be {info.file_size:,} bytes long, more than can be in it")
        with archive.open(info) as member:
            head = member.read(PREFIX + HEADER)
        if head[: len(MAGIC)] != MAGIC:
            raise ValueError(f"{name} is no array; save arrays with numpy.savez(file, x=x, y=y)")
        shape, fortran, dtype, start = _header(head)

    def read() -> np.ndarray:
        with _damage(path), archive.open(info) as member:
            return np.lib.format.read_array(member, allow_pickle=False)

    stored = Stored(shape, dtype, read, None, fortran)
    if not dtype.hasobject and start + stored.size != info.file_size:
        with _damage(path):
            raise ValueError(f"{name}, {stored}, is {stored.size:,} bytes, but it holds {info.file_size - start:,}")
    return stored


def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran's order or not, dtype, where the numbers begin: from a file's first bytes. Raises ValueError."""
    file = io.BytesIO(head)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"its format version, {version}, is none of NumPy's")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(file, max_header_size=HEADER)
    except Exception as error:  # whatever Python's parser makes of it, MemoryError for deep brackets among it
        long = len(head) == PREFIX + HEADER and file.tell() == len(head)
        raise ValueError("its header is far too long" if long else "its header cannot be read") from error
    if any(n < 0 for n in shape):
        raise ValueError(f"its header names the shape {shape}")
    return shape, fortran, dtype, file.tell()


class _Careful(io.BufferedReader):
    """Reads only so much at once: zipfile reads a table of contents in one go, as long as the file says that it is."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LARGEST_READ:
            raise zipfile.BadZipFile(f"its table of contents claims to be {size:,} bytes long")
        return super().read(LARGEST_READ if size is None or size < 0 else size)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Whatever NumPy and zipfile raise for a damaged file, nearly anything, becomes a DataError that names it."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from error
        raise DataError(f"{path}: cannot be read ({reason(error)})") from error
    except Exception as error:
        raise DataError(
            f"{path}: is not a readable .npy or .npz file ({reason(error)}); save numbers with numpy.save"
        ) from error
