"""Whole models, checked: every parameter of every kind of VAE, through `loss` and `loss_and_grad`."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinyvae.checking.finite_differences import Check, gradcheck
from tinyvae.model.iwae import iwae_log_weights, iwae_loss_and_grad
from tinyvae.model.vae import VAE
from tinyvae.ops.activations import KINKED
from tinyvae.ops.importance import bound_forward


@dataclass(frozen=True)
class ModelCase:
    """A model and the loss it is checked under."""

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    beta: float = 1.0
    free_bits: float = 0.0
    importance: int = 0  # draws of z in the importance-weighted bound; 0: the ELBO


IMAGES = {"data_dim": 35, "image_shape": (7, 5)}  # an odd height and width: the stride leaves a remainder
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
    ModelCase("conditional", {"hidden": (5,), "activation": "elu", "classes": 4}),
    ModelCase("conditional, no hidden layer, free bits", {"hidden": (), "classes": 4}, beta=0.5, free_bits=0.1),
    ModelCase("conditional, sigma predicted", {
        "hidden": (5,), "activation": "tanh", "likelihood": "gaussian", "sigma": "predicted", "classes": 2,
    }),
    ModelCase("batch norm", {"hidden": (6, 5), "activation": "elu", "batch_norm": True}),
    ModelCase("batch norm, relu, conditional", {"hidden": (6,), "batch_norm": True, "classes": 3}),
    ModelCase("conv", {**IMAGES, "hidden": (), "conv": (3,), "activation": "relu"}),
    ModelCase("conv, deep, sigma learned", {
        **IMAGES, "hidden": (5,), "conv": (3, 4), "activation": "tanh", "likelihood": "gaussian",
    }),
    ModelCase("conv, batch norm, conditional", {
        **IMAGES, "hidden": (5,), "conv": (2, 3), "activation": "softplus", "batch_norm": True, "classes": 3,
    }),
    ModelCase("iwae, K 1", {"hidden": (5,), "activation": "tanh"}, importance=1),
    ModelCase("iwae, K 5", {"hidden": (5, 4), "activation": "elu"}, importance=5),
    ModelCase("iwae, sigma learned", {"hidden": (5,), "activation": "tanh", "likelihood": "gaussian"}, importance=3),
    ModelCase("iwae, sigma predicted", {
        "hidden": (5,), "activation": "elu", "likelihood": "gaussian", "sigma": "predicted",
    }, importance=3),
    ModelCase("iwae, tied", {"hidden": (5,), "tied": True, "activation": "sigmoid"}, importance=4),
    ModelCase("iwae, conv, batch norm, labels", {
        **IMAGES, "hidden": (), "conv": (2,), "activation": "elu", "batch_norm": True, "classes": 3,
    }, importance=3),
)  # fmt: skip
ROWS, DATA, LATENT = 8, 7, 3


def check_models(kernels: str, seed: int = 0) -> Iterator[Check]:
    """One Check for each parameter of each case, named "case: parameter"."""
    for case in CASES:
        yield from check_model(case, kernels, seed)


def check_model(case: ModelCase, kernels: str, seed: int = 0) -> Iterator[Check]:
    """Every parameter of one case. Biases get random values too: at 0 they would hide what multiplies them.

    The running averages of batch normalization stand among the parameters, but the loss in training does not use them.
    """
    rng = np.random.default_rng(seed)
    described = {"data_dim": DATA, **case.model}
    model = VAE(latent_dim=LATENT, dtype="float64", kernels=kernels, seed=seed, **described)
    model.params.flat += 0.2 * rng.standard_normal(model.params.flat.shape)
    x = rng.uniform(0, 1, (ROWS, described["data_dim"]))
    y = np.arange(ROWS) % case.model["classes"] if "classes" in case.model else None  # (batch,)
    eps = rng.standard_normal((ROWS, case.importance, LATENT) if case.importance else (ROWS, LATENT))
    if case.importance:
        iwae_loss_and_grad(model, x, eps, y)
    else:
        model.loss_and_grad(x, eps, case.beta, case.free_bits, y)
    grads = {name: grad.copy() for name, grad in model.grads.items()}

    def loss() -> np.ndarray:
        """The loss as terms: a Gaussian's can cancel, and the tolerance must not vanish with their sum."""
        if case.importance:
            return -bound_forward(iwae_log_weights(model, x, eps, y, training=True)) / ROWS
        total = model.loss(x, eps, case.beta, case.free_bits, y, training=True).loss
        terms = np.append(model.nll / ROWS, case.beta * model.kl.sum(axis=0) / ROWS)
        return np.append(terms, total - terms.sum())

    def kinks() -> np.ndarray:
        """On which side every rectifier and every free-bits allowance is, after `loss`."""
        sides = [model.kl.mean(axis=0) > case.free_bits]
        layers = [layer for layer in (*model.encoder, *model.decoder) if layer.activation in KINKED]
        sides += [layer.y.ravel() > 0 for layer in layers]
        return np.concatenate(sides)

    learned = {name: p for name, p in model.params.items() if ".running_" not in name}
    for check in gradcheck(loss, learned, {name: grads[name] for name in learned}, kinks=kinks, seed=seed):
        yield replace(check, name=f"{case.name}: {check.name}")
