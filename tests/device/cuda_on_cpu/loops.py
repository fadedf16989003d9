"""Checks of single loops and moves on the stand-in: every kind of operand, every form, against float64.

Numbers are small whole numbers, and formulas are sums and products of them: float32 makes no error, in any order, so a
result is right to the last bit or wrong. What is given to be written lies between guards.
"""

from functools import cache
from typing import Any

import numpy as np
from cuda_on_cpu.running import GUARD, Buffer
from fake_cupy import DeviceArray

from tinyvae.formula import Formula, double, formula
from tinyvae.kernels.contract import Lookup, Rows, Window
from tinyvae.kernels.cuda_loops import CudaKernels
from tinyvae.kernels.reference import Reference
from tinyvae.loop import Loop
from tinyvae.ops.activations import LINEAR

KINDS = (
    "number", "cell", "row", "column", "shared column", "matrix", "shared matrix", "half", "one row", "lookup",
    "shared lookup", "strided", "strided row",
)  # fmt: skip
FORMS = ("new", "in place", "halves", "into", "sums", "columns", "all", "into and all")
CLASSES = 3
Kinds = tuple[str, str, str]
# each kind in each form, and in each place
CASES: list[tuple[str, Kinds]] = [
    (form, (KINDS[i], KINDS[(i + 5) % len(KINDS)], KINDS[(i + 8) % len(KINDS)]))
    for at, form in enumerate(FORMS)
    for i in range(at % 2, len(KINDS), 2)
]


@formula
def mixed(a, b, c, m):
    """a b - c m, in float64 on its way."""
    return double(a) * b - c * m


@formula
def two(a, b, m):
    """m + a and b."""
    return m + a, b


@formula
def rest(c, m):
    """c - m."""
    return c - m


@cache
def loop_of(form: str) -> Loop:
    """new, in place, ...: what the form of a call needs."""
    made: list[Formula] = [two, mixed]
    if form in ("sums", "columns"):
        return Loop(sums=made) if form == "sums" else Loop(columns=made)
    return Loop(made, [rest, mixed], [mixed, rest]) if form in ("all", "into and all") else Loop([two, rest])


