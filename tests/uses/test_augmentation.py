"""Generated rows beside few labelled ones: who may see what, and that the numbers say so, good or bad."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import sem
from strategies import SEEDS, assert_within, sampled

from tinyvae import VAE
from tinyvae.errors import NonFiniteError
from tinyvae.likelihoods.gaussian import Gaussian
from tinyvae.likelihoods.laplace import Laplace
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.training.config import Config
from tinyvae.training.data import load_digits
from tinyvae.uses import augmentation
from tinyvae.uses.augmentation import Gain, Mean, augment, balanced_rows, generated_rows, train_on
from tinyvae.uses.features import run_rows

DIGITS = load_digits()
X, X_TEST = (run_rows(DIGITS, part, Config()) for part in ("train", "test"))
Y, Y_TEST = np.asarray(DIGITS.y_train), np.asarray(DIGITS.y_test)


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "STEPS", 40)
    monkeypatch.setattr(augmentation, "CLASSIFIER_STEPS", 60)


def model_of(seed: int = 0, classes: int = 10) -> VAE:
    return VAE(64, (8,), 2, classes=classes, seed=seed)


def gain_of(model: VAE, labels: int = 20, repeats: int = 2, **options: Any) -> Gain:
    rng = np.random.default_rng(1)
    return augmentation.augment(model, X, Y, X_TEST, Y_TEST, labels, 5, repeats, rng, **options)


# ---------------------------------------------------------------------------------------------------------------- parts


@given(SEEDS, st.integers(1, 5), st.integers(1, 30))
def test_rows_are_drawn_once_and_of_each_class_alike(seed: int, classes: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(classes) * 7 - 3, 30))
    n = max(n, classes)
    chosen = augmentation.balanced_rows(y, n, np.random.default_rng(seed))
    assert len(set(chosen.tolist())) == len(chosen) == n
    counts = np.unique(y[chosen], return_counts=True)[1]
    assert len(counts) == classes
    assert counts.max() - counts.min() <= 1
    assert np.array_equal(chosen, augmentation.balanced_rows(y, n, np.random.default_rng(seed)))


def test_the_rest_goes_to_classes_by_chance() -> None:
    y = np.repeat([0, 1, 2], 9)
    more = {np.bincount(y[balanced_rows(y, 4, np.random.default_rng(seed))]).argmax() for seed in range(40)}
    assert more == {0, 1, 2}  # one is left out in 3 (2/3)^40 < 1e-6 of all seeds


@pytest.mark.parametrize(
    ("n", "words"), [(2, "2 rows cannot hold all 3"), (0, "0 rows"), (9, "9 rows need 3 of class 2")]
)
def test_rows_that_cannot_be_drawn_are_refused(n: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        balanced_rows(np.array([0, 0, 0, 1, 1, 1, 2, 2]), n, np.random.default_rng(0))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_standard_error_is_scipys(values: list[float]) -> None:
    mean = augmentation.Mean.of(values)
    assert_within([mean.value, mean.standard_error], [np.mean(values), sem(values)], 1e-12)


def test_one_repetition_has_no_standard_error() -> None:
    assert np.isnan(Mean.of([0.5]).standard_error)


def test_generated_rows_are_samples_of_the_class_that_they_are_labelled_with() -> None:
    model = model_of()
    model.params["decoder.0.weight"][2:] *= 10  # the labels' part: each class its own picture
    x, y = augmentation.generated_rows(model, np.array([3, 5, 6]), 4, np.random.default_rng(0))
    assert y.tolist() == [3, 3, 3, 3, 5, 5, 5, 5, 6, 6, 6, 6]
    z = np.random.default_rng(0).standard_normal((12, 2))
    assert np.array_equal(x, model.decode(z, y))
    drawn, _ = generated_rows(model, np.array([3, 5, 6]), 4, np.random.default_rng(0), mean=False)
    assert set(np.unique(drawn)) == {0, 1}


def test_a_vae_of_its_own_learns_its_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "STEPS", 300)
    like, few = model_of(), balanced_rows(Y, 30, np.random.default_rng(0))
    model = train_on(like, X[few], Y[few], np.random.default_rng(0))
    assert (model.architecture.classes, model.architecture.latent_dim) == (10, 2)
    eps = np.zeros((30, 2))
    before, after = (m.loss(X[few], eps, y=Y[few]).loss for m in (like, model))
    constant = -30 * np.log(0.5) * 64 / 30  # that of a decoder which knows nothing: 44.4 nats
    assert after < 0.75 * min(before, constant)
    again = train_on(like, X[few], Y[few], np.random.default_rng(0))
    assert np.array_equal(model.params.flat, again.params.flat)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("gaussian:sigma=fixed:0.3", Gaussian("fixed:0.3")), ("gaussian", Gaussian()), ("laplace", Laplace()),
        ("gaussian:sigma=predicted", Gaussian("learned")),
    ],
)  # fmt: skip
def test_the_likelihood_is_the_runs(named: str, expected: Likelihood) -> None:
    like = VAE(64, (8,), 2, classes=10, likelihood=named)
    assert train_on(like, X[:20], Y[:20], np.random.default_rng(0)).likelihood == expected


def test_divergence_has_a_name() -> None:
    like = VAE(64, (8,), 2, classes=10, likelihood="gaussian")
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match="trained on 20 rows alone diverged; scale"):
        train_on(like, X[:20] * np.float32(1e25), Y[:20], np.random.default_rng(0))


# ---------------------------------------------------------------------------------------------------------------- gains


def test_the_real_rows_are_the_same_whatever_is_generated() -> None:
    of_one, of_another, fair = gain_of(model_of(0)), gain_of(model_of(1)), gain_of(model_of(0), fair=True)
    assert of_one.real == of_another.real == fair.real
    assert len({of_one.generated, of_another.generated, fair.generated}) == 3
    assert gain_of(model_of(0)) == of_one


def test_the_fair_version_knows_nothing_but_the_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the run's model nor any row outside the draw can change its result."""
    seen: list[np.ndarray] = []
    choose = balanced_rows

    def watched(y: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        seen.append(choose(y, n, rng))
        return seen[-1]

    monkeypatch.setattr(augmentation, "balanced_rows", watched)
    fair = gain_of(model_of(0), repeats=1, fair=True)
    others = np.setdiff1d(np.arange(len(Y)), seen[0])
    x = X.copy()
    x[others] = np.random.default_rng(0).random((len(others), 64))
    rng = np.random.default_rng(1)
    again = augmentation.augment(model_of(5), x, Y, X_TEST, Y_TEST, 20, 5, 1, rng, fair=True)
    np.testing.assert_equal(again, fair)  # nan, the standard error of one, is nan


def test_good_rows_help_and_bad_rows_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    def perfect(model: VAE, classes: Any, per_class: int, rng: Any, mean: bool) -> tuple[np.ndarray, np.ndarray]:
        return X[:700], Y[:700]

    def mislabelled(model: VAE, classes: Any, per_class: int, rng: Any, mean: bool) -> tuple[np.ndarray, np.ndarray]:
        return X[:700], (Y[:700] + 1) % 10

    monkeypatch.setattr(augmentation, "generated_rows", perfect)
    good = gain_of(model_of(), repeats=3)
    monkeypatch.setattr(augmentation, "generated_rows", mislabelled)
    bad = gain_of(model_of(), repeats=3)
    assert good.generated.value > 0.85
    assert good.difference.value > 0.1
    assert bad.generated.value < 0.1
    assert bad.difference.value < -0.3
    for gain in (good, bad):
        assert_within(gain.difference.value, gain.both.value - gain.real.value, 1e-12)
        assert gain.real == good.real
        assert gain.labels == 20


def test_progress_is_told_of_each_repetition() -> None:
    ticks: list[None] = []
    gain_of(model_of(), repeats=3, progress=lambda: ticks.append(None))
    assert len(ticks) == 3


def test_a_model_that_knows_no_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="not conditional"):
        gain_of(model_of(classes=0))


