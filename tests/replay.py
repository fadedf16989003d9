"""Noise that is known beforehand, for whoever draws it."""

from collections.abc import Iterable
from typing import Any

import numpy as np


class Replay(np.random.Generator):
    """A generator that hands out the given noise, call by call."""

    def __init__(self, noise: Iterable[np.ndarray]) -> None:
        super().__init__(np.random.PCG64(0))
        self.noise = iter(noise)

    def standard_normal(self, size: Any = None, dtype: Any = None) -> np.ndarray:  # pyright: ignore
        eps = next(self.noise)
        assert eps.shape == size
        return eps.astype(dtype)
