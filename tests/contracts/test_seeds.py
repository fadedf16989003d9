"""Wherever a function takes a generator, a whole number is its seed; anything else gets one clear line."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyvae
from tinyvae.backend import as_generator
from tinyvae.uses import augmentation, classifier, features, masks, two_sample

RNG = np.random.default_rng(0)
X, Y, Z = RNG.uniform(0, 1, (12, 6)), np.arange(12) % 3, RNG.standard_normal((12, 2))
MODEL = tinyvae.VAE(6, (4,), 2, dtype="float64")
LABELLED = tinyvae.VAE(6, (4,), 2, classes=3, dtype="float64")

TAKERS: dict[str, Callable[[Any], Any]] = {
    "sample": lambda rng: MODEL.sample(3, rng),
    "sample, drawn": lambda rng: MODEL.sample(3, rng, mean=False),
    "draw": lambda rng: MODEL.draw(Z, rng),
    "log_likelihood": lambda rng: tinyvae.log_likelihood(MODEL, X, 3, rng).log_p,
    "anomaly_scores": lambda rng: tinyvae.anomaly_scores(MODEL, X, rng),
    "anomaly_scores, likelihood": lambda rng: tinyvae.anomaly_scores(MODEL, X, rng, "likelihood", 3),
    "fill_in": lambda rng: tinyvae.fill_in(MODEL, X, X > 0.5, X.mean(axis=0), rng, 2, 2).draw,
    "denoise": lambda rng: tinyvae.denoise(MODEL, X, rng, 3),
    "compare_features": lambda rng: repr(features.compare_features(MODEL, X, Y, X, Y, rng)),
    "fit_softmax": lambda rng: classifier.fit_softmax(X, Y, rng, batch_size=4, steps=5).W,
    "permutation_test": lambda rng: two_sample.permutation_test(X[:6], X[6:], rng, 20).p_value,
    "balanced_rows": lambda rng: augmentation.balanced_rows(Y, 6, rng),
    "generated_rows": lambda rng: augmentation.generated_rows(LABELLED, np.arange(3), 2, rng)[0],
    "augment": lambda rng: repr(augmentation.augment(LABELLED, X, Y, X, Y, 6, 2, 2, rng)),
    "Mask.observed": lambda rng: masks.parse_mask("random:0.5").observed(4, 6, None, rng),
    "add_noise": lambda rng: masks.add_noise(X, X.std(axis=0), rng)[0],
}
QUICK = [name for name in TAKERS if name not in ("compare_features", "augment")]  # these train classifiers
EACH = pytest.mark.parametrize("taker", TAKERS.values(), ids=TAKERS)


@pytest.mark.parametrize("name", QUICK)
def test_a_whole_number_is_the_seed_of_a_new_generator(name: str) -> None:
    taker = TAKERS[name]
    expected = np.asarray(taker(np.random.default_rng(5)))
    for seed in (5, np.int64(5), np.uint8(5)):
        np.testing.assert_array_equal(np.asarray(taker(seed)), expected)
        np.testing.assert_array_equal(np.asarray(taker(seed)), expected)  # and again


@pytest.mark.parametrize("name", [n for n in QUICK if n != "permutation_test"])
def test_another_seed_draws_other_numbers(name: str) -> None:
    assert (np.asarray(TAKERS[name](5)) != np.asarray(TAKERS[name](6))).any()


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "None": (None, TypeError, "not None"),
    "RandomState": (np.random.RandomState(0), TypeError, "not RandomState"),
    "the module": (np.random, TypeError, "not the module numpy.random"),
    "Python's": (random, TypeError, "not the module random"),
    "a float": (3.0, TypeError, "not 3.0"),
    "a truth value": (True, TypeError, "not True"),
    "NumPy's truth value": (np.True_, TypeError, "not np.True_"),
    "text": ("0", TypeError, "not '0'"),
    "a list": ([1, 2], TypeError, r"not \[1, 2\]"),
    "a bit generator": (np.random.PCG64(0), TypeError, "not .*PCG64"),
    "negative": (-1, ValueError, "rng must be at least 0 where it is a seed, not -1"),
    "negative, NumPy's": (np.int8(-3), ValueError, "rng must be at least 0 where it is a seed, not -3"),
}


@EACH
@pytest.mark.parametrize("wrong", ["None", "the module", "negative"])
def test_anything_else_is_refused_everywhere(taker: Callable[[Any], Any], wrong: str) -> None:
    rng, kind, words = WRONG[wrong]
    with pytest.raises(kind, match=words):
        taker(rng)


@pytest.mark.parametrize("wrong", WRONG)
def test_the_line_says_what_is_taken(wrong: str) -> None:
    rng, kind, words = WRONG[wrong]
    with pytest.raises(kind, match=words) as raised:
        as_generator(rng)
    assert "\n" not in str(raised.value)
    if kind is TypeError:
        assert "rng must be a numpy.random.Generator, or a whole number as its seed" in str(raised.value)


def test_a_generator_is_used_as_it_is_and_goes_on() -> None:
    rng, twin = np.random.default_rng(1), np.random.default_rng(1)
    assert as_generator(rng) is rng
    first, second = MODEL.sample(2, rng), MODEL.sample(2, rng)
    assert (first != second).any()
    np.testing.assert_array_equal(np.concatenate([first, second]), MODEL.sample(4, twin))


def test_seeds_of_any_size() -> None:
    assert as_generator(2**200).random() == np.random.default_rng(2**200).random()


@pytest.mark.parametrize("n", [0, -1, 2.5, True, None, "3", np.float64(2.0)])
def test_the_number_of_samples_is_a_whole_number_and_at_least_1(n: Any) -> None:
    with pytest.raises(ValueError, match="n must be a whole number, at least 1, not"):
        MODEL.sample(n, 0)
    two: Any = np.int32(2)
    assert MODEL.sample(two, 0).shape == (2, 6)


COUNTS: dict[str, Callable[[Any], Any]] = {
    "samples": lambda n: tinyvae.log_likelihood(MODEL, X, n, 0),
    "samples of scores": lambda n: tinyvae.anomaly_scores(MODEL, X, 0, samples=n),
    "draws": lambda n: tinyvae.denoise(MODEL, X, 0, n),
    "steps": lambda n: tinyvae.fill_in(MODEL, X, X > 0.5, X[0], 0, n, 1),
    "chains": lambda n: tinyvae.fill_in(MODEL, X, X > 0.5, X[0], 0, 1, n),
    "permutations": lambda n: two_sample.permutation_test(X, X, 0, n),
    "steps of a path": lambda n: tinyvae.interpolate(Z[0], Z[1], n),
}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("n", [0, -2, 1.5, None, True])
def test_so_are_the_numbers_of_draws_and_steps(name: str, n: Any) -> None:
    with pytest.raises(ValueError, match=f"{name.split()[0]} must be a whole number, at least 1, not {n}"):
        COUNTS[name](n)


@pytest.mark.parametrize("shape", [(2, 3, 2), (2, 1, 6), (2, 1, 2, 3)])
def test_images_are_not_taken_for_rows_and_the_line_says_what_to_do(shape: tuple[int, ...]) -> None:
    x = np.zeros(shape)
    calls = [
        lambda: tinyvae.embed(MODEL, x), lambda: MODEL.encode(x), lambda: MODEL.rows_loss(x, Z[:2]),
        lambda: tinyvae.log_likelihood(MODEL, x, 2, 0), lambda: tinyvae.anomaly_scores(MODEL, x, 0),
        lambda: tinyvae.denoise(MODEL, x, 0), lambda: tinyvae.fill_in(MODEL, x, x > 0, np.zeros(6), 0),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match=r"x must have shape \(rows, 6\).*x.reshape\(len\(x\), -1\) makes rows"):
            call()
