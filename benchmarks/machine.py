"""What a measurement was made on: it is stored with the numbers."""

import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from typing import Any

import numpy as np

import tinyvae
from benchmarks.processes import ask_once
from tinyvae import blas
from tinyvae.model.vae import VAE

LIBRARIES = ("numpy", "numba", "torch", "jax", "jaxlib", "cupy-cuda12x", "cupy-cuda13x")
SETTINGS = ("OMP_", "MKL_", "NUMBA_", "XLA_", "JAX_", "TORCH", "CUDA_VISIBLE")  # variables that change a timing


def describe() -> dict[str, Any]:
    """The machine, the versions and the settings, as JSON values."""
    return {
        "cpu": blas.cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "os": operating_system(),
        "gpu": gpu(),
        "python": platform.python_version(),
        "versions": {"tinyvae": tinyvae.__version__, **library_versions()},
        "blas": {
            "tinyvae": ask_once("machine.blas_here", ours=True),
            "default": ask_once("machine.blas_here", ours=False),
        },
        "settings": settings(SETTINGS),
    }


def operating_system() -> str:
    """Its name, the architecture and the C library; which kernel the host runs is nobody's business."""
    libc = "-".join(part for part in platform.libc_ver() if part)
    return ", ".join(part for part in (f"{platform.system()} {platform.machine()}", libc) if part)


def settings(prefixes: str | tuple[str, ...]) -> dict[str, str]:
    """The environment's variables whose names begin so, but for those that say where something lies."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(prefixes) and not name.endswith(("_DIR", "_PATH")) and not re.search(r"[/\\]", value)
    }


def gpu() -> str | None:
    """The first NVIDIA GPU and its driver."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True)
    return done.stdout.splitlines()[0].replace(", ", ", driver ") if done.returncode == 0 and done.stdout else None


def library_versions() -> dict[str, str]:
    """Of those that are installed."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def blas_here() -> dict[str, Any]:
    """The BLAS of this process, the set of kernels that it chose, and the variables that were set for it."""
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    openblas = blas.loaded()
    return {
        "name": f"{built['name']} {built['version']}",
        "kernels": openblas.kernels if openblas else None,
        "threads": openblas.threads if openblas else None,
        "settings": settings("OPENBLAS_"),
    }


def kernels_here(backend: str) -> str:
    """The name of the kernels that a model takes by default in this process."""
    return VAE(8, (8,), 2, backend=backend).kernels_name


def slug(machine: dict[str, Any], backend: str) -> str:
    """A short name for files: of the GPU where that was measured, else of the CPU and its cores."""
    gpu_name = (machine["gpu"] or "gpu").partition(",")[0]
    name = gpu_name if backend == "cupy" else f"{machine['cpu']} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(.*?\)", "", name.lower())).strip("-")
