"""Each call that a training step makes of the kernels: fused beside the reference, and beside what the machine can do.

The calls are those of a real step, noted while it is made, with the very arrays. Bytes count every input read once and
every output written once. Beside them stand, from the same process, a plain copy that moves as many bytes and the plain
matrix product alone. A call is repeated on the same memory, so what is small stays in the cache, as in a training step.
Two calls alike are timed once. A convolution's gradient, alone, makes the patches that it shares with the forward pass
in a step. On a GPU the step goes call by call: what a captured step runs in their place is not timed here.
"""

import argparse
import inspect
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

from benchmarks.candidates.ours import Ours
from benchmarks.output import Save, Table, microsecond, microseconds
from benchmarks.processes import Children
from benchmarks.rounds import ratio, summary
from benchmarks.shapes import SHAPES, Shape
from tinyvae.backend import Backend, get_backend
from tinyvae.kernels import select
from tinyvae.kernels.contract import Kernels, Lookup, Rows
from tinyvae.kernels.ends import backward_end

HELP = "each call of a step's kernels, beside the reference, a copy of as many bytes and the plain product"
DEFAULT = "784-400-20"
BLOCK = 0.002  # seconds that a block of calls takes at least: the clock is read between blocks
BLOCKS = 15
FORWARD, BACK, GRADIENT = "x W", "d W^T", "x^T d"
PRODUCTS = {
    "product": FORWARD, "convolve": FORWARD, "spread_back": FORWARD,
    "back": BACK, "convolve_back": BACK, "spread": BACK,
    "gradient": GRADIENT, "convolve_gradient": GRADIENT,
}  # fmt: skip
UNTIMED = ("begin", "new", "zeros", "finish", "replayed")  # they compute nothing, or what others have put off
TIMED = [name for name, f in vars(Kernels).items() if inspect.isfunction(f) and name[0] != "_" and name not in UNTIMED]


class Call(NamedTuple):
    """A call of the contract: its arguments by name, and what it returned."""

    function: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    result: Any

    def given(self) -> dict[str, Any]:
        """Everything it was given, by the contract's names."""
        found = inspect.signature(getattr(Kernels, self.function)).bind(None, *self.args, **self.options).arguments
        return {name: a for name, a in found.items() if name not in ("self", "given")} | found.get("given", {})

    def run(self, k: Kernels) -> Any:
        """Once more, by these kernels, as a pass of its own."""
        k.begin(self.function)
        return getattr(k, self.function)(*self.args, **self.options)

    def weight(self) -> Any:
        """The W (in, out) of the matrix product in it, or its gradient; None if there is no product."""
        given = self.given()
        return given.get("dW", given.get("W")) if self.function in PRODUCTS else None

    def rows(self) -> int:
        """Rows of the matrix product: those of the batch, and for each the places of a window."""
        window = self.given().get("window")
        return self.args[0].shape[0] * (window.down * window.across if window else 1)

    def label(self) -> str:
        """What it is, and how large: rows x in x out of a product, else the largest array."""
        given, W = self.given(), self.weight()
        if W is not None:
            activation = f", {given['f'].name}" if "f" in given else ""
            return f"{self.function} {self.rows()} x {W.shape[0]} x {W.shape[1]}{activation}"
        largest = max(arrays(self.args, self.options, self.result), key=lambda a: a.size)
        size = " x ".join(map(str, given["x"].shape if self.function == "gather" else largest.shape))
        formulas = [f.__name__ for part in given["loop"].formulas for f in part] if self.function == "map" else []
        return " ".join([self.function, *filter(None, [", ".join(formulas)]), size])

    def flops(self) -> int:
        """Of the matrix product in it."""
        W = self.weight()
        return 0 if W is None else 2 * self.rows() * W.shape[0] * W.shape[1]

    def bytes(self) -> int:
        """What must be read and written at least."""
        given = self.given()
        if self.function == "gather":
            x = given["x"]
            return given["rows"].nbytes + x.size * given["data"].itemsize + x.nbytes
        written = ("out", "sums", "columns")  # these come back as the result
        read = [a for name, a in given.items() if self.function != "map" or name not in written]
        return sum(a.nbytes for a in (*arrays(read), *written_arrays(self.result)))

    def product(self, backend: Backend) -> Callable[[], Any] | None:
        """The matrix product alone, on other numbers."""
        W = self.weight()
        if W is None:
            return None
        n, (i, o), xp = self.rows(), W.shape, backend.xp
        x, d, W = (xp.ones(size, dtype=W.dtype) for size in ((n, i), (n, o), (i, o)))
        a, b, out = {FORWARD: (x, W, d), BACK: (d, W.T, x), GRADIENT: (x.T, d, W)}[PRODUCTS[self.function]]
        out = xp.empty_like(out)
        return lambda: xp.matmul(a, b, out=out)


def arrays(*values: Any) -> Iterator[Any]:
    """The arrays that are read of arguments. Of the layer below: what the slope of its activation is made of."""
    for a in values:
        if isinstance(a, Rows):
            slope = None if a.f is None else backward_end(a.f)
            yield from () if slope is None else (getattr(a, name) for name in slope.inputs if name in a._fields)
        elif isinstance(a, (list, tuple, Lookup)):
            yield from arrays(*a)
        elif isinstance(a, dict):
            yield from arrays(*a.values())
        elif hasattr(a, "nbytes") and a.ndim:
            yield a


