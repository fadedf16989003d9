"""The kinds of VAE that `checking.models` checks, for other tests: a model of a case, data for it, one step of it."""

from typing import Any

import numpy as np

from tinyvae import VAE
from tinyvae.checking.models import CASES, DATA, LATENT, ModelCase
from tinyvae.model.iwae import iwae_forward_backward

SIZES = {"hidden", "decoder_hidden", "activation", "likelihood", "sigma", "tied"}
PLAIN = [case for case in CASES if set(case.model) <= SIZES and not case.importance]  # what the captured step can do


def build(case: ModelCase, **options: Any) -> VAE:
    return VAE(**{"data_dim": DATA, "latent_dim": LATENT, **case.model, **options})


def inputs(case: ModelCase, rows: int, seed: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """x (rows, data), eps (rows, latent) or (rows, K, latent), and labels (rows,) if the case is conditional."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (rows, case.model.get("data_dim", DATA)))
    eps = rng.standard_normal((rows, case.importance, LATENT) if case.importance else (rows, LATENT))
    return x, eps, np.arange(rows) % case.model["classes"] if "classes" in case.model else None


def step(model: VAE, case: ModelCase, x: Any, eps: Any, y: Any) -> Any:
    """What the trainer calls: the gradients into `model.grads`, -> losses (3,)."""
    if case.importance:
        return iwae_forward_backward(model, x, eps, y)
    return model.forward_backward(x, eps, case.beta, case.free_bits, y)
