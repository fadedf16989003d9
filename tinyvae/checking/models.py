"""Whole models, checked: every parameter of every kind of VAE, through `loss` and `loss_and_grad`."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinyvae import likelihoods, objectives
from tinyvae.checking import examples
from tinyvae.checking.finite_differences import Check, gradcheck
from tinyvae.checking.kinks import sides_of_model
from tinyvae.checking.replay import DATA, LATENT, around
from tinyvae.checking.slopes import EPS
from tinyvae.kernels.reference import Reference
from tinyvae.model.vae import VAE, Losses
from tinyvae.objectives.objective import Objective, Posterior
from tinyvae.ops.activations import ACTIVATIONS

ROWS = 8
FEW = 8  # numbers in a tensor that is looked at one by one, where the part has a check of its own
IMAGES = {"data_dim": 35, "image_shape": (7, 5)}  # an odd height and width: the stride leaves a remainder


@dataclass(frozen=True)
class ModelCase:
    """A model and the loss it is checked under."""

    name: str
    model: dict[str, Any] = field(default_factory=dict)  # as the arguments of `VAE`
    objective: str = "elbo"
    missing: bool = False  # some of the data was not observed
    elementwise: int = 64  # tensors up to this size are checked element by element as well

    @property
    def loss(self) -> Objective:
        """The objective."""
        return objectives.objective(self.objective)

    @property
    def draws(self) -> int:
        """K."""
        return self.loss.samples


# What a few numbers say of a model, and how these go together with likelihoods and objectives
ARCHITECTURES = (
    ModelCase("bernoulli", {"hidden": (5,), "activation": "relu"}),
    ModelCase("bernoulli, no hidden layer", {"hidden": ()}),
    ModelCase("bernoulli, deep", {"hidden": (6, 5, 4), "activation": "elu"}),
    ModelCase("bernoulli, own decoder", {"hidden": (6,), "decoder_hidden": (4, 5), "activation": "tanh"}),
    ModelCase("bernoulli, tied", {"hidden": (5,), "tied": True, "activation": "sigmoid"}),
    ModelCase("bernoulli, tied, deep", {"hidden": (6, 5), "tied": True, "activation": "leaky-relu"}),
    ModelCase("bernoulli, beta 4", {"hidden": (5,), "activation": "softplus"}, "elbo:beta=4"),
    ModelCase("bernoulli, free bits", {"hidden": (5,), "activation": "tanh"}, "elbo:beta=0.5,free_bits=0.1"),
    ModelCase("bernoulli, not all observed", {"hidden": (5,), "activation": "tanh"}, missing=True),
    ModelCase("gaussian, sigma fixed", {"hidden": (5,), "likelihood": "gaussian:sigma=fixed:0.5"}),
    ModelCase("gaussian, sigma learned", {"hidden": (5, 4), "likelihood": "gaussian"}),
    ModelCase("gaussian, sigma of each column", {"hidden": (5,), "likelihood": "gaussian:sigma=columns"}),
    ModelCase("gaussian, sigma predicted", {"hidden": (5,), "likelihood": "gaussian:sigma=predicted"}),
    ModelCase("gaussian, sigma predicted, not all observed", {
        "hidden": (5,), "activation": "elu", "likelihood": "gaussian:sigma=predicted",
    }, "iwae:draws=2", missing=True),
    ModelCase("mixed table, not all observed", {
        "hidden": (5,), "activation": "tanh",
        "likelihood": "mixed:columns=gaussian:sigma=predicted*2+categorical*3+negative-binomial*2",
    }, "iwae:draws=2", missing=True),
    ModelCase("gaussian, tied", {"hidden": (5,), "likelihood": "gaussian", "tied": True}),
    ModelCase("gaussian, free bits", {"hidden": (5,), "likelihood": "gaussian"}, "elbo:beta=2,free_bits=0.2"),
    ModelCase("conditional", {"hidden": (5,), "activation": "elu", "classes": 4}),
    ModelCase("conditional, no hidden layer, free bits", {"hidden": (), "classes": 4}, "elbo:beta=0.5,free_bits=0.1"),
    ModelCase("conditional, sigma predicted", {
        "hidden": (5,), "activation": "tanh", "likelihood": "gaussian:sigma=predicted", "classes": 2,
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
    ModelCase("elbo, 3 draws, sigma of each column", {
        "hidden": (5,), "activation": "elu", "likelihood": "gaussian:sigma=columns",
    }, "elbo:draws=3,free_bits=0.1"),
    ModelCase("iwae, K 1", {"hidden": (5,), "activation": "tanh"}, "iwae:draws=1"),
    ModelCase("iwae, K 5", {"hidden": (5, 4), "activation": "elu"}, "iwae:draws=5"),
    ModelCase("iwae, sigma learned", {"hidden": (5,), "activation": "tanh", "likelihood": "gaussian"}, "iwae:draws=3"),
    ModelCase("iwae, sigma of each column", {
        "hidden": (5,), "activation": "tanh", "likelihood": "gaussian:sigma=columns",
    }, "iwae:draws=3"),
    ModelCase("iwae, sigma predicted", {
        "hidden": (5,), "activation": "elu", "likelihood": "gaussian:sigma=predicted",
    }, "iwae:draws=3"),
    ModelCase("iwae, tied", {"hidden": (5,), "tied": True, "activation": "sigmoid"}, "iwae:draws=4"),
    ModelCase("iwae, conv, batch norm, labels", {
        **IMAGES, "hidden": (), "conv": (2,), "activation": "elu", "batch_norm": True, "classes": 3,
    }, "iwae:draws=3"),
    ModelCase("beta-tc, sigma learned", {"hidden": (5,), "activation": "tanh", "likelihood": "gaussian"}, "beta-tc"),
    ModelCase("beta-tc, conv, batch norm, labels", {
        **IMAGES, "hidden": (), "conv": (2,), "activation": "elu", "batch_norm": True, "classes": 3,
    }, "beta-tc:beta=3,rows=50"),
)  # fmt: skip


def _of_the_folders() -> Iterator[ModelCase]:
    """A case for every likelihood, objective, activation and layer that there is."""
    small = {"hidden": (5,), "activation": "tanh"}
    for name in likelihoods.names():
        yield ModelCase(f"likelihood {name}", {**small, "likelihood": name}, elementwise=FEW)
    for objective in examples.all_objectives():
        name = examples.text(objective)
        yield ModelCase(f"objective {name}", small, name, elementwise=FEW)
    for name in ACTIVATIONS:
        yield ModelCase(f"activation {name}", {"hidden": (5, 4), "activation": name}, elementwise=FEW)
    firsts = {type(layer): layer for layer in reversed(list(examples.all_layers()))}
    for layer in reversed(firsts.values()):
        yield ModelCase(f"layer {examples.text(layer)}", around(layer), elementwise=FEW)


CASES = (*ARCHITECTURES, *_of_the_folders())


def build(case: ModelCase, **options: Any) -> VAE:
    """The case's model."""
    widths = {} if "encoder" in case.model else {"data_dim": DATA, "latent_dim": LATENT}
    return VAE(**{**widths, **case.model, **options})


