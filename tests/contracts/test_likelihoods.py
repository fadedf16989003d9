"""Every file of `likelihoods/` keeps the contract, has an oracle, and makes a model that is all of one piece."""

import numpy as np
import pytest
from likelihoods.oracles import ORACLES
from strategies import assert_within, sampled

import tinyvae
from tinyvae import kernels as kernel_files
from tinyvae import likelihoods
from tinyvae.backend import get_backend
from tinyvae.checking.agreement import usable_kernels
from tinyvae.checking.likelihoods import check_likelihood
from tinyvae.model.estimates import log_likelihood

NAMES = likelihoods.names()
EVERY = pytest.mark.parametrize("name", NAMES)
DATA, MISSING = 4, 0.3


def small(name: str, dtype: str = "float64", kernels: str | None = None) -> tuple[tinyvae.VAE, np.ndarray]:
    """A model with one latent dimension and nothing at 0, and data that it drew."""
    options = {"latent_dim": 1, "activation": "tanh", "dtype": dtype, "kernels": kernels}
    model = tinyvae.VAE(DATA, (3,), likelihood=name, **options)
    model.params.flat[...] = 0.7 * np.random.default_rng(3).standard_normal(model.params.flat.shape)
    return model, np.asarray(model.sample(5, 4, mean=False))


def with_holes(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[np.random.default_rng(5).random(x.shape) < MISSING] = np.nan
    x[-1] = np.nan  # nothing of it was observed
    return x


@EVERY
def test_the_contract_is_kept(name: str) -> None:
    check_likelihood(likelihoods.likelihood(name))


def test_every_likelihood_has_an_oracle() -> None:
    assert sorted(ORACLES) == NAMES


def by_scipy(model: tinyvae.VAE, name: str, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """log p(x|z) of pairs of rows by SciPy, of the numbers that were observed."""
    said = {**model.own_params, **model.likelihood.parts(model.output(z))}
    seen = model.likelihood.observed(x)
    log_p = ORACLES[name](np.where(seen, x, 0), **said)
    return np.where(seen, log_p, 0).sum(axis=1)


@EVERY
@pytest.mark.parametrize("kernels", usable_kernels())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_was_not_observed_has_no_part_in_the_loss_and_its_gradient(name: str, dtype: str, kernels: str) -> None:
    model, x = small(name, dtype, kernels)
    x, eps = with_holes(x), np.random.default_rng(6).standard_normal((5, 1))
    looked = model.look(x, eps)
    assert_within(-looked.nll, by_scipy(model, name, x, looked.z), 1e-4 * (1 + np.abs(looked.nll)))
    assert looked.nll[-1] == 0
    k = kernel_files.select(kernels, get_backend("numpy"), dtype)[1]()
    zeros = np.where(model.likelihood.observed(x), x, 0).astype(dtype)
    np.testing.assert_array_equal(
        model.likelihood.encoded(k, x.astype(dtype), True), model.likelihood.encoded(k, zeros)
    )
    model.loss_and_grad(x, eps)
    with_nan = model.grads.flat.copy()
    assert np.isfinite(with_nan).all()
    model.loss_and_grad(x[:-1], eps[:-1])  # a row of which nothing was observed pulls q to the prior, and only that
    assert_within(4 / 5 * model.grads.part("decoder.1")["bias"], _part(model, with_nan, "decoder.1.bias"), 1e-5)


def _part(model: tinyvae.VAE, flat: np.ndarray, name: str) -> np.ndarray:
    whole = model.grads.flat.copy()
    model.grads.flat[...] = flat
    part = model.grads[name].copy()
    model.grads.flat[...] = whole
    return part


@EVERY
@pytest.mark.parametrize("hidden", sampled([True, False], 2), ids=["with NaN", "whole rows"])
def test_log_p_of_rows_is_the_integral_over_z(name: str, hidden: bool) -> None:
    model, x = small(name)
    x = with_holes(x) if hidden else x
    z = np.linspace(-9, 9, 20_001)[:, None]
    log_prior = -0.5 * (z[:, 0] ** 2 + np.log(2 * np.pi))
    joint = np.array([by_scipy(model, name, np.tile(row, (len(z), 1)), z) for row in x]) + log_prior  # (rows, M)
    truth = np.logaddexp.reduce(joint, axis=1) + np.log(z[1, 0] - z[0, 0])
    estimate = log_likelihood(model, x, 1000, 7)
    right = estimate.trusted
    assert_within(estimate.log_p[right], truth[right], 5 * estimate.standard_error[right] + 1e-6)
    doubted = estimate._replace(trusted=np.zeros(5, bool))  # so that the search for z is asked of every row
    repaired = tinyvae.repair_log_likelihood(model, x, doubted, 1000, 8)
    assert repaired.trusted.all()
    assert_within(repaired.log_p, truth, 5 * repaired.standard_error + 1e-6)
    assert np.all(repaired.standard_error < 0.03)
    assert not hidden or abs(truth[-1]) < 1e-9  # of a row of which nothing was observed


@EVERY
@pytest.mark.parametrize("said", [np.inf, -np.inf, np.nan])
def test_a_decoder_that_says_no_number_has_no_finite_loss(name: str, said: float) -> None:
    model, x = small(name)
    for kernels in usable_kernels():
        for dtype in ("float32", "float64"):
            k = kernel_files.select(kernels, get_backend("numpy"), dtype)[1]()
            own = {key: a.astype(dtype) for key, a in model.own_params.items()}
            output = np.full((5, model.decoder[-1].layer.width), said, dtype)
            k.begin("test")
            with np.errstate(all="ignore"):
                loss = np.array(model.likelihood.loss(k, own, output, x.astype(dtype)))
            assert not np.isfinite(loss).any()


@EVERY
def test_a_sample_is_of_means_or_of_draws(name: str) -> None:
    model, _ = small(name)
    means, draws = (np.asarray(model.sample(2000, 9, mean=mean)) for mean in (True, False))
    z = np.random.default_rng(9).standard_normal((2000, 1))
    np.testing.assert_array_equal(means, model.decode(z))
    assert np.std(draws - means) > 0.1  # and their distribution is the contract's
    model.likelihood.check(float(draws.min()), float(draws.max()), bool((draws == np.floor(draws)).all()))
    model.likelihood.check_rows(draws)
