"""The kinds of VAE that are tried on the device: a model, its objective, data for it, and one training step of it.

CAPTURED is what the captured step knows; what stands in ORDINARY is trained by the ordinary step. A likelihood or an
objective that is new in its folder is in ORDINARY without being named here.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tinyvae import VAE, likelihoods, objectives
from tinyvae.checking import examples
from tinyvae.layers import Dense, Residual
from tinyvae.objectives.objective import Objective, Terms
from tinyvae.ops.activations import ACTIVATIONS

ROWS, DATA, LATENT = 8, 7, 3
IMAGES = {"data_dim": 35, "image_shape": (7, 5)}  # an odd height and width: the stride leaves a remainder


@dataclass(frozen=True)
class Kind:
    """A model and what is minimized."""

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    objective: str = "elbo"

    @cached_property
    def loss(self) -> Objective:
        return objectives.objective(self.objective)

    @property
    def shape(self) -> dict[str, Any]:
        """The arguments of VAE that say its layers."""
        if self.layers:
            return self.model
        return {"data_dim": DATA, "latent_dim": LATENT, "hidden": (5,), **self.model}

    @property
    def data_dim(self) -> int:
        return self.model.get("data_dim", DATA)

    @property
    def layers(self) -> bool:
        """Whether the model is given layer by layer."""
        return "encoder" in self.model

    def build(self, **options: Any) -> VAE:
        """The model, with random biases too: at 0 they would hide what multiplies them."""
        model = VAE(**{**self.shape, "seed": 1, **options})
        noise = 0.2 * np.random.default_rng(0).standard_normal(model.params.flat.shape)
        model.params.flat += model.backend.asarray(noise, model.dtype)
        return model

    def inputs(self, rows: int = ROWS, seed: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """x (rows, data), eps (rows K, latent), and labels (rows,) if the model is conditional."""
        rng = np.random.default_rng(seed)
        likelihood = likelihoods.likelihood(self.model.get("likelihood", "bernoulli"))
        x = rng.uniform(0, 1, (rows, self.data_dim))
        try:
            likelihood.check(x.min(), x.max(), False)
            likelihood.check_rows(x)
        except ValueError:
            x = np.minimum(examples.data(likelihood, rng, *x.shape), 3.0)  # small counts, or what it draws
        eps = rng.standard_normal((rows * self.loss.samples, LATENT))
        return x, eps, np.arange(rows) % self.model["classes"] if "classes" in self.model else None


def step(model: VAE, kind: Kind, x: Any, eps: Any, y: Any = None) -> Terms:
    """What the trainer does: the gradients into `model.grads`, -> loss, nll, kl, (1,) each."""
    with model.lock, model.borrowed("step", len(x)) as k:
        terms = model.forward_backward(k, x, eps, kind.loss.on(len(x)), y)
        return Terms(*(term.copy() for term in terms))


GAUSSIAN, PREDICTED = {"likelihood": "gaussian"}, {"likelihood": "gaussian:sigma=predicted"}
CAPTURED = [
    Kind("bernoulli", {"activation": "relu"}),
    Kind("bernoulli, no hidden layer", {"hidden": ()}),
    Kind("bernoulli, deep", {"hidden": (6, 5, 4), "activation": "elu"}),
    Kind("bernoulli, own decoder", {"hidden": (6,), "decoder_hidden": (4, 5), "activation": "tanh"}),
    Kind("bernoulli, tied", {"tied": True, "activation": "sigmoid"}),
    Kind("bernoulli, tied, deep", {"hidden": (6, 5), "tied": True, "activation": "leaky-relu"}),
    Kind("bernoulli, beta 4", {"activation": "softplus"}, "elbo:beta=4"),
    Kind("bernoulli, free bits", {"activation": "tanh"}, "elbo:beta=0.5,free_bits=0.1"),
    Kind("gaussian, sigma fixed", {"likelihood": "gaussian:sigma=fixed:0.5"}),
    Kind("gaussian, sigma learned", {**GAUSSIAN, "hidden": (5, 4)}),
    Kind("gaussian, sigma predicted", PREDICTED),
    Kind("gaussian, tied", {**GAUSSIAN, "tied": True}),
    Kind("gaussian, free bits", GAUSSIAN, "elbo:beta=2,free_bits=0.2"),
]
BY_NAME = {kind.name: kind for kind in CAPTURED}


def _layer_by_layer() -> dict[str, Any]:
    return {
        "encoder": [Dense(DATA, 6, "relu"), Residual(6, 4), Dense(6, 2 * LATENT)],
        "decoder": [Dense(LATENT, 5, "swish"), Dense(5, DATA)],
    }


ORDINARY = [
    *(Kind(name, {"activation": name}) for name in ACTIVATIONS if ACTIVATIONS[name].reads_a),
    *(Kind(name, {"likelihood": name}) for name in likelihoods.names() if name not in ("bernoulli", "gaussian")),
    *(Kind(name, {}, name) for name in objectives.names() if name not in ("elbo", "iwae")),
    Kind("mixed table", {
        "activation": "tanh", "likelihood": "mixed:columns=gaussian:sigma=predicted*2+categorical*3+poisson*2",
    }),
    Kind("gaussian, sigma of columns", {"likelihood": "gaussian:sigma=columns"}),
    Kind("elbo of two draws", {}, "elbo:draws=2"),
    Kind("free bits of three draws", GAUSSIAN, "elbo:free_bits=0.1,draws=3"),
    Kind("layer by layer", _layer_by_layer()),
    Kind("conditional", {"activation": "elu", "classes": 4}),
    Kind("conditional, no hidden layer, free bits", {"hidden": (), "classes": 4}, "elbo:beta=0.5,free_bits=0.1"),
    Kind("conditional, sigma predicted", {**PREDICTED, "activation": "tanh", "classes": 2}),
    Kind("batch norm", {"hidden": (6, 5), "activation": "elu", "batch_norm": True}),
    Kind("batch norm, conditional", {"hidden": (6,), "batch_norm": True, "classes": 3}),
    Kind("conv", {**IMAGES, "hidden": (), "conv": (3,)}),
    Kind("conv, deep, sigma learned", {**IMAGES, **GAUSSIAN, "conv": (3, 4), "activation": "tanh"}),
    Kind("conv, batch norm, conditional", {
        **IMAGES, "conv": (2, 3), "activation": "softplus", "batch_norm": True, "classes": 3,
    }),
    Kind("iwae of one draw", {"activation": "tanh"}, "iwae:draws=1"),
    Kind("iwae of five draws", {"hidden": (5, 4), "activation": "elu"}, "iwae:draws=5"),
    Kind("iwae, sigma learned", {**GAUSSIAN, "activation": "tanh"}, "iwae:draws=3"),
    Kind("iwae, sigma predicted", {**PREDICTED, "activation": "elu"}, "iwae:draws=3"),
    Kind("iwae, tied", {"tied": True, "activation": "sigmoid"}, "iwae:draws=4"),
    Kind("iwae, conv, batch norm, labels", {
        **IMAGES, "hidden": (), "conv": (2,), "activation": "elu", "batch_norm": True, "classes": 3,
    }, "iwae:draws=3"),
    Kind("dreg", {"activation": "swish"}, "iwae:draws=3,estimator=dreg"),
    Kind("stl", {"activation": "swish"}, "iwae:draws=1,estimator=stl"),
]  # fmt: skip
EVERY = [*CAPTURED, *ORDINARY]
