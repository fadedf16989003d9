"""All of the contract but the loops: products by BLAS, each with its end in one remembered call.

For NumPy's arrays; what CuPy says in other words, its subclass says anew.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tinyvae.backend import Array
from tinyvae.kernels.contract import Lookup, Rows, Window
from tinyvae.kernels.domain import address, check_dtypes, checked_groups, domain, seen_as
from tinyvae.kernels.ends import COLUMN_SUMS, backward_end, forward_end
from tinyvae.kernels.remembered import Call, Memory, Remembered, Setters, Step, same_memory
from tinyvae.loop import Loop
from tinyvae.ops.activations import Activation
from tinyvae.ops.groups import starts


class Job(NamedTuple):
    """A loop with all that it reads and writes."""

    loop: Loop
    rows: int
    cols: int
    inputs: Sequence[Any]  # in the order of loop.inputs
    out: Sequence[Array]  # matrices to be written,
    into: Sequence[Array]  # or to be added to, perhaps K rows to one
    sums: Sequence[Array]  # (rows,) each
    columns: Sequence[Array]  # (cols,) each
    K: int = 1  # how many rows one row of the smaller matrices serves


class Form:
    """How a loop is called: which of its results have a place already."""

    def __init__(self, loop: Loop, into: bool, out: bool, sums: bool, columns: bool) -> None:
        if into and out:
            raise TypeError("outputs are written (out) or added (into), not both")
        self.loop = loop
        outputs, along, over = loop.counts
        self.given = (outputs if into else 0, outputs if out else 0, along if sums else 0, over if columns else 0)
        self.made = (0 if into or out else outputs, 0 if sums else along, 0 if columns else over)

    def job(self, operands: Sequence[Any], memory: Memory, dtype: Any) -> tuple[Job, Any]:
        """The job for these operands, with new arrays for what has none, and what the caller gets."""
        at = len(self.loop.inputs)
        inputs, rest = operands[:at], list(operands[at:])
        if len(rest) != sum(self.given):
            raise ValueError(f"{self.loop} has {self.loop.counts} results, but {len(rest)} arrays were given for them")
        into, out, sums, columns = ([rest.pop(0) for _ in range(n)] for n in self.given)
        rows, cols, K = domain(inputs, out, into, sums, columns)
        out += [memory(rows, cols) for _ in range(self.made[0])]
        sums += [memory(rows) for _ in range(self.made[1])]
        columns += [memory(cols) for _ in range(self.made[2])]
        results = (*into, *out, *sums, *columns)
        check_dtypes((*inputs, *results), dtype)
        flat = [seen_as(a, rows) for a in sums], [seen_as(a, cols) for a in columns]
        job = Job(self.loop, rows, cols, inputs, [seen_as(a, rows, cols) for a in out], into, *flat, K)
        return job, results[0] if len(results) == 1 else results


class Op(NamedTuple):
    """What a call does, with all that is no operand."""

    name: str
    of: Any = None
    labels: bool = False


@cache
def op(name: str, of: Any = None, labels: bool = False) -> Op:
    """One object for each, so that they are quickly told apart."""
    return Op(name, of, labels)


class Prepared(Remembered):
    """See `Kernels` for what each method computes."""

    name = "prepared"
    xp: Any = np
    matmul: Callable[..., Any] = staticmethod(np.matmul)  # a, b, out
    add: Callable[..., Any] = staticmethod(np.add)

    def __init__(self, dtype: Any) -> None:
        super().__init__(dtype)
        self.forms: dict[Any, Form] = {}
        self.later: list[tuple[Array, Array, Array]] = []  # what `finish` adds
        self.patched: list[tuple[Array, Window, Array]] = []  # patches of this pass

    def begin(self, *key: Any) -> None:
        """From the arena's start again."""
        super().begin(*key)
        self.later.clear()
        self.patched.clear()

    def new(self, *shape: int) -> Array:
        """An array of the arena."""
        return self.do(op("new", shape), self._prepare_new)

    def _prepare_new(self, memory: Memory, what: Any) -> Call:
        return Call([], memory(*what.of))

    def zeros(self, *shape: int) -> Array:
        """Filled in each pass."""
        return self.do(op("zeros", shape), self._prepare_zeros)

    def _prepare_zeros(self, memory: Memory, what: Any) -> Call:
        a = memory(*what.of)
        return Call([(a.fill, [0])], a)

    def halves(self, a: Array) -> tuple[Array, Array]:
        """The same two views each time, which are quickly compared."""
        return self.do("halves", self._prepare_halves, a)

    def _prepare_halves(self, memory: Memory, what: Any, a: Array) -> Call:
        width = a.shape[1] // 2
        return Call([], (a[:, :width], a[:, width:]))

    # ------------------------------------------------------------------------------------------------------- formulas

    def map(
        self, loop: Loop, /, *, out: Sequence[Array] | None = None, into: Sequence[Array] | None = None,
        sums: Sequence[Array] | None = None, columns: Sequence[Array] | None = None, **given: Any,
    ) -> Any:  # fmt: skip
        """One pass over memory, by the subclass."""
        form = self._form(loop, into is not None, out is not None, sums is not None, columns is not None)
        try:
            operands = [given[name] for name in loop.inputs]
        except KeyError:
            operands = []
        if len(operands) != len(given):
            raise TypeError(f"{loop} takes {', '.join(loop.inputs)}, not {', '.join(given)}")
        for targets in (into, out, sums, columns):
            if targets is not None:
                operands += targets
        return self.do(form, self._prepare_map, *operands)

    def _form(self, *key: Any) -> Form:
        form = self.forms.get(key)
        if form is None:
            form = self.forms[key] = Form(*key)
        return form

    def _prepare_map(self, memory: Memory, form: Form, *operands: Any) -> Call:
        job, result = form.job(operands, memory, self.dtype)
        steps, numbers = self.prepare_loop(job, memory)
        return Call(steps, result, numbers)

    def prepare_loop(self, job: Job, memory: Memory) -> tuple[list[Step], Setters]:
        """By the subclass: what is to be done, and a way to change those of its inputs that are numbers."""
        raise NotImplementedError

    def _steps(
        self, memory: Memory, loop: Loop, given: dict[str, Any], out: Sequence[Array] = (), columns: Any = ()
    ) -> list[Step]:
        """A loop as a part of a call."""
        form = self._form(loop, False, bool(out), False, bool(columns))
        job, _ = form.job([*(given[name] for name in loop.inputs), *out, *columns], memory, self.dtype)
        return self.prepare_loop(job, memory)[0]

    def _flat(self, memory: Memory, a: Array, width: int) -> tuple[Array, list[Step]]:
        """`a` as rows of `width` numbers, and how they come there in each call where a view cannot show them."""
        rows = a.reshape(-1, width)
        if address(rows) == address(a):
            return rows, []
        copy = memory.for_now(*a.shape)
        return copy.reshape(-1, width), [(self.xp.copyto, [copy, a])]

    # -------------------------------------------------------------------------------------------------------- products

    def product(self, x: Array, W: Array, b: Array | None, f: Activation, label: Lookup | None = None) -> Rows:
        """By BLAS, then its end in place."""
        if label is None:
            return self.do(op("product", f), self._prepare_product, x, W, b)
        return self.do(op("product", f, True), self._prepare_product, x, W, b, *label)

    def _prepare_product(self, memory: Memory, what: Op, x: Array, W: Array, b: Array | None, *label: Array) -> Call:
        a = memory(x.shape[0], W.shape[1])
        rows, steps = self._forward_end(memory, a, b, what.of, Lookup(*label) if label else None)
        return Call([(self.matmul, [x, W, a]), *steps], rows)

    def _forward_end(
        self, memory: Memory, a: Array, b: Array | None, f: Activation, label: Lookup | None = None
    ) -> tuple[Rows, list[Step]]:
        loop = forward_end(f, b is not None, label is not None)
        if loop is None:
            return Rows(a, f), []
        y = memory(*a.shape) if f.reads_a else a
        steps = self._steps(memory, loop, {"a": a, "b": b, "v": label}, (a, y) if f.reads_a else (a,))
        return Rows(y, f, a if f.reads_a else None), steps

    def back(self, da: Array, W: Array, below: Rows) -> Array | None:
        """By BLAS, then the slope in place."""
        if below.f is None:
            return None
        return self.do(op("back", below.f), self._prepare_back, da, W, below.y, below.a)

    def _prepare_back(self, memory: Memory, what: Op, da: Array, W: Array, y: Array, a: Array | None) -> Call:
        dx = memory(da.shape[0], W.shape[0])
        return Call([(self.matmul, [da, W.T, dx]), *self._slope(memory, dx, Rows(y, what.of, a))], dx)

    def _slope(self, memory: Memory, dy: Array, below: Rows) -> list[Step]:
        """dy times the slope below, in place."""
        loop = None if below.f is None else backward_end(below.f)
        return [] if loop is None else self._steps(memory, loop, {"dy": dy, "y": below.y, "a": below.a}, (dy,))

    def end(self, dy: Array, below: Rows) -> Array | None:
        """In place."""
        return None if below.f is None else self.do(op("end", below.f), self._prepare_end, dy, below.y, below.a)

    def _prepare_end(self, memory: Memory, what: Op, dy: Array, y: Array, a: Array | None) -> Call:
        return Call(self._slope(memory, dy, Rows(y, what.of, a)), dy)

    def gradient(self, x: Array, da: Array, dW: Array, db: Array | None = None, add: bool = False) -> None:
        """By BLAS, and the sums."""
        if not add:
            self.do("gradient", self._prepare_gradient, x, da, dW, db)
            return
        self.later.append((x, da, dW))
        if db is not None:
            self.column_sums(da, db)

    def _prepare_gradient(self, memory: Memory, what: Any, x: Array, da: Array, dW: Array, db: Array | None) -> Call:
        sums = [] if db is None else self._steps(memory, COLUMN_SUMS, {"a": da}, columns=(db,))
        return Call([(self.matmul, [x.T, da, dW]), *sums])

    def finish(self) -> None:
        """Add what was put off."""
        for x, da, dW in self.later:
            self.do("added", self._prepare_added, x, da, dW)
        self.later.clear()

    def _prepare_added(self, memory: Memory, what: Any, x: Array, da: Array, dW: Array) -> Call:
        part = memory.for_now(*dW.shape)
        return Call([(self.matmul, [x.T, da, part]), (self.add, [dW, part, dW])])

    def column_sums(self, da: Array, db: Array) -> None:
        """One pass."""
        self.map(COLUMN_SUMS, columns=(db,), a=da)

    def scatter(self, labels: Array, da: Array, table: Array) -> None:
        """By a product with one-hot rows."""
        self.do("scatter", self._prepare_scatter, labels, da, table)

    def _prepare_scatter(self, memory: Memory, what: Any, labels: Array, da: Array, table: Array) -> Call:
        n, classes = labels.shape[0], table.shape[0]
        same, onehot = memory.for_now(n, classes, dtype=bool), memory.for_now(n, classes)
        each = memory.for_now(n, da.shape[1])
        real = memory.for_now(n, 1)  # NumPy compares whole numbers by way of larger buffers
        steps: list[Step] = [
            (np.copyto, [real, labels[:, None]]),
            (np.equal, [real, np.arange(classes, dtype=self.dtype), same]),
            (np.copyto, [onehot, same]),
            (np.add.reduce, [da.reshape(n, -1, da.shape[1]), 1, None, each]),
            (self.matmul, [onehot.T, each, table]),
        ]
        return Call(steps)

    # ---------------------------------------------------------------------------------------------------- convolutions

    def _patches(self, x: Array, window: Window) -> Array:
        """patches(x), (rows places, patch), kept for the other product that reads them: see `_patches_again`."""
        self._taken(x, window)
        rows = self.do(op("patches", window), self._prepare_patches, x)
        self.patched.append((x, window, rows))
        return rows

    def _patches_again(self, x: Array, window: Window) -> Array:
        """Those that were made of x earlier in this pass, once; else new ones. x has not changed in between."""
        rows = self._taken(x, window)
        return self._patches(x, window) if rows is None else rows

    def _taken(self, x: Array, window: Window) -> Array | None:
        for i, (image, w, rows) in enumerate(self.patched):
            if w == window and (image is x or same_memory(image, x)):
                del self.patched[i]
                return rows
        return None

    def _prepare_patches(self, memory: Memory, what: Op, x: Array) -> Call:
        raise NotImplementedError

    def _fold(self, memory: Memory, rows: Array, window: Window) -> tuple[Array, list[Step]]:
        """The images (rows, image) that patches fold to, and how."""
        raise NotImplementedError

    def convolve(self, x: Array, W: Array, b: Array | None, f: Activation, window: Window) -> Rows:
        """Patches as the rows of a dense layer."""
        return self.product(self._patches(x, window), W, b, f).reshape(x.shape[0], -1)

    def convolve_back(self, da: Array, W: Array, below: Rows, window: Window) -> Array | None:
        """The patches' gradient, folded."""
        if below.f is None:
            return None
        return self.do(op("convolve_back", (window, below.f)), self._prepare_convolve_back, da, W, below.y, below.a)

    def _prepare_convolve_back(self, memory: Memory, what: Op, da: Array, W: Array, y: Array, a: Array | None) -> Call:
        window, f = what.of
        da, flat = self._flat(memory, da, W.shape[1])
        rows = memory.for_now(da.shape[0], W.shape[0])
        images, fold = self._fold(memory, rows, window)
        slope = self._slope(memory, images, Rows(y, f, a))
        return Call([*flat, (self.matmul, [da, W.T, rows]), *fold, *slope], images)

    def spread(self, x: Array, W: Array, b: Array | None, f: Activation, window: Window) -> Rows:
        """Rows of patches, folded."""
        return self.do(op("spread", (window, f)), self._prepare_spread, x, W, b)

    def _prepare_spread(self, memory: Memory, what: Op, x: Array, W: Array, b: Array | None) -> Call:
        window, f = what.of
        x_, flat = self._flat(memory, x, W.shape[1])
        rows = memory.for_now(x_.shape[0], W.shape[0])
        images, fold = self._fold(memory, rows, window)
        if window.channels > 1:
            images = images.reshape(-1, window.channels)  # else the bias is one number, and rows stay long
        made, end = self._forward_end(memory, images, b, f)
        return Call([*flat, (self.matmul, [x_, W.T, rows]), *fold, *end], made.reshape(x.shape[0], -1))

    def spread_back(self, da: Array, W: Array, below: Rows, window: Window) -> Array | None:
        """A convolution of da."""
        rows = self._taken(da, window) if below.f is None else self._patches_again(da, window)
        if below.f is None:
            return None
        return self.do(op("spread_back", (below.f, da.shape[0])), self._prepare_spread_back, rows, W, below.y, below.a)

    def _prepare_spread_back(self, memory: Memory, what: Op, rows: Array, W: Array, y: Array, a: Array | None) -> Call:
        f, n = what.of
        dx = memory(rows.shape[0], W.shape[1])
        whole = dx.reshape(n, -1)
        return Call([(self.matmul, [rows, W, dx]), *self._slope(memory, whole, Rows(y, f, a))], whole)

    def convolve_gradient(self, image: Array, places: Array, dW: Array, window: Window) -> None:
        """As a dense layer's."""
        self.gradient(self._patches_again(image, window), places.reshape(-1, dW.shape[1]), dW)

    # ---------------------------------------------------------------------------------------------------------- others

    def row_max(self, a: Array) -> Array:
        """(rows, 1)."""
        return self.do("row_max", self._prepare_row_max, a)

    def _prepare_row_max(self, memory: Memory, what: Any, a: Array) -> Call:
        out = memory(a.shape[0], 1)
        return Call([(np.maximum.reduce, [a, 1, None, out, True])], out)

    def group_max(self, a: Array, groups: tuple[int, ...]) -> Array:
        """(rows, columns)."""
        return self.do(op("group_max", groups), self._prepare_groups, a)

    def group_sum(self, a: Array, groups: tuple[int, ...]) -> Array:
        """(rows, columns)."""
        return self.do(op("group_sum", groups), self._prepare_groups, a)

    def _prepare_groups(self, memory: Memory, what: Op, a: Array) -> Call:
        """One number for each group, which its columns then take."""
        groups = checked_groups(a, what.of)
        ufunc: Any = {"group_max": np.maximum, "group_sum": np.add}[what.name]
        found, out = memory.for_now(a.shape[0], len(groups)), memory(*a.shape)
        of_column = np.repeat(np.arange(len(groups)), groups)
        steps = [(ufunc.reduceat, [a, starts(groups)[:-1], 1, None, found])]
        return Call([*steps, (np.take, [found, of_column, 1, out, "clip"])], out)

    def total(self, a: Array) -> Array:
        """(1,)."""
        return self.do("total", self._prepare_total, a)

    def _prepare_total(self, memory: Memory, what: Any, a: Array) -> Call:
        out = memory(1)
        (row, *_), flat = self._flat(memory, a, a.size)
        return Call([*flat, (np.add.reduce, [row, 0, None, out.reshape(())])], out)

    def gather(self, data: Array, rows: Array, scale: float, x: Array) -> None:
        """`take` with mode "clip" writes straight into its output; with the default it would make a copy first."""
        self.do("gather", self._prepare_gather, data, rows, scale, x)

    def _prepare_gather(self, memory: Memory, what: Any, data: Array, rows: Array, scale: float, x: Array) -> Call:
        raw = memory.for_now(*x.shape, dtype=data.dtype)
        factor = np.array(scale, dtype=x.dtype)
        return Call([(np.take, [data, rows, 0, raw, "clip"]), (_times, [raw, factor, x])])

    def squared_norm(self, g: Array) -> Array:
        """One pass of BLAS."""
        return self.do("squared_norm", self._prepare_squared_norm, g)

    def _prepare_squared_norm(self, memory: Memory, what: Any, g: Array) -> Call:
        out = memory(1)
        return Call([(np.dot, [g, g, out.reshape(())])], out)


def _times(raw: Array, factor: Array, x: Array) -> None:
    np.multiply(raw, factor, out=x, dtype=x.dtype)
