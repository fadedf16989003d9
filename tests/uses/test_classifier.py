"""The hand-written classifiers: finite differences, properties, oracles that do not know them, and planted bugs.

Oracles: SciPy's optimizer on a loss written with logsumexp, its distances, and a vote counted row by row.
scikit-learn's own classifiers, where it is installed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import logsumexp
from strategies import SEEDS, ULP, assert_within, eps_of, numbers, sampled, sizes

import tinyvae
from tinyvae.training.data import load_digits
from tinyvae.uses import classifier
from tinyvae.uses.classifier import (
    accuracy,
    cross_entropy_backward,
    cross_entropy_forward,
    fit_softmax,
    knn_predict,
    log_softmax,
    nearest_neighbours,
)

EPS = eps_of("float64")


def problem(seed: int, rows: int, features: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x (rows, features), y (rows,), W (features, classes), b (classes,)."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((rows, features)), rng.integers(0, classes, rows)
    return x, y, rng.standard_normal((features, classes)), rng.standard_normal(classes)


def blobs(seed: int, rows: int = 90, features: int = 4, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clouds, every class there."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    return rng.standard_normal((rows, features)) + rng.standard_normal((classes, features))[y], y


# ------------------------------------------------------------------------------------------------ loss and its gradient


@given(SEEDS, sizes(3), numbers(0, 2))
def test_the_gradient_is_the_slope_of_the_loss(seed: int, shape: tuple[int, ...], l2: float) -> None:
    x, y, W, b = problem(seed, *shape)
    _, log_p = cross_entropy_forward(x, y, W, b, l2)
    dW, db = classifier.cross_entropy_backward(x, y, W, log_p, l2)

    def terms() -> np.ndarray:
        log_p = classifier.log_softmax(x @ W + b)
        return np.concatenate([-log_p[np.arange(len(y)), y] / len(y), (0.5 * l2 * W * W).ravel()])

    report = tinyvae.gradcheck(terms, {"W": W, "b": b}, {"W": dW, "b": db})
    assert report, report


@given(SEEDS, sizes(3), numbers(0, 2))
def test_the_loss_is_that_of_logsumexp(seed: int, shape: tuple[int, ...], l2: float) -> None:
    x, y, W, b = problem(seed, *shape)
    loss, log_p = classifier.cross_entropy_forward(x, y, W, b, l2)
    a = x @ W + b
    expected = np.mean([logsumexp(a[n]) - a[n, y[n]] for n in range(len(y))]) + l2 / 2 * np.linalg.norm(W) ** 2
    # a few roundings of terms no larger than the logits, on either side
    size = np.abs(a).max() + shape[2] + l2 * (W**2).sum()
    assert_within(loss, expected, (shape[0] + W.size + 4 * ULP) * EPS * size)
    assert_within(log_p, scipy_log_softmax(a, axis=1), (shape[2] + 4 * ULP) * EPS * (np.abs(a).max() + shape[2]))


@given(SEEDS, sizes(2), numbers(-50, 50))
def test_adding_a_number_to_all_logits_of_a_row_changes_nothing(
    seed: int, shape: tuple[int, ...], shift: float
) -> None:
    a = 5 * np.random.default_rng(seed).standard_normal(shape)
    log_p = classifier.log_softmax(a)
    assert_within(classifier.log_softmax(a + shift), log_p, 8 * EPS * (np.abs(a).max() + abs(shift) + 1))
    assert_within(np.exp(log_p).sum(axis=1), np.ones(shape[0]), (shape[1] + 2 * ULP) * EPS * (1 + np.abs(log_p).max()))


@given(SEEDS, sizes(3))
def test_classes_may_be_numbered_in_any_order(seed: int, shape: tuple[int, ...]) -> None:
    x, y, W, b = problem(seed, *shape)
    order = np.random.default_rng(seed).permutation(shape[2])  # new class c is the old class order[c]
    loss, log_p = cross_entropy_forward(x, y, W, b, 0.3)
    dW, db = cross_entropy_backward(x, y, W, log_p, 0.3)
    y2, W2, b2 = np.argsort(order)[y], W[:, order], b[order]
    loss2, log_p2 = cross_entropy_forward(x, y2, W2, b2, 0.3)
    dW2, db2 = cross_entropy_backward(x, y2, W2, log_p2, 0.3)
    bound = 100 * EPS * (1 + np.abs(x).max() * np.abs(W).sum() + (W**2).sum() + np.abs(b).max())
    for found, expected in [(loss2, loss), (log_p2, log_p[:, order]), (dW2, dW[:, order]), (db2, db[order])]:
        assert_within(found, expected, bound * (1 + np.abs(x).sum()))


@pytest.mark.parametrize("size", [1e4, 1e150, 8e307])
def test_huge_logits_stay_finite(size: float) -> None:
    a = np.array([[size, -size, 0.0], [-size, -size, -size], [0.0, size, size]])
    log_p = classifier.log_softmax(a / 2)
    assert np.isfinite(log_p).all()
    assert_within(np.exp(log_p), [[1, 0, 0], [1 / 3] * 3, [0, 0.5, 0.5]], 4 * ULP * EPS)


# -------------------------------------------------------------------------------------------------------------- fitting


def optimum(x: np.ndarray, y: np.ndarray, l2: float) -> tuple[float, np.ndarray]:
    """The least loss there is and log p at it, by SciPy's BFGS on standardized x."""
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    classes = int(y.max()) + 1

    def loss(flat: np.ndarray) -> float:
        W, b = flat[classes:].reshape(-1, classes), flat[:classes]
        a = x @ W + b
        return float((logsumexp(a, axis=1) - a[np.arange(len(y)), y]).mean() + l2 / 2 * (W * W).sum())

    found = minimize(loss, np.zeros(classes * (1 + x.shape[1])), method="BFGS", options={"gtol": 1e-6})
    W, b = found.x[classes:].reshape(-1, classes), found.x[:classes]
    return found.fun, scipy_log_softmax(x @ W + b, axis=1)


