"""One side of a comparison of two checkouts: what `step --beside` asks, and each checkout answers with its own code.

The two may differ in everything but this. A request is a line of stdin, [task, {"shape", "kernels", "steps"}], and the
answer a line of stdout (`processes`); shape is `Shape.to_dict`, kernels the name of some or null for the fastest:

    side.losses -> {"losses": [...]}    of the first `steps` given batches, in nats, from the weights of seed 0
    side.times  -> {"step": seconds}    the median of `steps` steps of the trainer, after a warm-up

Whoever changes these words can no longer measure beside a version that is older than the change.
"""

import importlib
import os
from pathlib import Path
from statistics import median
from typing import Any

import tinyvae
from tinyvae import blas

HERE = Path(__file__).resolve().parent.parent


def losses(shape: dict[str, Any], kernels: str | None, steps: int) -> dict[str, list[float]]:
    """The loss of each step on batches with nothing left to chance."""
    built, batches = build(shape, kernels, steps)
    return {"losses": built.given_losses(batches)}


def times(shape: dict[str, Any], kernels: str | None, steps: int) -> dict[str, float]:
    """Seconds of the median step: gather, noise, forward, backward, Adam, the losses looked at."""
    built, _ = build(shape, kernels, steps=0)
    return {"step": median(built.step_times(warmup=max(10, steps // 8), steps=steps))}


def build(shape: dict[str, Any], kernels: str | None, steps: int) -> tuple[Any, list[Any]]:
    """The candidate, and the first given batches. Raises ImportError where it would be another checkout's.

    OpenBLAS is set up before NumPy is loaded, as this checkout's training command does it. So what loads NumPy is
    imported here and not above.
    """
    if not Path.cwd().resolve() == HERE == Path(tinyvae.__file__).resolve().parent.parent:
        raise ImportError("what is imported is not this checkout's tinyvae and benchmarks: the other would be measured")
    blas.set_up(os.environ)
    shapes = importlib.import_module("benchmarks.shapes")
    ours = importlib.import_module("benchmarks.candidates.ours")
    s = shapes.Shape.from_dict(shape)
    return ours.Ours(s, kernels, "numpy"), shapes.given_batches(s, steps)
