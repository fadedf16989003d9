"""Memory: the peak of whole training commands, as the operating system counts it, and what a step allocates.

NumPy reports its arrays to tracemalloc. What a step holds at its peak beyond what was there before is compared at two
batch sizes: an array made in a step would hold a number for each row, and grow with the batch.

--beside DIR compares the peak of a process that trains some nets with that of another checkout's: a tiny net shows what
the process needs in itself. Data is two batches, so that it does not count.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import beside
from benchmarks.beside import OTHER, THIS
from benchmarks.candidates.ours import Ours
from benchmarks.output import Save, Table
from benchmarks.processes import ChildError, ask_once, child_environment
from benchmarks.shapes import SHAPES, TINY, Shape
from benchmarks.step import positive
from benchmarks.train import check_folder
from tinyvae.errors import UsageError
from tinyvae.training.trainer import RunState

HELP = "peak memory of training commands, and the bytes that a step allocates"
SHAPE = SHAPES["784-400-20"]
BATCHES = (128, 2048)
WARMUP, STEPS = 5, 20
BESIDE = [
    replace(shape, rows=2 * shape.batch)
    for shape in (
        TINY[0], SHAPES["784-400-20"], SHAPES["conv-32-64"],
        replace(SHAPES["784-200-200-50-iwae"], name="784-200-200-50-iwae, K = 50", draws=50),
    )
]  # fmt: skip
BESIDE_STEPS = 5


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `memory`, and of nothing else."""
    parser.add_argument("--data-dir", type=Path, help="the folder with MNIST's four files (default: only the digits)")
    beside.add_options(parser, positive)


def run(args: argparse.Namespace, save: Save) -> dict[str, Any]:
    """Measure; the results as JSON values."""
    if args.backend != "numpy":
        raise UsageError("memory is measured on a CPU: leave --backend out")
    beside.check_options(args)
    if args.beside:
        return run_beside(args, save)
    commands = {"digits": ["--data", "digits", "--epochs", "1"]}
    if args.data_dir is not None:
        check_folder(args.data_dir)
        commands["mnist"] = ["--data", "mnist", "--epochs", "1"]
    peaks = []
    for name, options in commands.items():
        print(f"training on {name}", flush=True)
        folder = ["--data-dir", str(args.data_dir)] if name == "mnist" else []
        peaks.append({"command": f"tinyvae train {' '.join(options)}", "bytes": peak([*options, *folder])})
    shapes = [replace(SHAPE, batch=batch) for batch in BATCHES]
    allocated = []
    for shape in shapes:
        print(f"steps at batch {shape.batch}", flush=True)
        grown = ask_once("memory.allocated", ours=True, shape=asdict(shape))
        allocated.append({"batch": shape.batch, "bytes": grown, "smallest_array": 4 * shape.batch * shape.latent})
    return {"peaks": peaks, "allocated": allocated}


def run_beside(args: argparse.Namespace, save: Save) -> dict[str, Any]:
    """The peaks of both checkouts' processes."""
    if args.data_dir is not None:
        raise UsageError("--beside needs no data: leave --data-dir out")
    peaks: dict[str, dict[str, int]] = {}
    results = {"beside": True, "kernels": args.kernels, "blas_threads": args.blas_threads, "peaks": peaks}
    for shape in BESIDE:
        print(shape.name, flush=True)
        peaks[shape.name] = {side.name: side.peak(shape, args.kernels, BESIDE_STEPS) for side in beside.both(args)}
        save(results)
    return results


def peak(options: list[str]) -> int:
    """The peak resident memory, in bytes, of a training command with its pictures. Raises ChildError if it fails."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "tinyvae.train", *options, "--quiet", "--out", f"{out}/run"]
        child = subprocess.Popen(command, env=child_environment(os.environ, ours=False), stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)  # of this child alone
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise ChildError(f"tinyvae train ended with exit code {child.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # KiB, but bytes on macOS


def allocated(shape: dict[str, Any]) -> int:
    """In a process of its own: by how many bytes memory grows at most within a training step after the first few."""
    s = Shape.from_dict(shape)
    grown: list[int] = []
    before = 0

    def look(state: RunState) -> None:
        nonlocal before
        if listener.count == WARMUP:
            tracemalloc.start()
        elif listener.count > WARMUP:
            grown.append(tracemalloc.get_traced_memory()[1] - before)
        if listener.count >= WARMUP:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]

    trainer, listener = Ours(s, None, "numpy").trainer(look)
    trainer.run(stop=lambda: len(grown) == STEPS)
    return max(grown[1:])  # tracemalloc's own start is in the first


def tables(results: dict[str, Any]) -> list[Table]:
    """The commands, then the steps; or the two checkouts."""
    if "beside" in results:
        rows = [
            (name, *(f"{p[side] / 2**20:,.0f}" for side in (THIS, OTHER)), f"{p[OTHER] / p[THIS]:.2f}")
            for name, p in results["peaks"].items()
        ]
        header = ("", "this checkout", "the other", "other over this")
        return [Table(f"peak memory of a process that trains, MiB, {beside.how(results)}", header, rows)]
    peaks = [(p["command"], f"{p['bytes'] / 2**20:,.0f}") for p in results["peaks"]]
    steps = [(f"{a['batch']:,}", f"{a['bytes']:,}", f"{a['smallest_array']:,}") for a in results["allocated"]]
    return [
        Table("peak memory, MiB, pictures included", ("", "MiB"), peaks),
        Table(
            f"bytes that a step of {SHAPE.name} allocates, beside its smallest array (batch x latent)",
            ("batch", "allocated at most", "smallest array"),
            steps,
        ),
    ]
