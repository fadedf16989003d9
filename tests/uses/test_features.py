"""PCA, posterior means, and what classifiers make of them: NumPy's SVD, SciPy's distances and planted bugs."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from strategies import SEEDS, assert_within, eps_of, numbers, sampled

from tinyvae import VAE
from tinyvae.training.config import Config
from tinyvae.training.data import load_digits
from tinyvae.uses import features
from tinyvae.uses.classifier import fit_softmax
from tinyvae.uses.features import PCA, FeatureScore, compare_features, embed, fit_pca, run_rows

EPS = eps_of("float64")
quickly = partial(fit_softmax, steps=200)  # what is compared here is who gets which rows


@pytest.fixture(autouse=True)
def quick_classifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "fit_softmax", quickly)


def cloud(seed: int, rows: int, data: int) -> np.ndarray:
    """Points whose deviations along skew axes are clearly apart, so that each component is one direction."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((data, data)))[0]
    return (rng.standard_normal((rows, data)) * 2.0 ** -np.arange(data)) @ axes


# ------------------------------------------------------------------------------------------------------------------ PCA


@given(SEEDS, st.integers(2, 40), st.integers(1, 5), numbers(-100, 100))
def test_pca_is_the_singular_vectors_of_the_centred_rows(seed: int, rows: int, data: int, offset: float) -> None:
    x = cloud(seed, rows, data) + offset
    pca = features.fit_pca(x, data)
    _, s, vt = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    # eigh is backward stable: errors of a few data * eps times the largest eigenvalue; the mean adds those of offset
    bound = 50 * data * rows * EPS * (1 + abs(offset)) * (1 + s[0] ** 2)
    assert_within(pca.variances[: len(s)] * (rows - 1), s**2, bound)
    assert_within(pca.components @ pca.components.T, np.eye(data), 50 * data * EPS)
    gaps = np.abs(np.diff(np.append(s, 0) ** 2))  # an eigenvector is as sharp as its eigenvalue is far from the others
    for j in range(min(len(s), data)):
        gap = min([gaps[j], *gaps[max(j - 1, 0) : j]])
        if gap > 1e3 * bound and s[j] ** 2 > 1e3 * bound:
            assert abs(abs(pca.components[j] @ vt[j]) - 1) < 1e-2
            assert pca.components[j, np.abs(pca.components[j]).argmax()] > 0


@given(SEEDS, st.integers(3, 30), st.integers(2, 6))
def test_there_and_back(seed: int, rows: int, data: int) -> None:
    x = cloud(seed, rows, data) + 3
    whole = features.fit_pca(x, data)
    bound = 200 * data * EPS * np.abs(x).max()
    assert_within(whole.inverse(whole.transform(x)), x, bound)
    assert_within(whole.transform(x).mean(axis=0), np.zeros(data), 10 * rows * bound)
    size = data // 2
    pca = features.fit_pca(x, size)
    t = pca.transform(x)  # (rows, size)
    assert_within(pca.transform(pca.inverse(t)), t, bound)
    lost = ((pca.inverse(t) - x) ** 2).sum()
    assert_within(lost, whole.variances[size:].sum() * (rows - 1), rows * bound * np.abs(x).max())
    plane = np.linalg.qr(np.random.default_rng(seed).standard_normal((data, size)))[0]  # any other plane loses more
    other = x.mean(axis=0) + (x - x.mean(axis=0)) @ plane @ plane.T
    assert lost <= ((other - x) ** 2).sum() + rows * bound * np.abs(x).max()


def test_pca_is_scikit_learns() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition", reason="scikit-learn is only an oracle")
    digits = load_digits()
    x = digits.values(digits.x_train)
    mine, theirs = fit_pca(x, 5), decomposition.PCA(5, svd_solver="full").fit(x)
    assert_within(mine.variances, theirs.explained_variance_, 1e-12)
    signs = np.sign((mine.components * theirs.components_).sum(axis=1))
    assert_within(mine.components, signs[:, None] * theirs.components_, 1e-10)  # the closest variances differ by 0.05
    assert_within(mine.transform(x), signs * theirs.transform(x), 1e-9)


