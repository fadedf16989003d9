"""Rows of a data set as batches, in buffers that are made once; random numbers named by seed, purpose and epoch.

Nothing random is stored with a run. Each epoch's generators are made anew from (seed, purpose, epoch); a run that is
resumed in mid-epoch draws once more, and throws away, what the batches before had drawn. So one rule gives the same
numbers on NumPy and on CuPy (whose generators cannot be saved), and a checkpoint needs no generator's state.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tinyvae.backend import Array
from tinyvae.formula import formula, where
from tinyvae.loop import Loop
from tinyvae.model.vae import VAE
from tinyvae.training import streams


@formula
def drawn(x, u):
    """1 where u < x, else 0: a draw with probability x, for u uniform on [0, 1)."""
    return where(u < x, 1.0, 0.0)


DRAWN = Loop([drawn])


class Batch(NamedTuple):
    """Rows of data with their noise, and their labels for a conditional model (else None)."""

    x: Array  # (batch, data)
    eps: Array  # (batch K, latent): K draws for each row, side by side
    y: Array | None  # (batch,)


class Batches:
    """The rows of `x`, as batches for a model. Data stays on the model's device; bytes and float32 stay what they are,
    all else becomes the model's dtype at once instead of in every batch.

    labels (rows,) are needed by a conditional model alone; `draws` is the K of the objective. What a batch holds are
    views on buffers: the next one overwrites it.
    """

    def __init__(
        self, model: VAE, x: np.ndarray, scale: float, batch_size: int, dynamic: bool,
        labels: np.ndarray | None = None, draws: int = 1,
    ) -> None:  # fmt: skip
        self.model, self.scale, self.dynamic = model, scale, dynamic
        xp, rows = model.backend.xp, min(batch_size, x.shape[0])
        self.rows, self.batch_size, self.draws = x.shape[0], rows, draws
        small = x.dtype in (np.uint8, np.float32)
        self.data = model.backend.asarray(x, x.dtype if small else model.dtype)  # (rows, data)
        self.x = xp.empty((rows, x.shape[1]), dtype=model.dtype)
        self.u = xp.empty((rows if dynamic else 0, x.shape[1]), dtype=model.dtype)
        self.eps = xp.empty((rows * draws, model.latent_dim), dtype=model.dtype)
        self.chosen = xp.empty(rows, dtype=np.int64)  # which rows of the data a batch has
        self.kernels = model.make_kernels()
        self.missing = x.dtype.kind == "f" and bool(np.isnan(x.sum()))  # numbers that were not observed
        labels = labels if model.classes else None
        model.architecture.check_labels(labels, self.rows)
        self.labels = None if labels is None else model.backend.asarray(labels)  # (rows,)
        self.y = None if self.labels is None else xp.empty(rows, dtype=self.labels.dtype)  # a batch's

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
        sizes = self.sizes()
        views = {n: self._views(n) for n in set(sizes)}  # the same for all batches, which kernels quickly compare
        for i, n in enumerate(sizes):
            batch, u, chosen = views[n]
            rng.standard_normal(out=batch.eps, dtype=batch.eps.dtype)
            if self.dynamic:
                rng.random(size=u.shape, out=u, dtype=u.dtype)  # without a size CuPy draws one number for all
            if i < skip:
                continue
            chosen[...] = rows[i * self.batch_size : i * self.batch_size + n]
            self.kernels.begin("batch", n)
            self.kernels.gather(self.data, chosen, self.scale, batch.x)
            if self.dynamic:
                self.kernels.map(DRAWN, x=batch.x, u=u, out=(batch.x,))
            if batch.y is not None and self.labels is not None:
                batch.y[...] = self.labels[chosen]
            yield batch

    def _views(self, n: int) -> tuple[Batch, Array, Array]:
        """The buffers of a batch of n rows; its uniforms (n, data); and which rows it has, (n,)."""
        y = None if self.y is None else self.y[:n]
        return Batch(self.x[:n], self.eps[: n * self.draws], y), self.u[:n], self.chosen[:n]
