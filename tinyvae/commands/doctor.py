"""`tinyvae doctor`: what this machine has, what it lacks, and what better settings would give."""

import argparse
import math
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tinyvae import __version__, blas, kernels
from tinyvae.backend import cupy_problem, get_backend
from tinyvae.errors import TinyvaeError
from tinyvae.training import stopwatch

SUMMARY = "what this machine has, what it lacks, and what better settings would give"
DESCRIPTION = """\
Show what training will run with: the CPU, NumPy's BLAS and the set of kernels that it chose, threads, CuPy, the GPU and
its driver; and the line that installs what is missing. Then time a training step of 784-400-20 (batch 128) under a few
settings, which takes some seconds."""
EXAMPLES = """\
examples:
  tinyvae doctor
  tinyvae doctor --no-timing
  OPENBLAS_NUM_THREADS=1 tinyvae doctor          what this setting gives"""

DRIVER = Path("/proc/driver/nvidia/version")
CUDA_13_DRIVER = 580  # the first that runs CUDA 13
ROUNDS = 3
WORTH_SAYING = 1.1  # a setting that is so many times as fast


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options."""
    parser.add_argument("--no-timing", action="store_true", help="only look, do not measure")


def run(args: argparse.Namespace) -> int:
    """Look, measure, advise."""
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    for what, found in (*look(), *look_for_gpu()):
        table.add_row(what, found)
    console.print(table, markup=False)
    if args.no_timing:
        return 0
    console.print()
    console.print(
        f"a training step of {stopwatch.DATA_DIM}-{stopwatch.HIDDEN}-{stopwatch.LATENT}, "
        f"batch {stopwatch.BATCH}, on the CPU (the fastest of {ROUNDS} tries):"
    )
    times, failed = measure(list(possible_settings(dict(os.environ))), console)
    width = max((len(setting.name) for setting, _ in times), default=0)
    for setting, seconds in times:
        console.print(f"  {setting.name:{width}}  {1000 * seconds:6.2f} ms", markup=False)
    for name, reason in failed.items():
        console.print(f"  {name}: {reason}", markup=False)
    for line in advice(times):
        console.print(line, markup=False)
    return 0


def look() -> Iterator[tuple[str, str]]:
    """What there is on the CPU's side, as (what, found)."""
    yield "tinyvae", f"{__version__}, Python {platform.python_version()}, NumPy {np.__version__}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    features = blas.cpu_features()
    avx512 = "" if not features else ", AVX-512" if features >= blas.AVX512 else ", no AVX-512"
    yield "CPU", f"{blas.cpu_model()}, {cores} cores to use{avx512}"
    openblas = blas.loaded()
    if openblas is None:
        built: dict[str, Any] = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # pyright: ignore  # untyped
        yield (
            "BLAS",
            f"{built['name']} {built['version']}: not the OpenBLAS of NumPy's wheels, so there is nothing to set",
        )
    else:
        version = re.match(r"OpenBLAS [\d.]+", openblas.config)
        given = [f"{name}={os.environ[name]}" for name in sorted(os.environ) if name.startswith("OPENBLAS_")]
        by_you = f" (you set {' '.join(given)})" if given else ""
        name = version[0] if version else "OpenBLAS"
        yield "BLAS", f"{name}, {openblas.kernels} kernels, {openblas.threads} threads{by_you}"
        chosen = " ".join(f"{name}={value}" for name, value in blas.choose(os.environ).items())
        yield "", f"tinyvae train adds {chosen}" if chosen else "tinyvae train adds nothing to your own settings"
    problem = kernels.numba_problem()
    yield "Numba", problem or f"{metadata.version('numba')}: the fused kernels are compiled loops"


