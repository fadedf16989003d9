"""Poisson, by SciPy's mass function, with counts from 0 to 1e7."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy import special, stats

import tinyvae
from likelihoods.oracles import ORACLES, assert_counts_follow, assert_log_p, draws
from tinyvae.formula import exp, formula, lgamma
from tinyvae.likelihoods.poisson import Poisson
from tinyvae.ops.adam import adam_step

COUNTS = np.array([0, 1, 2, 3, 17, 1e3, 1e4, 1e5, 1e6, 1e7])


def holds(likelihood: Poisson) -> None:
    """log p is SciPy's, at rates near each count and far from it."""
    x, away = (a.ravel() for a in np.meshgrid(COUNTS, [-3, -0.3, -3e-4, 0, 3e-4, 0.3, 3]))
    assert_log_p(likelihood, ORACLES["poisson"], x, log_rate=np.log(x + 0.5) + away)


def test_log_p_is_scipys_mass_function() -> None:
    holds(Poisson())


def test_a_rate_that_is_all_but_0_is_no_error() -> None:
    """e^-1e4 is 0 in any precision, and log p = x a - log x!."""
    x, a = (g.ravel() for g in np.meshgrid(COUNTS, [-100.0, -1e3, -1e4]))
    assert_log_p(Poisson(), lambda x, log_rate: x * log_rate - special.gammaln(x + 1), x, log_rate=a)


@pytest.mark.parametrize("log_rate", [0.7, 3.0])
def test_draws_are_poissons(log_rate: float) -> None:
    assert_counts_follow(draws(Poisson(), log_rate=log_rate), lambda v: stats.poisson.pmf(v, np.exp(log_rate)))


def test_draws_at_any_rate_are_counts() -> None:
    output = np.array([[-1e4, -50, 0, 16, 40, 90, 1e4]], dtype="float32")
    x = Poisson().draw({}, output, np.random.default_rng(0))
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    assert np.all(x == np.floor(x))
    assert np.all(x[0, :2] == 0)


def test_the_encoder_sees_log_1_plus_x() -> None:
    x = np.array([[0, 1, 1e7]], dtype="float32")
    seen: Any = Poisson().encoder_input
    np.testing.assert_allclose(seen(x), np.log1p(x), rtol=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "whole", "line"),
    [
        (-2, 9, True, r"lies in \[-2, 9\] and holds negative numbers, .* needs counts .* x\[x < 0\] = np.nan"),
        (0, 9.5, False, r"lies in \[0, 9.5\] and holds numbers that are not whole, .* x = np.round\(x\)"),
        (-0.5, 9, False, "numbers that are not whole, .*give the counts themselves, not scaled"),
        (0.5, 9, None, "numbers that are not whole"),
    ],
)
def test_what_is_no_count_is_refused_with_what_to_do(low: float, high: float, whole: bool | None, line: str) -> None:
    with pytest.raises(ValueError, match=line) as raised:
        Poisson().check(low, high, whole)
    assert "\n" not in str(raised.value)
    Poisson().check(0, 1e7, True)
    Poisson().check(0, 9)


def test_a_model_refuses_fractions() -> None:
    with pytest.raises(ValueError, match="numbers that are not whole"):
        tinyvae.VAE(3, likelihood="poisson").loss(np.array([[0, 1, 2.5]]), np.zeros((1, 20)))


# ------------------------------------------------------------------------------------------------- raw counts, untamed


def counts(mean: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    rate = mean * np.exp(rng.standard_normal((500, 3)) @ (0.3 * rng.standard_normal((3, 50))))
    return rng.poisson(rate).astype("float32")


def trained(likelihood: str, x: np.ndarray, start: bool, steps: int = 60) -> list[float]:
    """The losses of the first steps of Adam, in float32."""
    model = tinyvae.VAE(50, likelihood=likelihood)
    if start:
        model.start_at(x)
    rng, m, v, losses = np.random.default_rng(1), *np.zeros((2, model.params.flat.size), "float32"), []
    for t in range(1, steps + 1):
        batch = x[rng.integers(0, len(x), 128)]
        losses.append(model.loss_and_grad(batch, rng.standard_normal((128, 20))).loss)
        assert np.isfinite(model.grads.flat).all()
        step = adam_step(model.params.flat, model.grads.flat, m, v, t, 1e-3)
        model.params.flat[...], m, v = step[0], step[1].astype("float32"), step[2].astype("float32")
    return losses


@pytest.mark.parametrize("likelihood", ["poisson", "negative-binomial"])
def test_raw_counts_do_not_overflow_even_from_a_rate_of_1(likelihood: str) -> None:
    assert np.isfinite(trained(likelihood, counts(1e4), start=False)).all()


def test_a_model_starts_at_the_log_means_of_what_was_observed() -> None:
    model = tinyvae.VAE(4, likelihood="poisson")
    before = model.params.flat.copy()
    model.start_at(np.array([[3, np.nan, 0, np.nan], [5, 1e6, 0, np.nan]]))
    bias = model.params["decoder.1.bias"]
    np.testing.assert_allclose(bias, np.log([8.5 / 2, 1e6 + 0.5, 0.5 / 2, 0.5]), rtol=1e-6)
    bias[...] = 0
    np.testing.assert_array_equal(model.params.flat, before)  # and nothing else


def test_pixels_of_a_convolution_share_their_start() -> None:
    """The logarithm of the mean of all, not the mean of logarithms."""
    model = tinyvae.VAE(16, (5,), 2, conv=(3,), image_shape=(4, 4), likelihood="poisson")
    x = np.full((2, 16), 100.0)
    x[:, 0] = 900
    model.start_at(x)
    np.testing.assert_allclose(model.params["decoder.conv0.bias"], [np.log(150 + 0.5 / 32)], rtol=1e-6)


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian:sigma=predicted", "laplace"])
def test_real_numbers_start_at_0(likelihood: str) -> None:
    """At the means, with a sigma that is still 1, z would hardly be worth its nats: tied weights collapse for good."""
    model = tinyvae.VAE(4, likelihood=likelihood)
    before = model.params.flat.copy()
    model.start_at(np.ones((3, 4)))
    np.testing.assert_array_equal(model.params.flat, before)


@pytest.mark.parametrize("mean", [1.0, 1e4, 1e7])
@pytest.mark.parametrize("likelihood", ["poisson", "negative-binomial"])
def test_from_the_datas_own_means_counts_of_any_size_are_learned(likelihood: str, mean: float) -> None:
    losses = trained(likelihood, counts(mean), start=True)
    assert np.isfinite(losses).all()
    assert max(losses) < 3 * losses[0]  # it never shoots far away
    assert np.mean(losses[-5:]) < losses[0]


# -------------------------------------------------------------------------------------------------------- planted bugs


@dataclass(frozen=True)
class InFloat32(Poisson):
    nll: ClassVar = formula(lambda log_rate, x: exp(log_rate) - x * log_rate + lgamma(x + 1))


@dataclass(frozen=True)
class WithoutFactorials(Poisson):
    nll: ClassVar = formula(lambda log_rate, x: exp(log_rate) - x * log_rate)


@pytest.mark.parametrize("planted", [InFloat32(), WithoutFactorials()], ids=lambda p: type(p).__name__)
def test_terms_in_float32_and_a_forgotten_factorial_are_found(planted: Poisson) -> None:
    with pytest.raises(AssertionError, match="off by"):
        holds(planted)
