"""The independent columns of a data set, beside which a trained model is set: see `tinyvae.model.baseline`."""

from typing import Any

import numpy as np

from tinyvae.backend import to_host
from tinyvae.model.baseline import ROWS, independent_nll
from tinyvae.model.vae import VAE
from tinyvae.training.data import Dataset
from tinyvae.training.data.dataset import CHUNK, evenly_spread

# Tried where there is nothing to be learned, 2,000 rows, 20 epochs, three seeds: eight independent columns end at most
# 0.06 above. 64 Gaussian ones end 0.6 above, because the model overfits by then: the line is true of it.
SLACK = 0.1  # nats


def independent_loss(model: VAE, dataset: Dataset, x: Any) -> float:
    """-log p of the rows x (rows, data), as they are stored, under independent columns that know the training rows: the
    mean, in nats and in the units of the data. Grey pixels count as probabilities."""
    inside = lambda rows: to_host(model.checked_data(dataset.values(rows))).astype("float64")
    known = inside(dataset.x_train[evenly_spread(len(dataset.x_train), ROWS)])
    total = 0.0
    for at in range(0, len(x), CHUNK):
        few = inside(x[at : at + CHUNK])
        total += float((independent_nll(model.likelihood, known, few) + model.log_std(few)).sum())
    return total / len(x)


def verdict(bound: float, alone: float, what: str) -> str | None:
    """A line if a model is worse than independent columns, by more than what a bound may lie above them where there is
    nothing to be learned; both in nats."""
    if not np.isfinite(alone) or bound <= alone + SLACK:
        return None
    return (
        f"the model is worse than independent {what}, which have {alone:.2f} nats where it has {bound:.2f}: it has not "
        "learned how they go together. Train longer (--epochs), or with another --likelihood, --lr or --latent"
    )
