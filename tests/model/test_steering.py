"""Paths between two points, and every label for one z."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS, assert_within, eps_of, normals

import tinyvae
from tinyvae.model.steering import PATHS, every_label, interpolate

EPS = eps_of("float64")
PATH = st.sampled_from(PATHS)
LATENT = st.integers(1, 20)
STEPS = st.integers(2, 12)


def angles(points: np.ndarray) -> np.ndarray:
    """The angle from each point to the next, by atan2: accurate at 0 and at pi."""
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    return 2 * np.arctan2(
        np.linalg.norm(units[1:] - units[:-1], axis=1), np.linalg.norm(units[1:] + units[:-1], axis=1)
    )


@given(SEEDS, LATENT, STEPS, PATH)
def test_both_ends_are_hit_bit_for_bit(seed: int, latent: int, steps: int, path: str) -> None:
    a, b = normals(seed, (latent,), (latent,))
    points = interpolate(a, b, steps, path)
    assert points.shape == (steps, latent)
    np.testing.assert_array_equal(points[[0, -1]], [a, b])


@given(SEEDS, LATENT, STEPS, PATH)
def test_there_and_back_is_the_same_way(seed: int, latent: int, steps: int, path: str) -> None:
    a, b = normals(seed, (latent,), (latent,))
    # A rounding of t, or of the angle, counts as much as the sphere's shares are steep: 1 / sin(angle), at most 1e6.
    w = angles(np.stack([a, b]))[0]
    steep = 1 / max(np.sin(w), 1e-6) if path == "sphere" else 1
    bound = 100 * EPS * steep**2 * (np.linalg.norm(a) + np.linalg.norm(b))
    assert_within(interpolate(a, b, steps, path), interpolate(b, a, steps, path)[::-1], bound)


@given(SEEDS, st.integers(2, 20), STEPS)
def test_the_sphere_turns_evenly_and_its_length_goes_over_evenly(seed: int, latent: int, steps: int) -> None:
    a, b = normals(seed, (latent,), (latent,))
    points = interpolate(a, b, steps, "sphere")
    w = angles(np.stack([a, b]))[0]
    bound = 100 * EPS / np.sin(w) ** 2
    lengths = np.linspace(np.linalg.norm(a), np.linalg.norm(b), steps)
    assert_within(np.linalg.norm(points, axis=1), lengths, bound * lengths.max())
    assert_within(angles(points), np.full(steps - 1, w / (steps - 1)), 4 * bound)
    plane = np.linalg.svd(np.stack([a, b]), full_matrices=False)[2]  # (2, latent): the arc stays in it
    assert_within(points @ plane.T @ plane, points, bound * lengths.max())


@given(SEEDS, st.integers(2, 20))
def test_between_ends_of_one_length_every_point_of_the_sphere_has_that_length(seed: int, latent: int) -> None:
    a, b = normals(seed, (latent,), (latent,))
    a, b = 3 * a / np.linalg.norm(a), 3 * b / np.linalg.norm(b)
    w = angles(np.stack([a, b]))[0]
    points = interpolate(a, b, 9, "sphere")
    assert_within(np.linalg.norm(points, axis=1), np.full(9, 3.0), 300 * EPS / np.sin(w) ** 2)
    inside = np.linalg.norm(interpolate(a, b, 9), axis=1)[1:-1]
    assert np.all(inside <= 3 * (1 + 4 * EPS))  # a line is shorter on its way


def test_an_arc_through_points_of_other_lengths_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def unnormalized(a: np.ndarray, b: np.ndarray, steps: int, path: str = "line") -> np.ndarray:
        t, w = np.linspace(0, 1, steps)[:, None], angles(np.stack([a, b]))[0]
        return (np.sin((1 - t) * w) * a + np.sin(t * w) * b) / np.sin(w)

    monkeypatch.setitem(globals(), "interpolate", unnormalized)
    with pytest.raises(AssertionError, match="off by"):
        test_the_sphere_turns_evenly_and_its_length_goes_over_evenly()


@given(SEEDS, LATENT, st.sampled_from([0.0, 0.5, 2.0, -0.5, -1.0]))
def test_between_parallel_points_the_sphere_is_the_line(seed: int, latent: int, factor: float) -> None:
    (a,) = normals(seed, (latent,))
    for first, last in [(a, factor * a), (factor * a, a)]:
        line, sphere = (interpolate(first, last, 7, path) for path in PATHS)
        assert_within(sphere, line, 20 * EPS * np.abs(a))


@pytest.mark.parametrize("turn", [1e-12, 1e-9, 0.99e-6, 1.01e-6, 1e-3])
@pytest.mark.parametrize("sign", [1, -1])
def test_nearly_parallel_points_are_finite_and_within_reach(turn: float, sign: int) -> None:
    a, b = np.array([1.0, 0, 0]), sign * np.array([np.cos(turn), np.sin(turn), 0])
    line, sphere = (interpolate(a, b, 9, path) for path in PATHS)
    assert np.isfinite(sphere).all()
    assert np.all(np.linalg.norm(sphere, axis=1) <= 1 + 1e-3)
    np.testing.assert_array_equal(sphere[[0, -1]], [a, b])
    if sign == 1:
        assert_within(sphere, line, turn**2 + 1e-9)  # an arc leaves its chord by w^2 / 8


def test_the_middle_of_a_line_between_two_draws_is_nearer_to_0_than_draws_are() -> None:
    """Why there is a sphere: a draw has a length near sqrt(latent), the middle of two has half its variance."""
    rng = np.random.default_rng(0)
    middles = [
        [np.linalg.norm(interpolate(a, b, 3, path)[1]) for path in PATHS] for a, b in rng.standard_normal((500, 2, 50))
    ]
    line, sphere = np.mean(middles, axis=0)
    # a length has a deviation near 1 / sqrt 2: 500 of them are good for 0.03 each; 5 of them
    assert line == pytest.approx(np.sqrt(50 / 2), abs=0.2)
    assert sphere == pytest.approx(np.sqrt(50), abs=0.2)


def test_an_unknown_path_is_refused() -> None:
    with pytest.raises(ValueError, match="path must be one of line, sphere, not 'arc'"):
        interpolate(np.ones(2), np.zeros(2), 3, "arc")


# -------------------------------------------------------------------------------------------------------------- labels


def test_every_row_gets_every_label_with_the_z_of_its_own() -> None:
    model = tinyvae.VAE(6, (5,), 2, classes=3, dtype="float64")
    x, y = np.random.default_rng(0).uniform(0, 1, (4, 6)), np.array([2, 0, 0, 1])
    z, labels = every_label(model, x, y)
    assert z.shape == (12, 2)
    assert labels.tolist() == [0, 1, 2] * 4
    mu = model.encode(x, y)[0]
    for row in range(4):
        for label in range(3):
            np.testing.assert_array_equal(z[3 * row + label], mu[row])
    assert model.decode(z, labels).shape == (12, 6)


def test_labels_of_a_model_that_knows_none_are_refused() -> None:
    with pytest.raises(ValueError, match="the model is not conditional: it knows no labels"):
        every_label(tinyvae.VAE(6, (5,), 2), np.zeros((1, 6)), np.array([0]))