@pytest.mark.parametrize("seed", [0, 1])
def test_fitting_ends_at_the_one_best_loss(seed: int) -> None:
    x, y = blobs(seed)
    x = x * [1e-3, 1, 1, 1e4] + [0, 5, 0, -1e6]  # standardized inside: scales and offsets do not matter
    best, log_p = optimum(x, y, 0.01)
    fitted = fit_softmax(x, y, np.random.default_rng(0), l2=0.01)
    z = (x - fitted.mean) / fitted.scale
    loss, _ = cross_entropy_forward(z, y, fitted.W, fitted.b, 0.01)
    # BFGS stops at a slope of 1e-6, so at most about (1e-6)^2 / 2 / (l2 = 0.01) = 5e-11 above the least loss; Adam's
    # last steps are shorter than lr / 2000 < 1e-4, and a loss is flat at its least
    assert -5e-11 < loss - best < 1e-8
    assert_within(fitted.predict_log_proba(x), log_p, 1e-3)


def test_fitting_is_scikit_learns() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is only an oracle")
    digits = load_digits()
    assert digits.y_train is not None
    x, y = digits.values(digits.x_train[:300]), digits.y_train[:300]
    fitted = fit_softmax(x, y, np.random.default_rng(0), l2=0.01, batch_size=300, steps=500)
    z = (x - fitted.mean) / fitted.scale
    theirs = linear_model.LogisticRegression(C=1 / (0.01 * len(x)), tol=1e-8, max_iter=2000).fit(z, y)
    assert_within(fitted.predict_log_proba(x), theirs.predict_log_proba(z), 1e-2)
    assert_within(fitted.W, theirs.coef_.T - theirs.coef_.T.mean(axis=1, keepdims=True), 1e-2)


def test_batches_learn_the_digits_and_the_generator_decides_their_order() -> None:
    d = load_digits()
    assert d.y_train is not None
    assert d.y_test is not None
    x, x_test = d.values(d.x_train), d.values(d.x_test)
    first, again, other = (fit_softmax(x, d.y_train, np.random.default_rng(s), batch_size=64) for s in (0, 0, 1))
    assert first.accuracy(x_test, d.y_test) > 0.94  # logistic regression is known to get about 0.96 here
    assert np.array_equal(first.W, again.W)
    assert not np.array_equal(first.W, other.W)
    whole = fit_softmax(x[:64], d.y_train[:64], np.random.default_rng(0), batch_size=64, steps=20)
    same = fit_softmax(x[:64], d.y_train[:64], np.random.default_rng(1), batch_size=64, steps=20)
    assert np.array_equal(whole.W, same.W)  # all rows in each step: nothing is random


