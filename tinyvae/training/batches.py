"""Rows of a data set as batches, in buffers that are made once; random numbers named by seed, purpose and epoch.

Nothing random is stored with a run. Each epoch's generators are made anew from (seed, purpose, epoch); a run that is
resumed in mid-epoch draws once more, and throws away, what the batches before had drawn. So one rule gives the same
numbers on NumPy and on CuPy (whose generators cannot be saved), and a checkpoint needs no generator's state.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tinyvae.backend import Array
from tinyvae.formula import formula, isnan, where
from tinyvae.loop import Loop
from tinyvae.model.vae import VAE
from tinyvae.training import streams
from tinyvae.training.data.dataset import CHUNK
from tinyvae.training.data.picked import lies_in_a_file


@formula
def drawn(x, u):
    """1 where u < x, else 0: a draw with probability x, for u uniform on [0, 1). x that is NaN stays so."""
    return where(isnan(x), x, where(u < x, 1.0, 0.0))


DRAWN = Loop([drawn])
IN_MEMORY = 2**28  # bytes: a file of at most so many is read at once, as larger ones are not


class Batch(NamedTuple):
    """Rows of data with their noise, and their labels for a conditional model (else None)."""

    x: Array  # (batch, data)
    eps: Array  # (batch K, latent): K draws for each row, side by side
    y: Array | None  # (batch,)


class Batches:
    """The rows of `x`, as batches for a model. Data stays on the model's device; bytes and float32 stay what they are,
    all else becomes the model's dtype at once instead of in every batch. What lies in a large file stays there: a
    batch's rows are read when it is their turn.

    labels (rows,) are needed by a conditional model alone; `draws` is the K of the objective. What a batch holds are
    views on buffers: the next one overwrites it. Columns are standardized as the model says; `offset` is what its log
    p(x) loses by that on the way back, the mean over the rows in nats.
    """

    def __init__(
        self, model: VAE, x: Any, scale: float, batch_size: int, dynamic: bool, labels: np.ndarray | None = None,
        draws: int = 1,
    ) -> None:  # fmt: skip
        self.model, self.scale, self.dynamic = model, scale, dynamic
        xp, rows = model.backend.xp, min(batch_size, x.shape[0])
        self.rows, self.batch_size, self.draws = x.shape[0], rows, draws
        x = np.array(x[:]) if lies_in_a_file(x) and x.nbytes <= IN_MEMORY else x
        self.file: Any = x if lies_in_a_file(x) else None
        self.missing, self.offset = False, 0.0
        self._look_at(x)
        self.data: Any = None if self.file is not None else self._on_device(x)  # (rows, data), or None
        self.x = xp.empty((rows, x.shape[1]), dtype=model.dtype)
        self.u = xp.empty((rows if dynamic else 0, x.shape[1]), dtype=model.dtype)
        self.eps = xp.empty((rows * draws, model.latent_dim), dtype=model.dtype)
        self.chosen = xp.empty(rows, dtype=np.int64)  # which rows of the data a batch has
        self.kernels = model.make_kernels()
        labels = model.label_codes(labels if model.classes else None, self.rows)
        self.labels = None if labels is None else model.backend.asarray(labels)  # (rows,)
        self.y = None if self.labels is None else xp.empty(rows, dtype=self.labels.dtype)  # a batch's

    def _look_at(self, x: Any) -> None:
        """Whether numbers were not observed, and the offset."""
        standard = self.model.standard
        for at in range(0, len(x) if x.dtype.kind == "f" else 0, CHUNK):
            few = x[at : at + CHUNK]
            self.missing = self.missing or bool(np.isnan(few.sum()))
            if standard is not None:
                self.offset += float(standard.log_std(few).sum()) / len(x)
        if standard is not None and x.dtype.kind != "f":
            self.offset = float(np.log(standard.std).sum())

    def _on_device(self, x: np.ndarray) -> Array:
        model = self.model
        if model.standard is None:
            small = x.dtype in (np.uint8, np.float32)
            return model.backend.asarray(x, x.dtype if small else model.dtype)
        made = np.empty(x.shape, model.dtype)
        for at in range(0, len(x), CHUNK):
            made[at : at + CHUNK] = self._values(x[at : at + CHUNK])
        self.scale = 1.0  # is in these numbers
        return model.backend.asarray(made)

    def _values(self, stored: np.ndarray) -> np.ndarray:
        """Stored rows as numbers that the model computes with."""
        standard = self.model.standard
        if standard is None:
            return np.multiply(stored, self.scale, dtype=self.model.dtype)
        return standard.inward(np.multiply(stored, self.scale, dtype="float64")).astype(self.model.dtype)

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
            mine = slice(i * self.batch_size, i * self.batch_size + n)
            chosen[...] = rows[mine]
            self.kernels.begin("batch", n)
            if self.data is None:
                batch.x[...] = self.model.backend.asarray(self._values(self.file[order[mine]]))
            else:
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
