"""Trainings from within a test: a trainer on small data, one that is stopped, and all that a finished run must hold."""

import csv
import signal
from pathlib import Path

import numpy as np
import pytest

import tinyvae
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset
from tinyvae.training.engine import Engine, RunState
from tinyvae.training.metrics import Row
from tinyvae.training.signals import StopRequest

ROWS, DATA, LATENT = 50, 6, 2


class Recorder:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.losses: list[float] = []

    def batch(self, state: RunState, loss: float) -> None:
        self.losses.append(loss)

    def epoch(self, row: Row) -> None:
        self.rows.append(row)


def make(*, model: dict | None = None, **options) -> Engine:
    rng = np.random.default_rng(0)
    x = np.outer(rng.integers(0, 2, ROWS + 12), np.full(DATA, 215)) + rng.integers(0, 40, (ROWS + 12, DATA))
    x = x.astype(np.uint8)  # two kinds of rows, dark and light, and noise
    dataset = Dataset("pixels", x[:ROWS], x_valid=x[ROWS:], scale=1 / 255)
    config = Config(**{"data": "pixels.npy", "backend": "numpy", "epochs": 3, "batch_size": 16, **options}).resolved(
        ROWS
    )
    vae = tinyvae.VAE(DATA, (5,), LATENT, **{"dtype": config.dtype, "kernels": config.kernels, **(model or {})})
    return Engine(vae, dataset, config, Recorder())


def recorded(trainer: Engine) -> Recorder:
    assert isinstance(trainer.listener, Recorder)
    return trainer.listener


def stop_after(monkeypatch: pytest.MonkeyPatch, updates: int) -> None:
    """As if Ctrl-C came during the update with this number."""
    asked = iter(range(1, 10_000))

    def received(self: StopRequest) -> int | None:
        return signal.SIGINT if next(asked) >= updates else None

    monkeypatch.setattr(StopRequest, "received", property(received, lambda self, value: None), raising=False)


def final_state(run: Path) -> dict[str, bytes]:
    """Everything that must not depend on interruptions: the last checkpoint, the best, the losses, new samples."""
    last = checkpoints.saved_steps(run)[-1]
    best_epoch = checkpoints.read_checkpoint(last).run["state"]["best_epoch"]
    kept = [last, checkpoints.best_path(run, best_epoch)]
    found = {path.name: path.read_bytes() for path in kept}
    with (run / "metrics.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    found["metrics"] = repr(rows).encode()
    model = tinyvae.load(run)
    y = np.arange(5) % model.classes if model.classes else None
    found["generated"] = model.sample(5, np.random.default_rng(1), y=y).tobytes()
    return found
