"""Compiles CUDA's C++ for the CPU and launches its kernels from Python: see cpu_cuda.h for how threads run.

The glue between Python and the kernels is generated from the signatures in the source.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyvae.kernels.cuda.launch import Arguments, signatures, source
from tinyvae.kernels.cuda.table import THREADS

SOURCE = source("common.cu", "kernels.cu")  # the captured step
MOVES = source("common.cu", "moves.cu")
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


def together(codes: Sequence[str]) -> str:
    """Sources in one, each in a namespace k0, k1, ... of its own: to be compiled in a fraction of the time."""
    bare = [code.replace('extern "C" ', "") for code in codes]
    return "\n".join(f"namespace k{i} {{\n{code}\n}}" for i, code in enumerate(bare))


def glue(codes: Sequence[str]) -> str:
    """C++ with a function `launch_k<i>_NAME` for every kernel of the sources, which are together in kernels.cu."""
    lines = [f"#include <{HEADER.name}>", "namespace {", '#include "kernels.cu"', "}", 'extern "C" {']
    for i, code in enumerate(codes):
        for name, arguments in signatures(code).items():
            lines += [
                f"const char *launch_k{i}_{name}(unsigned grid_x, unsigned grid_y, unsigned seed, "
                f"{', '.join(f'{kind} {argument}' for kind, argument in arguments)}) {{",
                f"    return shim::launch(grid_x, grid_y, {THREADS}, seed, "
                f"[=] {{ k{i}::{name}({', '.join(argument for _, argument in arguments)}); }});",
                "}",
            ]
    return "\n".join([*lines, "}", ""])


@functools.cache
def build(*codes: str, macros: tuple[str, ...] = (), sanitize: bool = False, optimize: str = "-O1") -> Path:
    """The library made of sources, kept in a temporary directory under a hash of its parts."""
    gxx = compiler()
    flags = [*FLAGS, optimize, *(SANITIZERS if sanitize else ()), *(f"-D{macro}" for macro in macros)]
    parts = [together(codes), HEADER.read_text(), glue(codes), *flags]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    cache = Path(tempfile.gettempdir()) / f"tinyvae-cuda-on-cpu-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.stat().st_uid != os.getuid():
        raise PermissionError(f"{cache} belongs to somebody else")
    library = cache / f"{digest}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        (Path(directory) / "kernels.cu").write_text(together(codes))
        (Path(directory) / "glue.cpp").write_text(glue(codes))
        command = [gxx, *flags, f"-I{HEADER.parent}", "-o", "library.so", "glue.cpp"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"g++ does not compile:\n{done.stderr}")
        (Path(directory) / "library.so").replace(library)  # at once, so that another process sees all of it or nothing
    return library


class Shim:
    """The kernels of a source, in a library made by `build`; `number`: which of its sources it is."""

    def __init__(self, path: Path, code: str, number: int = 0) -> None:
        self.library, self.number = ctypes.CDLL(str(path)), number
        self.arguments = signatures(code)

    def launch(self, name: str, grid: tuple[int, int], arguments: Mapping[str, object], seed: int = 0) -> None:
        """Run kernel `name` in `grid` (x, y) blocks, its threads and blocks in an order drawn from `seed`.

        A pointer takes a C-contiguous array of its type, None, or an address; numbers are checked and converted.
        Raises TypeError for wrong names or types, RuntimeError for a barrier that only some threads reach.
        """
        values = convert(name, self.arguments[name], arguments)
        function = self.library[f"launch_k{self.number}_{name}"]
        function.restype = ctypes.c_char_p
        blocks = [ctypes.c_uint(n) for n in grid]
        error = function(*blocks, ctypes.c_uint(seed & 0xFFFFFFFF), *values)
        if error is not None:
            raise RuntimeError(f"{name}: {error.decode()}")


def convert(name: str, expected: Arguments, given: Mapping[str, object]) -> list[Any]:
    """The arguments for ctypes, in the kernel's order."""
    names = [argument for _, argument in expected]
    if set(names) != set(given):
        missing, unknown = sorted(set(names) - set(given)), sorted(set(given) - set(names))
        raise TypeError(f"{name}: missing arguments {missing}, unknown arguments {unknown}")
    return [_converted(f"{name}: {argument}", kind, given[argument]) for kind, argument in expected]


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
