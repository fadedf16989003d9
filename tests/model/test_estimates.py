"""Estimates of log p(x) against a model where it is exact."""

import math

import numpy as np
import pytest
from linear_gaussian import at_the_posterior, exact_elbo, exact_log_p, linear_model
from replay import Replay
from scipy.stats import norm
from small_models import make
from strategies import KERNELS, assert_within, eps_of

from tinyvae.model.estimates import active_units, log_likelihood
from tinyvae.model.vae import CHUNK

EPS = eps_of("float64")


@pytest.mark.parametrize("samples", [1, 2, 7])
@pytest.mark.parametrize("kernels", KERNELS)
def test_at_the_true_posterior_every_sample_gives_log_p_exactly(kernels: str, samples: int) -> None:
    model, x = at_the_posterior(kernels)
    estimate = log_likelihood(model, x, samples, np.random.default_rng(0))
    # sums of some 50 terms below 1e3, of matrices with condition numbers below 100, as for the ELBO
    rounding = 50 * 1e3 * 100 * EPS
    assert_within(estimate.log_p, exact_log_p(model, x), rounding)
    if samples == 1:
        assert np.all(np.isnan(estimate.standard_error))
    else:
        # the variance of equal weights is a difference of equal numbers: eps of them, before the root
        assert np.all(estimate.standard_error <= math.sqrt(10 * samples * EPS) + rounding)


@pytest.mark.parametrize("kernels", KERNELS)
def test_elsewhere_the_estimate_is_within_its_standard_error_and_above_the_elbo(kernels: str) -> None:
    model, x = linear_model(kernels, 2, orthogonal=False)
    estimate = log_likelihood(model, x, 20_000, np.random.default_rng(1))
    truth = exact_log_p(model, x)
    assert np.all(estimate.standard_error > 0)
    # The error is normal with this deviation for well-behaved weights; 6 of them leave room for their tails.
    assert np.all(np.abs(estimate.log_p - truth) <= 6 * estimate.standard_error)
    assert np.all(truth - exact_elbo(model, x) > 10 * estimate.standard_error)  # a bound loose enough to tell apart


def test_the_standard_error_is_the_spread_of_the_estimate() -> None:
    model, x = linear_model("fused", 2, orthogonal=False)
    runs = log_likelihood(model, np.tile(x[:1], (200, 1)), 1000, np.random.default_rng(3))  # each row has its own noise
    # A standard deviation over 200 runs has a standard error of 1 / sqrt(400) = 5 %; 5 of them.
    assert_within(runs.standard_error.mean() / runs.log_p.std(), 1.0, 0.25)


def test_the_estimate_and_its_standard_error_are_those_of_weights_written_out() -> None:
    model, x, samples = make("gaussian, predicted"), np.random.default_rng(10).uniform(0, 1, (3, 6)), 5
    noise = np.random.default_rng(11).standard_normal((samples, 3, 2))
    mu, logvar = model.encode(x)
    sigma = np.exp(logvar / 2)
    log_w = np.empty((samples, 3))
    for k, eps in enumerate(noise):
        nll, _ = model.rows_loss(x, eps)
        z = mu + sigma * eps
        log_w[k] = -nll + norm.logpdf(z).sum(axis=1) - norm.logpdf(z, mu, sigma).sum(axis=1)
    w = np.exp(log_w)
    # some 60 roundings of terms that add up to less than 100, in a logarithm and hence relative in w
    rounding = 60 * 100 * EPS
    estimate = log_likelihood(model, x, samples, Replay(noise))
    assert_within(estimate.log_p, np.log(w.mean(axis=0)), rounding)
    assert_within(estimate.standard_error, w.std(axis=0, ddof=1) / w.mean(axis=0) / math.sqrt(samples), 10 * rounding)
    for k, eps in enumerate(noise):  # one sample alone: minus the loss of that draw, with the KL of that draw
        alone = log_likelihood(model, x, 1, Replay([eps]))
        assert_within(alone.log_p, log_w[k], rounding)
        assert np.all(np.isnan(alone.standard_error))


def test_all_the_samples_say_at_least_as_much_as_all_but_one() -> None:
    # log is concave and the mean of all weights is the mean of the leave-one-out means: for any weights at all.
    model, x = make("bernoulli"), np.random.default_rng(2).uniform(0, 1, (3, 6))
    noise = np.random.default_rng(3).standard_normal((5, 3, 2))
    everything = log_likelihood(model, x, 5, Replay(noise)).log_p
    without = [log_likelihood(model, x, 4, Replay(np.delete(noise, k, axis=0))).log_p for k in range(5)]
    assert np.all(everything >= np.mean(without, axis=0) - 100 * EPS)
    assert np.all(everything > np.mean(without, axis=0) + 1e-6)  # strictly, as these weights differ


def test_no_weight_overflows_and_the_order_of_the_samples_does_not_matter() -> None:
    model = make("gaussian, fixed")
    x = np.full((2, 6), 300.0)  # log p(x|z) is about -6 * (300 / 0.3)^2 / 2, far below the smallest exponent
    noise = np.random.default_rng(4).standard_normal((6, 2, 2))
    forward, backward = (log_likelihood(model, x, 6, Replay(n)) for n in (noise, noise[::-1]))
    assert np.all(forward.log_p < -1e6)
    # some 60 roundings of a number of this size
    assert_within(forward.log_p, backward.log_p, 60 * EPS * np.abs(forward.log_p))


def test_more_rows_than_a_chunk_are_the_same_rows_and_progress_is_told() -> None:
    model, told = make("bernoulli"), []
    x = np.random.default_rng(5).uniform(0, 1, (CHUNK + 2, 6))
    first, last = np.random.default_rng(6).standard_normal((3, CHUNK, 2)), np.ones((3, 2, 2))
    # the generator is asked for the samples of the first chunk, then of the second
    estimate = log_likelihood(model, x, 3, Replay([*first, *last]), told.append)
    alone = log_likelihood(model, x[CHUNK:], 3, Replay(last))
    assert told == [CHUNK, CHUNK + 2]
    assert_within(estimate.log_p[CHUNK:], alone.log_p, 100 * EPS * np.abs(alone.log_p))


def test_samples_must_be_at_least_1() -> None:
    with pytest.raises(ValueError, match="samples must be a whole number, at least 1, not 0"):
        log_likelihood(make("bernoulli"), np.zeros((2, 6)), 0, np.random.default_rng(0))


def test_active_units_are_those_whose_mu_varies_by_more_than_a_hundredth() -> None:
    sign = np.array([1.0, -1.0] * 4)[:, None]  # variance 1, so the scale squared is the variance
    mu = 5 + sign * np.sqrt([0.0, 0.0099, 0.0101, 1.0])
    assert active_units(mu) == 2
    assert active_units(mu[:, :2]) == 0
