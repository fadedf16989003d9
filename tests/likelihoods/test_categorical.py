"""Categorical, by SciPy's log-softmax and multinomial distribution."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from strategies import SEEDS, ULP, assert_within, eps_of

import tinyvae
from tinyvae import likelihoods, parts
from tinyvae.backend import get_backend
from tinyvae.checking.agreement import usable_kernels
from tinyvae.checking.likelihoods import check_likelihood
from tinyvae.formula import exp, formula
from tinyvae.kernels import select
from tinyvae.likelihoods import categorical
from tinyvae.likelihoods.categorical import Categorical
from tinyvae.loop import Loop

GROUPS = (3, 4, 2)
OF = Categorical("3+4+2")
KERNELS = pytest.mark.parametrize("kernels", usable_kernels())


@pytest.mark.parametrize("groups", ["2", "3+1+4"])  # the contract test has the default
def test_all_groups_keep_the_contract(groups: str) -> None:
    check_likelihood(Categorical(groups))


def one_hot(rng: np.random.Generator, rows: int, groups: tuple[int, ...] = GROUPS) -> np.ndarray:
    return np.concatenate([np.eye(n)[rng.integers(0, n, rows)] for n in groups], axis=1)


def by_scipy(x: np.ndarray, logits: np.ndarray, groups: tuple[int, ...] = GROUPS) -> np.ndarray:
    """log p of each row: SciPy's multinomial of one trial, whose probabilities are softmaxes; (rows,)."""
    at, total = 0, np.zeros(len(x))
    for n in groups:
        part = slice(at, at + n)
        total += (x[:, part] * special.log_softmax(logits[:, part], axis=1)).sum(axis=1)
        at += n
    return total


def test_the_oracle_is_scipys_multinomial() -> None:
    rng = np.random.default_rng(0)
    x, logits = one_hot(rng, 5, (4,)), rng.standard_normal((5, 4))
    assert_within(by_scipy(x, logits, (4,)), stats.multinomial.logpmf(x, 1, special.softmax(logits, axis=1)), 1e-12)


def holds(of: Categorical = OF) -> None:
    """Loss and slope of logits up to 1e4, which no e^ may see, on all kernels.

    Both are differences of logits, with some roundings of each; a share of a softmax has those of exp.
    """
    rng = np.random.default_rng(1)
    x = one_hot(rng, 60)
    logits = (rng.standard_normal((60, 9)) * np.logspace(-3, 4, 60)[:, None]).astype("f4")
    wide = logits.astype(float)
    p = np.concatenate([special.softmax(part, axis=1) for part in np.split(wide, [3, 7], axis=1)], axis=1)
    for kernels in usable_kernels():
        for dtype in ("float32", "float64"):
            k = select(kernels, get_backend("numpy"), dtype)[1]()
            k.begin("test")
            nll, slope = of.slope(k, {}, logits.astype(dtype), x.astype(dtype))
            off = (16 + 4 * ULP) * eps_of(dtype)
            assert_within(nll, -by_scipy(x, wide), off * (1 + np.abs(wide).sum(axis=1)))
            assert_within(slope, p - x, 2 * off)


def test_log_p_and_slope_are_scipys() -> None:
    holds()


