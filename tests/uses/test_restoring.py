"""Restoring, against a model whose conditional distributions are known; masks, noise, errors and the picture."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear_gaussian import DATA, SIGMA, nearly_exact_model, posterior
from scipy import ndimage, stats
from sklearn.metrics import log_loss
from strategies import SEEDS, assert_within, eps_of, sampled

import tinyvae
from tinyvae.model.vae import CHUNK
from tinyvae.ops import gaussian
from tinyvae.uses import restoring
from tinyvae.uses.restoring import denoise, fill_in

EPS = eps_of("float64")
MISSING = np.array([False, True, False, True, True])  # of the five columns of the linear model
ROWS, STEPS = 4000, 200


# ----------------------------------------------------------------------------- the chain, against the exact conditional


def conditional(model: tinyvae.VAE, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (missing,) and covariance of p(x_missing | x_observed), by the formula for a joint Gaussian."""
    W, b = model.params["decoder.0.weight"], model.params["decoder.0.bias"]
    joint = W.T @ W + SIGMA**2 * np.eye(DATA)
    gain = joint[np.ix_(MISSING, ~MISSING)] @ np.linalg.inv(joint[np.ix_(~MISSING, ~MISSING)])
    mean = b[MISSING] + gain @ (x - b)[~MISSING]
    return mean, joint[np.ix_(MISSING, MISSING)] - gain @ joint[np.ix_(~MISSING, MISSING)]