def inputs(case: ModelCase, model: VAE, rng: np.random.Generator, rows: int = ROWS) -> tuple[Any, Any, Any]:
    """x (rows, data), eps (rows, latent) or (rows, K, latent), and labels (rows,) if the model takes any."""
    x = examples.data(model.likelihood, rng, rows, model.data_dim)
    if case.missing:
        x[rng.random(x.shape) < 0.3] = np.nan
    eps = rng.standard_normal((rows, case.draws, LATENT) if case.draws > 1 else (rows, LATENT))
    return x, eps, np.arange(rows) % model.classes if model.classes else None


def check_models(kernels: str, seed: int = 0) -> Iterator[Check]:
    """One Check for the loss and each parameter of each case, named "case: parameter"."""
    for case in CASES:
        yield from check_model(case, kernels, seed)


def check_model(case: ModelCase, kernels: str, seed: int = 0) -> Iterator[Check]:
    """Every parameter of one case. Biases get random values too: at 0 they would hide what multiplies them.

    The running averages of batch normalization stand among the parameters, but the loss in training does not use them.
    Of an objective whose partials are no derivative, the encoder's gradient is none: `checking.objectives` sees to it.
    """
    rng = np.random.default_rng(seed)
    model, objective = build(case, dtype="float64", kernels=kernels, seed=seed), case.loss.on(3 * ROWS)
    model.params.flat += 0.2 * rng.standard_normal(model.params.flat.shape)
    x, eps, y = inputs(case, model, rng)
    losses = model.loss_and_grad(x, eps, y=y, objective=objective)
    names = [name for name, p in model.architecture.params() if p.trainable]
    if not objective.is_derivative:
        names = [name for name in names if not name.startswith("encoder.")]
    grads = {name: model.grads[name].copy() for name in names}
    flat, k = eps.reshape(-1, LATENT), Reference(np, "float64")

    def loss() -> np.ndarray:
        """The loss as terms: a Gaussian's can cancel, and the tolerance must not vanish with their sum."""
        look = model.look(x, eps, y, training=True)
        total = objective.forward(k, look.nll, Posterior(look.mu, look.logvar, flat, look.z))[0].loss[0]
        terms = np.concatenate([look.nll / len(look.nll), look.kl.sum(axis=0) / ROWS])
        return np.append(terms, total - terms.sum())

    sides = lambda: sides_of_model(model, objective, x, flat, y)
    kinks = sides if sides().size else None
    yield _same_loss(case, losses, model.loss(x, eps, y=y, training=True, objective=objective), loss())
    params = {name: model.params[name] for name in names}
    for check in gradcheck(loss, params, grads, kinks=kinks, seed=seed, elementwise=case.elementwise):
        yield replace(check, name=f"{case.name}: {check.name}")


def _same_loss(case: ModelCase, of_step: Losses, of_loss: Losses, terms: np.ndarray) -> Check:
    """`loss_and_grad` and `loss` give the sum of the terms whose slopes are looked at."""
    total = float(terms.sum())
    error = max(abs(of_step.loss - total), abs(of_loss.loss - total))
    tolerance = 1e3 * EPS * float(np.abs(terms).sum())  # sums of some hundred terms
    return Check(f"{case.name}: loss", error, tolerance, error <= tolerance)
