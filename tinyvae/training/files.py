"""Files that are either the old or the new one, whatever happens in between."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".tmp"  # the ending of a file that is not finished; leftovers of a killed process are safe to delete


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, then put it in the place of `path`.

    If anything fails, `path` is as it was and no temporary file is left. After a crash either the old or the new file
    is there: the data is on the disk before the name points to it, and the name before this returns.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)  # noqa: PTH105 - the tests plant faults into os.replace
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a text file as a whole."""
    write_atomically(path, lambda temporary: write_bytes(temporary, text.encode()))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as a whole; for `write_atomically`."""
    path.write_bytes(content)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process did not finish."""
    for leftover in folder.glob(f".*{TEMPORARY}"):
        with suppress(OSError):
            leftover.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
