"""Compiles CUDA's C++ and launches its kernels, with their arguments by name, as their signatures list them.

CuPy passes on what it is given: of an array its address, of a Python number eight bytes, whatever the kernel expects.
So every argument is checked and converted here: arrays by dtype and contiguity, numbers to 32 bits, None to eight bytes
of 0 (CuPy itself makes of None an address that is not null).
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.errors import BackendError
from tinyvae.kernels.cuda.table import KERNELS, THREADS

FOLDER = Path(__file__).parent
TF32_CAPABILITY = 80  # Ampere
NULL = np.uint64(0)
NUMBERS: dict[str, Callable[[Any], Any]] = {"int": np.int32, "float": np.float32}
ARRAYS = {
    "float": np.dtype("float32"),
    "int": np.dtype("int32"),
    "unsigned": np.dtype("uint32"),
    "long long": np.dtype("int64"),
    "unsigned char": np.dtype("uint8"),
}
Arguments = list[tuple[str, str]]  # (type, name) of each, as in ("const float*", "x")


@functools.cache
def source(*files: str) -> str:
    """The text of these files of this folder, one behind the other."""
    return "\n".join((FOLDER / file).read_text(encoding="utf-8") for file in files)


def signatures(code: str) -> dict[str, Arguments]:
    """The arguments of every kernel in a source."""
    found = re.findall(r'extern "C" __global__ void (\w+)\((.*?)\) \{', code, re.DOTALL)
    parted = {name: [argument.split() for argument in text.split(",")] for name, text in found}
    return {name: [(" ".join(kind), a) for *kind, a in arguments] for name, arguments in parted.items()}


class Program:
    """A source, compiled for the current device: by NVRTC, once; CuPy keeps the binary on the disk."""

    def __init__(self, xp: Any, code: str, options: tuple[str, ...] = ()) -> None:
        self.module = xp.RawModule(code=code, options=("--std=c++17", *options))
        self.arguments = signatures(code)
        self.functions: dict[str, Any] = {}

    def function(self, name: str) -> Any:
        """The kernel, as CuPy has it."""
        if name not in self.functions:
            self.functions[name] = self.module.get_function(name)
        return self.functions[name]

    def step(self, name: str, grid: tuple[int, int], /, **given: Any) -> tuple[Callable[..., None], list[Any]]:
        """A launch on what will be the current stream: a function and its arguments, the last of which is the kernel's.

        Raises TypeError for arguments that the kernel does not have, and for arrays of another dtype than it reads. An
        array must be contiguous, but for one that is followed by how far its rows are apart (an `int` named `ld...`).
        """
        arguments = self.arguments[name]
        if given.keys() != {argument for _, argument in arguments}:
            wrong = sorted(given.keys() ^ {argument for _, argument in arguments})
            raise TypeError(f"the kernel {name} lacks arguments, or has too many: {', '.join(wrong)}")
        values = []
        for i, (kind, argument) in enumerate(arguments):
            apart = i + 1 < len(arguments) and arguments[i + 1][1].startswith("ld")
            values.append(converted(f"{name}: {argument}", kind, given[argument], apart))
        return launch, [self.function(name), grid, values]


def launch(function: Any, grid: tuple[int, int], values: list[Any]) -> None:
    """On the current stream."""
    function(grid, (THREADS,), tuple(values))


def converted(what: str, kind: str, value: Any, apart: bool) -> Any:
    """What CuPy must be given for a value. apart: the rows of an array need not be contiguous."""
    if not kind.endswith("*"):
        return NUMBERS[kind](value)
    if value is None:
        return NULL
    dtype = ARRAYS[kind.removeprefix("const ").removesuffix("*")]
    if value.dtype != dtype:
        raise TypeError(f"{what} must be {dtype}, not {value.dtype}")
    if not (value.flags.c_contiguous or apart):
        raise TypeError(f"{what} must be contiguous")
    return value


@functools.cache
def program(xp: Any, code: str) -> Program:
    """The process's program of that source. `xp` is CuPy."""
    return Program(xp, code)


class Launcher:
    """The kernels of the captured step. With `tf32` the factors of every product of matrices are rounded to TF32 (10
    bits of mantissa)."""

    def __init__(self, xp: Any, tf32: bool = False) -> None:
        """Raises BackendError if TF32 is asked of a GPU that does not have it."""
        if tf32 and int(xp.cuda.Device().compute_capability) < TF32_CAPABILITY:
            raise BackendError("this GPU has no TF32 (it came with compute capability 8.0): leave --tf32 away")
        self.program = Program(xp, source("common.cu", "kernels.cu"), ("-DTF32",) if tf32 else ())
        for name in KERNELS:
            self.program.function(name)

    def launch(self, name: str, **arguments: Any) -> None:
        """Kernel `name` on the current stream. Raises TypeError for arguments that it does not have."""
        function, values = self.program.step(name, KERNELS[name].grid(arguments), **arguments)
        function(*values)


@functools.cache
def launcher(xp: Any, tf32: bool = False) -> Launcher:
    """The process's launcher, made when it is first asked for. `xp` is CuPy."""
    return Launcher(xp, tf32)
