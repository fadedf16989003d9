"""The search for z: scans of all pairs, slopes by finite differences, and climbs, for every kind of likelihood."""

import numpy as np
import pytest
from small_models import LIKELIHOODS, data_of, make, two_modes
from strategies import assert_within

import tinyvae
from tinyvae.model import search

EVERY_KIND = pytest.mark.parametrize("kind", LIKELIHOODS)
HOLES = pytest.mark.parametrize("holes", [False, True], ids=["whole rows", "with NaN"])


def a_model(kind: str, holes: bool) -> tuple[tinyvae.VAE, np.ndarray, np.ndarray]:
    """A model, data that it could have drawn, x (3, data), and z (3, latent)."""
    model = make(kind)
    x = data_of(model, 3)
    if holes:
        x[0, 1:4] = x[1, 0] = x[2] = np.nan
    return model, x, np.random.default_rng(1).standard_normal((3, 2))


@HOLES
@EVERY_KIND
def test_the_scan_is_the_log_joint_of_all_pairs(kind: str, holes: bool) -> None:
    model, x, _ = a_model(kind, holes)
    z = np.random.default_rng(0).standard_normal((4, 2))
    expected = np.array([search.log_joint(model, np.tile(row, (4, 1)), z) for row in x])
    assert_within(search.scan(model, x, z), expected, 1e-9 * (1 + np.abs(expected)))


def test_the_scan_knows_the_labels() -> None:
    model, rng = two_modes("float64", classes=2), np.random.default_rng(0)
    x, z, y = rng.standard_normal((4, 4)), rng.standard_normal((3, 2)), np.array([1, 0, 0, 1])
    expected = [
        search.log_joint(model, np.tile(row, (3, 1)), z, np.full(3, label)) for row, label in zip(x, y, strict=True)
    ]
    assert_within(search.scan(model, x, z, y), expected, 1e-9 * np.abs(expected))


@HOLES
@EVERY_KIND
def test_the_gradient_is_that_of_finite_differences(kind: str, holes: bool) -> None:
    model, x, z = a_model(kind, holes)
    h = 1e-5
    value, gradient, H = search.slopes(model, x, z)
    joint = search.log_joint(model, x, z)
    assert_within(value, joint, 1e-12 * (1 + np.abs(joint)))
    for j in range(2):
        e = h * np.eye(2)[j]
        difference = (search.log_joint(model, x, z + e) - search.log_joint(model, x, z - e)) / (2 * h)
        # the Jacobian is made of one-sided differences of 6e-6, the others of 1e-5 squared
        np.testing.assert_allclose(gradient[:, j], difference, rtol=1e-3, atol=1e-3)
    assert np.all(np.linalg.eigvalsh(H) >= 1 - 1e-9)
    if holes:  # of a row of which nothing was observed the posterior is the prior
        assert_within(gradient[2], -z[2], 1e-12)
        assert_within(H[2], np.eye(2), 1e-12)


@EVERY_KIND
def test_the_curvature_is_the_mean_square_of_the_slope_over_draws(kind: str) -> None:
    """H is J^T F J + I, and J^T F J the covariance of the gradient of log p(x|z) over x from p(x|z)."""
    model, n = make(kind), 20_000
    z = np.tile([[0.4, -0.9]], (n, 1))
    x = np.asarray(model.draw(z, 2))
    _, gradient, H = search.slopes(model, x, z)
    slope = gradient + z
    squares = slope[:, :, None] * slope[:, None, :]  # (n, latent, latent)
    assert_within(H[0] - np.eye(2), squares.mean(axis=0), 6 * squares.std(axis=0) / np.sqrt(n))


@EVERY_KIND
def test_the_climb_never_falls_and_finds_the_top(kind: str) -> None:
    model, x, z = a_model(kind, holes=False)
    _, gradient, _ = search.slopes(model, x, z)
    heights = [search.climb(model, x, z, steps)[1] for steps in (0, 1, 2, 4, 8)]
    assert np.all(np.diff(heights, axis=0) >= 0)
    top, height, _ = search.climb(model, x, z, 30)
    if kind == "laplace":  # its top is a kink, where no slope is 0
        around = top + 0.03 * np.random.default_rng(3).standard_normal((200, 3, 2))
        assert np.all(height > np.max([search.log_joint(model, x, near) for near in around], axis=0) - 0.05)
    else:
        assert np.abs(search.slopes(model, x, top)[1]).max() < 1e-2 * max(1, np.abs(gradient).max())
