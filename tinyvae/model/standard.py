"""Where the columns of the data lie: a model that has this computes with u = (x - mean) / std, and speaks in x's units.

    log p(x) = log p(u) - sum_j log std_j        over the numbers that were observed

since du/dx = 1 / std. So real data of any size is learned alike, and two models of the same data can be compared.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvae.backend import Array, array_module


@dataclass(frozen=True, eq=False)
class Standard:
    """mean and std of every column, (data,) in float64: 0 and 1 where a column stays as it is."""

    mean: np.ndarray
    std: np.ndarray

    def __post_init__(self) -> None:
        """Raises ValueError for what no column can have."""
        if self.mean.shape != self.std.shape or self.mean.ndim != 1:
            raise ValueError(
                f"mean and std must be one number for each column, not {self.mean.shape}, {self.std.shape}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise ValueError("mean and std must be finite, and std above 0")

    @classmethod
    def of(cls, chunks: Iterable[np.ndarray], real: np.ndarray) -> "Standard":
        """Of the rows in `chunks` (rows, data), NaN where not observed; real (data,): the columns it is for.

        A column that never changes keeps std 1. Raises ValueError where the numbers are beyond float64.
        """
        count, mean, square = np.zeros(real.shape), np.zeros(real.shape), np.zeros(real.shape)  # (data,) each
        with np.errstate(over="ignore", invalid="ignore"):  # looked at below
            for chunk in chunks:  # Chan et al. 1983: the moments of parts, put together
                x = np.asarray(chunk, dtype="float64")
                seen = ~np.isnan(x)  # (rows, data)
                n = seen.sum(axis=0)
                own = np.where(seen, x, 0).sum(axis=0) / np.maximum(n, 1)
                off = np.where(seen, x - own, 0)
                total = np.maximum(count + n, 1)
                square += (off * off).sum(axis=0) + (own - mean) ** 2 * count * n / total
                mean += (own - mean) * n / total
                count += n
            std = np.sqrt(square / np.maximum(count, 1))
        if not np.isfinite(mean[real]).all() or not np.isfinite(std[real]).all():
            column = int(np.flatnonzero(real & ~(np.isfinite(mean) & np.isfinite(std)))[0])
            raise ValueError(f"column {column} holds numbers whose squares are beyond float64: divide it by 1e100")
        changes = std > 1e-12 * np.abs(mean)  # else it is rounding
        return cls(np.where(real, mean, 0.0), np.where(real & changes & (std > 0), std, 1.0))

    def inward(self, x: Any) -> Array:
        """u = (x - mean) / std, in float64: x (rows, data), an array of NumPy or CuPy."""
        xp = array_module(x)
        return (x.astype("float64") - xp.asarray(self.mean)) / xp.asarray(self.std)

    def outward(self, u: Any) -> Array:
        """x = mean + std u, in float64."""
        xp = array_module(u)
        return xp.asarray(self.mean) + xp.asarray(self.std) * u

    def log_std(self, x: Any) -> Array:
        """sum_j log std_j over the observed numbers of each row, (rows,): what log p loses on the way to x's units."""
        xp = array_module(x)
        return (~xp.isnan(x)).astype("float64") @ xp.asarray(np.log(self.std))
