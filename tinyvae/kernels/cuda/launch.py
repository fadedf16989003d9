"""Launches the kernels of `kernels.cu`, with their arguments by name, as `table.py` lists them.

CuPy passes on what it is given: of an array its address, of a Python number eight bytes, whatever the kernel expects.
So every argument is checked and converted here: arrays by dtype and contiguity, numbers to 32 bits, None to eight bytes
of 0 (CuPy itself makes of None an address that is not null).
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.errors import BackendError
from tinyvae.kernels.cuda.table import KERNELS, THREADS, Kernel

SOURCE = Path(__file__).with_name("kernels.cu")
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


class Launcher:
    """The kernels, compiled for the current device: by NVRTC, once; CuPy keeps the binary on the disk.

    With `tf32` the factors of every product of matrices are rounded to TF32 (10 bits of mantissa).
    """

    def __init__(self, xp: Any, tf32: bool = False) -> None:
        """Raises BackendError if TF32 is asked of a GPU that does not have it."""
        if tf32 and int(xp.cuda.Device().compute_capability) < TF32_CAPABILITY:
            raise BackendError("this GPU has no TF32 (it came with compute capability 8.0): leave --tf32 away")
        options = ("--std=c++17", "-DTF32") if tf32 else ("--std=c++17",)
        module = xp.RawModule(code=SOURCE.read_text(encoding="utf-8"), options=options)
        self.functions = {name: module.get_function(name) for name in KERNELS}
        self.converters = {name: _converters(name, kernel) for name, kernel in KERNELS.items()}

    def launch(self, name: str, **arguments: Any) -> None:
        """Kernel `name` on the current stream. Raises TypeError for arguments that the table does not list."""
        converters = self.converters[name]
        if arguments.keys() != converters.keys():
            wrong = sorted(arguments.keys() ^ converters.keys())
            raise TypeError(f"the kernel {name} lacks arguments, or has too many: {', '.join(wrong)}")
        values = tuple([convert(arguments[argument]) for argument, convert in converters.items()])
        self.functions[name](KERNELS[name].grid(arguments), (THREADS,), values)


@functools.cache
def launcher(xp: Any, tf32: bool = False) -> Launcher:
    """The process's launcher, made when it is first asked for. `xp` is CuPy."""
    return Launcher(xp, tf32)


def _converters(name: str, kernel: Kernel) -> dict[str, Callable[[Any], Any]]:
    """For each argument, in order, the function that makes of a value what CuPy must be given."""
    apart = any(argument == "stride" for _, argument in kernel.arguments)  # its matrices may be halves of wider ones
    return {
        argument: _array(f"{name}: {argument}", kind, apart) if kind.endswith("*") else NUMBERS[kind]
        for kind, argument in kernel.arguments
    }


def _array(what: str, kind: str, apart: bool) -> Callable[[Any], Any]:
    dtype = ARRAYS[kind.removeprefix("const ").removesuffix("*")]

    def check(a: Any) -> Any:
        if a is None:
            return NULL
        if a.dtype != dtype:
            raise TypeError(f"{what} must be {dtype}, not {a.dtype}")
        if not (a.flags.c_contiguous or apart):
            raise TypeError(f"{what} must be contiguous")
        return a

    return check
