"""Trainers for the tests of the device: on pixels that have something to learn, or on any kind of model."""

from typing import Any

import numpy as np
from kinds import Kind

import tinyvae
from tinyvae.backend import to_host
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset
from tinyvae.training.engine import Engine, RunState
from tinyvae.training.metrics import Row

BATCHES = 7  # of an epoch: 100 rows in batches of 16, the last of 4


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.updates: list[int] = []
        self.losses: list[float] = []
        self.rows: list[Row] = []

    def batch(self, state: RunState, loss: float) -> None:
        self.updates.append(state.updates)
        self.losses.append(loss)

    def epoch(self, row: Row) -> None:
        self.rows.append(row)


def pixels() -> np.ndarray:
    """(120, 6) bytes: each row is one of three patterns, with noise."""
    rng = np.random.default_rng(0)
    patterns = np.array([[20, 20, 235, 235, 20, 20], [235, 20, 20, 20, 235, 20], [235, 235, 235, 20, 20, 20]])
    return np.clip(patterns[rng.integers(0, 3, 120)] + rng.normal(0, 20, (120, 6)), 0, 255).astype(np.uint8)


def captured(x: np.ndarray | None = None, **options: Any) -> Engine:
    """A trainer of a model that the captured step knows, unless options of the run say otherwise."""
    x = pixels() if x is None else x
    dataset = Dataset("pixels", x[:100], x_valid=x[100:], scale=1 / 255)
    config = Config(data="p.npy", backend="cupy", batch_size=16, **options).resolved(100)
    model = tinyvae.VAE(6, (5,), 2, backend="cupy", activation=config.activation, likelihood=config.likelihood_part())
    return from_afar(Engine(model, dataset, config, Heard()))


def from_afar(trainer: Engine) -> Engine:
    """Not from the means of the data: then a few steps show whether it learns."""
    trainer.model.start_at = lambda x: None  # type: ignore[method-assign]  # as said above
    return trainer


def of_kind(kind: Kind, backend: str, dtype: str = "float64", **options: Any) -> Engine:
    """A trainer of any kind of model: in float64 with the kernels that both backends have."""
    x, _, _ = kind.inputs(120)
    y = np.arange(120) % max(kind.model.get("classes", 0), 1)
    dataset = Dataset("rows", x[:100], x_valid=x[100:], y_train=y[:100], y_valid=y[100:])
    config = Config(data="p.npy", backend=backend, batch_size=16, dtype=dtype, objective=kind.objective, **options)
    model = kind.build(backend=backend, dtype=dtype, kernels="reference" if dtype == "float64" else None)
    return Engine(model, dataset, config.resolved(100), Heard())


def heard(trainer: Engine) -> Heard:
    assert isinstance(trainer.listener, Heard)
    return trainer.listener


def parameters(trainer: Engine) -> np.ndarray:
    return to_host(trainer.model.params.flat).copy()
