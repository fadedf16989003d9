"""What the tests of pictures draw: small data sets, a model for one, a history."""

from typing import Any

import numpy as np

import tinyvae
from tinyvae.training.data import Dataset
from tinyvae.training.metrics import Row


def dataset(kind: str, labels: bool = True, train: int = 20, test: int = 12) -> Dataset:
    """Random data: images of 3 x 2, vectors of 5, points in the plane, or single numbers."""
    shapes = {"images": (3, 2), "vectors": (5,), "plane": (2,), "numbers": (1,)}
    width = int(np.prod(shapes[kind]))
    rng = np.random.default_rng(0)
    x_train, x_test = (rng.uniform(0, 1, (n, width)) for n in (train, test))
    y_train, y_test = (3 * np.arange(n) // n if labels else None for n in (train, test))
    return Dataset(
        "tiny",
        x_train,
        y_train=y_train,
        x_valid=x_test,
        y_valid=y_test,
        image_shape=(3, 2) if kind == "images" else None,
    )


def model_for(data: Dataset, latent: int = 2, likelihood: str = "bernoulli") -> tinyvae.VAE:
    return tinyvae.VAE(data.data_dim, (4,), latent, likelihood=likelihood)


def history(epochs: int, slope: float = 1.0) -> list[Row]:
    return [
        Row(e, 0.1 * e, 9 - slope * e / epochs, 7.0, 2.0, 9.5 - slope * e / epochs, 7.5, 2.0, 2)
        for e in range(1, epochs + 1)
    ]


def canvas(figure: Any) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array(), dtype=float)
