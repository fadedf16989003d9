"""Rows of a data set as batches, in buffers that are made once; random numbers named by seed, purpose and epoch.

Nothing random is stored with a run. Each epoch's generators are made anew from (seed, purpose, epoch); a run that is
resumed in mid-epoch draws once more, and throws away, what the batches before had drawn. So one rule gives the same
numbers on NumPy and on CuPy (whose generators cannot be saved), and a checkpoint needs no generator's state.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tinyvae.backend import Array
from tinyvae.model.vae import VAE
from tinyvae.training import streams


class Batch(NamedTuple):
    """Rows of data with their noise, and their labels for a conditional model (else None)."""

    x: Array  # (batch, data)
    eps: Array  # (batch, latent), or (batch, K, latent): K draws for each row
    y: Array | None  # (batch,)


class Batches:
    """The rows of `x`, as batches for a model. Data stays on the model's device; bytes stay bytes, and real numbers
    wider than the model's are narrowed at once instead of in every batch.

    labels (rows,) are needed by a conditional model alone; `draws` is the K of the importance-weighted bound, 0 for the
    ELBO. What a batch holds are views on buffers: the next one overwrites it.
    """

    def __init__(
        self, model: VAE, x: np.ndarray, scale: float, batch_size: int, dynamic: bool,
        labels: np.ndarray | None = None, draws: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.scale, self.dynamic = model, scale, dynamic
        xp, rows = model.backend.xp, min(batch_size, x.shape[0])
        self.rows, self.batch_size, self.draws = x.shape[0], rows, draws
        narrower = model.dtype if x.dtype.itemsize > model.dtype.itemsize else x.dtype
        self.data = model.backend.asarray(x, narrower)  # (rows, data)
        self.raw = xp.empty((rows, x.shape[1]), dtype=self.data.dtype)
        self.x = xp.empty((rows, x.shape[1]), dtype=model.dtype)
        self.u = xp.empty((rows if dynamic else 0, x.shape[1]), dtype=model.dtype)
        latent = model.architecture.latent_dim
        self.eps = xp.empty((rows, draws, latent) if draws else (rows, latent), dtype=model.dtype)
        labels = labels if model.architecture.classes else None
        model.architecture.check_labels(labels, self.rows)
        self.labels = None if labels is None else model.backend.asarray(labels)  # (rows,)

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def sizes(self) -> list[int]:
        """The number of rows in each batch: all alike, but for the last."""
        return [min(self.batch_size, self.rows - start) for start in range(0, self.rows, self.batch_size)]

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The rows of a training epoch (from 1) in random order, (rows,): drawn on the host, alike on any backend."""
        return np.random.default_rng([seed, streams.ORDER, epoch]).permutation(self.rows)

    def shuffled(self, seed: int, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of a training epoch (from 1), in random order; the first `skip` of them are left out."""
        return self._serve(self.order(seed, epoch), (seed, streams.NOISE, epoch), skip)

    def in_order(self, seed: int) -> Iterator[Batch]:
        """The batches in the order of the rows, with the same noise at every call: for comparing epochs."""
        return self._serve(np.arange(self.rows), (seed, streams.TEST), skip=0)

    def _serve(self, order: np.ndarray, key: tuple[int, ...], skip: int) -> Iterator[Batch]:
        rng = self.model.backend.generator(*key)
        rows = self.model.backend.asarray(order)  # (rows,), on the device
        for i, n in enumerate(self.sizes()):
            x, eps, u = self.x[:n], self.eps[:n], self.u[:n]  # (n, data), (n, latent), (n, data)
            rng.standard_normal(out=eps, dtype=eps.dtype)
            if self.dynamic:
                rng.random(size=u.shape, out=u, dtype=u.dtype)  # without a size CuPy draws one number for all
            if i < skip:
                continue
            batch = rows[i * self.batch_size : i * self.batch_size + n]
            self.model.kernels.gather(self.data, batch, self.scale, x=x, raw=self.raw[:n])
            if self.dynamic:
                self.model.kernels.binarize(x, u)
            yield Batch(x, eps, None if self.labels is None else self.labels[batch])
