"""Loops as NumPy's operations: each writes into a register, block by block, so that registers stay in the cache.

A number of the loop's program gets a register until it is read for the last time, or is made right where a result
belongs if nobody reads anything else there any more. What is worked out once for a call is the list of operations with
all their views; to run it is to walk along the list.
"""

import math
from typing import Any

import numpy as np

from tinyvae.backend import Array
from tinyvae.kernels.contract import Lookup, Window
from tinyvae.kernels.domain import NUMBERS
from tinyvae.kernels.prepared import Job, Op, Prepared
from tinyvae.kernels.remembered import Call, Memory, Setters, Step
from tinyvae.loop import BOOL, DOUBLE, Number

BLOCK = 32768  # numbers worked on at a time
LONG = 65536  # the same of a single row, such as the flat buffers; measured: half is 6% slower, twice is 5%
NAMES = {"abs": "absolute"}


class NumPyKernels(Prepared):
    """Loops of ufuncs, in float32 or float64."""

    name = "numpy"

    def prepare_loop(self, job: Job, memory: Memory) -> tuple[list[Step], Setters]:
        """A list of operations for every block."""
        inputs, setters = [], {}
        for i, a in enumerate(job.inputs):
            if isinstance(a, NUMBERS):
                cell = np.empty((), dtype=self.dtype)
                cell.fill(a)
                setters[i] = cell.fill
                a = cell
            inputs.append(a)
        steps: list[Step] = [(_fill, [c]) for c in job.columns]
        for i, a in enumerate(inputs):
            if isinstance(a, Lookup):
                inputs[i] = memory.for_now(a.labels.shape[0], job.cols)
                steps.append((np.take, [a.table, a.labels, 0, inputs[i], "clip"]))
        registers = _Registers(memory)
        for rows, cols in _blocks(job):
            steps += _Block(job, self.dtype, inputs, registers, rows, cols).steps()
            registers.all_free()
        return steps, setters

    def _prepare_patches(self, memory: Memory, what: Op, x: Array) -> Call:
        w: Window = what.of
        n = x.shape[0]
        rows = memory(n * w.down * w.across, w.patch)
        padded = memory.for_now(n, w.height + 2 * w.pad, w.width + 2 * w.pad, w.channels)
        inner = padded[:, w.pad : w.pad + w.height, w.pad : w.pad + w.width]
        steps: list[Step] = [(_fill, [padded]), (np.copyto, [inner, x.reshape(inner.shape)])]
        steps += [(np.copyto, [patch, pixels]) for patch, pixels in _at_each_place(padded, rows, w)]
        return Call(steps, rows)

    def _fold(self, memory: Memory, rows: Array, window: Window) -> tuple[Array, list[Step]]:
        w = window
        n = rows.shape[0] // (w.down * w.across)
        images = memory(n, w.image)
        padded = memory.for_now(n, w.height + 2 * w.pad, w.width + 2 * w.pad, w.channels)
        inner = padded[:, w.pad : w.pad + w.height, w.pad : w.pad + w.width]
        steps: list[Step] = [(_fill, [padded])]
        steps += [(np.add, [pixels, patch, pixels]) for patch, pixels in _at_each_place(padded, rows, w)]
        return images, [*steps, (np.copyto, [images.reshape(inner.shape), inner])]


def _at_each_place(padded: Array, rows: Array, w: Window) -> list[tuple[Array, Array]]:
    """For each pixel (i, j) under the window: it in all patches, and the pixels of the images that it covers."""
    patches = rows.reshape(-1, w.down, w.across, w.kernel, w.kernel, w.channels)
    down, across = w.stride * w.down, w.stride * w.across
    return [
        (patches[:, :, :, i, j], padded[:, i : i + down : w.stride, j : j + across : w.stride])
        for i in range(w.kernel)
        for j in range(w.kernel)
    ]


def _fill(a: Array) -> None:
    a.fill(0)


