"""What a model is given from outside, looked at before it is used: shapes, values, labels, objectives."""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from tinyvae.backend import Array, to_host
from tinyvae.model.built import Built
from tinyvae.model.labels import codes_of, in_words
from tinyvae.objectives.elbo import ELBO
from tinyvae.objectives.objective import Objective


@lru_cache
def _elbo(beta: float, free_bits: float) -> ELBO:
    """One object for the same numbers, which kernels quickly compare."""
    return ELBO(beta, free_bits=free_bits)


class Checked(Built):
    """The checks of `VAE`'s public methods."""

    def _holds_nan(self, x: Array) -> bool:
        return bool(to_host(self.backend.xp.isnan(x.sum())))

    def checked_data(self, x: Any) -> Array:
        """Data x (rows, data) as the model computes with it: see `standard`. Raises ValueError for another shape."""
        if self.standard is None:
            return self.checked_rows(x, "x", self.data_dim)
        wide = self.checked_rows(x, "x", self.data_dim, "float64")  # 1e7 and a little has no digits in float32
        return self.standard.inward(wide).astype(self.dtype)

    def log_std(self, x: Array) -> Any:
        """What log p of each row loses on the way to the units of the data: x from `checked_data` -> (rows,), or 0."""
        return 0.0 if self.standard is None else self.standard.log_std(x)

    def checked_rows(self, a: Any, name: str, width: int, dtype: Any = None) -> Array:
        """`a` (rows, width) on this model's device and in its dtype. Raises ValueError for another shape or no rows."""
        a = self.backend.asarray(a, dtype or self.dtype)
        if a.ndim != 2 or a.shape[1] != width or a.shape[0] == 0:
            images = a.ndim > 2 and a.shape[0] > 0 and math.prod(a.shape[1:]) == width
            remedy = f"; {name}.reshape(len({name}), -1) makes rows of images" if images else ""
            raise ValueError(f"{name} must have shape (rows, {width}), with at least one row, not {a.shape}{remedy}")
        return a if a.flags.c_contiguous else self.backend.xp.ascontiguousarray(a)

    def _labels(self, y: Any, rows: int) -> Array | None:
        """Labels y (rows,), checked, as numbers from 0 on and on this model's device; None for a model that is not
        conditional."""
        y = self.label_codes(y, rows)
        return self.backend.asarray(y) if self.classes else None

    def label_codes(self, y: Any, rows: int) -> Any:
        """Labels y (rows,) as numbers from 0 on: what they are already, unless the model has `labels` of its own.

        None for a model that is not conditional. Raises ValueError for labels that do not fit, or are missing.
        """
        y = y if y is None or hasattr(y, "dtype") else np.asarray(y)
        if self.labels is not None and y is not None:
            y = codes_of(to_host(y), self.labels)
        elif self.labels is not None:
            raise ValueError(f"the model is conditional: it needs labels y, of {in_words(self.labels)}")
        self.architecture.check_labels(y, rows)
        return y

    def checked_objective(
        self, objective: Objective | None, beta: float | None = None, free_bits: float | None = None
    ) -> Objective:
        """The objective, or the ELBO with these two. Raises ValueError for both, or if it does not suit the model."""
        if objective is None:
            objective = _elbo(1.0 if beta is None else beta, free_bits or 0.0)
        elif beta is not None or free_bits is not None:
            raise ValueError("beta and free_bits are short for objective=ELBO(...): give these, or an objective")
        objective.check(self.architecture.has_batch_norm)
        return objective

    def checked_batch(self, x: Any, eps: Any, y: Any, draws: int) -> tuple[Array, Array, Array | None, bool]:
        """x (batch, data), eps (batch K, latent), labels y (batch,) or None, on this model's device and in its dtype;
        and whether x holds NaN.

        eps may come as (batch, latent) where K = `draws` is 1, or as (batch, K, latent). Raises ValueError for what
        does not fit.
        """
        x = self.checked_data(x)
        n, latent = x.shape[0], self.latent_dim
        eps = self.backend.asarray(eps, self.dtype)
        if eps.ndim != 3 and draws == 1:
            eps = self.checked_rows(eps, "eps", latent)
            if n != eps.shape[0]:
                raise ValueError(f"x has {n} rows and eps has {eps.shape[0]}: each row needs its own noise")
        elif eps.shape != (n, draws, latent):
            raise ValueError(f"eps must have shape ({n}, {draws}, {latent}): noise for every draw, not {eps.shape}")
        eps = self.backend.xp.ascontiguousarray(eps.reshape(-1, latent))
        missing = self._check_support(x)
        return x, eps, self._labels(y, n), missing

    def _check_support(self, x: Array) -> bool:
        """Whether x (rows, data) holds NaN. Raises ValueError if the rest of it is impossible under the likelihood."""
        xp = self.backend.xp
        low, high, whole = self._extent(x, x, (x == xp.floor(x)).all())
        missing = math.isnan(low)
        if missing:
            unknown = xp.isnan(x)
            bounds = xp.where(unknown, xp.inf, x), xp.where(unknown, -xp.inf, x)
            low, high, whole = self._extent(*bounds, ((x == xp.floor(x)) | unknown).all())
        if low <= high or not missing:  # else no number was observed
            self.architecture.check_support(low, high, bool(whole) if self.likelihood.discrete else None)
            self.likelihood.check_rows(x)
        return missing

    def _extent(self, low: Array, high: Array, whole: Array) -> tuple[float, float, float]:
        """The smallest, the largest, and whether all are whole numbers: one copy to the host, since each waits."""
        found = self.backend.xp.stack([low.min(), high.max(), whole.astype(self.dtype)])
        return tuple(to_host(found).tolist())