def whole(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Whole numbers of at most 4."""
    return rng.integers(-4, 5, shape).astype(np.float32)


def operand(rng: np.random.Generator, kind: str, rows: int, cols: int, K: int) -> Any:
    """An operand of that kind, on the host."""
    shared = kind.startswith("shared")
    own = rows // K if shared else rows
    match kind.removeprefix("shared "):
        case "number":
            return float(rng.integers(-4, 5))
        case "cell":
            return whole(rng, 1)
        case "row":
            return whole(rng, cols)
        case "column":
            return whole(rng, own, 1)
        case "strided row":
            return whole(rng, 2 * cols)[::2]
        case "strided":
            return whole(rng, rows, 2 * cols)[:, ::2]
        case "half":
            return whole(rng, rows, 2 * cols)[:, cols:]
        case "one row":
            return whole(rng, 1, cols)
        case "lookup":
            return Lookup(whole(rng, CLASSES, 2 * cols)[:, :cols], rng.integers(0, CLASSES, own).astype(np.uint8))
    return whole(rng, own, cols)


def on_device(a: Any) -> Any:
    """The same as the kernels get it."""
    if isinstance(a, Lookup | Rows):
        return type(a)(*map(on_device, a))
    return DeviceArray(a) if isinstance(a, np.ndarray) else a


def doubled(a: Any) -> Any:
    """The same as the oracle gets it."""
    if isinstance(a, Lookup | Rows):
        return type(a)(*map(doubled, a))
    return a.astype(float) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a


class Guarded(CudaKernels):
    """New memory for every call, between guards."""

    def __init__(self, xp: Any) -> None:
        super().__init__(xp)
        self.buffers: list[Buffer] = []

    def begin(self, *key: Any) -> None:
        """Nothing is used again."""
        self.passes.clear()
        self.arena.clear()
        super().begin(*key)
        self.buffers.clear()

    def new_memory(self, size: int) -> Any:
        """So many bytes, in whole words of 4."""
        self.buffers.append(Buffer((-(-size // 4),), GUARD))
        return DeviceArray(self.buffers[-1].array.view(np.uint8)[:size])

    def check(self, what: str) -> None:
        """Nothing was written beside the memory."""
        assert all(buffer.guards_untouched() for buffer in self.buffers), what


class Results:
    """Arrays to be written: on the device between guards, and for the oracle in float64."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Buffer, np.ndarray]] = []

    def array(self, a: np.ndarray) -> tuple[Any, np.ndarray]:
        """Both, holding these numbers."""
        self.pairs.append((Buffer(a, GUARD), a.astype(float)))
        return DeviceArray(self.pairs[-1][0].array), self.pairs[-1][1]

    def check(self, what: str) -> None:
        """They are alike, and nothing was written beside them."""
        for buffer, truth in self.pairs:
            assert np.array_equal(buffer.array, truth), what
            assert buffer.guards_untouched(), what


def check_loop(k: Guarded, form: str, kinds: Kinds, rows: int, cols: int, K: int, seed: int) -> None:
    """A loop over (rows, cols), rows a multiple of K, whose operands a, b, c are of these kinds; m is a matrix."""
    k.begin()
    what, rng = f"{form}, {kinds}, ({rows}, {cols}), K = {K}", np.random.default_rng(seed)
    loop, oracle, written = loop_of(form), Reference(np, "float64"), Results()
    given = {name: operand(rng, kind, rows, cols, K) for name, kind in zip("abc", kinds, strict=True)}
    m, m64 = written.array(whole(rng, rows, cols))
    here = {**{name: on_device(a) for name, a in given.items()}, "m": m}
    there = {**{name: doubled(a) for name, a in given.items()}, "m": m64}
    outputs, name, pairs = loop.counts[0], "out", []
    if form == "in place":
        pairs = [(m, m64), *(written.array(whole(rng, rows, cols)) for _ in range(outputs - 1))]
    elif form in ("halves", "into", "into and all"):
        name = "out" if form == "halves" else "into"
        wide = written.array(whole(rng, rows if form == "halves" else rows // K, outputs * cols))
        pairs = [tuple(a[:, i * cols : (i + 1) * cols] for a in wide) for i in range(outputs)]
    places = [{name: [pair[i] for pair in pairs]} if pairs else {} for i in (0, 1)]
    results = k.map(loop, **places[0], **{n: here[n] for n in loop.inputs})
    expected = oracle.map(loop, **places[1], **{n: there[n] for n in loop.inputs})
    results, expected = (r if isinstance(r, tuple) else (r,) for r in (results, expected))
    for result, truth in list(zip(results, expected, strict=True))[outputs if name == "into" else 0 :]:
        assert np.array_equal(result._host, truth), what
    written.check(what)
    k.check(what)


# ------------------------------------------------------------------------------------------------------------ the moves


def check_window(k: Guarded, window: Window, rows: int, seed: int) -> None:
    """Patches and fold, by what is made of them."""
    rng, places = np.random.default_rng(seed), window.down * window.across
    images, W, others = whole(rng, rows, window.image), whole(rng, window.patch, 5), whole(rng, rows, places * 5)
    check_method(k, "convolve", images, W, None, LINEAR, window)
    check_method(k, "convolve_back", others, W, Rows(images, LINEAR), window)
    check_method(k, "spread", others, W, None, LINEAR, window)
    check_method(k, "spread_back", images, W, Rows(others, LINEAR), window)
    check_method(k, "convolve_gradient", images, others, np.zeros_like(W), window, written=2)


def check_scatter(k: Guarded, rows: int, K: int, classes: int, dtype: str, seed: int) -> None:
    """Labels of any dtype, each for K rows."""
    rng = np.random.default_rng(seed)
    labels, table = rng.integers(0, classes, rows).astype(dtype), np.zeros((classes, 7), np.float32)
    check_method(k, "scatter", labels, whole(rng, rows * K, 7), table, written=2)


def check_sums(k: Guarded, rows: int, cols: int, seed: int) -> None:
    """The largest of each row, all below 0; and sums over everything."""
    rng = np.random.default_rng(seed)
    check_method(k, "row_max", whole(rng, rows, cols) - 9)
    check_method(k, "total", whole(rng, rows, cols))
    groups = (1, *((3,) * (cols // 3)), *((cols % 3 - 1,) * (cols % 3 > 1)), *((2,) * (cols % 3 == 0)))
    for method in ("group_max", "group_sum"):
        check_method(k, method, whole(rng, rows, sum(groups)) - 9, groups)
    g = whole(rng, rows * cols)
    k.begin()
    assert k.squared_norm(DeviceArray(g))._host.tolist() == [(g.astype(float) ** 2).sum()]


def check_gather(k: Guarded, rows: int, columns: int, stored: str, seed: int) -> None:
    """Rows of bytes, reals, and what else there is."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 2 if stored == "bool" else 100, (rows + 2, columns)).astype(stored)
    order, x = rng.integers(0, rows + 2, rows), Buffer((rows, columns), GUARD)
    k.begin()
    k.gather(DeviceArray(data), DeviceArray(order), 0.5, DeviceArray(x.array))
    assert np.array_equal(x.array, data[order] * np.float32(0.5))
    assert x.guards_untouched()


def check_method(k: Guarded, method: str, *arguments: Any, written: int | None = None) -> None:
    """A method on the device and in float64: what it returns, or the argument that it writes."""
    k.begin()
    here, there = [on_device(a) for a in arguments], [doubled(a) for a in arguments]
    results = getattr(k, method)(*here), getattr(Reference(np, "float64"), method)(*there)
    if written is not None:
        results = here[written], there[written]
    result, truth = (a.y if isinstance(a, Rows) else a for a in results)
    assert np.array_equal(result._host, truth), method
    k.check(method)
