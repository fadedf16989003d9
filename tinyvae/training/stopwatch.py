"""How long a training step takes, here and now: a process of its own for each setting that is tried.

python -m tinyvae.training.stopwatch numba        the kernels; prints seconds
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np

from tinyvae.errors import TinyvaeError
from tinyvae.model.vae import VAE
from tinyvae.objectives.elbo import ELBO
from tinyvae.training.adam import Adam

DATA_DIM, HIDDEN, LATENT, BATCH = 784, 400, 20, 128  # the README's MNIST model
WARM_UP, SECONDS = 20, 0.5
PACKAGE_PARENT = Path(__file__).parents[2]  # so that the child finds the same tinyvae


def time_step(kernels: str) -> float:
    """The median time of a step of training (gather, noise, losses, gradients, Adam), in seconds."""
    model = VAE(DATA_DIM, (HIDDEN,), LATENT, kernels=kernels)
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (4096, DATA_DIM), dtype=np.uint8)
    x, eps = np.empty((BATCH, DATA_DIM), np.float32), np.empty((BATCH, LATENT), np.float32)
    adam, elbo = Adam(model), ELBO()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 * WARM_UP or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        rng.standard_normal(out=eps, dtype=np.float32)
        with model.lock, model.borrowed("step", BATCH) as k:
            k.gather(data, rng.integers(0, len(data), BATCH), 1 / 255, x)
            model.step(k, x, eps, elbo)
            adam.update(k, model.grads.flat, 1e-3)
        times.append(time.perf_counter() - start)
    return median(times[WARM_UP:])


def time_step_elsewhere(kernels: str, environ: Mapping[str, str]) -> float:
    """`time_step` in a process with this environment: BLAS reads it only once. Raises TinyvaeError if that fails."""
    path = os.pathsep.join(filter(None, (str(PACKAGE_PARENT), environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", __name__, kernels]
    done = subprocess.run(command, env={**environ, "PYTHONPATH": path}, capture_output=True, text=True)
    if done.returncode != 0:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise TinyvaeError(f"timing the {kernels} kernels failed: {reason or done.returncode}")
    return float(done.stdout)


if __name__ == "__main__":
    print(time_step(sys.argv[1]))
