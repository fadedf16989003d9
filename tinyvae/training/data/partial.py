"""Files that are being downloaded: under a name of our own, locked by who writes them, and deleted when nobody does."""

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def partial_file(folder: Path, name: str) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file, open and locked, and its path. Rename it once it is whole: what has that path at last is deleted."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        path = folder / f".{name}.{secrets.token_hex(8)}.partial"
        with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
            try:
                with suppress(OSError):  # some network file systems have no locks
                    fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_nlink:  # else another process took it for a leftover before it was locked
                    yield file, path
                    return
            finally:
                path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str) -> None:
    """Delete what a killed process has left of a download of `name`: files of our own naming that nobody has locked."""
    ours = re.compile(re.escape(f".{name}.") + r"[0-9a-f]{16}\.partial")
    try:
        leftovers = [path for path in folder.iterdir() if ours.fullmatch(path.name)]
    except OSError:
        return
    for path in leftovers:
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    path.unlink()
            finally:
                os.close(descriptor)
