"""Independent columns, beside SciPy's maximum likelihood of each."""

import math
from typing import Any

import numpy as np
import pytest
from planted import Plant, assert_killed, instead
from scipy import optimize, special, stats

from tinyvae.likelihoods import likelihood
from tinyvae.model import baseline
from tinyvae.model.baseline import ROWS, independent_nll

N = 300


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def real() -> np.ndarray:
    return rng().normal([3, -40, 0.5, 0], [2, 0.1, 30, 1], (N, 4))


def counts() -> np.ndarray:
    return np.concatenate([rng().poisson([0.3, 5, 200], (N, 3)), rng().negative_binomial(2, 0.2, (N, 2))], axis=1) * 1.0


def bits() -> np.ndarray:
    return (rng().random((N, 4)) < [0.1, 0.5, 0.99, 0.3]) * 1.0


def one_hot() -> np.ndarray:
    return np.concatenate(
        [np.eye(2)[rng().integers(0, 2, N)], np.eye(3)[rng().choice(3, N, p=[0.2, 0.7, 0.1])]], axis=1
    )


def gaussian(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    return -stats.norm.logpdf(x, *stats.norm.fit(known))


def laplace(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    return -stats.laplace.logpdf(x, *stats.laplace.fit(known))


def poisson(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    return -stats.poisson.logpmf(x, known.mean())


def bernoulli(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    return -stats.bernoulli.logpmf(x, known.mean())


def negative_binomial(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    mean = known.mean()  # the maximum likelihood's, whatever r is
    nll = lambda log_r, x: -stats.nbinom.logpmf(x, math.exp(log_r), math.exp(log_r) / (math.exp(log_r) + mean))
    found = optimize.minimize_scalar(lambda s: nll(s, known).sum(), bounds=(-15, 15), method="bounded")
    return nll(found.x, x)


def categorical(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    return -(special.xlogy(x, known.mean(axis=0))).sum(axis=1)


EACH: dict[str, tuple[Any, Any, list[slice | int]]] = {  # rows, the oracle, and what it is of
    "gaussian": (real, gaussian, [0, 1, 2, 3]),
    "gaussian:sigma=columns": (real, gaussian, [0, 1, 2, 3]),
    "gaussian:sigma=predicted": (real, gaussian, [0, 1, 2, 3]),
    "laplace": (real, laplace, [0, 1, 2, 3]),
    "poisson": (counts, poisson, [0, 1, 2, 3, 4]),
    "negative-binomial": (counts, negative_binomial, [0, 1, 2, 3, 4]),
    "bernoulli": (bits, bernoulli, [0, 1, 2, 3]),
    "categorical:groups=2+3": (one_hot, categorical, [slice(0, 2), slice(2, 5)]),
}


def off_by(name: str) -> float:
    """How far the mean -log p may lie from the best, in nats for a row. A start has half a count, or one, more than was
    seen (see `Likelihood.start`): of N rows, sum_j (1 / 2 + 1)^2 / (2 N mean_j) at most; a search ends at 1e-9."""
    x = EACH[name][0]()
    started = likelihood(name).start(x) is not None
    return 1e-6 + (1.5**2 / (2 * N * np.maximum(x.mean(axis=0), 1 / N))).sum() / N * started


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("gaps", [False, True])
def test_each_column_has_the_distribution_of_maximum_likelihood(name: str, gaps: bool) -> None:
    beside_scipy(name, gaps)


def beside_scipy(name: str, gaps: bool = False) -> None:
    make, oracle, columns = EACH[name]
    x = make()
    if gaps:
        for i, of in enumerate(columns):
            x[np.random.default_rng(1 + i).random(N) < 0.2, of] = np.nan
    want = np.zeros(N)
    for of in columns:
        own = x[:, of]
        seen = ~np.isnan(own.reshape(N, -1)).any(axis=1)
        want[seen] += oracle(own[seen], own[seen])
    found = independent_nll(likelihood(name), x, x)
    assert found.shape == (N,)
    assert -1e-9 <= found.mean() - want.mean() <= off_by(name), (found.mean(), want.mean())


def test_gaussian_columns_have_their_closed_form() -> None:
    x = real()
    want = (np.log(2 * np.pi * np.e * x.var(axis=0)) / 2).sum()
    assert independent_nll(likelihood("gaussian"), x, x).mean() == pytest.approx(want, abs=1e-9)


def test_other_rows_are_judged_by_what_was_learned() -> None:
    x = real()
    known, others = x[:200], x[200:]
    want = sum(gaussian(others[:, j], known[:, j]) for j in range(4))
    np.testing.assert_allclose(independent_nll(likelihood("gaussian"), known, others), want, rtol=1e-6)


def test_mixed_columns_have_the_sum_of_their_members() -> None:
    mixed = likelihood("mixed:columns=gaussian*4+negative-binomial*5+bernoulli*4+categorical:groups=2*2+laplace")
    parts = [("gaussian", real()), ("negative-binomial", counts()), ("bernoulli", bits())]
    parts += [("categorical:groups=2", one_hot()[:, :2]), ("laplace", real())]
    x = np.concatenate([own for _, own in parts], axis=1)
    x[rng().random(N) < 0.2, 3] = np.nan
    parts[0] = ("gaussian", x[:, :4])
    want = sum(independent_nll(likelihood(name), own, own) for name, own in parts)
    np.testing.assert_allclose(independent_nll(mixed, x, x), want, rtol=1e-12)
    assert [(of.stop - of.start) for _, of in mixed.members(x.shape[1])] == [4, 5, 4, 2, 4]


def test_a_likelihood_of_one_kind_is_its_own_member() -> None:
    of = likelihood("poisson")
    assert of.members(7) == [(of, slice(0, 7))]


def test_few_of_many_rows_are_learned_from_but_all_are_judged() -> None:
    x = np.random.default_rng(0).standard_normal((4 * ROWS, 2))
    found = independent_nll(likelihood("gaussian"), x, x)
    want = np.log(2 * np.pi * np.e * x.var(axis=0)).sum() / 2
    assert len(found) == len(x)
    assert 0 < found.mean() - want < 3 * 4 / (2 * ROWS)  # about half a nat over ROWS for each of 4 numbers


def test_columns_that_nobody_saw_or_that_never_change_are_no_accident() -> None:
    x = real()
    x[:, 0], x[:, 1] = np.nan, 7.0
    found = independent_nll(likelihood("gaussian"), x, x)
    assert not np.isnan(found).any()
    assert found.mean() < 0  # a constant column's density is as high as it is looked for


def halfway(f: Any, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return (low + high) / 2


PLANTED: dict[str, Plant] = {
    "no search": instead(baseline, "_lowest", halfway),
    "a section that is not golden": instead(baseline, "GOLDEN", 0.9),
    "few steps": instead(baseline, "STEPS", 5),
    "the wrong way": instead(
        baseline, "_lowest", lambda f, low, high, right=baseline._lowest: right(lambda x: -f(x), low, high)
    ),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_die(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    assert_killed(monkeypatch, PLANTED[bug], lambda: beside_scipy("laplace"))
