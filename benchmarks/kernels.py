"""Each function of the kernels contract: fused beside the readable formulas, and beside what the machine can do.

The sizes are those of 784-400-20 at batch 128. Bytes count every input read once and every output written once. Beside
them stand, from the same process, a plain copy that moves as many bytes and the plain matrix products alone. The same
buffers are used again and again, so small ones stay in the cache, as they do in a training step.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from benchmarks.output import Save, Table, microsecond, microseconds
from benchmarks.processes import Children
from benchmarks.rounds import ratio, summary
from benchmarks.shapes import LR, SCALE, SHAPES
from tinyvae.backend import Backend, get_backend
from tinyvae.kernels import select, work_size

HELP = "each fused kernel, beside the readable formula, a copy of as many bytes and the plain product"
SHAPE = SHAPES["784-400-20"]
BLOCK = 0.002  # seconds that a block of calls takes at least: the clock is read between blocks
BLOCKS = 15


@dataclass(frozen=True)
class Call:
    """A function of the contract with its arguments, and what it costs at least."""

    label: str
    function: str
    positional: tuple[Any, ...]
    results: dict[str, Any]
    bytes: int
    products: tuple[tuple[Any, Any, Any], ...] = ()  # (a, b, out) of each matrix product in it

    def flops(self) -> int:
        """Of the matrix products."""
        return sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b, _ in self.products)


def calls(backend: Backend) -> list[Call]:
    """Every function at the sizes of SHAPE. Arguments are chosen so that repeated calls find ordinary numbers."""
    n, d, latent, size = SHAPE.batch, SHAPE.data_dim, SHAPE.latent, SHAPE.parameters()
    rng = np.random.default_rng(0)
    xp = backend.xp

    def normal(*shape: int) -> Any:
        return backend.asarray(rng.standard_normal(shape, dtype=np.float32))

    def uniform(*shape: int) -> Any:
        return backend.asarray(rng.random(shape, dtype=np.float32))

    widest = max(o for _, o in SHAPE.layers())
    work = {"work": backend.zeros(work_size(n, widest), np.float32)}
    data, rows = backend.asarray(SHAPE.pixels()), backend.asarray(rng.permutation(SHAPE.rows)[:n])
    x, raw, head, eps = uniform(n, d), xp.empty((n, d), dtype=np.uint8), normal(n, 2 * latent) * 0.1, normal(n, latent)
    z, kl, nll, dlogits = normal(n, latent), normal(n, latent), normal(n), normal(n, d)
    found = [
        Call("gather", "gather", (data, rows, SCALE), {"x": x, "raw": raw}, n * d + 4 * n * d),
        Call("binarize", "binarize", (x, uniform(n, d)), {}, 12 * n * d),
    ]
    activations = ["relu", "linear", "relu", "linear"]
    for i, (k, m) in enumerate(SHAPE.layers()):
        a, W, b, y, dy = normal(n, k), normal(k, m) * 0.05, normal(m), normal(n, m), normal(n, m)
        dx, dW, db = (normal(n, k) if i else None), normal(k, m), normal(m)
        label = f"{k} x {m}, {activations[i]}"
        moved = 4 * (n * k + k * m + m + n * m)
        found.append(Call(
            f"dense_forward {label}", "dense_forward", (a, W, b, activations[i]), {"y": y, **work}, moved,
            ((a, W, y),),
        ))  # fmt: skip
        back = ((a.T, dy, dW),) if dx is None else ((a.T, dy, dW), (dy, W.T, dx))
        found.append(Call(
            f"dense_backward {label}", "dense_backward", (dy, a, W, y, activations[i]),
            {"dx": dx, "dW": dW, "db": db, **work}, moved + 4 * (n * m + (0 if dx is None else n * k + k * m)), back,
        ))  # fmt: skip
    p, g, m, v = normal(size), normal(size) * 0.01, normal(size) * 0.01, uniform(size) * 1e-4
    logvar, norm2 = backend.asarray(np.zeros(1, np.float32)), xp.ones((), dtype=np.float32)
    dkl = xp.full(latent, 1 / n, dtype=np.float32)
    found += [
        Call("latent_forward", "latent_forward", (head, eps), {"z": z, "kl": kl, **work}, 4 * n * latent * 5),
        Call("latent_backward", "latent_backward", (z, head, eps, dkl), {"dhead": normal(n, 2 * latent), **work},
             4 * n * latent * 6),
        Call("bernoulli_loss", "bernoulli_loss", (normal(n, d), x, 1 / n), {"nll": nll, "dlogits": dlogits, **work},
             4 * n * d * 3),
        Call("gaussian_loss", "gaussian_loss", (normal(n, d), logvar, x, 1 / n),
             {"nll": nll, "dmean": dlogits, "dlogvar": normal(1), **work}, 4 * n * d * 3),
        Call("squared_norm", "squared_norm", (g,), {"out": xp.zeros((), dtype=np.float32)}, 4 * size),
        Call("clip", "clip", (normal(size), norm2, 1 - 2**-20), {}, 4 * size * 2),  # shortens by so little, every time
        Call("adam_step", "adam_step", (p, g, m, v, 1000, LR), work, 4 * size * 7),
    ]  # fmt: skip
    return found


def times(backend: str) -> list[dict[str, Any]]:
    """In a process of its own: for each call, the seconds of both kinds of kernels, of a copy, and of the products."""
    b = get_backend(backend)
    name, fused = select(None, b)
    _, reference = select("reference", b)
    rows = []
    for call in calls(b):
        source = b.xp.ones(call.bytes // 2, dtype=np.uint8)
        target = b.xp.empty_like(source)

        def run_with(kernels: Any, call: Call = call) -> None:
            getattr(kernels, call.function)(*call.positional, **call.results)

        def products(call: Call = call) -> None:
            for left, right, out in call.products:
                b.xp.matmul(left, right, out=out)

        rows.append({
            "label": call.label, "flops": call.flops(), "bytes": call.bytes, "kernels": name,
            "fused": timed(lambda run=run_with: run(fused), b),
            "reference": timed(lambda run=run_with: run(reference), b),
            "copy": timed(lambda target=target, source=source: b.xp.copyto(target, source), b),
            "products": timed(products, b) if call.products else None,
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
    """None of its own."""


def run(args: argparse.Namespace, save: Save) -> dict[str, Any]:
    """Measure; the results as JSON values."""
    rounds: list[list[dict[str, Any]]] = []
    results = {"backend": args.backend, "tf32": args.tf32, "shape": SHAPE.name, "batch": SHAPE.batch, "rounds": rounds}
    with Children(args.backend, args.tf32) as children:
        for i in range(args.rounds):
            print(f"round {i + 1} of {args.rounds}", flush=True)
            rounds.append(children.ask("kernels", "kernels.times", ours=True, backend=args.backend))
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
