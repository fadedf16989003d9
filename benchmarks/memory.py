"""Memory: the peak of whole training commands, as the operating system counts it, and what a step allocates.

NumPy reports its arrays to tracemalloc. What a step holds at its peak beyond what was there before is compared at two
batch sizes: an array made in a step would hold a number for each row, and grow with the batch.

--file-gb N writes a .npy file of N GB and trains on it for an epoch, with the process's own memory limited to LIMIT
bytes, as by `ulimit -d`; its peak is what the process has for itself, without the file's pages that the system keeps.

--beside DIR compares the peak of a process that trains some nets with that of another checkout's: a tiny net shows what
the process needs in itself. Data is two batches, so that it does not count.
"""

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import beside
from benchmarks.beside import OTHER, THIS
from benchmarks.candidates.ours import Ours
from benchmarks.output import Save, Table
from benchmarks.processes import ChildError, ask_once, child_environment
from benchmarks.shapes import SHAPES, TINY, Shape
from benchmarks.step import positive
from benchmarks.train import check_folder
from tinyvae.errors import UsageError
from tinyvae.training.engine import RunState

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
LIMIT = 2_500_000 * 1024  # bytes, as `ulimit -d 2500000` has it


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `memory`, and of nothing else."""
    parser.add_argument("--data-dir", type=Path, help="the folder with MNIST's four files (default: only the digits)")
    parser.add_argument("--file-gb", type=float, metavar="N", help="train on a .npy file of N GB that is read in place")
    beside.add_options(parser, positive)


def run(args: argparse.Namespace, save: Save) -> dict[str, Any]:
    """Measure; the results as JSON values."""
    if args.backend != "numpy":
        raise UsageError("memory is measured on a CPU: leave --backend out")
    beside.check_options(args)
    if args.beside:
        return run_beside(args, save)
    if args.file_gb is not None:
        print(f"training on a file of {args.file_gb:g} GB", flush=True)
        return {"file_gb": args.file_gb, "bytes": peak_on_a_file(args.file_gb)}
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


def peak_on_a_file(gigabytes: float) -> int:
    """The most memory of its own, in bytes, that a process has which trains on a file of that size. Linux alone."""
    with tempfile.TemporaryDirectory() as folder:
        path, rows = Path(folder) / "large.npy", int(gigabytes * 1e9 / (4 * 784))
        x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, 784))
        few = np.random.default_rng(0).random((10_000, 784), dtype=np.float32)
        for start in range(0, rows, len(few)):
            x[start : start + len(few)] = few[: rows - start]
        del x
        options = ["--data", str(path), "--epochs", "1", "--batch-size", "2048", "--hidden", "32", "--latent", "2"]
        command = [sys.executable, "-m", "tinyvae.train", *options, "--no-figures", "--out", f"{folder}/run"]
        limited = lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
        environment = child_environment(os.environ, ours=False)
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, preexec_fn=limited)
        most = 0
        while child.poll() is None:
            with contextlib.suppress(OSError, IndexError):  # it has just ended
                status = Path(f"/proc/{child.pid}/status").read_text()
                most = max(most, 1024 * int(status.split("RssAnon:")[1].split()[0]))
            time.sleep(0.1)
    if child.returncode != 0:
        raise ChildError(f"tinyvae train ended with exit code {child.returncode}")
    return most


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
    if "file_gb" in results:
        rows = [(f"{results['file_gb']:g} GB", f"{results['bytes'] / 1e6:,.0f}")]
        title = f"peak memory of its own, MB, of a process that trains on a .npy file, limited to {LIMIT / 1e9:.1f} GB"
        return [Table(title, ("file", "MB"), rows)]
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