def look_for_gpu() -> Iterator[tuple[str, str]]:
    """What there is on the GPU's side, as (what, found)."""
    driver = driver_version()
    yield "driver", f"NVIDIA {driver}" if driver else "no NVIDIA driver is loaded"
    installed = [f"{d.name} {d.version}" for d in metadata.distributions() if (d.name or "").startswith("cupy")]
    problem = cupy_problem()
    if problem is None:
        yield "CuPy", ", ".join(installed)
        runtime = get_backend("cupy").xp.cuda.runtime
        for device in range(runtime.getDeviceCount()):
            properties = runtime.getDeviceProperties(device)
            memory = properties["totalGlobalMem"] / 2**30
            yield f"GPU {device}", f"{properties['name'].decode()}, {memory:.0f} GiB"
        yield "CUDA", f"runtime {runtime.runtimeGetVersion()}, the driver is good for {runtime.driverGetVersion()}"
    elif not installed and driver:
        extra = "cuda13" if int(driver.partition(".")[0]) >= CUDA_13_DRIVER else "cuda12"
        yield "CuPy", f"not installed: python -m pip install 'tinyvae[{extra}]' suits this driver"
    elif not installed:
        yield "CuPy", "not installed, and not needed: without an NVIDIA GPU everything runs on NumPy"
    else:
        yield "CuPy", f"{', '.join(installed)}, but it cannot be used: {problem}"


def driver_version() -> str | None:
    """Of the NVIDIA driver that the kernel has loaded (Linux)."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.\d+(\.\d+)?)\s", DRIVER.read_text())
    except OSError:
        return None
    return found[1] if found else None


@dataclass(frozen=True)
class Setting:
    """A way to run a training step."""

    name: str
    kernels: str
    environ: dict[str, str]
    remedy: str | None = None  # how a user gets it; None for what `tinyvae train` does anyway, and for what is slower


def possible_settings(environ: dict[str, str]) -> Iterator[Setting]:
    """What to try, beginning with what `tinyvae train` does in this environment."""
    trained = environ | blas.choose(environ)
    yield Setting("as tinyvae train runs here", "fused", trained)
    yield Setting("with --keep-blas", "fused", environ, "tinyvae train --keep-blas")
    own = [name for name in ("OPENBLAS_CORETYPE", "OPENBLAS_THREAD_TIMEOUT") if name in environ]
    if own:
        bare = {name: value for name, value in environ.items() if name not in own}
        yield Setting(f"with {' and '.join(own)} unset", "fused", bare | blas.choose(bare), f"unset {' '.join(own)}")
    if "OPENBLAS_NUM_THREADS" not in environ:
        name = "OPENBLAS_NUM_THREADS=1"
        yield Setting(name, "fused", trained | {"OPENBLAS_NUM_THREADS": "1"}, f"export {name}")
    if kernels.numba_problem() is None:
        yield Setting("--kernels numpy", "numpy", trained, "tinyvae train --kernels numpy")
    yield Setting("--kernels reference", "reference", trained, "tinyvae train --kernels reference")


def measure(settings: list[Setting], console: Console) -> tuple[list[tuple[Setting, float]], dict[str, str]]:
    """The fastest of a few tries of each, and why some failed. In turns: other load must not fall on one alone."""
    found: dict[str, float] = {}
    failed: dict[str, str] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("timing", total=ROUNDS * len(settings))
        for _ in range(ROUNDS):
            for setting in settings:
                bar.advance(task)
                try:
                    seconds = stopwatch.time_step_elsewhere(setting.kernels, setting.environ)
                except TinyvaeError as error:
                    failed[setting.name] = str(error)
                    continue
                found[setting.name] = min(seconds, found.get(setting.name, math.inf))
    return [(setting, found[setting.name]) for setting in settings if setting.name in found], failed


def advice(times: list[tuple[Setting, float]]) -> Iterator[str]:
    """What is worth changing, by these measurements."""
    if not times or times[0][0].remedy is not None:
        return  # what tinyvae train does could not be measured: there is nothing to compare with
    ours = times[0][1]
    best, seconds = min(times, key=lambda pair: pair[1])
    if best.remedy and ours / seconds >= WORTH_SAYING:
        yield f"better: {best.remedy}   ({ours / seconds:.1f} times as fast)"
    else:
        yield f"nothing tried here is {WORTH_SAYING:g} times as fast as what tinyvae train does"
    if kernels.numba_problem():
        yield f"Numba's kernels were not tried: {kernels.numba_problem()}"
