"""What saying `replayed` promises: a step that the kernels repeat by themselves is the step of the part's code."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinyvae.checking import examples
from tinyvae.layers import Dense
from tinyvae.layers.layer import Layer
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.model.vae import VAE
from tinyvae.objectives.elbo import ELBO
from tinyvae.objectives.objective import Objective
from tinyvae.parts import replayed

ROWS, DATA, LATENT = 6, 7, 3
STEPS = 5  # the kernels know a pass by heart once they have made it twice
OPTIONS: dict[str, Any] = {"data_dim": DATA, "hidden": (5,), "latent_dim": LATENT, "activation": "tanh"}


def around(layer: Layer) -> dict[str, Any]:
    """The arguments of a model with the layer in both halves; in front of it, those that it shares weights with."""
    shared = list(layer.shares().values())
    encoder: list[Layer] = []
    width = DATA
    for one in (*shared, layer):
        encoder += [Dense(width, one.inputs, "tanh"), one]
        width = one.width
    again = replace(layer)  # pyright: ignore[reportArgumentType] - another of the same options
    decoder = [Dense(LATENT, layer.inputs, "tanh"), again, Dense(layer.width, DATA)]
    return {"encoder": [*encoder, Dense(width, 2 * LATENT)], "decoder": decoder}


def check_replayed(part: Layer | Likelihood | Objective, name: str) -> None:
    """Trains two models with the part, one of which never repeats a pass: the numbers must be the same, bit for bit.

    Raises AssertionError with one line where they are not. A part that does not say `replayed` is left alone.
    """
    if not replayed(part):
        return
    options: dict[str, Any] = around(part) if isinstance(part, Layer) else {**OPTIONS}
    if isinstance(part, Likelihood):
        options |= {"likelihood": part, "data_dim": part.some_columns(DATA)}
    objective = (part if isinstance(part, Objective) else ELBO()).on(ROWS * STEPS)
    models = [VAE(**options, kernels="numpy", seed=0) for _ in range(2)]
    rng, of = np.random.default_rng(0), models[0]
    x, eps = np.empty((ROWS, of.data_dim), "f4"), np.empty((ROWS * objective.samples, LATENT), "f4")
    y = np.arange(ROWS) % of.classes if of.classes else None
    for step in range(STEPS):
        x[...], eps[...] = examples.data(of.likelihood, rng, *x.shape), rng.standard_normal(eps.shape)
        terms = [_step(model, (x, eps, objective, y), repeat=i == 0) for i, model in enumerate(models)]
        found = {"the loss": terms} | {f"the gradient of {n}": [m.grads[n] for m in models] for n in of.grads}
        found |= {n: [m.params[n] for m in models] for n in of.params}
        for what, (repeated, own) in found.items():
            same = np.array_equal(repeated, own, equal_nan=True)
            assert same, (
                f"{name}: says replayed, but computes by more than the kernels' calls: see {what}, step {step + 1}"
            )
        for model in models:
            model.params.flat -= 0.01 * model.grads.flat


def _step(model: VAE, given: Sequence[Any], repeat: bool) -> np.ndarray:
    """The losses of one pass.  -> (3,)"""
    with model.borrowed("step", ROWS) as k:
        return np.concatenate((model.step if repeat else model.forward_backward)(k, *given))
