"""Whole models, checked: every parameter of every kind of VAE, through `loss` and `loss_and_grad`."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinyvae.checking.finite_differences import Check, gradcheck
from tinyvae.model.vae import VAE
from tinyvae.ops.activations import KINKED


@dataclass(frozen=True)
class ModelCase:
    """A model and the loss it is checked under."""

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    beta: float = 1.0
    free_bits: float = 0.0


CASES = (
    ModelCase("bernoulli", {"hidden": (5,), "activation": "relu"}),
    ModelCase("bernoulli, no hidden layer", {"hidden": ()}),
    ModelCase("bernoulli, deep", {"hidden": (6, 5, 4), "activation": "elu"}),
    ModelCase("bernoulli, own decoder", {"hidden": (6,), "decoder_hidden": (4, 5), "activation": "tanh"}),
    ModelCase("bernoulli, tied", {"hidden": (5,), "tied": True, "activation": "sigmoid"}),
    ModelCase("bernoulli, tied, deep", {"hidden": (6, 5), "tied": True, "activation": "leaky-relu"}),
    ModelCase("bernoulli, beta 4", {"hidden": (5,), "activation": "softplus"}, beta=4.0),
    ModelCase("bernoulli, free bits", {"hidden": (5,), "activation": "tanh"}, beta=0.5, free_bits=0.1),
    ModelCase("gaussian, sigma fixed", {"hidden": (5,), "likelihood": "gaussian", "sigma": "fixed:0.5"}),
    ModelCase("gaussian, sigma learned", {"hidden": (5, 4), "likelihood": "gaussian", "sigma": "learned"}),
    ModelCase("gaussian, sigma predicted", {"hidden": (5,), "likelihood": "gaussian", "sigma": "predicted"}),
    ModelCase("gaussian, tied", {"hidden": (5,), "likelihood": "gaussian", "sigma": "learned", "tied": True}),
    ModelCase("gaussian, free bits", {"hidden": (5,), "likelihood": "gaussian"}, beta=2.0, free_bits=0.2),
)
ROWS, DATA, LATENT = 8, 7, 3


def check_models(kernels: str, seed: int = 0) -> Iterator[Check]:
    """One Check for each parameter of each case, named "case: parameter"."""
    for case in CASES:
        yield from check_model(case, kernels, seed)


def check_model(case: ModelCase, kernels: str, seed: int = 0) -> Iterator[Check]:
    """Every parameter of one case. Biases get random values too: at 0 they would hide what multiplies them."""
    rng = np.random.default_rng(seed)
    model = VAE(DATA, latent_dim=LATENT, dtype="float64", kernels=kernels, seed=seed, **case.model)
    model.params.flat += 0.2 * rng.standard_normal(model.params.flat.shape)
    x = rng.uniform(0, 1, (ROWS, DATA))
    eps = rng.standard_normal((ROWS, LATENT))
    model.loss_and_grad(x, eps, case.beta, case.free_bits)
    grads = {name: grad.copy() for name, grad in model.grads.items()}

    def loss() -> np.ndarray:
        """The loss as terms: a Gaussian's can cancel, and the tolerance must not vanish with their sum."""
        total = model.loss(x, eps, case.beta, case.free_bits).loss
        terms = np.append(model.nll / ROWS, case.beta * model.kl.sum(axis=0) / ROWS)
        return np.append(terms, total - terms.sum())

    def kinks() -> np.ndarray:
        """On which side every rectifier and every free-bits allowance is, after `loss`."""
        sides = [model.kl.mean(axis=0) > case.free_bits]
        if model.architecture.activation in KINKED:
            sides += [layer.y.ravel() > 0 for layer in (*model.encoder[:-1], *model.decoder[:-1])]
        return np.concatenate(sides)

    for check in gradcheck(loss, model.params, grads, kinks=kinks, seed=seed):
        yield replace(check, name=f"{case.name}: {check.name}")
