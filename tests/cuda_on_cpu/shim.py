"""Compiles kernels.cu for the CPU and launches its kernels from Python: see cpu_cuda.h for how threads run.

The glue between Python and the kernels is generated from `tinyvae.kernels.cuda.table`, so a kernel that the table
describes wrongly does not compile, or not with these arguments.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyvae.kernels.cuda
from tinyvae.kernels.cuda.table import KERNELS, THREADS, Kernel

SOURCE = Path(tinyvae.kernels.cuda.__file__).with_name("kernels.cu")
HEADER = Path(__file__).with_name("cpu_cuda.h")
FLAGS = ("-std=c++17", "-fPIC", "-shared", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE")  # it forbids jumps of stacks
SANITIZERS = ("-g", "-fsanitize=address", "-fsanitize-sections=shared_memory")
NUMPY_TYPES = {
    "float": np.float32, "unsigned char": np.uint8, "int": np.int32, "unsigned": np.uint32, "long long": np.int64,
}  # fmt: skip


def compiler() -> str:
    """The C++ compiler; without one the test is skipped, with what to install."""
    if sys.platform != "linux":
        pytest.skip("the CUDA kernels run on the CPU only with GNU's g++ and linker, on Linux")
    path = shutil.which("g++")
    if path is None:
        pytest.skip("the CUDA kernels run on the CPU only with g++, which is not installed: apt install g++")
    return path


def glue() -> str:
    """C++ with a function `launch_NAME` for every kernel of the table."""
    lines = [f"#include <{HEADER.name}>", "namespace {", '#include "kernels.cu"', "}", 'extern "C" {']
    for name, kernel in KERNELS.items():
        names = ", ".join(argument for _, argument in kernel.arguments)
        lines += [
            f"const char *launch_{name}(unsigned grid_x, unsigned grid_y, unsigned seed, {kernel.signature}) {{",
            f"    return shim::launch(grid_x, grid_y, {THREADS}, seed, [=] {{ {name}({names}); }});",
            "}",
        ]
    return "\n".join([*lines, "}", ""])


@functools.cache
def build(
    macros: tuple[str, ...] = (), sanitize: bool = False, source: str | None = None, optimize: str = "-O1"
) -> Path:
    """The library made of kernels.cu (or of `source`), kept in a temporary directory under a hash of its parts."""
    gxx = compiler()
    source = SOURCE.read_text() if source is None else source
    flags = [*FLAGS, optimize, *(SANITIZERS if sanitize else ()), *(f"-D{macro}" for macro in macros)]
    parts = [source, HEADER.read_text(), glue(), *flags]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    cache = Path(tempfile.gettempdir()) / f"tinyvae-cuda-on-cpu-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.stat().st_uid != os.getuid():
        raise PermissionError(f"{cache} belongs to somebody else")
    library = cache / f"{digest}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        (Path(directory) / "kernels.cu").write_text(source)
        (Path(directory) / "glue.cpp").write_text(glue())
        command = [gxx, *flags, f"-I{HEADER.parent}", "-o", "library.so", "glue.cpp"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"g++ does not compile kernels.cu:\n{done.stderr}")
        (Path(directory) / "library.so").replace(library)  # at once, so that another process sees all of it or nothing
    return library


class Shim:
    """A library made by `build`."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))

    def launch(self, name: str, grid: tuple[int, int], arguments: Mapping[str, object], seed: int = 0) -> None:
        """Run kernel `name` in `grid` (x, y) blocks, its threads and blocks in an order drawn from `seed`.

        A pointer takes a C-contiguous array of its type, None, or an address; numbers are checked and converted.
        Raises TypeError for wrong names or types, RuntimeError for a barrier that only some threads reach.
        """
        values = convert(name, KERNELS[name], arguments)
        function = self.library[f"launch_{name}"]
        function.restype = ctypes.c_char_p
        blocks = [ctypes.c_uint(n) for n in grid]
        error = function(*blocks, ctypes.c_uint(seed & 0xFFFFFFFF), *values)
        if error is not None:
            raise RuntimeError(f"{name}: {error.decode()}")


def convert(name: str, kernel: Kernel, arguments: Mapping[str, object]) -> list[Any]:
    """The arguments for ctypes, in the kernel's order."""
    names = [argument for _, argument in kernel.arguments]
    if set(names) != set(arguments):
        missing, unknown = sorted(set(names) - set(arguments)), sorted(set(arguments) - set(names))
        raise TypeError(f"{name}: missing arguments {missing}, unknown arguments {unknown}")
    return [_converted(f"{name}: {argument}", kind, arguments[argument]) for kind, argument in kernel.arguments]


def _converted(what: str, kind: str, value: object) -> Any:
    if kind.endswith("*"):
        return _pointer(what, kind, value)
    if kind == "int":
        if not isinstance(value, Integral) or not -(2**31) <= int(value) < 2**31:
            raise TypeError(f"{what} must be a whole number of 32 bits, not {value!r}")
        return ctypes.c_int(int(value))
    if kind == "float":
        if not isinstance(value, Real):
            raise TypeError(f"{what} must be a number, not {value!r}")
        return ctypes.c_float(float(value))
    raise TypeError(f"{what} has the type {kind}, which the shim does not know")


def _pointer(what: str, kind: str, value: object) -> ctypes.c_void_p:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, Integral):
        return ctypes.c_void_p(int(value))
    dtype = NUMPY_TYPES[kind.removeprefix("const ").rstrip("*").strip()]
    if not isinstance(value, np.ndarray) or value.dtype != dtype or not value.flags.c_contiguous:
        found = f"{value.dtype} array" if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"{what} must be a C-contiguous array of {np.dtype(dtype)}, None or an address, not a {found}")
    if not kind.startswith("const ") and not value.flags.writeable:
        raise TypeError(f"{what} is written by the kernel, but the array is read-only")
    return ctypes.c_void_p(value.ctypes.data)
