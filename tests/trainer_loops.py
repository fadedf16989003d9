"""Small trainings from Python: their data, and the ways to loop over one."""

from dataclasses import asdict
from typing import Any

import numpy as np

import tinyvae
from tinyvae.training.result import Result
from tinyvae.training.trainer import Trainer, fit

ROWS, DATA, LATENT = 50, 6, 2
X = np.random.default_rng(0).random((ROWS, DATA)).astype(np.float32)
HELD_OUT = np.random.default_rng(1).random((12, DATA)).astype(np.float32)
Y, Y_HELD_OUT = np.arange(ROWS) % 3, np.arange(12) % 3
SMALL: dict[str, Any] = {"epochs": 3, "batch_size": 16}  # 4 updates in each epoch: 16, 16, 16 and 2 rows


def model(**more: Any) -> tinyvae.VAE:
    return tinyvae.VAE(DATA, (5,), LATENT, **{"kernels": "numpy", **more})


def falling(epochs: float) -> float:
    """Step sizes of a function of one's own."""
    return 0.01 / (1 + epochs)


def quietly(*args: Any, **more: Any) -> Result:
    return fit(*args, progress=False, **more)


def without_seconds(rows: Any) -> list[dict[str, Any]]:
    return [{**asdict(row), "seconds": 0} for row in rows]


def everything(trainer: Trainer) -> tuple[Any, ...]:
    """All that must not depend on how a training was looped over."""
    best = trainer.result().best_params
    arrays = (trainer.model.params.flat, trainer.engine.m, trainer.engine.v, np.zeros(0) if best is None else best)
    return (*(a.tobytes() for a in arrays), trainer.state, without_seconds(trainer.history))


def by_loop(*args: Any, **more: Any) -> Trainer:
    trainer = Trainer(*args, **more)
    rows = list(trainer)
    assert rows == trainer.history
    return trainer


def by_steps(*args: Any, **more: Any) -> Trainer:
    trainer = Trainer(*args, **more)
    steps = list(trainer.steps())
    assert [step.updates for step in steps] == list(range(1, trainer.state.updates + 1))
    assert [step.row for step in steps if step.row] == trainer.history
    return trainer


def by_train(*args: Any, **more: Any) -> Trainer:
    trainer = Trainer(*args, **more)
    assert trainer.train()
    return trainer
