"""Kernels: what passes through a model are made of. One contract (`contract.py`), several implementations.

`reference.py` is the readable one and the oracle; every other must give the same numbers (the contract tests hold it).
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable

import numpy as np

from tinyvae.backend import Backend
from tinyvae.kernels.contract import Kernels

FUSED = {"numpy": ("numba", "numpy"), "cupy": ("cuda",)}  # backend -> its fused kernels, the fastest first
KINDS = ("numpy", "numba", "cuda", "reference")
NAMES = ("fused", *KINDS)


def select(kernels: str | None, backend: Backend, dtype: str = "float32") -> tuple[str, Callable[[], Kernels]]:
    """The name of the kernels and what makes them: one of KINDS, or "fused" for the fastest that this machine has.

    None means fused where there are some, else reference.
    Raises ValueError for a name that does not exist, or for kernels that cannot be used here, with the reason.
    """
    if kernels is None or kernels == "fused":
        usable = [name for name in FUSED[backend.name] if problem(name, backend, dtype) is None]
        if not usable and kernels:
            reason = problem(FUSED[backend.name][-1], backend, dtype)
            raise ValueError(f"there are no fused kernels here: {reason}; the reference kernels do it")
        name = usable[0] if usable else "reference"
    elif kernels not in KINDS:
        raise ValueError(f"kernels must be one of {', '.join(NAMES)}, not {kernels!r}")
    else:
        name = kernels
        reason = problem(name, backend, dtype)
        if reason:
            raise ValueError(f"the {name} kernels cannot be used here: {reason}")
    return name, functools.partial(_made, name, backend, dtype)


def _made(name: str, backend: Backend, dtype: str) -> Kernels:
    """Kernels with memory of their own. The file is loaded here: what it needs may not be installed."""
    if name == "reference":
        from tinyvae.kernels.reference import Reference

        return Reference(backend.xp, dtype)
    if name == "cuda":
        from tinyvae.kernels.cuda_loops import CudaKernels

        return CudaKernels(backend.xp)
    if name == "numba":
        from tinyvae.kernels.numba_loops import NumbaKernels

        return NumbaKernels(dtype)
    from tinyvae.kernels.numpy_loops import NumPyKernels

    return NumPyKernels(dtype)


def problem(name: str, backend: Backend, dtype: str = "float32") -> str | None:
    """Why the kernels `name` cannot be used with a backend and dtype, with the remedy; None if they can."""
    if name == "reference":
        return None
    if name not in FUSED[backend.name]:
        right = "numpy" if backend.name == "cupy" else "cupy"
        return f"they need the {right} backend, not {backend.name}"
    if name == "cuda" and np.dtype(dtype) != np.float32:
        return f"they compute in float32, not {dtype}: choose other kernels or float32"
    return numba_problem() if name == "numba" else None


def announce_compilation(name: str, tell: Callable[[bool], None]) -> None:
    """Call `tell` when these kernels are about to compile their first loop, which takes seconds: with whether it will
    be kept for the next process."""
    if name == "numba":  # no others do
        from tinyvae.kernels import numba_kept

        numba_kept.announce_compilation(tell)


@functools.cache
def numba_problem() -> str | None:
    """Why Numba cannot be used, with the remedy; None if it can. It may be there and not suit this NumPy."""
    if importlib.util.find_spec("numba") is None:
        return "Numba is not installed: python -m pip install 'tinyvae[numba]'"
    try:
        importlib.import_module("numba")
    except MemoryError:
        raise
    except Exception as error:  # whatever it raises while it loads, NumPy's kernels will do
        reason = str(error).partition("\n")[0]
        return f"Numba does not load ({reason}): python -m pip install --upgrade 'tinyvae[numba]'"
    return None
