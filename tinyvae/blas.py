"""OpenBLAS, which multiplies NumPy's matrices: settings that suit this CPU, and what it runs with.

OpenBLAS reads its environment variables once, when NumPy loads. So a command calls `set_up` before it imports NumPy;
the library itself never does: importing tinyvae changes nobody's environment. A script or a notebook may, in its first
line, and `hint` says whether that is worth while:

    from tinyvae import blas; blas.set_up()

This file must not import NumPy.

- OPENBLAS_CORETYPE: which set of kernels. On an AMD chip with AVX-512 the ones named SkylakeX use it. OpenBLAS finds
  them by itself on the chips that it knows (NumPy's wheels from 2.0 to 2.4 did on a Zen 5); a build that takes a chip
  for an older one is told here. With the older kernels the same products took twice as long there (see the doctor).
- OPENBLAS_THREAD_TIMEOUT: a thread that has nothing to do spins for 2^26 cycles (some 20 ms) before it sleeps. With
  2^18 it gives its core back between products, to whatever else wants it.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}  # what OpenBLAS's SkylakeX kernels need
CPU_INFO = Path("/proc/cpuinfo")
FIRST_LINE = "from tinyvae import blas; blas.set_up()"  # of a script or a notebook


def choose(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables to add to this environment. None that is set already, and no kernels that this CPU cannot run."""
    chosen = {"OPENBLAS_THREAD_TIMEOUT": "18"}
    if cpu_vendor() == "AuthenticAMD" and cpu_features() >= AVX512:
        chosen["OPENBLAS_CORETYPE"] = "SkylakeX"
    return {name: value for name, value in sorted(chosen.items()) if name not in environ}


def set_up(environ: MutableMapping[str, str] = os.environ) -> None:
    """Add what `choose` says, and remember it for `summary`. Once NumPy is loaded it is too late: then do nothing.

    What is added to the process's own environment is handed on to the processes that it starts.
    """
    if "numpy" in sys.modules:
        return
    _set.update(choose(environ))
    environ.update(_set)


_set: dict[str, str] = {}


def summary() -> str | None:
    """One line on what `set_up` did; None if it did nothing, or NumPy did not bring an OpenBLAS that would heed it."""
    if not _set or loaded() is None:
        return None
    settings = " ".join(f"{name}={value}" for name, value in _set.items())
    return f"blas: {settings} set for this run (--keep-blas: leave it as it is)"


def hint(environ: Mapping[str, str] = os.environ) -> str | None:
    """One line for who trains without a command: what that would have set, and how to. None if nothing is missing.

    Kernels that OpenBLAS has found by itself are not missing. Nor is anything where NumPy is not loaded, or has another
    BLAS.
    """
    openblas = loaded()
    if openblas is None:
        return None
    missing = {name: v for name, v in choose(environ).items() if (name, v) != ("OPENBLAS_CORETYPE", openblas.kernels)}
    settings = " ".join(f"{name}={value}" for name, value in missing.items())
    return f"blas: NumPy was loaded without {settings}; begin with: {FIRST_LINE}" if missing else None


def cpu_vendor() -> str | None:
    """AuthenticAMD, GenuineIntel, ...; None where the system does not tell (it does on Linux)."""
    return _cpu_info().get("vendor_id")


def cpu_model() -> str:
    """The processor's name."""
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


def cpu_features() -> set[str]:
    """The instruction sets that the processor and the system offer, by Linux's names; empty elsewhere."""
    return set(_cpu_info().get("flags", "").split())


def _cpu_info() -> dict[str, str]:
    """Of the first processor."""
    try:
        lines = CPU_INFO.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


@dataclass(frozen=True)
class OpenBLAS:
    """The OpenBLAS that NumPy brought, as it is now."""

    kernels: str  # "Haswell", "SkylakeX", ...
    threads: int
    config: str  # its version and how it was built


def loaded() -> OpenBLAS | None:
    """What NumPy's own OpenBLAS says of itself. None if NumPy came with another BLAS, or is not loaded."""
    numpy = sys.modules.get("numpy")
    if numpy is None or numpy.__file__ is None:
        return None
    site = Path(numpy.__file__).parent.parent
    for path in sorted((*site.glob("numpy.libs/*openblas*"), *site.glob("numpy/.dylibs/*openblas*"))):
        suffix = "64_" if "openblas64" in path.name else ""
        library = ctypes.CDLL(str(path))

        def ask(what: str, kind: type, library: ctypes.CDLL = library, suffix: str = suffix) -> bytes | int:
            function = getattr(library, f"scipy_openblas_get_{what}{suffix}")
            function.restype = kind
            return function()

        try:
            kernels, threads, config = (
                ask("corename", ctypes.c_char_p), ask("num_threads", ctypes.c_int), ask("config", ctypes.c_char_p),
            )  # fmt: skip
        except AttributeError:  # its functions have other names
            return None
        assert isinstance(kernels, bytes)
        assert isinstance(config, bytes)
        return OpenBLAS(kernels.decode(), int(threads), config.decode())
    return None