@pytest.mark.parametrize(("shape", "size"), [((1, 3), 1), ((4, 3), 0), ((4, 3), 4), ((4,), 1)])
def test_impossible_components_are_refused(shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(ValueError, match="PCA needs two rows or more"):
        fit_pca(np.zeros(shape), size)


# ------------------------------------------------------------------------------------------------ the model's own view


def test_embed_gives_the_means_of_q() -> None:
    model, x = VAE(6, (5,), 3, seed=1), np.random.default_rng(0).random((7, 6))
    h = np.maximum(x @ model.params["encoder.0.weight"] + model.params["encoder.0.bias"], 0)
    head = h @ model.params["encoder.1.weight"] + model.params["encoder.1.bias"]
    assert_within(features.embed(model, x), head[:, :3], 30 * eps_of("float32") * np.abs(head).max())


def test_embed_gives_the_labels_to_a_conditional_model() -> None:
    model, x = VAE(6, (5,), 3, classes=4, seed=1), np.random.default_rng(0).random((7, 6))
    zeros, ones = np.zeros(7, int), np.ones(7, int)
    assert not np.array_equal(embed(model, x, zeros), embed(model, x, ones))
    with pytest.raises(ValueError, match="conditional"):
        embed(model, x)


def test_the_rows_of_a_run_are_as_it_saw_them() -> None:
    digits = load_digits()
    grey = features.run_rows(digits, "test", Config())
    assert grey.dtype == np.float32
    assert np.array_equal(grey, digits.x_test / np.float32(16))
    drawn, again, other = (
        features.run_rows(digits, "test", Config(binarize="dynamic", seed=seed)) for seed in (0, 0, 1)
    )
    assert set(np.unique(drawn)) == {0, 1}
    assert np.array_equal(drawn, again)
    assert not np.array_equal(drawn, other)
    assert np.array_equal(drawn[grey == 0], grey[grey == 0])
    assert np.array_equal(drawn[grey == 1], grey[grey == 1])
    p = grey[(grey > 0) & (grey < 1)].astype(float)
    surprise = (drawn[(grey > 0) & (grey < 1)] - p).sum() / np.sqrt((p * (1 - p)).sum())
    assert abs(surprise) < 5  # standard deviations
    train = features.run_rows(digits, "train", Config(binarize="dynamic"))[: len(drawn)]
    assert not np.array_equal(train[:50] != digits.x_train[:50] / 16, drawn[:50] != grey[:50])


# ----------------------------------------------------------------------------------------------------------- comparing


def labelled(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in [0, 1] whose label is in the first two of five columns."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows)
    x = rng.random((rows, 5)) * [0.5, 0.5, 1, 1, 1]
    x[:, 0] += 0.4 * (y == 1)
    x[:, 1] += 0.4 * (y == 2)
    return x, y


def scores_of(model: VAE, neighbours: int = 5) -> list[FeatureScore]:
    return features.compare_features(model, *labelled(0, 80), *labelled(1, 60), np.random.default_rng(0), neighbours)


def test_each_kind_of_features_is_scored_on_the_rows_that_were_not_learned_from() -> None:
    model, (x_train, y_train), (x, y) = VAE(5, (4,), 2, seed=3), labelled(0, 80), labelled(1, 60)
    kinds = {"posterior means": (embed(model, x_train), embed(model, x)), "the data itself": (x_train, x)}
    _, _, vt = np.linalg.svd(x_train - x_train.mean(axis=0), full_matrices=False)
    kinds["PCA"] = (x_train @ vt[:2].T, x @ vt[:2].T)
    scores = scores_of(model, neighbours=1)
    assert [(s.features, s.size, s.rows) for s in scores] == [
        ("posterior means", 2, 60), ("the data itself", 5, 60), ("PCA", 2, 60)
    ]  # fmt: skip
    for score in scores:
        train, test = kinds[score.features]
        nearest = cdist(test, train).argmin(axis=1)
        assert score.knn == (y_train[nearest] == y).mean()
        softmax = quickly(train, y_train, np.random.default_rng(9))  # 80 rows: no batch is drawn
        assert abs(score.softmax - softmax.accuracy(test, y)) < 1e-9
    assert scores[1].softmax > scores[2].softmax  # PCA keeps the columns that vary, and the label is in others


def test_a_conditional_encoder_is_given_the_labels_and_nobody_else_is() -> None:
    model = VAE(5, (4,), 2, classes=3, activation="tanh", seed=3)
    model.params["encoder.0.weight"][5:] *= 3  # the labels' part
    (x_train, y_train), (x, y) = labelled(0, 80), labelled(1, 60)
    stages: list[str] = []
    found = compare_features(model, x_train, y_train, x, y, np.random.default_rng(0), progress=stages.append)
    means = embed(model, x_train, y_train), embed(model, x, y)  # they repeat the labels
    assert found[0].softmax == quickly(means[0], y_train, np.random.default_rng(0)).accuracy(means[1], y) > 0.95
    assert [replace(s, rows=60) for s in found[1:]] == scores_of(VAE(5, (4,), 2, seed=3))[1:]
    assert len(stages) == 9


def test_a_latent_space_wider_than_the_data_meets_all_components() -> None:
    scores = scores_of(VAE(5, (4,), 7, seed=3))
    assert [s.size for s in scores] == [7, 5, 5]
    assert scores[1].knn == scores[2].knn  # a rotation


def test_the_standard_error_of_a_share() -> None:
    score = FeatureScore("PCA", 2, 0.5, 0.9, 400)
    assert_within([score.standard_error(0.5), score.standard_error(0.9)], [0.025, 0.015], 1e-15)


# --------------------------------------------------------------------------------------------------------- planted bugs


def uncentred(x: np.ndarray, size: int) -> PCA:
    values, vectors = np.linalg.eigh(x.T @ x / (len(x) - 1))
    return PCA(x.mean(axis=0), vectors[:, ::-1][:, :size].T, values[::-1][:size])


def smallest_first(x: np.ndarray, size: int) -> PCA:
    pca = fit_pca(x, x.shape[1])
    return PCA(pca.mean, pca.components[::-1][:size], pca.variances[::-1][:size])


def over_all_rows(x: np.ndarray, size: int) -> PCA:
    pca = fit_pca(x, size)
    return PCA(pca.mean, pca.components, pca.variances * (len(x) - 1) / len(x))


def log_variances(model: VAE, x: Any, y: Any = None) -> np.ndarray:
    return model.encode(x, y)[1]


def without_labels(model: VAE, x: Any, y: Any = None) -> np.ndarray:
    return embed(model, x, None if y is None else np.zeros_like(y))


def inverted(dataset: Any, part: str, config: Any) -> np.ndarray:
    x = run_rows(dataset, part, config)
    return 1 - x if config.binarize == "dynamic" else x


def that_knows_the_answers(model: Any, x_train: Any, y_train: Any, x: Any, y: Any, *rest: Any, **more: Any) -> Any:
    return compare_features(model, x, y, x, y, *rest, **more)


BUGS: list[tuple[str, Callable[..., Any], Callable[..., None], tuple[Any, ...]]] = [
    ("fit_pca", uncentred, test_pca_is_the_singular_vectors_of_the_centred_rows, (0, 20, 3, 5.0)),
    ("fit_pca", over_all_rows, test_pca_is_the_singular_vectors_of_the_centred_rows, (0, 20, 3, 5.0)),
    ("fit_pca", smallest_first, test_there_and_back, (0, 20, 4)),
    ("embed", log_variances, test_embed_gives_the_means_of_q, ()),
    ("embed", without_labels, test_a_conditional_encoder_is_given_the_labels_and_nobody_else_is, ()),
    ("run_rows", inverted, test_the_rows_of_a_run_are_as_it_saw_them, ()),
    ("compare_features", that_knows_the_answers,
     test_each_kind_of_features_is_scored_on_the_rows_that_were_not_learned_from, ()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wrong", "killer", "arguments"), sampled(BUGS, 3, several=True), ids=lambda v: getattr(v, "__name__", "")
)
def test_the_named_test_fails_under_a_planted_bug(
    name: str, wrong: Any, killer: Any, arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    test = killer.hypothesis.inner_test if hasattr(killer, "hypothesis") else killer
    test(*arguments)
    monkeypatch.setattr(features, name, wrong)
    with pytest.raises(AssertionError):
        test(*arguments)
