"""Runs kernels for the tests: poisoned outputs between guards, several orders of the threads, always the same bits."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from cuda_on_cpu.shim import SOURCE, Shim, build

from tinyvae.kernels.cuda.table import KERNELS

ORDERS = (1, 2)  # seeds for the order of the threads
POISON = np.uint32(0x7FC0BEEF)  # a NaN that no arithmetic makes
GUARD = 2048  # numbers: a tile too many of a matrix as narrow as the tests have

Arguments = Mapping[str, Any]


class Kernels:
    """The kernels as a library has them. `guard` numbers lie before and behind every output."""

    def __init__(self, shim: Shim, tf32: bool = False, guard: int = GUARD) -> None:
        self.shim, self.tf32, self.guard = shim, tf32, guard

    def run(self, name: str, arguments: Arguments, outputs: Arguments) -> dict[str, Any]:
        """The outputs: poisoned before, if given as a shape; changed in place, if given as an array; or None.

        Raises AssertionError if the order of the threads changes a bit, or something else than the outputs changes.
        """
        inputs = {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in arguments.items()}
        grid = KERNELS[name].grid({key: value for key, value in inputs.items() if isinstance(value, int)})
        first: dict[str, Any] = {}
        for order in ORDERS:
            buffers = {key: None if of is None else Buffer(of, self.guard) for key, of in outputs.items()}
            arrays = {key: buffer and buffer.array for key, buffer in buffers.items()}
            self.shim.launch(name, grid, {**inputs, **arrays}, seed=order)
            for key, buffer in buffers.items():
                assert buffer is None or buffer.guards_untouched(), f"{name} writes outside {key}"
            for key, value in inputs.items():
                assert same_bits(value, arguments[key]), f"{name} changes {key}"
            if not first:
                first = arrays
            for key, array in arrays.items():
                assert same_bits(array, first[key]), f"{name}: {key} depends on the order of the threads"
        return first


class Buffer:
    """An output in the middle of a larger array."""

    def __init__(self, of: Any, guard: int) -> None:
        given = isinstance(of, np.ndarray)
        dtype = of.dtype if given else np.dtype(np.float32)
        shape = of.shape if given else of
        size = int(np.prod(shape))
        self.all = np.full((size + 2 * guard) * dtype.itemsize // 4, POISON).view(dtype)
        self.array = self.all[guard : guard + size].reshape(shape)
        self.outside = [self.all[:guard], self.all[guard + size :]]
        if given:
            self.array[...] = of

    def guards_untouched(self) -> bool:
        return all(bool(np.all(part.view(np.uint32) == POISON)) for part in self.outside)


def same_bits(a: Any, b: Any) -> bool:
    if not isinstance(a, np.ndarray):
        return a == b
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def compiled_from(code: str, *macros: str) -> Kernels:
    """Another text in the place of kernels.cu, compiled quickly: it will not run for long."""
    return Kernels(Shim(build(code, macros=macros, optimize="-O0"), code), tf32="TF32" in macros)


@functools.cache
def compiled(*macros: str) -> Kernels:
    """kernels.cu as it is, compiled once for all tests."""
    return Kernels(Shim(build(SOURCE, macros=macros), SOURCE), tf32="TF32" in macros)
