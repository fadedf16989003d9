"""Whole models on the stand-in for CuPy: every layer, activation, likelihood and objective that the folders hold.

What lies in a folder is taken from there: a new file is in these tests without a line more.
"""

from typing import Any, NamedTuple

import fake_cuda
import numpy as np
from net import MODELS

from tinyvae import VAE, likelihoods, objectives
from tinyvae.checking import examples
from tinyvae.kernels.cuda.launch import source
from tinyvae.layers import Dense, Residual
from tinyvae.objectives.elbo import ELBO
from tinyvae.objectives.iwae import IWAE
from tinyvae.objectives.objective import Objective
from tinyvae.ops.activations import ACTIVATIONS

DATA, LATENT, CLASSES, ROWS = 50, 6, 4, (5, 33, 3)  # buffers are made, made larger, and used again


TABLE = "gaussian:sigma=predicted*9+bernoulli*8+categorical:groups=5*15+laplace*3+negative-binomial*8+poisson"


class Case(NamedTuple):
    """A model and an objective; missing: some of the data was not observed."""

    model: dict[str, Any]
    objective: Objective
    missing: bool = False


def cases() -> dict[str, Case]:
    """By name."""
    found = {name: Case(_described(**model), _objective(asked)) for name, (model, asked) in MODELS.items()}
    for name in sorted(ACTIVATIONS):
        found[f"activation {name}"] = Case(_described(activation=name), ELBO())
    for name in likelihoods.names():
        found[f"likelihood {name}"] = Case(_described(likelihood=name), ELBO(beta=0.5))
        found[f"likelihood {name}, missing"] = Case(_described(likelihood=name), IWAE(draws=2), missing=True)
    found["gaussian, a sigma for each column"] = Case(_described(likelihood="gaussian:sigma=columns"), IWAE(draws=3))
    found["gaussian, sigma predicted, missing"] = Case(
        _described(likelihood="gaussian:sigma=predicted"), ELBO(), missing=True
    )
    found["mixed, missing"] = Case(_described(likelihood=f"mixed:columns={TABLE}"), IWAE(draws=2), missing=True)
    for name in objectives.names():
        found[f"objective {name}"] = Case(_described(), objectives.objective(name))
    for estimator in ("iwae", "dreg"):
        found[f"iwae, {estimator}, labels"] = Case(_described(classes=CLASSES), IWAE(draws=3, estimator=estimator))
    found["stl"] = Case(_described(), IWAE(draws=1, estimator="stl"))
    found["elbo of 3 draws"] = Case(_described(), ELBO(draws=3))
    found["residual"] = Case({
        "encoder": [Dense(DATA, 24, "gelu"), Residual(24, 10, "swish"), Dense(24, 2 * LATENT)],
        "decoder": [Dense(LATENT, 24, "tanh"), Residual(24, 10), Dense(24, DATA)],
    }, ELBO())  # fmt: skip
    return found


def _described(**model: Any) -> dict[str, Any]:
    return {"data_dim": DATA, "hidden": (24,), "latent_dim": LATENT, **model}


def _objective(asked: dict[str, Any]) -> Objective:
    return IWAE(draws=asked["importance"]) if "importance" in asked else ELBO(**asked)


class Inputs(NamedTuple):
    """A batch in float32, in the order of `VAE.loss_and_grad`."""

    x: np.ndarray
    eps: np.ndarray
    y: np.ndarray | None


def inputs(model: VAE, case: Case, rows: int, seed: int) -> Inputs:
    """Numbers in 0..1 where the likelihood allows them, else counts, or what it draws."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(rows, model.data_dim))
    try:
        model.likelihood.check(0.0, 1.0, whole=False)
        model.likelihood.check_rows(x)
    except ValueError:
        x = examples.data(model.likelihood, rng, *x.shape)
    if case.missing:  # in every second row: a likelihood of all columns together still sees some
        x[1::2][rng.uniform(size=x[1::2].shape) < 0.2] = np.nan
    eps = rng.standard_normal((rows, case.objective.samples, model.latent_dim))
    y = rng.integers(0, model.classes, rows) if model.classes else None
    return Inputs(x.astype("f4"), eps.astype("f4"), y)


def built(case: Case, **options: Any) -> VAE:
    """Its numbers off their start, where many are 0."""
    model = VAE(**case.model, seed=1, **options)
    noise = 0.05 * np.random.default_rng(0).standard_normal(model.params.flat.shape)
    start = VAE(**case.model, seed=1, dtype="float64", kernels="reference").params.flat
    model.params.flat[...] = model.backend.asarray((start + noise).astype("f4"), model.dtype)
    return model


def step(model: VAE, case: Case, batch: Inputs) -> Any:
    """A training step's arithmetic, on arrays that are where the model is -> three arrays (1,)."""
    x, eps, y = batch
    rows = x.shape[0]
    with model.borrowed("step", *eps.shape) as k:
        eps = eps.reshape(-1, model.latent_dim)
        terms = model.forward_backward(k, x, eps, case.objective.on(rows), y, case.missing)
        return [a.copy() for a in terms]


def moved(model: VAE, batch: Inputs) -> Inputs:
    """The batch where the model is, in its precision."""
    x, eps, y = batch
    put = model.backend.asarray
    return Inputs(put(x, model.dtype), put(eps, model.dtype), None if y is None else put(y))


def evaluated(model: VAE, batch: Inputs) -> list[Any]:
    """What does not train: mu and logvar of the rows, the mean of what the decoder says at mu, and log p(x|mu)."""
    mu, logvar = model.encode(batch.x, batch.y)
    return [mu, logvar, model.decode(mu, batch.y), model.log_p_x_given_z(batch.x, mu, batch.y)]


def noted_codes() -> list[str]:
    """The sources of all kernels that the cases need, each once. CuPy's stand-in must be installed."""
    with fake_cuda.noting() as codes:
        for case in cases().values():
            model = built(case, backend="cupy")
            batch = inputs(model, case, 5, seed=0)
            step(model, case, moved(model, batch))
            evaluated(model, batch)
    return [*dict.fromkeys([source("common.cu", "moves.cu"), *codes])]
