"""The energy distance and its permutation test: properties, SciPy as an oracle, and bugs that these would notice."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SEEDS, eps_of, normals, sampled

from tinyvae.uses import two_sample
from tinyvae.uses.two_sample import energy_distance, permutation_test

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4))  # n, m, data


def round_off(*samples: np.ndarray) -> float:
    """Of an energy distance: its three means of |a - b| <= 2 max |a| have about as many roundings as there are rows.

    |a - b| itself costs data + 3 roundings of at most eps/2 max |a| sqrt(data) each.
    """
    rows, width = sum(map(len, samples)), samples[0].shape[1]
    largest = max(float(np.abs(s).max()) for s in samples) * math.sqrt(width)
    return 4 * (rows + width + 3) * eps_of("float64") * 2 * largest


# --------------------------------------------------------------------------------------------------------- the distance


@given(SEEDS, SIZES)
def test_it_is_zero_for_a_sample_and_itself_in_any_order(seed: int, sizes: tuple[int, int, int]) -> None:
    (x,) = normals(seed, (sizes[0], sizes[2]))
    assert energy_distance(x, x[::-1]) <= round_off(x, x)


@given(SEEDS, SIZES)
def test_it_is_symmetric_and_never_negative(seed: int, sizes: tuple[int, int, int]) -> None:
    n, m, width = sizes
    x, y = normals(seed, (n, width), (m, width))
    assert energy_distance(x, y) >= 0
    assert abs(energy_distance(x, y) - energy_distance(y, x)) <= round_off(x, y)


@given(SEEDS, SIZES, st.floats(-100, 100))
def test_moving_and_turning_both_samples_changes_nothing(seed: int, sizes: tuple[int, int, int], shift: float) -> None:
    n, m, width = sizes
    x, y, g = normals(seed, (n, width), (m, width), (width, width))
    turn = np.linalg.qr(g)[0]  # (data, data), orthogonal
    moved = energy_distance(x @ turn + shift, y @ turn + shift)
    assert abs(moved - energy_distance(x, y)) <= 2 * round_off(x @ turn + shift, y @ turn + shift)


@given(SEEDS, SIZES, st.floats(0.01, 100))
def test_it_scales_with_the_data(seed: int, sizes: tuple[int, int, int], scale: float) -> None:
    n, m, width = sizes
    x, y = normals(seed, (n, width), (m, width))
    assert abs(energy_distance(scale * x, scale * y) - scale * energy_distance(x, y)) <= 2 * scale * round_off(x, y)


@given(SEEDS, st.integers(1, 12), st.integers(1, 12))
def test_in_one_dimension_it_is_the_square_of_scipys(seed: int, n: int, m: int) -> None:
    x, y = normals(seed, (n, 1), (m, 1))
    y += 0.5
    theirs = scipy.stats.energy_distance(x.ravel(), y.ravel()) ** 2  # SciPy integrates (F - G)^2, and takes the root
    assert abs(energy_distance(x, y) - theirs) <= 2 * round_off(x, y)


def test_two_points_in_the_plane_are_twice_their_distance_apart() -> None:
    assert energy_distance(np.array([[1.0, 2.0]]), np.array([[4.0, 6.0]])) == 10.0  # 2 |x - y| - 0 - 0


@settings(max_examples=20)
@given(SEEDS, SIZES)
def test_repeating_every_row_of_a_sample_changes_nothing(seed: int, sizes: tuple[int, int, int]) -> None:
    n, m, width = sizes
    x, y = normals(seed, (n, width), (m, width))
    assert abs(energy_distance(np.repeat(x, 3, axis=0), y) - energy_distance(x, y)) <= round_off(x, x, x, y)


def test_between_large_samples_it_approaches_what_is_known() -> None:
    # N(0, 1) and N(d, 1): E|X - Y| is that of a normal number of mean d and variance 2, and E|X - X'| = 2 / sqrt(pi).
    d, n = 0.7, 800
    x, y = normals(0, (n, 1), (n, 1))
    folded = math.sqrt(2) * math.sqrt(2 / math.pi) * math.exp(-(d**2) / 4) + d * math.erf(d / 2)
    expected = 2 * folded - 4 / math.sqrt(math.pi)
    # A mean over n rows of numbers with a standard deviation below 1, three times: 5 standard errors
    assert abs(energy_distance(x, y + d) - expected) < 5 * 3 / math.sqrt(n) * d
    assert energy_distance(x, y) < 10 / n  # of one distribution, D n is of the order of E|X - X'|


# ------------------------------------------------------------------------------------------------------------- the test


def p_values(shift: float, repeats: int = 200, rows: int = 20) -> np.ndarray:
    rng = np.random.default_rng(7)
    return np.array([
        permutation_test(rng.standard_normal((rows, 2)), rng.standard_normal((rows, 2)) + shift, rng, 99).p_value
        for _ in range(repeats)
    ])  # fmt: skip


def test_p_values_are_uniform_where_both_samples_have_one_distribution() -> None:
    found = p_values(0.0)
    # Multiples of 1/100, each equally likely: a uniform number of (p - 1/100, p] is uniform on (0, 1).
    smooth = found - np.random.default_rng(0).random(len(found)) / 100
    assert scipy.stats.kstest(smooth, "uniform").pvalue > 0.01


def test_p_values_are_small_where_the_samples_differ() -> None:
    assert (p_values(1.0, repeats=40) <= 0.05).mean() > 0.9


def test_p_values_find_another_spread_too() -> None:
    x, y = normals(3, (100, 2), (100, 2))
    assert permutation_test(x, 3 * y, np.random.default_rng(0), 199).p_value == 1 / 200


def test_the_p_value_of_all_splits_of_few_rows_is_the_exact_one() -> None:
    # {0, 1} against {10, 11}: of the 6 splits 2 are as far apart as this one, {0, 1} | {10, 11} and its mirror image.
    x, y = np.array([[0.0], [1.0]]), np.array([[10.0], [11.0]])
    permutations = 5000
    p = permutation_test(x, y, np.random.default_rng(0), permutations).p_value
    assert abs(p - 1 / 3) < 5 * math.sqrt(1 / 3 * 2 / 3 / permutations)  # 5 standard errors


def test_alike_splits_count_as_alike_despite_round_off() -> None:
    x = np.full((3, 2), 0.1)
    assert permutation_test(x, x, np.random.default_rng(0), 50) == (0.0, 1.0)


def test_it_is_the_same_every_time_and_tells_how_far_it_is() -> None:
    x, y = normals(0, (9, 2), (7, 2))
    told: list[int] = []
    first = permutation_test(x, y, np.random.default_rng(1), 120, told.append)
    assert first == permutation_test(x, y, np.random.default_rng(1), 120)
    assert first.distance == energy_distance(x, y)
    assert told == [50, 100, 120]


@pytest.mark.parametrize(
    ("x", "y"),
    [(np.zeros((3, 2)), np.zeros((3, 1))), (np.zeros(3), np.zeros(3)), (np.zeros((0, 2)), np.zeros((3, 2)))],
)
def test_samples_of_other_shapes_are_refused(x: np.ndarray, y: np.ndarray) -> None:
    with pytest.raises(ValueError, match="two samples of one width are needed"):
        energy_distance(x, y)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        permutation_test(np.zeros((3, 2)), np.array([[0.0, bad]]), np.random.default_rng(0))


def test_no_permutations_are_no_test() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        permutation_test(np.zeros((3, 2)), np.zeros((3, 2)), np.random.default_rng(0), 0)


# ---------------------------------------------------------------------------------------------------------- the picture


def test_the_overlay_is_a_picture_and_only_of_the_plane(tmp_path: Path) -> None:
    x, y = normals(0, (30, 2), (20, 2))
    two_sample.save_overlay(tmp_path / "a.png", x, y)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match="points of the plane"):
        two_sample.save_overlay(tmp_path / "b.png", x[:, :1], y[:, :1])
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


# --------------------------------------------------------------------------------------------------------- planted bugs


def squared_distances(rows: np.ndarray) -> np.ndarray:
    return np.square(rows[:, None] - rows[None]).sum(axis=2)


def city_block(rows: np.ndarray) -> np.ndarray:
    return np.abs(rows[:, None] - rows[None]).sum(axis=2)


def unequal_weights(n: int, m: int) -> np.ndarray:
    return np.concatenate([np.full(n, 1 / n), np.full(m, -1 / n)])


def half_weights(n: int, m: int) -> np.ndarray:
    return np.concatenate([np.full(n, 0.5 / n), np.full(m, -1 / m)])


def at(test: Any, *arguments: Any) -> Callable[[], None]:
    """A property at one point: a search for the smallest counterexample would take long."""
    return lambda: test.hypothesis.inner_test(*arguments)


MOVED = at(test_moving_and_turning_both_samples_changes_nothing, 0, (5, 4, 3), 2.0)
SYMMETRIC = at(test_it_is_symmetric_and_never_negative, 0, (5, 4, 3))
ORACLE = at(test_in_one_dimension_it_is_the_square_of_scipys, 0, 5, 4)

BUGS: list[tuple[str, str, Callable[..., Any], Callable[[], None]]] = [
    ("squares, not lengths", "_distances", squared_distances, ORACLE),
    ("city-block lengths", "_distances", city_block, MOVED),
    ("one size for both samples", "_weights", unequal_weights, SYMMETRIC),
    ("a factor forgotten", "_weights", half_weights, ORACLE),
]


@pytest.mark.parametrize(
    ("name", "target", "wrong", "killer"), sampled(BUGS, 3, several=True), ids=[bug[0] for bug in BUGS]
)
def test_a_planted_bug_is_noticed(
    name: str, target: str, wrong: Any, killer: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_sample, target, wrong)
    with pytest.raises(AssertionError):
        killer()


@pytest.mark.parametrize("killer", [MOVED, SYMMETRIC, ORACLE])
def test_the_killers_pass_without_a_bug(killer: Callable[[], None]) -> None:
    killer()
