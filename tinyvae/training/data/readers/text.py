"""Numbers in lines of text, with spaces between them: .amat, .txt, .dat, .data, also gzipped.

A text whose first line has commas, semicolons or tabs between its fields is a table with names (`separated`).
"""

import gzip
import itertools
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.found import Found, Part, Wanted
from tinyvae.training.data.memory import enough_memory
from tinyvae.training.data.readers import ending_of, separated
from tinyvae.training.data.readers.observed import check_observed
from tinyvae.training.data.regular import open_regular, reason

LINES = 1000  # at once: the text is longer than its numbers
LONGEST = 1 << 26  # bytes of a line
COMMENTS = (b"#", b"%")
FEWER = "save fewer rows, or the same numbers with numpy.save as bytes or as float32"


def read(path: Path, wanted: Wanted) -> Found:
    """The numbers: bytes if all are 0 and 1, else float64."""
    with _bytes(path) as file:
        first = next(_lines(path, file), b"")
    if any(separator in first for separator in (b",", b";", b"\t")) and ".amat" not in path.name.lower():
        return separated.read(path, wanted)
    if wanted != Wanted():
        raise DataError(f"{path}: its columns have no names, so no label, condition or kind can be chosen by one")
    parts: list[np.ndarray] = []
    with _bytes(path) as file:
        lines = enumerate(_lines(path, file), start=1)
        while some := list(itertools.islice(lines, LINES)):
            with enough_memory(2 * sum(part.nbytes for part in parts), f"{path}: its numbers", FEWER):
                parts.append(_numbers(path, some, parts))
    if not parts:
        raise DataError(f"{path}: is empty; numbers are needed, a line for each row")
    held = sum(part.nbytes for part in parts)
    size = sum(part.size for part in parts) * np.result_type(*parts).itemsize
    with enough_memory(size, f"{path}: its numbers", FEWER, already=held):
        x = np.concatenate(parts)
    notes = check_observed(f"{path}: x", x)
    return Found(path.name[: -len(ending_of(path))], Part(x), notes=tuple(notes))


def _numbers(path: Path, lines: list[tuple[int, bytes]], parts: list[np.ndarray]) -> np.ndarray:
    try:
        x = np.loadtxt([line.decode("ascii") for _, line in lines], ndmin=2, comments=None)
        if parts and x.shape[1] != parts[0].shape[1]:
            raise ValueError
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {_wrong_line(lines, parts)}") from error
    return x.astype(np.uint8) if ((x == 0) | (x == 1)).all() else x


def _wrong_line(lines: list[tuple[int, bytes]], parts: list[np.ndarray]) -> str:
    """Which line is not like the first one, and how."""
    width = parts[0].shape[1] if parts else len(lines[0][1].split())
    for number, line in lines:
        fields = line.split()
        for field in fields:
            try:
                float(field)
            except ValueError:
                shown = field[:20].decode("ascii", errors="backslashreplace")
                return f"row {number} holds {shown!r}, which is no number; before a line of names put a #"
        if len(fields) != width:
            return f"row {number} has {len(fields)} numbers, but the first has {width}; was the file cut short?"
    return "holds what is no number; save numbers with numpy.savetxt"


def _lines(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """The lines that have something, without comments."""
    while line := file.readline(LONGEST):
        if len(line) == LONGEST:
            raise DataError(f"{path}: has a line of more than {LONGEST:,} bytes; it is no table of numbers")
        line = line.strip()
        if line and not line.startswith(COMMENTS):
            yield line


@contextmanager
def _bytes(path: Path) -> Iterator[IO[bytes]]:
    with open_regular(path) as file:
        try:
            zipped = file.peek(2)[:2] == b"\x1f\x8b"
            yield gzip.GzipFile(fileobj=file) if zipped else file  # pyright: ignore - both are files
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: is not an undamaged gzip file ({reason(error)}); copy it once more") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({reason(error)})") from error