# --------------------------------------------------------------------------------------------------------- planted bugs


def with_replacement(y: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    chosen = balanced_rows(y, n, rng)
    return np.sort(np.concatenate([chosen[:-1], chosen[:1]])) if n > len(np.unique(y)) else chosen


def unbalanced(y: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(len(y))[:n]


def in_turn(model: VAE, classes: np.ndarray, per_class: int, rng: Any, mean: bool = True) -> Any:
    x, _ = generated_rows(model, classes, per_class, rng, mean)
    return x, np.tile(classes, per_class)


def from_the_run(like: VAE, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> VAE:
    return like


def from_all_rows(model: VAE, x: np.ndarray, y: np.ndarray, *rest: Any, **more: Any) -> Gain:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augmentation, "train_on", lambda like, few, few_y, rng: train_on(like, x, y, rng))
        return augment(model, x, y, *rest, **more)


class Deviation(Mean):
    @classmethod
    def of(cls, values: list[float]) -> Mean:
        return Mean(float(np.mean(values)), float(np.std(values)))


def helps_always(*a: Any, **k: Any) -> Gain:
    gain = augment(*a, **k)
    return Gain(gain.labels, gain.real, gain.both, gain.generated, Mean(abs(gain.difference.value), 0.0))


BUGS: list[tuple[str, Any, Callable[..., None], tuple[Any, ...]]] = [
    ("balanced_rows", with_replacement, test_rows_are_drawn_once_and_of_each_class_alike, (0, 3, 20)),
    ("balanced_rows", unbalanced, test_rows_are_drawn_once_and_of_each_class_alike, (0, 3, 20)),
    ("generated_rows", in_turn, test_generated_rows_are_samples_of_the_class_that_they_are_labelled_with, ()),
    ("Mean", Deviation, test_the_standard_error_is_scipys, ([0.1, 0.5, 0.2],)),
    ("train_on", from_the_run, test_the_fair_version_knows_nothing_but_the_few_rows, (None,)),
    ("augment", from_all_rows, test_the_fair_version_knows_nothing_but_the_few_rows, (None,)),
    ("augment", helps_always, test_good_rows_help_and_bad_rows_harm, (None,)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wrong", "killer", "arguments"), sampled(BUGS, 3, several=True), ids=lambda v: getattr(v, "__name__", "")
)
def test_the_named_test_fails_under_a_planted_bug(
    name: str, wrong: Any, killer: Any, arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    test = killer.hypothesis.inner_test if hasattr(killer, "hypothesis") else killer
    monkeypatch.setattr(augmentation, name, wrong)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError):
        test(*(patch if argument is None else argument for argument in arguments))
