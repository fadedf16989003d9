"""The same mathematics, fused: the few operations that a training step calls, each writing into buffers it is given.

One contract, several implementations. `reference.py` composes `tinyvae.ops` and is the oracle; every other file has the
same functions with the same signatures (a test compares them) and must give the same numbers (property tests do).

The contract:
- Results go into the keyword arguments after the star. A result that may be `None` is then not computed.
- `work` is a flat scratch array of the same dtype, at least `work_size(...)` long. Its contents mean nothing.
- `dense_backward` may destroy `dy` and `y`: nobody needs them after it.
"""

import functools
import importlib
import importlib.util
from types import ModuleType

import numpy as np

from tinyvae.backend import Backend
from tinyvae.kernels.numpy_fused import ADAM_BLOCK

FILES = {"numpy": "numpy_fused", "numba": "numba_fused", "cuda": "cupy_fused", "reference": "reference"}
FUSED = {"numpy": ("numba", "numpy"), "cupy": ("cuda",)}  # backend -> its fused kernels, the fastest first
NAMES = ("fused", *FILES)


def select(kernels: str | None, backend: Backend, dtype: str = "float32") -> tuple[str, ModuleType]:
    """The kernels of that name and their file: one of FILES, or "fused" for the fastest that this machine has.

    None means fused where there are some, else reference.
    Raises ValueError for a name that does not exist, or for kernels that cannot be used here, with the reason.
    """
    if kernels is None or kernels == "fused":
        usable = [name for name in FUSED[backend.name] if problem(name, backend, dtype) is None]
        if not usable and kernels:
            reason = problem(FUSED[backend.name][-1], backend, dtype)
            raise ValueError(f"there are no fused kernels here: {reason}; the reference kernels do it")
        name = usable[0] if usable else "reference"
    elif kernels not in FILES:
        raise ValueError(f"kernels must be one of {', '.join(NAMES)}, not {kernels!r}")
    else:
        name = kernels
        reason = problem(name, backend, dtype)
        if reason:
            raise ValueError(f"the {name} kernels cannot be used here: {reason}")
    return name, importlib.import_module(f"tinyvae.kernels.{FILES[name]}")


def problem(name: str, backend: Backend, dtype: str = "float32") -> str | None:
    """Why the kernels `name` cannot be used with a backend and dtype, with the remedy; None if they can."""
    if name == "reference":
        return None
    if name not in FUSED[backend.name]:
        right = "numpy" if backend.name == "cupy" else "cupy"
        return f"they need the {right} backend, not {backend.name}"
    if name in ("numba", "cuda") and np.dtype(dtype) != np.float32:
        return f"they compute in float32, not {dtype}: choose other kernels or float32"
    return numba_problem() if name == "numba" else None


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


def work_size(rows: int, widest: int) -> int:
    """How long `work` must be for batches of up to `rows` rows and layers of up to `widest` outputs."""
    return max(2 * rows * widest + widest, ADAM_BLOCK)  # two arrays of a layer's output, and a row