def test_constant_columns_do_no_harm_and_weigh_nothing() -> None:
    x, y = blobs(0)
    with_constants = np.column_stack([x, np.full(len(x), 0.1), np.full(len(x), 1e15 / 7), np.zeros(len(x))])
    plain, fitted = (fit_softmax(a, y, np.random.default_rng(0), l2=0.01) for a in (x, with_constants))
    assert np.array_equal(fitted.scale[4:], [1, 1, 1])
    assert_within(fitted.W[:4], plain.W, 1e-6)  # both have converged: see above
    assert not fitted.W[4:].any()
    assert np.isfinite(fitted.predict_log_proba(with_constants + 1)).all()


def test_labels_may_be_any_whole_numbers() -> None:
    x, y = blobs(0)
    names = np.array([-7, 40, 41], dtype=np.int16)
    fitted = fit_softmax(x, names[y], np.random.default_rng(0), steps=300)
    plain = fit_softmax(x, y, np.random.default_rng(0), steps=300)
    assert np.array_equal(fitted.labels, names)
    assert np.array_equal(fitted.predict(x), names[plain.predict(x)])
    assert fitted.accuracy(x, names[y]) == plain.accuracy(x, y) > 0.6
    assert fitted.accuracy(x, np.full(len(x), 5)) == 0  # never seen in fitting
    assert fit_softmax(x, np.full(len(x), 3), np.random.default_rng(0), steps=3).accuracy(x, np.full(len(x), 3)) == 1


def test_without_standardizing_only_the_mean_is_taken_off() -> None:
    x, y = blobs(1)
    fitted = fit_softmax(x * 3 + 2, y, np.random.default_rng(0), steps=50, standardize=False)
    assert np.array_equal(fitted.scale, np.ones(4))
    assert_within(fitted.mean, (x * 3 + 2).mean(axis=0), 90 * EPS * 20)


