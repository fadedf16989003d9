"""Where compiled loops are kept for the next process: in a folder that no other user can write to, or nowhere.

Numba reads machine code back by pickle, which runs whatever a file says. So the folder, and all folders above it, must
be in the hands of its owner (or of root); its name is `tinyvae-loops`, in NUMBA_CACHE_DIR, XDG_CACHE_HOME or ~/.cache.
Else loops are compiled anew in every process. A file in it is named by all that its machine code is made of, so that it
is never out of date; one that cannot be read is compiled again, and one that cannot be written is not missed.
"""

import contextlib
import hashlib
import linecache
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
from numba.core import event, sigutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache

from tinyvae.kernels import numba_words

FOLDER = "tinyvae-loops"


@cache
def module_of(text: str) -> Any:
    """The module of that text, whose function `loop` is kept."""
    words = Path(numba_words.__file__).read_bytes()  # compiled into it
    module = ModuleType(_named("loop", text.encode(), words))
    file = f"<{module.__name__}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # for tracebacks
    sys.modules[module.__name__] = module  # what is kept is found again by this name
    exec(compile(text, file, "exec"), module.__dict__)
    _keep(module.loop, module.__name__)
    return module


def kept(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: `numba.njit` with these options, kept. For functions that call none of other files."""

    def compiled(function: Callable[..., Any]) -> Any:
        text = Path(function.__code__.co_filename).read_bytes()
        dispatcher = numba.njit(**options)(function)
        _keep(dispatcher, _named(function.__name__, text))
        return dispatcher

    return compiled


def _named(name: str, *made_of: bytes) -> str:
    digest = hashlib.sha256(b"".join((*made_of, numba.__version__.encode())))
    return f"{name}_{digest.hexdigest()[:24]}"


def _keep(dispatcher: Any, name: str) -> None:
    folder = kept_folder()
    if folder is not None and hasattr(dispatcher, "py_func"):  # else Numba is switched off
        dispatcher._cache = _Kept(dispatcher.py_func, folder, name)


class _Place:
    """Where Numba's cache shall put a function: a locator, as it calls it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._py_file = name  # for a warning of Numba's

    def get_cache_path(self) -> str:
        return str(self.folder)

    def get_source_stamp(self) -> str:
        return self.name

    def ensure_cache_path(self) -> None:
        pass


class _Files(CompileResultCacheImpl):
    def __init__(self, place: _Place) -> None:
        self._locator, self._lineno, self._filename_base = place, 0, place.name


class _Kept(FunctionCache):
    """Numba's cache of a function, which never stops a run: a file may be torn, or the disk full."""

    def __init__(self, function: Callable[..., Any], folder: Path, name: str) -> None:
        place = _Place(folder, name)
        self._impl_class = lambda function: _Files(place)
        super().__init__(function)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # whatever half a pickle raises
            found = None
        else:
            # two processes may have written different functions under one number
            if found is None or tuple(found.signature.args) == tuple(sigutils.normalize_signature(sig)[0]):
                return found
        with contextlib.suppress(OSError):
            self.flush()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


@cache
def kept_folder() -> Path | None:
    """The folder, which is made if need be; None if there can be none that is its owner's alone."""
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    try:
        above = (Path(base) if base else Path.home() / ".cache").resolve()
        if not _are_trusted(above):
            return None
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = above / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        if not _is_own(folder.lstat()) or not _are_trusted(folder):
            return None
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # no home, no room, no permission
        return None
    return folder


def _is_own(about: os.stat_result) -> bool:
    if not stat.S_ISDIR(about.st_mode):
        return False
    return not hasattr(os, "getuid") or (about.st_uid == os.getuid() and not about.st_mode & 0o022)


def _are_trusted(path: Path) -> bool:
    """Whether no other user can put another folder in the place of any folder on the path (those that exist)."""
    if not hasattr(os, "getuid"):
        return True  # Windows: a user's folders are the user's
    trusted = {0, os.getuid(), Path("/").stat().st_uid}  # in a container root may have another number
    for folder in (path, *path.parents):
        if not folder.exists():
            continue
        about = folder.stat()
        others_write = about.st_mode & 0o022 and not about.st_mode & stat.S_ISVTX
        if about.st_uid not in trusted or others_write:
            return False
    return True


def announce_compilation(tell: Callable[[bool], None]) -> None:
    """Call `tell` when the first loop is about to be compiled, which takes seconds; not if all are on disk.

    It is told whether what is compiled will be kept for the next process.
    """

    class Once(event.Listener):
        def on_start(self, event: Any) -> None:
            if not told:
                told.append(True)
                tell(kept_folder() is not None)

        def on_end(self, event: Any) -> None:
            pass

    told: list[bool] = []
    event.register("numba:compile", Once())