@given(SEEDS, st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_the_probabilities_of_all_rows_add_to_1(seed: int, widths: list[int]) -> None:
    """By enumeration."""
    groups, of = tuple(widths), Categorical("+".join(map(str, widths)))
    every = np.stack(np.meshgrid(*map(np.arange, groups)), axis=-1).reshape(-1, len(groups))
    x = np.concatenate([np.eye(n)[every[:, i]] for i, n in enumerate(groups)], axis=1)
    logits = np.random.default_rng(seed).standard_normal((1, sum(groups)))
    log_p = of.log_p_of_pairs({}, logits, x)[:, 0]
    assert_within(np.exp(log_p).sum(), 1, 1e-12)
    assert_within(of.mean({}, logits)[0], (np.exp(log_p)[:, None] * x).sum(axis=0), 1e-12)


def test_draws_are_one_hot_as_often_as_the_softmax_says() -> None:
    logits = np.tile(np.log([[0.2, 0.5, 0.3, 0.1, 0.2, 0.3, 0.4, 0.9, 0.1]]), (40_000, 1))
    x = OF.draw({}, logits, np.random.default_rng(2))
    OF.check_rows(x)
    for part in np.split(np.arange(9), [3, 7]):
        expected = len(x) * special.softmax(logits[0, part])
        assert stats.chisquare(x[:, part].sum(axis=0), expected).pvalue > 1e-3


@KERNELS
def test_a_group_with_one_number_missing_is_missing(kernels: str) -> None:
    rng = np.random.default_rng(3)
    x, logits = one_hot(rng, 4), rng.standard_normal((4, 9))
    holes = x.copy()
    holes[0, 1] = holes[1, 3:7] = holes[2] = np.nan
    k = select(kernels, get_backend("numpy"), "float64")[1]()
    k.begin("test")
    nll, slope = (np.array(a) for a in OF.slope(k, {}, logits, holes, True))
    seen = np.ones((4, 9), bool)
    seen[0, :3] = seen[1, 3:7] = seen[2] = False
    assert np.array_equal(OF.observed(holes), seen)
    assert_within(nll, -by_scipy(np.where(seen, x, 0), logits), 1e-12)
    assert not slope[~seen].any()
    assert np.array_equal(OF.encoded(k, holes, True), np.where(seen, x, 0))
    _, whole = OF.slope(k, {}, logits, x)
    assert np.array_equal(slope[seen], np.array(whole)[seen])


def test_it_starts_at_the_logarithms_of_frequencies() -> None:
    x = np.array([[1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 0, np.nan], [np.nan, 0, 0, 1]])
    start = Categorical("3+1").start(x)
    assert_within(start, np.log([2.5 / 4.5, 1.5 / 4.5, 0.5 / 4.5, 3.5 / 3.5]), 1e-12)


# ------------------------------------------------------------------------------------------------- groups, and the data


@pytest.mark.parametrize("groups", ["3+", "a", "0", "3+-1", "2*3", "1.5"])
def test_what_are_no_groups_is_refused(groups: str) -> None:
    with pytest.raises(ValueError, match=r"groups must be widths with \+ between them, as in 3\+4\+2"):
        Categorical(groups)


@pytest.mark.parametrize(("groups", "data"), [("3+4", 8), ("3", 8)])
def test_groups_that_are_not_the_columns_are_refused(groups: str, data: int) -> None:
    with pytest.raises(ValueError, match=f"do not make the {data} columns of the data"):
        tinyvae.VAE(data, likelihood=f"categorical:groups={groups}")


def test_groups_in_words() -> None:
    assert Categorical().widths(7) == (7,)
    assert Categorical("10").widths(30) == (10, 10, 10)
    assert OF.widths(9) == GROUPS
    assert parts.text_of(OF) == "categorical:groups=3+4+2"
    assert likelihoods.likelihood("categorical:groups=3+4+2") == OF


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ([1, 0, 0, 1, 0, 0, 0, 1, 1], r"columns 7 to 8 of row 1 are 1, 1, but .* needs one 1 among 0s"),
        ([0, 0, 0, 1, 0, 0, 0, 1, 0], r"columns 0 to 2 of row 1 are 0, 0, 0, but"),
        ([1, 0, 0, 0.5, 0.5, 0, 0, 1, 0], r"columns 3 to 6 of row 1 are 0.5, 0.5, 0, 0, but"),
    ],
)
def test_what_is_not_one_hot_is_refused_with_its_place(row: list[float], line: str) -> None:
    x = np.array([[1, 0, 0, 0, 1, 0, 0, 0, 1], row], dtype=float)
    with pytest.raises(ValueError, match=line) as raised:
        OF.check_rows(x)
    assert "\n" not in str(raised.value)
    x[1] = np.nan
    OF.check_rows(x)


def test_codes_are_refused_with_how_they_become_columns() -> None:
    with pytest.raises(ValueError, match=r"one-hot columns .*: x = np.eye\(n\)\[codes\]"):
        Categorical().check(0, 9, True)
    assert Categorical.bytes == "codes"


# -------------------------------------------------------------------------------------------------------- planted bugs


def test_overflow_and_a_softmax_over_the_whole_row_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as m, np.errstate(all="ignore"):
        above = formula(lambda logits, largest: exp(logits) + 0 * largest)
        m.setattr(categorical, "SHARE", Loop([above]))
        with pytest.raises(AssertionError):
            holds()

    @dataclass(frozen=True)
    class OverAll(Categorical):
        def widths(self, data_dim: int) -> Any:
            return (data_dim,)

    with pytest.raises(AssertionError, match="off by"):
        holds(OverAll("3+4+2"))


@formula
def uphill(dnll, share, total, x):
    return dnll * (x - share / total)


@dataclass(frozen=True)
class Dependent(Categorical):
    """Each column a coin of its own."""

    def draw(self, p: Any, output: Any, rng: Any) -> Any:
        return (rng.random(output.shape) < self.mean(p, output)).astype(output.dtype)


@dataclass(frozen=True)
class Multinomial(Categorical):
    """p for p (1 - p)."""

    replayed: ClassVar = True

    def information(self, p: Any, output: Any) -> Any:
        return self.mean(p, output)


def test_a_wrong_slope_draw_or_information_breaks_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    for planted, line in ((Dependent(), "check refuses what draw drew"), (Multinomial(), "the information of")):
        with pytest.raises(AssertionError, match=line):
            check_likelihood(planted)
    monkeypatch.setitem(categorical.BOTH, False, Loop([uphill], [categorical.categorical_nll]))
    with pytest.raises(AssertionError, match="slope by the output"):
        check_likelihood(Categorical())
