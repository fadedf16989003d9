"""Files that are either the old or the new one, whatever happens in between; and reading that cannot hang.

What is written is on the disk before its name points to it, and its name before the function returns.
"""

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

LEFTOVER = re.compile(  # what a killed process did not finish; the second form is that of tinyvae before its locks
    r"\.[0-9a-f]{16}\.tmp|\.(config\.json|metrics\.csv|(step|best)-\d+\.safetensors|\w+\.png)\.\d+\.tmp"
)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, then put it in the place of `path`.

    If anything fails, `path` is as it was and no temporary file is left. After a crash either the old or the new file
    is there. The temporary file is a new one under a name that nobody can foresee: no link is followed.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a Path cannot open a descriptor
            write(file)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)  # noqa: PTH105 - the tests plant faults into os.replace
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file as a whole."""
    write_atomically(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Replace a text file as a whole."""
    write_bytes(path, text.encode())


def read_regular(path: Path, limit: int) -> bytes:
    """The whole content of a regular file of at most `limit` bytes.

    Raises OSError if it cannot be read, ValueError if it is a device, a pipe or larger: these are not even begun.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to would block
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a Path cannot open a descriptor
        about = os.fstat(descriptor)
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("is no regular file")
        if about.st_size > limit:
            raise ValueError(f"is too large: {about.st_size:,} bytes, where at most {limit:,} are expected")
        try:
            return file.read(about.st_size)
        except MemoryError as error:
            raise ValueError(f"does not fit into the memory: {about.st_size:,} bytes") from error


def make_folder(path: Path) -> list[Path]:
    """Make a folder, and those above it that are missing, durably. The ones that were made, the outermost first.

    Raises OSError if that fails; what was made until then is gone again.
    """
    made: list[Path] = []
    try:
        for folder in reversed([path, *takewhile(lambda above: not above.exists(), path.parents)]):
            try:
                folder.mkdir()
            except FileExistsError:
                if not folder.is_dir():
                    raise
                continue
            made.append(folder)
            sync_folder(folder.parent)
    except BaseException:
        remove_folders(made)
        raise
    return made


def remove_folders(made: list[Path]) -> None:
    """Take back what `make_folder` made, as far as it is empty."""
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process did not finish. Only for who holds the folder's lock."""
    for path in leftovers(folder):
        with suppress(OSError):
            path.unlink()


def leftovers(folder: Path) -> list[Path]:
    """The unfinished files of a killed process, or none where there is no such folder."""
    return [path for path in folder.iterdir() if LEFTOVER.fullmatch(path.name)] if folder.is_dir() else []


def sync_folder(folder: Path) -> None:
    """Names that were made, moved or deleted in the folder are on the disk when this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such thing
            raise
    finally:
        os.close(descriptor)
