"""Every kind of VAE with every fused kernels of the host, in float32, beside the readable kernels in float64."""

import numpy as np
import pytest
from cases import build, inputs, step
from strategies import EVERY_FUSED, assert_within, eps_of

from tinyvae.checking.models import CASES, ROWS, ModelCase

EPS = eps_of("float32")


@pytest.mark.parametrize("kernels", EVERY_FUSED)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_losses_gradients_and_running_averages_are_those_of_the_formulas(case: ModelCase, kernels: str) -> None:
    """A number has at most some hundred roundings behind it."""
    truth, model = build(case, dtype="float64", kernels="reference"), build(case, kernels=kernels)
    noise = np.random.default_rng(0).standard_normal(truth.params.flat.shape)
    model.params.flat += (0.2 * noise).astype("f4")
    truth.params.flat[...] = model.params.flat
    for seed, rows in enumerate([5, ROWS, 3]):  # the buffers are made, made larger, and used again
        x, eps, y = inputs(case, rows, seed)
        x, eps = x.astype("f4"), eps.astype("f4")
        losses = step(model, case, x, eps, y)
        expected = step(truth, case, x.astype(float), eps.astype(float), y)
        assert_within(losses, expected, 256 * EPS * (np.abs(expected).max() + 1))
        for name, g in truth.grads.items():
            assert_within(model.grads[name], g, 256 * EPS * (np.abs(g).max() + 1))
        for name in (name for name in truth.params if ".running_" in name):
            p = truth.params[name]
            assert_within(model.params[name], p, 256 * EPS * (np.abs(p).max() + 1))
