"""One process at a time in a run directory."""

import fcntl
import os
from pathlib import Path

from tinyvae.errors import TinyvaeError


class Lock:
    """Held from its making until `release`, or until the process ends, however it ends: nothing is left behind.

    The lock is on the folder itself (flock), so there is no file of it. A file system that knows no locks gives none.
    It is also released when nobody has it any more.
    Raises TinyvaeError if another process holds it, OSError if the folder cannot be opened.
    """

    descriptor = -1

    def __init__(self, folder: Path) -> None:
        self.descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._take(folder)
        except BaseException:
            self.release()
            raise

    def _take(self, folder: Path) -> None:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = True
        except OSError:  # no locks on this file system
            held = False
        else:
            held = not os.path.samestat(os.fstat(self.descriptor), folder.stat())  # its maker took it back meanwhile
        if held:
            raise TinyvaeError(f"{folder}: is in use by another run; wait until it has ended, or choose another --out")

    def release(self) -> None:
        """Let others in. A second call does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        self.release()