def written_arrays(result: Any) -> Iterator[Any]:
    """The arrays of a result."""
    whole = [a for a in result if a is not None and hasattr(a, "nbytes")] if isinstance(result, Rows) else result
    yield from arrays(whole)


class Noting:
    """Kernels that note each call before the answer is given."""

    def __init__(self, kernels: Kernels, calls: list[Call]) -> None:
        self.kernels, self.calls = kernels, calls

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.kernels, name)
        if name not in TIMED:
            return function

        def note(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            if result is not None or not name.endswith("back"):  # None: below is data, and nothing was done
                self.calls.append(Call(name, args, options, result))
            return result

        return note


def noted(shape: Shape, backend: str) -> list[Call]:
    """All calls of a training step, in order. What they read stays as the step has left it."""
    found: list[Call] = []
    trainer, listener = Ours(shape, None, backend).trainer(lambda _: None)
    noting: list[Any] = [Noting(k, found) for k in (trainer.train_batches.kernels, trainer.model.make_kernels())]
    trainer.graph_step = None
    trainer.train_batches.kernels = noting[0]
    trainer.model.free.append(noting[1])  # the next pass borrows them
    trainer.run(stop=lambda: listener.count == 1)
    return found


def calls(shape: Shape, backend: str) -> list[Call]:
    """The same, each kind once."""
    kinds: dict[str, Call] = {}
    for call in noted(shape, backend):
        kinds.setdefault(call.label(), call)
    return list(kinds.values())


def times(backend: str, shape: dict[str, Any]) -> list[dict[str, Any]]:
    """In a process of its own: for each call, the seconds of both kinds of kernels, of a copy, and of the product."""
    b = get_backend(backend)
    name, make = select(None, b)
    fused, reference = make(), select("reference", b)[1]()
    rows = []
    for call in calls(Shape.from_dict(shape), backend):
        source = b.xp.ones(call.bytes() // 2, dtype="uint8")
        target = b.xp.empty_like(source)
        product = call.product(b)
        rows.append({
            "label": call.label(), "flops": call.flops(), "bytes": call.bytes(), "kernels": name,
            "fused": timed(lambda call=call: call.run(fused), b),
            "reference": timed(lambda call=call: call.run(reference), b),
            "copy": timed(lambda target=target, source=source: b.xp.copyto(target, source), b),
            "products": timed(product, b) if product else None,
        })  # fmt: skip
    return rows


def timed(function: Callable[[], Any], backend: Backend) -> float:
    """Seconds of a call: the median of blocks of calls, each at least BLOCK long. A GPU is waited for once a block."""

    def block(n: int) -> float:
        began = time.perf_counter()
        for _ in range(n):
            function()
        if backend.name == "cupy":
            backend.xp.cuda.Device().synchronize()
        return time.perf_counter() - began

    n = 1
    block(3)
    while block(n) < BLOCK:
        n *= 2
    return median(block(n) / n for _ in range(BLOCKS))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `kernels`, and of nothing else."""
    parser.add_argument(
        "--shape", choices=SHAPES, default=DEFAULT, metavar="SHAPE",
        help=f"one of: {', '.join(SHAPES)} (default: {DEFAULT})",
    )  # fmt: skip


def run(args: argparse.Namespace, save: Save) -> dict[str, Any]:
    """Measure; the results as JSON values."""
    shape, rounds = SHAPES[args.shape], []
    results = {"backend": args.backend, "tf32": args.tf32, "shape": shape.name, "batch": shape.batch, "rounds": rounds}
    with Children(args.backend, args.tf32) as children:
        for i in range(args.rounds):
            print(f"round {i + 1} of {args.rounds}", flush=True)
            answer = children.ask("kernels", "kernels.times", ours=True, backend=args.backend, shape=shape.to_dict())
            rounds.append(answer)
            save(results)
    return results


def tables(results: dict[str, Any]) -> list[Table]:
    """A line for each function."""
    rows = []
    for i, first in enumerate(results["rounds"][0]):
        row = {key: [r[i][key] for r in results["rounds"]] for key in ("fused", "reference", "copy", "products")}
        fused = summary(row["fused"])
        speedup = ratio(row["reference"], row["fused"])
        floor = summary(row["products"]).median if first["flops"] else summary(row["copy"]).median
        rows.append((
            first["label"], *microseconds(fused), f"{speedup.median:.1f}",
            f"{first['flops'] / fused.median / 1e9:,.0f}" if first["flops"] else "-",
            f"{first['bytes'] / fused.median / 1e9:,.0f}", microsecond(floor),
            "products" if first["flops"] else "copy",
        ))  # fmt: skip
    name = results["rounds"][0][0]["kernels"]
    precision = ", TF32" if results["tf32"] else ""
    title = f"{name} kernels at {results['shape']}, batch {results['batch']}{precision}: µs a call"
    header = ("", "median", "min to max", "faster than reference", "GFLOP/s", "GB/s", "floor", "which floor")
    return [Table(title, header, rows)]
