"""Rows of a run's own data, a limited number of them, as its model saw them."""

from typing import Any

import numpy as np

from tinyvae.training import streams
from tinyvae.training.config import Config


def as_trained(stored: np.ndarray, scale: float, config: Config, dtype: Any = np.float64) -> np.ndarray:
    """Stored rows of a Dataset as real numbers, made 0 and 1 at random where the run did so in every batch.

    stored (rows, data) -> (rows, data), the same at every call. Rows that the run made 0 and 1 once are so already.
    """
    x = np.multiply(stored, scale, dtype=dtype)  # (rows, data)
    if config.binarize != "dynamic":
        return x
    drawn = np.random.default_rng([config.seed, streams.TEST]).random(x.shape, dtype=dtype) < x
    return np.where(np.isnan(x), x, drawn.astype(dtype))
