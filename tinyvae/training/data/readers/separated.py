"""Text with separated columns: .csv, .tsv, also gzipped. pandas reads it, after a look at its lines.

The look finds what pandas passes over or guesses without a word: lines with too few fields, a first line that is no
line of names, semicolons, a comma as decimal point.
"""

import csv
import gzip
import io
import itertools
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tinyvae.errors import DataError
from tinyvae.training.data.found import Found, Wanted
from tinyvae.training.data.memory import enough_memory
from tinyvae.training.data.readers.frames import FEWER_ROWS, found_in, library
from tinyvae.training.data.regular import open_regular, reason

SEPARATORS = ",;\t|"
FIRST = 1000  # lines that tell whether the first has names
ROOM = 4  # bytes in memory for one of the text, while it is read: a number of two characters takes eight
LONGEST = 1 << 24  # characters of a line
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True)
class _Form:
    separator: str
    decimal: str
    header: bool
    size: int  # characters


def read(path: Path, wanted: Wanted) -> Found:
    """The rows of the text, with names from its first line, or 0, 1, ... where that is data."""
    pandas = library(path, "pandas")
    with _text(path) as file:
        form = _look(path, file)
    size = ROOM * form.size
    with (
        enough_memory(size, f"{path}: {form.size:,} characters", FEWER_ROWS),
        _text(path) as file,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of types that pandas would have liked: `cells` looks at all
        try:
            frame = pandas.read_csv(
                file, sep=form.separator, decimal=form.decimal, header=0 if form.header else None, index_col=False,
                low_memory=False, float_precision="round_trip", skip_blank_lines=True, skipinitialspace=True,
            )  # fmt: skip
        except MemoryError:
            raise
        except Exception as error:  # pandas' own are of many kinds
            raise DataError(f"{path}: cannot be read as a table ({reason(error)}); save it with {_SAVE}") from error
    if form.header and str(frame.columns[0]).startswith("#"):  # as numpy.savetxt writes names
        frame = frame.rename(columns={frame.columns[0]: str(frame.columns[0]).lstrip("# ")})
    notes = () if form.header else (f"{path}: its first line has no names; columns are called 0, 1, ...",)
    return found_in(path, frame, wanted, notes)


_SAVE = "pandas: frame.to_csv(file, index=False)"


@contextmanager
def _text(path: Path) -> Iterator[IO[str]]:
    """The file's text, unpacked if it is gzipped. Whatever damage shows is a DataError."""
    with open_regular(path) as file:
        try:
            zipped = file.peek(2)[:2] == b"\x1f\x8b"
            binary = gzip.GzipFile(fileobj=file) if zipped else file
            with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:  # pyright: ignore - both are files
                yield text
        except UnicodeDecodeError as error:
            start = error.object[:2]
            coding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
            raise DataError(
                f"{path}: is not text in UTF-8 ({error.reason}); in Python, if it is {coding}: import pathlib; "
                f"pathlib.Path('utf8.csv').write_text(pathlib.Path({str(path)!r}).read_text({coding!r}))"
            ) from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: is not an undamaged gzip file ({reason(error)}); copy it once more") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({reason(error)})") from error


def _look(path: Path, file: IO[str]) -> _Form:
    """Separator, decimal point, names; every line must have as many fields as the first."""
    lines = _lines(path, file)
    head = list(itertools.islice(lines, FIRST))
    if not any(line.strip() for line in head):
        raise DataError(f"{path}: is empty; a table has a line of names, and a line for each row")
    separator = _separator(path, head)
    size, first, fields = 0, [], 0

    def counted() -> Iterator[str]:
        nonlocal size
        for line in itertools.chain(head, lines):
            size += len(line)
            yield line

    reader = csv.reader(counted(), delimiter=separator, skipinitialspace=True)
    try:
        for row in reader:
            if not row or (len(row) == 1 and not row[0].strip() and fields != 1):
                continue  # an empty line
            fields = fields or len(row)
            if len(row) != fields:
                raise DataError(
                    f"{path}: line {reader.line_num} has {len(row)} fields, but the first has {fields}; a text with "
                    f"the separator {separator!r} in it needs quotation marks, and a file that was cut short its end"
                )
            if len(first) < FIRST:
                first.append(row)
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num} is no line of a table ({error}); save it with {_SAVE}"
        ) from error
    rows = first[1:]
    written = [cell for row in rows for cell in row]
    comma = separator != "," and any(map(_COMMA.fullmatch, written)) and not any("." in cell for cell in written)
    return _Form(separator, "," if comma else ".", _has_names(first), size)


def _lines(path: Path, file: IO[str]) -> Iterator[str]:
    while line := file.readline(LONGEST):
        if len(line) == LONGEST:
            raise DataError(f"{path}: has a line of more than {LONGEST:,} characters; it is no table")
        if "\0" in line:
            raise DataError(f"{path}: is not text: it holds NUL; save it with {_SAVE}")
        yield line


def _separator(path: Path, head: list[str]) -> str:
    """The ending's own, unless the first line has none of it and some of another."""
    own = "\t" if ".tsv" in path.name.lower() else ","
    line = re.sub(r'"[^"]*"', "", next(line for line in head if line.strip()))
    counts = {s: line.count(s) for s in SEPARATORS}
    if counts[own] and counts[";"] <= counts[own]:
        return own
    most = max(counts, key=lambda s: counts[s])
    return most if counts[most] else own


def _has_names(lines: list[list[str]]) -> bool:
    """Whether the first line has names and no data.

    No name is a number with a point. Whole numbers, all different, can be names: all of them, counted from 0 or 1 (as
    pandas writes them), or years beside words. A word that occurs again below is no name.
    """
    first, rows = lines[0], lines[1:]
    names = [cell.strip() for cell in first]
    if not rows:
        return not any(map(_NUMBER.fullmatch, names))
    numeric = [bool(_NUMBER.fullmatch(name)) for name in names]
    numbers = [name for name, n in zip(names, numeric, strict=True) if n]
    if len(set(numbers)) < len(numbers):
        return False
    if all(numeric):
        return names in ([str(i + start) for i in range(len(names))] for start in (0, 1))
    if any(n and not name.isdecimal() for n, name in zip(numeric, names, strict=True)):
        return False
    again = [any(row[i].strip() == name for row in rows) for i, name in enumerate(names)]
    return not any(seen and not n and name for seen, n, name in zip(again, numeric, names, strict=True))