def _blocks(job: Job) -> list[tuple[slice, slice]]:
    """Rows and columns of each block; rows by whole groups of K."""
    n, width, K = job.rows, job.cols, job.K
    if n == 1 and not job.sums:
        return [(slice(0, 1), slice(at, min(at + LONG, width))) for at in range(0, width, LONG)]
    step = max(1, BLOCK // (width * K)) * K
    return [(slice(at, min(at + step, n)), slice(0, width)) for at in range(0, n, step)]


class _Registers:
    """Memory for what a block makes on its way; the blocks share it."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.all, self.free = memory, [], []

    def take(self, size: int, dtype: Any) -> Array:
        for i, flat in enumerate(self.free):
            if flat.dtype == dtype and flat.size >= size:
                return self.free.pop(i)
        self.all.append(self.memory.for_now(size, dtype=dtype))
        return self.all[-1]

    def like(self, shape: tuple[int, ...], dtype: Any) -> Array:
        size = math.prod(shape)
        return self.take(size, dtype)[:size].reshape(shape)

    def all_free(self) -> None:
        self.free = list(self.all)


class _Block:
    """Writes the operations of one block. Matrices are seen as (groups, K, columns), so that K rows share one."""

    def __init__(
        self, job: Job, dtype: Any, inputs: list[Any], registers: _Registers, rows: slice, cols: slice
    ) -> None:
        self.job, self.dtype, self.registers, self.K = job, dtype, registers, job.K
        self.part = (rows, cols)
        self.height, self.width = rows.stop - rows.start, cols.stop - cols.start
        self.shape = (self.height, self.width) if self.K == 1 else (self.height // self.K, self.K, self.width)
        self.program = job.loop.program
        self.values = {n: self._view(a) for n, a in zip(job.loop.inputs, inputs, strict=True)}  # of inputs, by name
        self.made: dict[int, Array] = {}  # what stands for each number of the program
        self.owned: dict[int, Array] = {}  # and the register that it takes
        self.found: list[Step] = []

    def _view(self, a: Any) -> Any:
        """The block's part of an input, as it broadcasts against the others."""
        rows, cols = self.part
        if a.ndim == 0 or a.size == 1:
            return a.reshape(())
        if a.ndim == 1:
            return a[cols]
        columns = cols if a.shape[1] > 1 else slice(None)
        if a.shape[0] == 1:
            return a[:, columns] if self.K == 1 else a[:, None, columns]
        if self.K == 1:
            return a[rows, columns]
        if a.shape[0] == self.job.rows:
            return a[rows, columns].reshape(-1, self.K, a[:, columns].shape[1])
        return a[rows.start // self.K : rows.stop // self.K, None, columns]

    def _target(self, a: Array) -> Array:
        """The block's part of a matrix that is written."""
        return a[self.part[0], self.part[1]].reshape(self.shape)

    def steps(self) -> list[Step]:
        """All operations of the block, in order. What an input's memory may hold is written last."""
        outputs, sums, columns = self.job.loop.results
        last = self._last_reads()
        places = [self._target(a) for a in self.job.out]
        targets: dict[int, Array] = {}  # where a number belongs; if it is several results, where the first does
        for n, place in zip(outputs, places, strict=True) if places else ():
            targets.setdefault(n.index, place)
        for at, n in enumerate(self.program):
            if not (n.kind == BOOL and self._is_plain_choice(n)):
                target = targets.get(n.index)
                if target is not None and self._still_read(target, at):
                    target = None
                self._make(n, target)
            for a in n.args:
                if isinstance(a, Number) and last.get(a.index) == at and a.index in self.owned:
                    self.registers.free.append(self.owned.pop(a.index))
        for n, a in zip(sums, self.job.sums, strict=True):
            value = self._whole(n)
            part = a[self.part[0]].reshape(self.shape[:-1])
            self.found.append((np.add.reduce, [value, value.ndim - 1, None, part]))
        for n, a in zip(columns, self.job.columns, strict=True):
            part = self.registers.take(self.width, a.dtype)[: self.width]
            axes = tuple(range(len(self.shape) - 1))
            self.found.append((np.add.reduce, [self._whole(n), axes, None, part]))
            self.found.append((np.add, [a[self.part[1]], part, a[self.part[1]]]))
        for n, a in zip(outputs, self.job.into, strict=True) if self.job.into else ():
            self._add_into(n, a)
        self._copy([(place, self._value(n)) for n, place in zip(outputs, places, strict=True)] if places else [])
        return self.found

    def _copy(self, results: list[tuple[Array, Array]]) -> None:
        """To their places those results that are not there; what a copy before would overwrite is taken away first."""
        copies = [(place, value) for place, value in results if value is not place]
        for i, (place, value) in enumerate(copies):
            if any(np.may_share_memory(value, before) for before, _ in copies[:i]):
                kept = self.registers.like(self.shape, self.dtype)
                self.found.append((np.copyto, [kept, value]))
                copies[i] = (place, kept)
        self.found += [(np.copyto, [place, value]) for place, value in copies]

    def _last_reads(self) -> dict[int, int]:
        """At which operation each number is read for the last time; results are read in the end."""
        last: dict[int, int] = {}
        for at, n in enumerate(self.program):
            last.update({a.index: at for a in (*n.args, *self._conditions(n)) if isinstance(a, Number)})
        for part in self.job.loop.results:
            last.update({n.index: len(self.program) for n in part})
        return last

    def _conditions(self, n: Number) -> list[Number]:
        """What a plain choice reads in its condition's place."""
        return [a for a in n.args[0].args if isinstance(a, Number)] if _is_zero_or_one(n) else []

    def _is_plain_choice(self, condition: Number) -> bool:
        """Whether all that read the condition are where(condition, 1, 0): these compare for themselves."""
        readers = [n for n in self.program if any(a is condition for a in n.args)]
        return all(_is_zero_or_one(n) for n in readers)

    def _still_read(self, target: Array, at: int) -> bool:
        """Whether an input whose memory this is must outlast the operation, or be whole within it: another operation
        reads it, it is a result, has another shape, or is what a choice copies last."""
        for i, n in enumerate(self.program[at:]):
            for position, a in enumerate((*n.args, *self._conditions(n))):
                if isinstance(a, Number) and a.op == "input":
                    view = self.values[a.args[0]]
                    in_place = i == 0 and _same(view, target) and not (n.op == "where" and position == 1)
                    if np.may_share_memory(view, target) and not in_place:
                        return True
        results = [n for part in self.job.loop.results for n in part if n.op == "input"]
        return any(np.may_share_memory(self.values[n.args[0]], target) for n in results)

    def _value(self, n: Number) -> Any:
        if n.op == "input":
            return self.values[n.args[0]]
        return _constant(n, (), self.dtype) if n.op == "constant" else self.made[n.index]

    def _whole(self, n: Number) -> Array:
        """The value in the block's full shape and in the loop's own precision."""
        value = self._value(n)
        if value.dtype != self.dtype:
            rounded = self.registers.like(self.shape, self.dtype)
            self.found.append((np.copyto, [rounded, value]))
            return rounded
        return value if value.shape == self.shape else np.broadcast_to(value, self.shape)

    def _operand(self, n: Number, dtype: Any, row: bool = False) -> Any:
        """The value in that precision; as a whole row of it where NumPy takes long over a single number (maximum: three
        times). NumPy would change precision in a buffer that it makes each time."""
        if n.op == "constant":
            return _constant(n, self.width if row and self.width > 1 else (), dtype)
        value = self._value(n)
        if n.kind == BOOL or value.dtype == dtype:
            return value
        changed = self.registers.like(value.shape, dtype)
        self.found.append((np.copyto, [changed, value]))
        return changed

    def _make(self, n: Number, target: Array | None) -> None:
        kinds = [a.kind for a in (n, *n.args)]
        precision = np.dtype("float64") if DOUBLE in kinds else self.dtype
        dtype = np.dtype(bool) if n.kind == BOOL else precision
        if target is None or target.dtype != dtype:
            self.owned[n.index] = self.registers.take(math.prod(self.shape), dtype)
            target = self.owned[n.index][: math.prod(self.shape)].reshape(self.shape)
        self.made[n.index] = target
        add = self.found.append
        if n.op == "where":
            condition, a, b = n.args
            if _is_zero_or_one(n):
                compared = DOUBLE in [c.kind for c in condition.args]
                operands = [self._operand(c, np.dtype("float64") if compared else self.dtype) for c in condition.args]
                add((_ufunc(condition), [*operands, target]))
                return
            add((np.copyto, [target, self._operand(b, precision)]))
            add((_choose, [target, self._operand(a, precision), self._operand(condition, precision)]))
        elif n.op == "double":
            add((np.copyto, [target, self._operand(n.args[0], precision)]))
        else:
            row = n.op in ("maximum", "minimum")
            add((_ufunc(n), [*(self._operand(a, precision, row) for a in n.args), target]))

    def _add_into(self, n: Number, a: Array) -> None:
        rows, cols = self.part
        target = a[rows.start // self.K : rows.stop // self.K, cols]  # (groups, columns)
        value = self._whole(n)
        if self.K > 1:
            part = self.registers.like(target.shape, a.dtype)
            self.found.append((np.add.reduce, [value, 1, None, part]))
            value = part
        self.found.append((np.add, [target, value, target]))


def _constant(n: Number, shape: Any, dtype: Any) -> Array:
    with np.errstate(over="ignore"):  # in float32 it may be infinite
        return np.full(shape, n.args[0], dtype=dtype)


def _is_zero_or_one(n: Number) -> bool:
    return n.op == "where" and [a.args for a in n.args[1:] if a.op == "constant"] == [(1.0,), (0.0,)]


def _maximum(a: Array, b: Array, out: Array) -> None:
    np.maximum(a, b, out=out)  # which does not like a third argument without its name


def _minimum(a: Array, b: Array, out: Array) -> None:
    np.minimum(a, b, out=out)


def _ufunc(n: Number) -> Any:
    return NAMED_OUT.get(n.op) or getattr(np, NAMES.get(n.op, n.op))


NAMED_OUT = {"maximum": _maximum, "minimum": _minimum}


def _same(a: Any, b: Any) -> bool:
    same = a.shape == b.shape and a.strides == b.strides
    return same and a.__array_interface__["data"] == b.__array_interface__["data"]


def _choose(target: Array, a: Array, condition: Array) -> None:
    np.copyto(target, a, where=condition)
