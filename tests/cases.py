"""The kinds of VAE that `checking.models` checks, for other tests: a model of a case, data for it, one step of it."""

from typing import Any

import numpy as np

from tinyvae import VAE
from tinyvae.checking import models
from tinyvae.checking.models import CASES, ModelCase
from tinyvae.training.graph_step import GraphStep


def build(case: ModelCase, **options: Any) -> VAE:
    """The case's model."""
    return models.build(case, **options)


def inputs(case: ModelCase, rows: int, seed: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """x (rows, data), eps (rows, latent) or (rows, K, latent), and labels (rows,) if the case is conditional."""
    return models.inputs(case, build(case, kernels="reference"), np.random.default_rng(seed), rows)


def step(model: VAE, case: ModelCase, x: Any, eps: Any, y: Any) -> Any:
    """The gradients into `model.grads`, -> losses."""
    return model.loss_and_grad(x, eps, y=y, objective=case.loss)


def is_plain(case: ModelCase) -> bool:
    """Whether the captured step knows it, on a GPU."""
    model = build(case, kernels="reference")
    model.kernels_name = "cuda"
    return GraphStep.suits(model, case.loss)


PLAIN = [case for case in CASES if is_plain(case)]
