"""Small models: with nothing at 0, one of each kind of likelihood that differs in form; and one whose posterior has
two modes."""

import math
from typing import Any

import numpy as np

import tinyvae

DATA, LATENT = 6, 2
LIKELIHOODS = {
    "bernoulli": "bernoulli",
    "categorical": "categorical:groups=2+4",
    "continuous-bernoulli": "continuous-bernoulli",
    "discretized-logistic": "discretized-logistic",
    "gaussian, fixed": "gaussian:sigma=fixed:0.3",
    "gaussian, learned": "gaussian",
    "gaussian, columns": "gaussian:sigma=columns",
    "gaussian, predicted": "gaussian:sigma=predicted",
    "laplace": "laplace",
    "mixed": "mixed:columns=gaussian:sigma=predicted*1+categorical*3+negative-binomial*2",
    "negative-binomial": "negative-binomial",
    "poisson": "poisson",
}


def make(kind: str = "bernoulli", seed: int = 0, **more: Any) -> tinyvae.VAE:
    """A model of 6 numbers and 2 latent dimensions."""
    likelihood = LIKELIHOODS.get(kind, kind)
    options = {"hidden": (5,), "activation": "tanh", "dtype": "float64", "likelihood": likelihood} | more
    model = tinyvae.VAE(DATA, latent_dim=LATENT, seed=seed, **options)
    noise = 0.3 * np.random.default_rng(seed).standard_normal(model.params.flat.shape)
    model.params.flat += noise.astype(model.dtype)
    return model


def data_of(model: tinyvae.VAE, rows: int, seed: int = 0) -> np.ndarray:
    """Data that the model could have drawn: (rows, data)."""
    return np.asarray(model.sample(rows, seed, mean=False))


def two_modes(dtype: str, classes: int = 0) -> tinyvae.VAE:
    """The decoder folds the plane: its mean is (3 |z_0|, z_0 if positive, 3 z_1, -3 z_1). q sits at z_0 < 0 always.

    A label 1 of a conditional model moves z_1 by 1.
    """
    model = tinyvae.VAE(
        4, (), 2, decoder_hidden=(4,), likelihood="gaussian", sigma="fixed:0.1", dtype=dtype, classes=classes
    )
    model.params.flat[...] = 0
    W = model.params["decoder.0.weight"]  # (2 + classes, 4): then relu
    W[:2] = [[1, -1, 0, 0], [0, 0, 1, -1]]
    if classes:
        W[3] = [0, 0, 1, -1]
    model.params["decoder.1.weight"][...] = [[3, 1, 0, 0], [3, 0, 0, 0], [0, 0, 3, -3], [0, 0, -3, 3]]
    model.params["encoder.0.bias"][...] = [-1.2, 0, 2 * math.log(1 / 30), 2 * math.log(1 / 42)]
    return model
