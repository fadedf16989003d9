"""Loops that Numba compiles: what surrounds a matrix product is one pass over memory. In float32 and in float64.

A loop's text is written from its program (see `tinyvae.loop`) and the kinds of its operands, and compiled once. The
loops run on one core: waking another for so short a loop takes longer than the loop.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array
from tinyvae.kernels.contract import Window
from tinyvae.kernels.numba_kept import kept
from tinyvae.kernels.numba_text import Place, compiled_loop
from tinyvae.kernels.numpy_loops import NumPyKernels
from tinyvae.kernels.operands import Operand, operand
from tinyvae.kernels.prepared import Job, Op
from tinyvae.kernels.remembered import Call, Memory, Setters, Step, same_memory

_move = kept(error_model="numpy", nogil=True)


class NumbaKernels(NumPyKernels):
    """Each loop is one compiled pass; convolutions move their patches by compiled loops."""

    name = "numba"

    def prepare_loop(self, job: Job, memory: Memory) -> tuple[list[Step], Setters]:
        """The compiled loop for operands of these kinds, and its arguments."""
        args: list[Any] = [job.rows, job.cols]
        setters: Setters = {}
        places: list[Place] = []
        arrays = (*job.inputs, *job.out, *job.into)
        for i, a in enumerate(arrays):
            kind, values = self._operand(a, job)
            same = [j for j in range(i) if kind == Operand.MATRIX and same_memory(arrays[j], a)]
            places.append(Place(kind, same[0] if same else None))
            if same:
                continue
            if kind == Operand.NUMBER:
                setters[i] = _setter(args, len(args), self.dtype.type)
            args += values
        args += [*job.sums, *job.columns]
        function = compiled_loop(job.loop, self.dtype.name, tuple(places), bool(job.into))
        return [(function, args)], setters

    def _operand(self, a: Any, job: Job) -> tuple[Operand, list[Any]]:
        kind = operand(a, job.cols)
        if kind == Operand.NUMBER:
            return kind, [self.dtype.type(a)]
        if kind == Operand.LOOKUP:
            return kind, [_whole_rows(a.table), a.labels, job.rows // a.labels.shape[0]]
        if kind in (Operand.CELL, Operand.ROW):
            return kind, [a.reshape(-1)]
        return kind, [_whole_rows(a), job.rows // a.shape[0]]

    def _prepare_patches(self, memory: Memory, what: Op, x: Array) -> Call:
        w: Window = what.of
        rows = memory(x.shape[0] * w.down * w.across, w.patch)
        images = x.reshape(-1, w.height, w.width, w.channels)
        return Call([(_patches, [images, rows, w.down, w.across, w.kernel, w.stride, w.pad])], rows)

    def _fold(self, memory: Memory, rows: Array, window: Window) -> tuple[Array, list[Step]]:
        w = window
        n = rows.shape[0] // (w.down * w.across)
        images = memory(n, w.image)
        y = images.reshape(n, w.height, w.width, w.channels)
        return images, [(_fold, [rows, y, w.down, w.across, w.kernel, w.stride, w.pad])]

    def _prepare_scatter(self, memory: Memory, what: Any, labels: Array, da: Array, table: Array) -> Call:
        return Call([(_scatter, [labels, da, table, da.shape[0] // labels.shape[0]])])

    def _prepare_gather(self, memory: Memory, what: Any, data: Array, rows: Array, scale: float, x: Array) -> Call:
        return Call([(_gather, [data, rows, x.dtype.type(scale), x])])


def _setter(args: list[Any], position: int, kind: Any) -> Callable[[Any], None]:
    def put(value: Any) -> None:
        args[position] = kind(value)

    return put


def _whole_rows(a: Array) -> Array:
    """A matrix that begins where `a` does and whose rows are as far apart, so that it is contiguous: a half of a matrix
    ends within its rows, and a loop reads no further. Contiguous is what makes Numba's inner loops vector ones. Other
    strides get a loop of their own."""
    wide, rest = divmod(a.strides[0], a.itemsize)
    if a.flags.c_contiguous or a.strides[1] != a.itemsize or rest or wide < a.shape[1]:
        return a
    return np.lib.stride_tricks.as_strided(a, (a.shape[0], wide), a.strides)


@_move
def _patches(x: Array, rows: Array, down: int, across: int, kernel: int, stride: int, pad: int) -> None:
    """Row by row of patches; beside the image they are 0."""
    n, height, width, channels = x.shape
    for b in range(n):
        for oy in range(down):
            for ox in range(across):
                row = rows[(b * down + oy) * across + ox]  # (kernel kernel channels,)
                for i in range(kernel):
                    iy = oy * stride - pad + i
                    at = i * kernel * channels
                    if iy < 0 or iy >= height:
                        for q in range(kernel * channels):
                            row[at + q] = 0
                        continue
                    for j in range(kernel):
                        ix = ox * stride - pad + j
                        if ix < 0 or ix >= width:
                            for q in range(channels):
                                row[at + j * channels + q] = 0
                        else:
                            for q in range(channels):
                                row[at + j * channels + q] = x[b, iy, ix, q]


@_move
def _fold(rows: Array, y: Array, down: int, across: int, kernel: int, stride: int, pad: int) -> None:
    """Each number is added to the pixel that it was copied from."""
    n, height, width, channels = y.shape
    for b in range(n):
        y[b] = 0
        for oy in range(down):
            for ox in range(across):
                row = rows[(b * down + oy) * across + ox]  # (kernel kernel channels,)
                for i in range(kernel):
                    iy = oy * stride - pad + i
                    if iy < 0 or iy >= height:
                        continue
                    for j in range(kernel):
                        ix = ox * stride - pad + j
                        if 0 <= ix < width:
                            at = (i * kernel + j) * channels
                            for q in range(channels):
                                y[b, iy, ix, q] += row[at + q]


@_move
def _scatter(labels: Array, da: Array, table: Array, K: int) -> None:
    """Row by row into the label's."""
    table[:] = 0
    for i in range(da.shape[0]):
        row, target = da[i], table[labels[i // K]]  # (out,) each
        for j in range(row.size):
            target[j] += row[j]


@_move
def _gather(data: Array, rows: Array, scale: Any, x: Array) -> None:
    """Straight from the stored numbers."""
    for i in range(rows.size):
        row = data[rows[i]]  # (columns,)
        for j in range(row.size):
            x[i, j] = x.dtype.type(row[j]) * scale
