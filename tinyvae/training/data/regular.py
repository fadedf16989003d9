"""Opening files of any origin: only regular ones, so that nothing waits on a pipe or reads a device without an end."""

import os
import stat
from io import BufferedReader
from pathlib import Path

from tinyvae.errors import DataError

FOLDER = "is a folder, not a file"
_KINDS = (
    (stat.S_ISDIR, FOLDER),
    (stat.S_ISFIFO, "is a pipe, not a file"),
    (stat.S_ISSOCK, "is a socket, not a file"),
    (stat.S_ISCHR, "is a device, not a file"),
    (stat.S_ISBLK, "is a device, not a file"),
)


def problem(path: Path) -> str | None:
    """Why there is no regular file of this name, in a few words; None if there is one. Opens and raises nothing."""
    try:
        return _kind(path.stat().st_mode)
    except FileNotFoundError:
        return "is a link to a file that is not there" if is_link(path) else "there is no such file"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return f"cannot be read ({reason(error)})"


def open_regular(path: Path) -> BufferedReader:
    """The file, opened for reading. Raises DataError, naming it, if there is none or it is no regular file.

    It is opened without waiting, and looked at once more when it is open: a name can be given to a pipe in between.
    """
    wrong = problem(path)
    if wrong is None:
        try:
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({reason(error)})") from error
        wrong = _kind(os.fstat(file.fileno()).st_mode)
        if wrong is None:
            return file
        file.close()
    raise DataError(f"{path}: {wrong}")


def exists(path: Path) -> bool:
    """Something of this name is there. A name that cannot be is not there; nothing is raised."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_link(path: Path) -> bool:
    """The name is a symbolic link's; nothing is raised."""
    try:
        return path.is_symlink()
    except (OSError, ValueError):
        return False


def reason(error: BaseException) -> str:
    """What the system says, without the number and the name that it puts around it."""
    return getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__


def _kind(mode: int) -> str | None:
    return next((words for test, words in _KINDS if test(mode)), None)
