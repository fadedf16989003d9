"""Memory: what an array needs is compared with what there is before it is asked for, and a lack of it is called so."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyvae.errors import DataError


@contextmanager
def enough_memory(needed: int, what: str, remedy: str, already: int = 0) -> Iterator[None]:
    """Around code that takes `needed` bytes: DataError "WHAT: ...; REMEDY" if there is not so much, or it runs out.

    already  bytes that the caller holds for the same purpose: the message names the sum

    Asked before, since Linux gives out more than it has, and ends the process that uses it.
    """
    free = available()
    message = f"{what}: not enough memory: about {shown(already + needed)} are needed"
    if needed > free:
        raise DataError(f"{message}, and {shown(already + free)} are free; {remedy}")
    try:
        yield
    except MemoryError as error:
        raise DataError(f"{message}; {remedy}") from error
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise DataError(f"{message}; {remedy}") from error


def available() -> float:
    """Bytes to be had without swapping: what Linux says, else all there are; infinity if nothing is known."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return float("inf")


def shown(size: float) -> str:
    """A number of bytes in MB or GB (powers of ten)."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