def test_the_chain_draws_from_the_exact_conditional_where_q_is_the_posterior() -> None:
    model, data = nearly_exact_model(0.0)
    x = np.tile(data[0], (ROWS, 1))  # as many chains of their own
    x[:, MISSING] = 1e6  # nobody may look there
    start = np.zeros(DATA)
    found = fill_in(model, x, np.tile(~MISSING, (ROWS, 1)), start, np.random.default_rng(0), STEPS, chains=1)
    mean, covariance = conditional(model, data[0])
    # One step takes the mean of x_missing towards the exact one by A = W_m^T S W_m / sigma^2, with S = Cov(z|x).
    W = model.params["decoder.0.weight"][:, MISSING]
    rate = np.linalg.eigvalsh(W.T @ posterior(model, data)[1] @ W / SIGMA**2).max()
    bias = rate ** (STEPS // 2) * np.linalg.norm(start[MISSING] - mean)
    assert rate < 0.95
    assert bias < 1e-2
    # draws: the errors of a mean and of a covariance of independent normal rows; beyond 5 of them once in two million
    draws = found.draw[:, MISSING]
    variances = np.diag(covariance)
    assert_within(draws.mean(axis=0), mean, 5 * np.sqrt(variances / ROWS) + bias)
    spread = np.sqrt((np.outer(variances, variances) + covariance**2) / ROWS)
    assert_within(np.cov(draws, rowvar=False), covariance, 5 * spread + bias**2 + rate**STEPS)
    # the estimate, the mean over the rows of independent averages along the chain
    estimates = found.estimate[:, MISSING]
    assert_within(estimates.mean(axis=0), mean, 5 * estimates.std(axis=0) / math.sqrt(ROWS) + bias)
    assert np.all(estimates.std(axis=0) < np.sqrt(variances))  # it is an average, not a draw


def test_more_chains_are_averaged() -> None:
    model, data = nearly_exact_model(0.0)
    x, observed = np.tile(data[0], (ROWS, 1)), np.tile(~MISSING, (ROWS, 1))
    one, nine = (
        fill_in(model, x, observed, np.zeros(DATA), np.random.default_rng(0), 20, chains).estimate[:, MISSING]
        for chains in (1, 9)
    )
    # chains of a row are independent: a ninth of the variance, whose relative error is sqrt(2 / rows), of each of two
    ratio = nine.var(axis=0) / one.var(axis=0)
    assert_within(ratio, np.full(3, 1 / 9), 5 * math.sqrt(4 / ROWS) / 9)


def test_denoising_averages_the_decoder_over_the_posterior() -> None:
    model, x = nearly_exact_model(0.0)
    draws = 4000
    W, b = model.params["decoder.0.weight"], model.params["decoder.0.bias"]
    mean, covariance = posterior(model, x)
    error = np.sqrt(np.diag(W.T @ covariance @ W) / draws)
    assert_within(denoise(model, x, np.random.default_rng(0), draws), mean @ W + b, np.tile(5 * error, (len(x), 1)))


# ----------------------------------------------------------------------------------------------------------- properties


def small_model(likelihood: str, seed: int, classes: int = 0) -> tinyvae.VAE:
    return tinyvae.VAE(
        4, (3,), 2, likelihood=likelihood, classes=classes, dtype="float64", kernels="reference", seed=seed
    )


@given(st.sampled_from(["bernoulli", "gaussian"]), SEEDS, st.floats(0, 1), st.integers(1, 4), st.integers(1, 3))
def test_what_is_observed_never_changes_and_what_is_missing_is_never_read(
    likelihood: str, seed: int, share: float, steps: int, chains: int
) -> None:
    model, rng = small_model(likelihood, seed), np.random.default_rng(seed)
    x, observed = rng.random((5, 4)), rng.random((5, 4)) >= share
    results = [
        fill_in(
            model, np.where(observed, x, secret), observed, np.full(4, 0.5), np.random.default_rng(1), steps, chains
        )
        for secret in (0.0, 1e9, math.nan)
    ]
    for found in results:
        assert np.array_equal(found.estimate[observed], x[observed])
        assert np.array_equal(found.draw[observed], x[observed])
        assert np.array_equal(found.estimate, results[0].estimate)
        assert np.all(np.isfinite(found.draw))
    if likelihood == "bernoulli":
        assert set(results[0].draw[~observed]) <= {0.0, 1.0}


def test_with_everything_observed_the_output_is_the_input() -> None:
    x = np.random.default_rng(0).random((CHUNK + 2, 4))
    found = fill_in(small_model("bernoulli", 0), x, np.full(x.shape, True), np.zeros(4), np.random.default_rng(0), 2, 1)
    assert np.array_equal(found.estimate, x)
    assert np.array_equal(found.draw, x)


def test_labels_go_with_their_rows_in_every_chunk() -> None:
    model = small_model("bernoulli", 0, classes=4)
    model.params.flat[...] = 0
    model.params["decoder.1.bias"][...] = -20
    model.params["decoder.0.weight"][-4:, 0] = [0, 10, 20, 30]  # relu, then pixel 0 has the logit 10 label - 15
    model.params["decoder.1.weight"][0, 0] = 1
    model.params["decoder.1.bias"][0] = -15
    y = np.random.default_rng(0).integers(0, 4, CHUNK + 9)
    x, nothing = np.zeros((len(y), 4)), np.full((len(y), 4), False)
    done: list[float] = []
    found = fill_in(model, x, nothing, np.zeros(4), np.random.default_rng(0), 2, 2, y, done.append)
    expected = stats.logistic.cdf(10.0 * y - 15)
    assert_within(found.estimate[:, 0], expected, 100 * EPS)
    assert_within(denoise(model, x, np.random.default_rng(0), 2, y)[:, 0], expected, 100 * EPS)
    assert done == sorted(done)
    assert done[-1] == len(y)


def test_what_cannot_be_restored_is_refused() -> None:
    model, rng, x = small_model("bernoulli", 0), np.random.default_rng(0), np.zeros((2, 4))
    for steps, chains, name in [(0, 1, "steps"), (1, 0, "chains")]:
        with pytest.raises(ValueError, match=f"{name} must be a whole number, at least 1, not 0"):
            fill_in(model, x, x == 0, x, rng, steps, chains)
    with pytest.raises(ValueError, match="truth values of shape"):
        fill_in(model, x, x, x, rng)
    with pytest.raises(ValueError, match="truth values of shape"):
        fill_in(model, x, x[:1] == 0, x, rng)
    with pytest.raises(ValueError, match="draws must be a whole number, at least 1, not 0"):
        denoise(model, x, rng, 0)


# ------------------------------------------------------------------------------------------------------ masks and noise


def test_blurring_is_scipys_uniform_filter() -> None:
    x = np.random.default_rng(0).standard_normal((3, 20))
    expected = [ndimage.uniform_filter(image.reshape(4, 5), 3, mode="nearest").ravel() for image in x]
    assert_within(restoring.blurred(x, (4, 5)), expected, 50 * EPS * np.abs(x).max())


# --------------------------------------------------------------------------------------------------------------- errors


def test_errors_are_those_of_scipy_and_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x, p = (rng.random((30, 8)) < 0.4).astype(float), rng.uniform(0.05, 0.95, (30, 8))
    observed = np.tile(rng.random(8) < 0.5, (30, 1))  # as many in each row
    found = restoring.root_mean_squared_error(p, x, observed)
    squares = ((p - x) ** 2)[:, ~observed[0]].mean(axis=1)  # (rows,)
    assert_within(found.value, math.sqrt(squares.mean()), 1e-13)
    assert_within(found.standard_error, stats.sem(squares) / (2 * math.sqrt(squares.mean())), 1e-13)
    entropy = restoring.cross_entropy(p, x, observed)
    assert_within(entropy.value, log_loss(x[~observed], p[~observed]), 1e-13)


def test_the_standard_error_holds_where_rows_have_different_numbers_missing() -> None:
    rng = np.random.default_rng(1)
    rows, trials = 200, 2000
    counted = rng.random((trials, rows, 6)) < rng.random((trials, rows, 1))
    values = rng.exponential(size=counted.shape) * rng.exponential(size=(trials, rows, 1))  # alike within a row
    found = [restoring.mean_of_rows(v, c) for v, c in zip(values, counted, strict=True)]
    means, errors = np.array([e.value for e in found]), np.array([e.standard_error for e in found])
    # a standard deviation of 2000 heavy-tailed numbers is good to a few hundredths; the formula is of first order
    assert abs(errors.mean() / means.std() - 1) < 0.1


def test_certainty_that_is_wrong_costs_much_but_not_infinitely_much() -> None:
    found = restoring.cross_entropy(np.zeros((2, 1)), np.ones((2, 1)), np.full((2, 1), False))
    assert_within(found.value, -math.log(restoring.SMALLEST), 1e-9)
    assert restoring.root_mean_squared_error(np.ones((2, 1)), np.ones((2, 1)), np.full((2, 1), False)).value == 0
    with pytest.raises(ValueError, match="nothing is missing"):
        restoring.cross_entropy(np.zeros((2, 1)), np.ones((2, 1)), np.full((2, 1), True))


# --------------------------------------------------------------------------------------------------------- planted bugs

exact, never = (
    test_the_chain_draws_from_the_exact_conditional_where_q_is_the_posterior,
    test_with_everything_observed_the_output_is_the_input,
)
BUGS = {
    "clamping is forgotten": (restoring, "clamped", lambda observed, x, proposed: proposed, never),
    "clamping is forgotten, seen by the conditional": (
        restoring, "clamped", lambda observed, x, proposed: np.asarray(proposed), exact,
    ),
    "the mask is inverted": (
        restoring, "clamped", lambda observed, x, proposed: np.where(observed, proposed, x), exact,
    ),
    "the mean in the place of draws": (tinyvae.VAE, "draw", lambda self, z, rng, y=None: self.decode(z, y), exact),
    "z is always mu": (gaussian, "reparameterize_forward", lambda mu, logvar, eps: mu, exact),
    "z has the variance for its deviation": (
        restoring.gaussian, "reparameterize_forward", lambda mu, logvar, eps: mu + np.exp(logvar) * eps, exact,
    ),
    "the standard error of the mean square, not of its root": (
        restoring, "root_mean_squared_error",
        lambda e, x, o: restoring.Error(math.sqrt(SQUARES(e, x, o).value), SQUARES(e, x, o).standard_error),
        test_errors_are_those_of_scipy_and_scikit_learn,
    ),
}  # fmt: skip


def SQUARES(estimate: np.ndarray, x: np.ndarray, observed: np.ndarray) -> restoring.Error:  # noqa: N802
    return restoring.mean_of_rows((estimate - x) ** 2, ~observed)


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, name, wrong, killer = BUGS[bug]
    monkeypatch.setattr(target, name, wrong)
    with pytest.raises(AssertionError):
        killer()
