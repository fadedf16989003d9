"""On which side of its kinks a pass is: a finite difference across one means nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyvae.backend import Array
from tinyvae.kernels.contract import Rows
from tinyvae.kernels.reference import Reference
from tinyvae.layers.layer import Bound, Context
from tinyvae.model.vae import VAE
from tinyvae.objectives.objective import Objective, Posterior
from tinyvae.ops.activations import LINEAR
from tinyvae.ops.gaussian import reparameterize_forward


class Watching(Reference):
    """The reference kernels, which note on which side of 0 every number is that goes through a kinked activation."""

    def __init__(self) -> None:
        super().__init__(np, "float64")
        self.sides: list[np.ndarray] = []

    def begin(self, *key: Any) -> None:
        """A pass begins."""
        super().begin(*key)
        self.sides.clear()

    def note(self, rows: Rows) -> None:
        """y is on the side of 0 that a is on."""
        if rows.f is not None and rows.f.kinked:
            self.sides.append((rows.y > 0).ravel())

    def _forward_end(self, *args: Any, **more: Any) -> Rows:
        rows = super()._forward_end(*args, **more)
        self.note(rows)
        return rows

    def run(self, layers: Sequence[Bound], x: Rows, context: Context) -> Array:
        """x through the layers."""
        for layer, p, _ in layers:
            x, _ = layer.forward(self, p, x, context)
            self.note(x)
        return x.y

    def found(self) -> np.ndarray:
        """All sides."""
        return np.concatenate([np.zeros(0, dtype=bool), *self.sides])


def sides_of_model(model: VAE, objective: Objective, x: Array, eps: Array, y: Array | None) -> np.ndarray:
    """The sides of every unit, and of the objective: x (n, data), eps (n K, latent), y (n,)."""
    k, context = Watching(), Context(training=True, labels=y)
    seen = model.likelihood.encoded(k, x, missing=bool(np.isnan(x).any()))
    head = k.run(model.encoder, Rows(seen, None), context)
    mu, logvar = model.halves(head)
    each = len(eps) // len(x)
    z = reparameterize_forward(np.repeat(mu, each, axis=0), np.repeat(logvar, each, axis=0), eps)
    k.run(model.decoder, Rows(z, LINEAR), context)
    own = objective.sides(Posterior(mu, logvar, eps, z))
    return k.found() if own is None else np.concatenate([k.found(), own])
