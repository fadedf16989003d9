"""Scores against a model whose log p(x) is known exactly, the AUROC against scikit-learn, and where scores mislead."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear_gaussian import DATA, LATENT, exact_log_p, linear_model, nearly_exact_model
from running import run
from sklearn.metrics import roc_auc_score
from strategies import SEEDS, assert_within, eps_of, sampled

import tinyvae
from tinyvae.model.vae import CHUNK
from tinyvae.ops import gaussian
from tinyvae.uses import anomalies
from tinyvae.uses.anomalies import METHODS, anomaly_scores, auroc, likelihood_scores, threshold
from tinyvae.uses.restoring import blurred

EPS = eps_of("float64")

# --------------------------------------------------------------------------------------------------------------- scores


GAP = 0.25  # nats between the ELBO and log p(x)


def test_the_mean_of_the_draws_is_minus_the_elbo() -> None:
    model, x = nearly_exact_model(GAP)
    each = np.array([anomaly_scores(model, x, np.random.default_rng(i), samples=10) for i in range(400)])  # (400, rows)
    error = each.std(axis=0, ddof=1) / math.sqrt(len(each))  # beyond 5 of them once in two million rows
    assert np.all(5 * error < GAP)  # or it could be minus log p(x) as well
    assert_within(each.mean(axis=0), GAP - exact_log_p(model, x), 5 * error)


def test_many_samples_bring_the_likelihood_score_to_minus_log_p() -> None:
    model, x = nearly_exact_model(GAP)
    scores = anomaly_scores(model, x, np.random.default_rng(0), "likelihood", samples=4000)
    # log w is normal with the variance of shift^T eps / sigma, 2 gap; w / mean(w) then has the variance e^(2 gap) - 1
    error = math.sqrt((math.exp(2 * GAP) - 1) / 4000)
    assert 5 * error < GAP
    assert_within(scores, -exact_log_p(model, x), 5 * error)


def test_one_sample_is_enough_where_q_is_the_posterior() -> None:
    model, x = nearly_exact_model(0.0)
    scores = anomaly_scores(model, x, np.random.default_rng(0), "likelihood", samples=1)
    assert_within(scores, -exact_log_p(model, x), 50 * 1e3 * 100 * EPS)  # as for the ELBO of this model


@pytest.mark.parametrize("method", METHODS)
def test_every_row_has_its_own_label_in_every_chunk(method: str) -> None:
    model = tinyvae.VAE(3, (), 2, classes=3, dtype="float64", kernels="reference")
    model.params.flat[...] = 0
    rows = CHUNK + 5
    y = np.random.default_rng(0).integers(0, 3, rows)
    model.params["decoder.0.weight"][-3:] = 20 * np.eye(3)  # the label turns one pixel on
    model.params["decoder.0.bias"][...] = -10
    x = np.eye(3)[y]
    done: list[float] = []
    scores = anomaly_scores(model, x, np.random.default_rng(1), method, 2, y=y, progress=done.append)
    # z says nothing, so q is the prior and every draw gives 3 pixels at 10 logits from the truth
    assert_within(scores, np.full(rows, 3 * math.log1p(math.exp(-10))), 100 * EPS)
    assert done == [CHUNK, rows]
    wrong = anomaly_scores(model, x, np.random.default_rng(1), method, 2, y=(y + 1) % 3)
    assert np.all(wrong > 19)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_generator_gives_the_same_scores(method: str) -> None:
    model, x = linear_model("reference", 1, orthogonal=False)
    first, again, other = (anomaly_scores(model, x, np.random.default_rng(seed), method, 3) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_q_far_from_the_posterior_is_made_up_for() -> None:
    model, x = nearly_exact_model(100.0)  # nats: no draw of q comes near the posterior
    scores, trusted = likelihood_scores(model, x, np.random.default_rng(0), samples=100)
    assert np.all(trusted)
    assert_within(scores, -exact_log_p(model, x), 0.5)


def test_scores_that_cannot_be_trusted_are_warned_of() -> None:
    model, x = nearly_exact_model(0.0)
    x[2] = 1e200  # its square is beyond the largest number
    with pytest.warns(UserWarning, match="1 of 4 scores cannot be trusted"):
        scores = anomaly_scores(model, x, np.random.default_rng(0), "likelihood")
    assert np.isinf(scores).tolist() == [False, False, True, False]


def test_what_cannot_be_scored_is_refused() -> None:
    model, rng = tinyvae.VAE(DATA, (), LATENT), np.random.default_rng(0)
    x = np.zeros((2, DATA))
    with pytest.raises(ValueError, match="method must be one of elbo, likelihood, not 'mse'"):
        anomaly_scores(model, x, rng, "mse")
    with pytest.raises(ValueError, match="samples must be a whole number, at least 1, not 0"):
        anomaly_scores(model, x, rng, samples=0)
    for method in METHODS:
        with pytest.raises(ValueError, match="NaN"):
            anomaly_scores(model, x * np.nan, rng, method)
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            anomaly_scores(model, x + 2, rng, method)


# ------------------------------------------------------------------------------------------------------------ threshold

SCORES = st.lists(st.sampled_from([-3.5, 0.0, 1.0, 2.0, 7.25, 1e9, math.inf]), min_size=1, max_size=40).map(np.array)


@given(SCORES, st.floats(0, 1))
def test_the_threshold_is_the_smallest_score_with_enough_at_or_below_it(scores: np.ndarray, quantile: float) -> None:
    limit = threshold(scores, quantile)
    assert limit in scores
    slack = 4 * EPS  # quantile * rows is rounded
    assert (scores <= limit).mean() >= quantile - slack
    assert (scores > limit).mean() <= 1 - quantile + slack
    below = scores[scores < limit]
    assert len(below) == 0 or (scores <= below.max()).mean() < quantile + slack


def test_a_threshold_of_nothing_is_refused() -> None:
    for scores, quantile in [([], 0.5), ([1.0, math.nan], 0.5), ([1.0], 1.5), ([1.0], -0.1), ([1.0], math.nan)]:
        with pytest.raises(ValueError, match=r"quantile must lie|no scores"):
            threshold(np.array(scores), quantile)


# ---------------------------------------------------------------------------------------------------------------- AUROC


@given(SEEDS, st.integers(1, 30), st.integers(1, 30), st.integers(1, 12))
def test_auroc_is_scikit_learns_with_any_ties(seed: int, ordinary: int, anomalous: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat([False, True], [ordinary, anomalous]))
    scores = rng.integers(0, levels, len(truth)) / 7
    # theirs adds up at most 60 trapezoids, of shares with two roundings each; ours divides whole and half numbers
    assert_within(auroc(scores, truth), roc_auc_score(truth, scores), 4 * 60 * EPS)
    assert_within(auroc(-scores, truth), 1 - auroc(scores, truth), 2 * EPS)
    assert auroc(np.exp(scores), truth) == auroc(scores, truth)  # only the order counts


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    scores, truth = np.array([1.0, 2, 2, 3, math.inf]), np.array([0, 0, 1, 1, 0])
    assert auroc(scores, truth) == (1 + 0.5 + 0 + 1 + 1 + 0) / 6


def test_auroc_needs_both_kinds() -> None:
    for scores, truth in [([1.0, 2], [1, 1]), ([1.0, 2], [0, 0]), ([], []), ([1.0, math.nan], [0, 1]), ([1.0], [0, 1])]:
        with pytest.raises(ValueError, match=r"one of each|NaN|\(rows,\) both"):
            auroc(np.array(scores), np.array(truth))


# -------------------------------------------------------------------------------------- a low score is not a likely row


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "run"
    options = ["--data", "digits", "--likelihood", "gaussian", "--epochs", "10", "--backend", "numpy"]
    assert run("train", *options, "--kernels", "numpy", "--no-figures", "--quiet", "--out", folder) == 0
    return folder


@pytest.mark.filterwarnings("ignore:.*scores cannot be trusted")  # of some rows of noise, and that is no wonder
@pytest.mark.parametrize("method", sampled(METHODS, 2))
def test_digits_made_simpler_score_as_likelier_than_the_digits_of_the_data(digits: Path, method: str) -> None:
    """Nalisnick et al. 2019, at home: blurred digits are no data of this model, yet it finds nearly all likelier."""
    model, data = tinyvae.load(digits), tinyvae.load_data("digits")
    own = data.values(data.x_test)
    rng = np.random.default_rng(0)
    sets = {"simpler": blurred(own, (8, 8)), "dimmed": 0.75 * own, "noise": rng.uniform(size=own.shape)}
    own_scores = anomaly_scores(model, own, rng, method)
    areas = {}
    for name, x in sets.items():
        scores = anomaly_scores(model, x, rng, method)
        truth = np.repeat([False, True], [len(own), len(x)])
        areas[name] = auroc(np.concatenate([own_scores, scores]), truth)
    assert areas["simpler"] < 0.1
    assert areas["dimmed"] < 0.3
    assert areas["noise"] > 0.99  # what is more complex than the data is found out


# --------------------------------------------------------------------------------------------------------- planted bugs


def without_kl(self: tinyvae.VAE, x: np.ndarray, eps: np.ndarray, y: None = None) -> tuple[np.ndarray, np.ndarray]:
    nll, kl = TRUE_ROWS_LOSS(self, x, eps, y)
    return nll, 0 * kl


def with_the_mean_of_kl(self: tinyvae.VAE, x: np.ndarray, eps: np.ndarray, y: None = None) -> tuple:
    nll, kl = TRUE_ROWS_LOSS(self, x, eps, y)
    return nll, kl / LATENT


TRUE_ROWS_LOSS = tinyvae.VAE.rows_loss
BUGS = {
    "the KL is forgotten": (tinyvae.VAE, "rows_loss", without_kl, test_the_mean_of_the_draws_is_minus_the_elbo),
    "the mean of the KL, not its sum": (
        tinyvae.VAE, "rows_loss", with_the_mean_of_kl, test_the_mean_of_the_draws_is_minus_the_elbo,
    ),
    "the likelihood score has the wrong sign": (
        anomalies, "log_likelihood",
        lambda *a, **k: (found := TRUE_LOG_LIKELIHOOD(*a, **k))._replace(log_p=-found.log_p),
        test_many_samples_bring_the_likelihood_score_to_minus_log_p,
    ),
    "ties are ranked by their place": (
        np, "unique", lambda a, **k: (None, np.argsort(np.argsort(a, kind="stable")), np.ones(len(a), dtype=int)),
        test_auroc_is_the_share_of_pairs_in_the_right_order,
    ),
    "z is always the mean": (
        gaussian, "reparameterize_forward", lambda mu, logvar, eps: mu,
        test_one_sample_is_enough_where_q_is_the_posterior,
    ),
}  # fmt: skip
TRUE_LOG_LIKELIHOOD = anomalies.log_likelihood


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, name, wrong, killer = BUGS[bug]
    killer()
    monkeypatch.setattr(target, name, wrong)
    with pytest.raises(AssertionError):
        killer()
