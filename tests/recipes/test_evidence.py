"""The evidence of the recipes: what is measured on their runs, against the formula written out."""

import numpy as np
import pytest

from tinyvae.model.vae import VAE
from tinyvae.recipes import evidence


def test_the_squared_error_is_summed_over_columns_and_a_mean_over_rows() -> None:
    model = VAE(6, (5,), 2, likelihood="gaussian", dtype="float64", seed=1)
    x = np.random.default_rng(0).standard_normal((4, 6))
    rebuilt = np.asarray(model.decode(model.encode(x)[0]))
    expected = sum(float(((x[i] - rebuilt[i]) ** 2).sum()) for i in range(4)) / 4
    assert evidence.squared_error(model, x) == pytest.approx(expected, rel=1e-12)  # some 30 roundings


def test_the_size_of_an_architecture_is_that_of_its_model() -> None:
    for tied in (False, True):
        model = VAE(6, (5, 4), 2, tied=tied)
        assert evidence.size_of(model.architecture) == model.params.flat.size


def test_draws_have_the_noise_of_the_likelihood() -> None:
    model = VAE(2, (3,), 2, likelihood="gaussian", sigma="fixed:5", dtype="float64")
    for name in model.params:
        model.params[name][...] = 0  # every mean is 0: what is left is the noise, of standard deviation 5
    n = 2000
    drawn = evidence.draws(model, n, seed=0)
    assert drawn.shape == (n, 2)
    assert abs(drawn.std() - 5) < 5 * 5 / np.sqrt(2 * 2 * n)  # 5 standard errors of a standard deviation
    assert np.array_equal(drawn, evidence.draws(model, n, seed=0))