@pytest.mark.parametrize(
    ("x", "y", "what"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "at least one row"),
        (np.zeros(3), np.zeros(3, int), "shape"),
        (np.zeros((3, 2)), np.zeros(2, int), "3 whole numbers"),
        (np.zeros((3, 2)), np.zeros(3), "whole numbers"),
        (np.full((3, 2), np.nan), np.zeros(3, int), "NaN"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: np.ndarray, y: np.ndarray, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        fit_softmax(x, y, np.random.default_rng(0))


def test_rows_of_another_width_are_refused() -> None:
    x, y = blobs(0)
    fitted = fit_softmax(x, y, np.random.default_rng(0), steps=2)
    with pytest.raises(ValueError, match=r"\(rows, 4\)"):
        fitted.predict(x[:, :3])
    with pytest.raises(ValueError, match=r"\(rows, 4\)"):
        nearest_neighbours(x, x[:, :3], 1)
    with pytest.raises(ValueError, match="in pairs"):
        fitted.accuracy(x, y[1:])


# ----------------------------------------------------------------------------------------------------------- neighbours


@given(SEEDS, sizes(3, high=12), st.integers(1, 12), numbers(-1e6, 1e6))
def test_neighbours_are_the_nearest_by_scipys_distances(
    seed: int, shape: tuple[int, ...], k: int, offset: float
) -> None:
    rows, train_rows, features = shape
    k = min(k, train_rows)
    rng = np.random.default_rng(seed)
    x_train, x = rng.standard_normal((train_rows, features)) + offset, rng.standard_normal((rows, features)) + offset
    x[0] = x_train[-1]  # a row that is there: its distance is 0, however far the data lie from the origin
    which, d2 = classifier.nearest_neighbours(x_train, x, k)
    truth = cdist(x, x_train, "sqeuclidean")
    assert np.array_equal(which, np.argsort(truth, axis=1, kind="stable")[:, :k])
    assert_within(d2, np.sort(truth, axis=1)[:, :k], 2 * (features + 2) * EPS * d2)
    assert d2[0, 0] == 0


@given(SEEDS, st.integers(1, 30), st.integers(1, 6))
def test_of_rows_at_the_same_distance_the_first_is_taken(seed: int, rows: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    x_train = rng.integers(-1, 2, (max(rows, k), 2)).astype(float)  # whole numbers: many ties, all of them exact
    x = rng.integers(-1, 2, (5, 2)) + np.array([0.0, 0.5])
    which, _ = classifier.nearest_neighbours(x_train, x, k)
    for n in range(5):
        d2 = ((x_train - x[n]) ** 2).sum(axis=1)
        assert which[n].tolist() == sorted(range(len(x_train)), key=lambda i: (d2[i], i))[:k]


def test_neighbours_that_the_product_expansion_cannot_tell_apart_are_found() -> None:
    rng = np.random.default_rng(0)
    far = np.vstack([np.full((1, 3), 1e8), np.full((1, 3), -1e8)])  # they make the expansion's round-off large
    close = 1e-3 * rng.standard_normal((400, 3))
    x_train = np.vstack([close + 1e7, far])
    x = 1e7 + 1e-3 * rng.standard_normal((300, 3))  # more than one chunk
    which, _ = classifier.nearest_neighbours(x_train, x, 3)
    truth = cdist(x, x_train, "sqeuclidean")
    assert np.array_equal(which, np.argsort(truth, axis=1, kind="stable")[:, :3])


@given(SEEDS, st.integers(1, 25), st.integers(1, 25), st.integers(1, 4))
def test_the_vote_counted_one_by_one(seed: int, rows: int, k: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    x_train, y_train = rng.standard_normal((max(rows, k), 2)), rng.integers(0, classes, max(rows, k)) * 3 - 4
    x = rng.standard_normal((4, 2))
    predicted = classifier.knn_predict(x_train, y_train, x, k)
    for n in range(4):
        near = y_train[np.argsort(cdist(x[n : n + 1], x_train)[0], kind="stable")[:k]].tolist()
        most = max(near.count(label) for label in near)
        assert predicted[n] == next(label for label in near if near.count(label) == most)


@given(SEEDS, st.integers(1, 9))
def test_the_vote_knows_no_order_of_labels(seed: int, k: int) -> None:
    x, y = blobs(seed, rows=30)
    names = np.random.default_rng(seed).permutation(50)[:3]
    test = np.random.default_rng(seed).standard_normal((20, 4))
    assert np.array_equal(names[classifier.knn_predict(x, y, test, k)], classifier.knn_predict(x, names[y], test, k))


def test_the_vote_is_scikit_learns_where_it_is_not_tied() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors", reason="scikit-learn is only an oracle")
    d = load_digits()
    assert d.y_train is not None
    x, test = d.values(d.x_train), d.values(d.x_test)
    theirs = neighbors.KNeighborsClassifier(5, algorithm="brute").fit(x, d.y_train)
    mine = knn_predict(x, d.y_train, test, 5)
    votes = np.sort(theirs.predict_proba(test), axis=1)
    clear = votes[:, -1] > votes[:, -2]
    assert clear.mean() > 0.95
    assert np.array_equal(mine[clear], theirs.predict(test)[clear])
    assert accuracy(mine, d.y_test) > 0.97  # type: ignore[arg-type]  # the digits have labels


@pytest.mark.parametrize("k", [0, 4, -1])
def test_no_more_neighbours_than_rows(k: int) -> None:
    with pytest.raises(ValueError, match="k must lie between 1 and the number of training rows, 3"):
        nearest_neighbours(np.zeros((3, 2)), np.zeros((1, 2)), k)
    with pytest.raises(ValueError, match="3 labels"):
        knn_predict(np.zeros((3, 2)), np.zeros(4), np.zeros((1, 2)), 1)


# --------------------------------------------------------------------------------------------------------- planted bugs


def unshifted(a: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return a - np.log(np.exp(a).sum(axis=1, keepdims=True))


def without_penalty(x: Any, y: Any, W: Any, log_p: Any, l2: float) -> Any:
    return cross_entropy_backward(x, y, W, log_p, 0.0)


def summed(x: Any, y: Any, W: Any, log_p: Any, l2: float) -> Any:
    dW, db = cross_entropy_backward(x, y, W, log_p, l2)
    return len(y) * dW, len(y) * db


def short_bias(x: Any, y: Any, W: Any, log_p: Any, l2: float) -> Any:
    dW, db = cross_entropy_backward(x, y, W, log_p, l2)
    return dW, db * 0.99


def penalized_bias(x: Any, y: Any, W: Any, b: Any, l2: float) -> Any:
    loss, log_p = cross_entropy_forward(x, y, W, b, l2)
    return loss + 0.5 * l2 * (b * b).sum(), log_p


def over_rows(a: np.ndarray) -> np.ndarray:
    return log_softmax(a.T).T


def by_the_expansion_alone(x_train: Any, x: Any, k: int) -> Any:
    d2 = (x**2).sum(axis=1)[:, None] - 2 * x @ x_train.T + (x_train**2).sum(axis=1)
    which = np.argsort(d2, axis=1, kind="stable")[:, :k]
    return which, np.take_along_axis(d2, which, axis=1)


def last_of_equals(x_train: Any, x: Any, k: int) -> Any:
    which, d2 = nearest_neighbours(x_train[::-1], x, k)
    return len(x_train) - 1 - which, d2


def smallest_label_of_equals(x_train: Any, y_train: Any, x: Any, k: int = 5) -> Any:
    which, _ = nearest_neighbours(x_train, x, k)
    return np.array([np.bincount(row + 4).argmax() - 4 for row in np.asarray(y_train)[which]])


BUGS: list[tuple[str, Callable[..., Any], Callable[..., None], tuple[Any, ...]]] = [
    ("log_softmax", unshifted, test_huge_logits_stay_finite, (1e4,)),
    ("log_softmax", over_rows, test_the_loss_is_that_of_logsumexp, (0, (4, 3, 2), 0.5)),
    ("cross_entropy_backward", without_penalty, test_the_gradient_is_the_slope_of_the_loss, (0, (4, 3, 2), 0.5)),
    ("cross_entropy_backward", summed, test_the_gradient_is_the_slope_of_the_loss, (0, (4, 3, 2), 0.5)),
    ("cross_entropy_backward", short_bias, test_the_gradient_is_the_slope_of_the_loss, (0, (4, 3, 2), 0.5)),
    ("cross_entropy_backward", without_penalty, test_fitting_ends_at_the_one_best_loss, (0,)),
    ("cross_entropy_forward", penalized_bias, test_the_loss_is_that_of_logsumexp, (0, (4, 3, 2), 0.5)),
    ("_moments", lambda x: (x.mean(axis=0), np.maximum(x.std(axis=0), 1e-300)),
     test_constant_columns_do_no_harm_and_weigh_nothing, ()),
    ("_moments", lambda x: (x.mean(axis=0), np.where(np.ptp(x, axis=0) == 0, 1, x.std(axis=0))),
     test_constant_columns_do_no_harm_and_weigh_nothing, ()),
    ("nearest_neighbours", by_the_expansion_alone,
     test_neighbours_that_the_product_expansion_cannot_tell_apart_are_found, ()),
    ("nearest_neighbours", last_of_equals, test_of_rows_at_the_same_distance_the_first_is_taken, (0, 20, 3)),
    ("knn_predict", smallest_label_of_equals, test_the_vote_counted_one_by_one, (0, 25, 2, 4)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wrong", "killer", "arguments"), sampled(BUGS, 3, several=True), ids=lambda v: getattr(v, "__name__", "")
)
def test_the_named_test_fails_under_a_planted_bug(
    name: str, wrong: Any, killer: Any, arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    test = killer.hypothesis.inner_test if hasattr(killer, "hypothesis") else killer
    test(*arguments)
    monkeypatch.setattr(classifier, name, wrong)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        test(*arguments)
