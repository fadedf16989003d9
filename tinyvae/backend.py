"""The whole switch between NumPy and CuPy: the array module, the device, generators, copies to and from the host.

No other file imports CuPy. The formulas never ask where they run: `array_module` reads it off their arguments.
"""

import importlib
import sys
import warnings
from dataclasses import dataclass
from numbers import Integral
from types import ModuleType
from typing import Any

import numpy as np

from tinyvae.errors import BackendError

CACHE_LINE = 64  # bytes
Array = Any  # a numpy.ndarray or a cupy.ndarray; CuPy need not be installed for the types to check


@dataclass(frozen=True)
class Backend:
    """An array library on one device."""

    name: str  # "numpy" or "cupy"
    xp: Any  # the module: numpy or cupy
    device: int = 0

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        """`a` (host or device) as an array of this backend; no copy where none is needed."""
        if self.name == "numpy":
            a = to_host(a)
        return self.xp.asarray(a, dtype=dtype)

    def zeros(self, size: int, dtype: Any) -> Array:
        """A flat array of zeros that begins on a cache line, as CuPy's do.

        NumPy's begin anywhere; vector loads that straddle two lines make Adam a tenth slower.
        """
        if self.name != "numpy":
            return self.xp.zeros(size, dtype=dtype)
        spare = CACHE_LINE // np.dtype(dtype).itemsize
        a = np.zeros(size + spare, dtype=dtype)
        start = -(a.ctypes.data % -CACHE_LINE) // a.itemsize
        return a[start : start + size]

    def generator(self, *key: int) -> Any:
        """A random generator named by whole numbers: the same key gives the same numbers, on the same backend.

        The last number must not be 0: NumPy pads keys with zeros, so (7,) and (7, 0) name the same generator.
        """
        seed = np.random.SeedSequence(key)
        if self.name == "numpy":
            return np.random.Generator(np.random.PCG64(seed))
        return self.xp.random.Generator(self.xp.random.Philox4x3210(int(seed.generate_state(1)[0])))  # it keeps 32 bits


def as_generator(rng: Any) -> np.random.Generator:
    """`rng` as a NumPy generator, on any backend: a generator as it is, a whole number as the seed of a new one.

    Raises TypeError for anything else, ValueError for a seed below 0.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (bool, np.bool_)) or not isinstance(rng, Integral):
        given = f"the module {rng.__name__}" if isinstance(rng, ModuleType) else repr(rng)
        raise TypeError(f"rng must be a numpy.random.Generator, or a whole number as its seed, not {given}")
    if rng < 0:
        raise ValueError(f"rng must be at least 0 where it is a seed, not {rng}")
    return np.random.default_rng(int(rng))


def array_module(*arrays: Array) -> Any:
    """The module (numpy or cupy) that all the arrays belong to.

    Raises TypeError if host and device arrays are mixed: the copy between them must be asked for (`to_host`).
    """
    cupy = sys.modules.get("cupy")
    on_device = [cupy is not None and isinstance(a, cupy.ndarray) for a in arrays]
    if not any(on_device):
        return np
    if not all(on_device):
        raise TypeError("NumPy and CuPy arrays are mixed in one formula; copy one side first (tinyvae.backend.to_host)")
    return cupy


def to_host(a: Array) -> np.ndarray:
    """`a` as a NumPy array. From a GPU this waits for the device, so no training step calls it."""
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(a, cupy.ndarray):
        return cupy.asnumpy(a)
    return np.asarray(a)


def get_backend(name: str = "numpy", device: int = 0) -> Backend:
    """The backend called `name`: "numpy", "cupy", or "auto" (CuPy where it works, else NumPy).

    Raises BackendError with the cause and the remedy if CuPy is asked for and cannot be used.
    """
    if name == "numpy":
        return Backend("numpy", np)
    if name not in ("auto", "cupy"):
        raise ValueError(f"backend must be 'auto', 'numpy' or 'cupy', not {name!r}")
    problem = cupy_problem(device)
    if problem and name == "auto":
        return Backend("numpy", np)
    if problem:
        raise BackendError(problem)
    cupy = importlib.import_module("cupy")
    cupy.cuda.Device(device).use()
    return Backend("cupy", cupy, device)


def backend_or_numpy(name: str, device: int = 0) -> Backend:
    """The backend of that name or, where this machine lacks it, NumPy and a warning: for what was made elsewhere."""
    try:
        return get_backend(name, device)
    except BackendError as error:
        warnings.warn(f"loaded with NumPy instead: {error}", UserWarning, stacklevel=2)
        return get_backend("numpy")


def cupy_problem(device: int = 0) -> str | None:
    """Why CuPy cannot be used on `device`, with the remedy; None if it can. Three causes, three messages."""
    try:
        cupy: ModuleType = importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            return f"CuPy is installed but a module it needs is not ({error.name}): reinstall it, " + _INSTALL
        return "CuPy is not installed: " + _INSTALL
    except ImportError as error:
        return _toolkit_missing(error)
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CUDARuntimeError, whose class lives inside CuPy
        return (
            f"CuPy is installed but finds no NVIDIA driver or GPU ({_first_line(error)}): "
            "install or update the driver (nvidia-smi must list a GPU), or use --backend numpy"
        )
    if not 0 <= device < count:
        return f"CuPy finds no GPU number {device}, only 0 to {count - 1}: choose one of these with --device"
    try:  # the first kernel needs the toolkit: NVRTC, its headers and the runtime library
        with cupy.cuda.Device(device):
            cupy.asnumpy(cupy.exp(cupy.zeros(1)) @ cupy.zeros((1, 1)))
    except Exception as error:
        return (
            f"CuPy finds a GPU but cannot run a kernel on it ({_first_line(error)}); if a CUDA toolkit library is "
            "missing: " + _INSTALL
        )
    return None


_INSTALL = "python -m pip install 'tinyvae[cuda13]' (or [cuda12] for a CUDA 12 driver), or use --backend numpy"


def _toolkit_missing(error: Exception) -> str:
    return f"CuPy is installed but a CUDA toolkit library does not load ({_first_line(error)}): " + _INSTALL


def _first_line(error: Exception) -> str:
    text = str(error).partition("Original error:")[2] or str(error)  # CuPy puts a page of advice before the cause
    lines = [line for line in text.splitlines() if line.strip(" =")]
    kind = type(error).__name__
    return f"{kind}: {lines[0].strip().removeprefix(f'{kind}: ')}" if lines else kind
