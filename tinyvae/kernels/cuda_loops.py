"""The kernels for CuPy, in float32: products by cuBLAS, all else by kernels that are compiled when first needed.

A loop's text is written from its program and the kinds of its operands (`cuda/text.py`); what is no formula is in
`cuda/moves.cu`. Nothing waits for the device, and results lie in an arena of device memory: see `remembered.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tinyvae.backend import Array
from tinyvae.formula import formula
from tinyvae.kernels.contract import Lookup, Window
from tinyvae.kernels.cuda.launch import program, source
from tinyvae.kernels.cuda.table import THREADS, tiles
from tinyvae.kernels.cuda.text import Place, text_of
from tinyvae.kernels.domain import checked_groups
from tinyvae.kernels.ends import itself
from tinyvae.kernels.operands import Operand, operand
from tinyvae.kernels.prepared import Job, Op, Prepared
from tinyvae.kernels.remembered import Call, Memory, Setters, Step, same_memory
from tinyvae.loop import Loop
from tinyvae.ops.groups import starts

WARP = 32
MOST_BLOCKS = 4096  # of a kernel whose threads go on to further numbers
MOST_PARTS = 65535  # blocks that a grid may have one below the other
PART = 4096  # numbers of a long row that a block adds: 16 a thread, so that a flat buffer keeps many blocks busy
DEPTH = 64  # numbers of a tall column that a thread adds


@formula
def square(g):
    """g^2."""
    return g * g


TOTAL, SQUARES = Loop(sums=[itself]), Loop(sums=[square])


class CudaKernels(Prepared):
    """See `Kernels` for what each method computes. xp: CuPy."""

    name = "cuda"

    def __init__(self, xp: Any) -> None:
        super().__init__("float32")
        self.xp = xp
        self.matmul = lambda a, b, out: xp.matmul(a, b, out=out)
        self.add = xp.add
        self.firsts: dict[tuple[int, ...], Array] = {}
        self.moves = program(xp, source("common.cu", "moves.cu"))

    def new_memory(self, size: int) -> Array:
        """So many bytes of the device."""
        return self.xp.empty(size, dtype="uint8")

    # ---------------------------------------------------------------------------------------------------------- loops

    def prepare_loop(self, job: Job, memory: Memory) -> tuple[list[Step], Setters]:
        """Its kernels, one behind the other. Raises ValueError for what no kernel can pass over."""
        if job.rows * job.cols >= 2**31:
            raise ValueError(f"{job.loop} over ({job.rows}, {job.cols}): a kernel counts to 2^31")
        if not all(map(_side_by_side, (*job.out, *job.into))):
            raise ValueError("a loop writes only into matrices whose rows are contiguous")
        steps: list[Step] = []
        numbers: dict[str, list[tuple[list[Any], int]]] = {}  # where in the kernels' arguments each of them stands
        for part in _kernels_of(job):
            self._loop(part, memory, steps, numbers)
        setters = {i: _setter(numbers[name]) for i, name in enumerate(job.loop.inputs) if name in numbers}
        return steps, setters

    def _loop(self, job: Job, memory: Memory, steps: list[Step], numbers: dict[str, Any]) -> None:
        arrays = (*job.inputs, *job.out, *job.into)
        given: dict[str, Any] = {"rows": job.rows, "cols": job.cols}
        places: list[Place] = []
        for i, a in enumerate(arrays):
            kind = operand(a, job.cols)
            same = [j for j in range(i) if kind == Operand.MATRIX and same_memory(arrays[j], a)]
            if i < len(job.inputs):
                a = self._readable(kind, a, memory, steps)
            arguments = {} if same else _operand(kind, a, job.rows)
            if i >= len(job.inputs):
                arguments.pop("K", None)  # one for all that is added to
            places.append(Place(kind, "K" in arguments, same[0] if same else None))
            given.update({f"{name}{i}": value for name, value in arguments.items()})
        if job.into:
            given["K"] = _draws(job)
        size, width, grid, part = _shape(job)
        sums = (*job.sums, *job.columns)
        made = [a if grid[1] == 1 else memory(grid[1], size) for a in sums]
        if sums:
            given.update({"part": part, "width": width} | {f"sums{i}": a for i, a in enumerate(made)})
        code = program(self.xp, text_of(job.loop, tuple(places), bool(job.into)))
        steps.append(code.step("loop", grid, **given))
        names, values = [argument for _, argument in code.arguments["loop"]], steps[-1][1][-1]
        for i, name in enumerate(job.loop.inputs):
            if places[i].kind == Operand.NUMBER:
                numbers.setdefault(name, []).append((values, names.index(f"a{i}")))
        for parts, a in zip(made, sums, strict=True):
            if parts is not a:
                steps.append(self._move("add_parts", size, parts=parts, sums=a, count=grid[1], size=size))

    def _readable(self, kind: Operand, a: Any, memory: Memory, steps: list[Step]) -> Any:
        """An operand as a kernel can read it: rows whose numbers lie side by side, labels of 64 bits."""
        if kind == Operand.LOOKUP:
            table = self._readable(Operand.MATRIX, a.table, memory, steps)
            return Lookup(table, self._whole(a.labels, memory, steps, "int64"))
        if kind == Operand.ROW:
            return self._whole(a, memory, steps)
        matrix = kind in (Operand.COLUMN, Operand.MATRIX)
        return self._whole(a, memory, steps) if matrix and not _side_by_side(a) else a

    def _whole(self, a: Array, memory: Memory, steps: list[Step], dtype: Any = "float32") -> Array:
        """`a`, or a copy that is made in each call, where `a` is not contiguous or of another dtype."""
        if a.dtype == dtype and a.flags.c_contiguous:
            return a
        copy = memory(*a.shape, dtype=dtype)
        steps.append((self.xp.copyto, [copy, a]))
        return copy

    # ---------------------------------------------------------------------------------------------------------- moves

    def _move(self, name: str, count: int, /, **given: Any) -> Step:
        """A kernel of moves.cu whose threads make `count` numbers."""
        return self.moves.step(name, (min(tiles(count, THREADS), MOST_BLOCKS), 1), **given)

    def _prepare_patches(self, memory: Memory, what: Op, x: Array) -> Call:
        w: Window = what.of
        steps: list[Step] = []
        x = self._whole(x, memory, steps)
        rows = memory(x.shape[0] * w.down * w.across, w.patch)
        steps.append(self._move("patches", rows.size, x=x, rows=rows, size=rows.size, **_window(w)))
        return Call(steps, rows)

    def _fold(self, memory: Memory, rows: Array, window: Window) -> tuple[Array, list[Step]]:
        w = window
        x = memory(rows.shape[0] // (w.down * w.across), w.image)
        return x, [self._move("fold", x.size, rows=rows, x=x, size=x.size, **_window(w))]

    def _prepare_scatter(self, memory: Memory, what: Any, labels: Array, da: Array, table: Array) -> Call:
        steps: list[Step] = []
        labels, da = self._whole(labels, memory, steps, "int64"), self._whole(da, memory, steps)
        rows, columns = da.shape
        steps.append(self._move(
            "scatter", table.size, labels=labels, da=da, table=table, K=rows // labels.shape[0], rows=rows,
            columns=columns, size=table.size,
        ))  # fmt: skip
        return Call(steps)

    def _prepare_gather(self, memory: Memory, what: Any, data: Array, rows: Array, scale: float, x: Array) -> Call:
        steps: list[Step] = []
        rows = self._whole(rows, memory, steps, "int64")
        kernel = {"uint8": "gather_bytes", "float32": "gather_floats"}.get(data.dtype.name)
        if kernel is None:
            raw = memory(*x.shape, dtype=data.dtype)
            steps += [(_take, [self.xp, data, rows, raw]), (_times, [self.xp, raw, np.float32(scale), x])]
        else:
            sizes = {"columns": x.shape[1], "size": x.size}
            steps.append(self._move(kernel, x.size, data=data, rows=rows, x=x, scale=scale, **sizes))
        return Call(steps)

    def _prepare_row_max(self, memory: Memory, what: Any, a: Array) -> Call:
        steps: list[Step] = []
        a = self._whole(a, memory, steps)
        rows, columns = a.shape
        out = memory(rows, 1)
        grid = (tiles(rows, THREADS // WARP), 1)
        steps.append(self.moves.step("row_max", grid, a=a, largest=out, rows=rows, columns=columns))
        return Call(steps, out)

    def _prepare_groups(self, memory: Memory, what: Op, a: Array) -> Call:
        steps: list[Step] = []
        groups, a = checked_groups(a, what.of), self._whole(a, memory, steps)
        out = memory(*a.shape)
        size = a.shape[0] * len(groups)
        given = {"groups": len(groups), "columns": a.shape[1], "size": size}
        steps.append(self._move(what.name, size, a=a, first=self._first(groups), out=out, **given))
        return Call(steps, out)

    def _first(self, groups: tuple[int, ...]) -> Array:
        """Where each group begins, and where the last one ends: on the device, written there once."""
        if groups not in self.firsts:
            first = self.firsts[groups] = self.xp.empty(len(groups) + 1, dtype="int64")
            for i, column in enumerate(starts(groups)):
                first[i : i + 1].fill(column)
        return self.firsts[groups]

    def _prepare_total(self, memory: Memory, what: Any, a: Array) -> Call:
        return self._sum(memory, TOTAL, a)

    def _prepare_squared_norm(self, memory: Memory, what: Any, g: Array) -> Call:
        return self._sum(memory, SQUARES, g)

    def _sum(self, memory: Memory, loop: Loop, a: Array) -> Call:
        """Over one long row."""
        row, steps = self._flat(memory, a, a.size)
        call = self._prepare_map(memory, self._form(loop, False, False, False, False), row)
        return Call([*steps, *call.steps], call.result)


def _side_by_side(a: Array) -> bool:
    """Whether the numbers of a row are."""
    return a.shape[1] == 1 or a.strides[1] == a.itemsize


def _operand(kind: Operand, a: Any, rows: int) -> dict[str, Any]:
    """The kernel's arguments for an operand of a loop over so many rows; K if K of these share one of its own."""
    if kind in (Operand.NUMBER, Operand.CELL, Operand.ROW):
        return {"a": a}
    labels, a = (a.labels, a.table) if kind == Operand.LOOKUP else (None, a)
    found = {"a": a, "ld": a.strides[0] // a.itemsize} | ({} if labels is None else {"labels": labels})
    own = a.shape[0] if labels is None else labels.shape[0]
    return found if own == rows else {**found, "K": rows // own}


class Shape(NamedTuple):
    """How a kernel is launched: how many numbers or sums it makes, its width (see `text.py`), its blocks, its parts."""

    size: int
    width: int
    grid: tuple[int, int]
    part: int


def _shape(job: Job) -> Shape:
    if job.columns:
        width = min(WARP, 1 << (job.cols - 1).bit_length())
        part = max(DEPTH * THREADS // width, tiles(job.rows, MOST_PARTS))
        return Shape(job.cols, width, (tiles(job.cols, width), tiles(job.rows, part)), part)
    if job.sums:
        width = WARP if job.cols <= THREADS else THREADS
        part = max(PART, tiles(job.cols, MOST_PARTS))
        return Shape(job.rows, width, (tiles(job.rows, THREADS // width), tiles(job.cols, part)), part)
    size = job.rows * job.cols // (_draws(job) if job.into else 1)
    return Shape(size, 1, (min(tiles(size, THREADS), MOST_BLOCKS), 1), 0)


def _draws(job: Job) -> int:
    """How many rows are added to one. Raises ValueError if that differs among the targets."""
    heights = {a.shape[0] for a in job.into}
    if len(heights) > 1:
        raise ValueError(f"{job.loop} adds to matrices of different heights: {sorted(heights)}")
    return job.rows // heights.pop()


def _kernels_of(job: Job) -> Iterator[Job]:
    """The job as jobs of one kernel each. What reads only comes first: outputs may lie where the inputs do."""
    columns, sums, outputs = _split(job.loop, bool(job.into))
    given = dict(zip(job.loop.inputs, job.inputs, strict=True))
    of = lambda loop: [given[name] for name in loop.inputs]
    if columns is not None:
        yield Job(columns, job.rows, job.cols, of(columns), (), (), (), job.columns)
    if sums is not None:
        yield Job(sums, job.rows, job.cols, of(sums), (), (), job.sums, ())
    if outputs is not None:
        yield Job(outputs, job.rows, job.cols, of(outputs), job.out, job.into, () if sums is not None else job.sums, ())


@cache
def _split(loop: Loop, into: bool) -> tuple[Loop | None, Loop | None, Loop | None]:
    """Its columns; its sums, if they cannot go with its outputs; and the rest."""
    outputs, sums, columns = loop.formulas
    if [bool(outputs), bool(sums), bool(columns)].count(True) == 1:
        return (loop, None, None) if columns else (None, None, loop)
    apart = into and bool(outputs)
    return (
        Loop(columns=columns) if columns else None,
        Loop(sums=sums) if sums and apart else None,
        Loop(outputs, () if apart else sums) if outputs or sums else None,
    )


def _setter(places: Sequence[tuple[list[Any], int]]) -> Callable[[Any], None]:
    def put(value: Any) -> None:
        for values, at in places:
            values[at] = np.float32(value)

    return put


def _window(w: Window) -> dict[str, int]:
    return {**w._asdict(), "down": w.down, "across": w.across}


def _take(xp: Any, data: Array, rows: Array, raw: Array) -> None:
    xp.take(data, rows, axis=0, out=raw)


def _times(xp: Any, raw: Array, factor: Any, x: Array) -> None:
    xp.multiply(raw, factor, out=x, dtype="float32")
