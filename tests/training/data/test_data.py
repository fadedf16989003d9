"""Data sets by name: what ships, what is drawn, what was published."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from tinyvae.errors import DataError
from tinyvae.training.data import dataset as datasets
from tinyvae.training.data import load, load_digits, two_gaussians

Z = 5.0  # standard errors; a normal estimate strays further once in 1.7 million


# --------------------------------------------------------------------------------------------------------------- digits


def test_the_digits_that_ship_are_the_ones_their_note_describes() -> None:
    path = Path(datasets.__file__).with_name("digits.npz")
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest()
        == "2c0990a03ee3eb488a158259e01527a726529640ba0a5e6aff8fb66f8c606795"
    )
    with np.load(path) as file:
        x, y = file["x"], file["y"]
    assert (x.shape, x.dtype, int(x.min()), int(x.max())) == ((1797, 8, 8), np.uint8, 0, 16)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as its authors count them


def test_digits_are_split_without_losing_or_doubling_a_row() -> None:
    digits = load_digits()
    assert digits.x_train.shape == (1438, 64)
    assert digits.x_test.shape == (359, 64)
    assert digits.image_shape == (8, 8)
    assert digits.range() == (0.0, 1.0)
    assert digits.x_train.dtype == np.uint8  # bytes stay bytes
    with np.load(Path(datasets.__file__).with_name("digits.npz")) as file:
        original = [(x.tobytes(), int(y)) for x, y in zip(file["x"], file["y"], strict=True)]
    assert digits.y_train is not None
    assert digits.y_test is not None
    pairs = [(x.tobytes(), int(y)) for x, y in zip(digits.x_train, digits.y_train, strict=True)]
    pairs += [(x.tobytes(), int(y)) for x, y in zip(digits.x_test, digits.y_test, strict=True)]
    assert sorted(pairs) == sorted(original)


def test_no_seed_changes_which_digits_are_for_testing() -> None:
    first, other = load("digits", seed=0), load("digits", seed=1)
    assert first.digest() == other.digest()
    assert first.digest() == load_digits().digest()
    # Nor does a version: whoever reports a test loss on digits means these rows.
    rows_for_testing = hashlib.sha256(first.x_test.tobytes()).hexdigest()
    assert rows_for_testing == "0d54b7ffa7898a4df8f32b32079dcd29f4fbd696fb3307ecd3d1538059389cec"


# -------------------------------------------------------------------------------------------------------- two-gaussians


def test_two_gaussians_have_the_moments_they_promise() -> None:
    n = 50_000
    points = two_gaussians(n, seed=3)
    assert points.y_train is not None
    assert points.y_test is not None
    x, y = np.concatenate([points.x_train, points.x_test]), np.concatenate([points.y_train, points.y_test])
    assert points.x_train.shape == points.x_test.shape == (n, 2)
    # A fair coin: the share of ones has the standard error sqrt(1/4 / 2n).
    assert abs(y.mean() - 0.5) < Z * 0.5 / np.sqrt(2 * n)
    for label, mean in [(0, (1.0, 1.0)), (1, (1.5, 0.5))]:
        cloud = x[y == label]
        m = len(cloud)
        # Each coordinate has variance 1, so its mean has the standard error 1 / sqrt(m).
        assert np.all(np.abs(cloud.mean(axis=0) - mean) < Z / np.sqrt(m))
        # For a Gaussian, Var(sample cov_ij) = (c_ii c_jj + c_ij^2) / (m - 1): 2 on the diagonal, 1.25 beside it.
        spread = np.sqrt(np.array([[2.0, 1.25], [1.25, 2.0]]) / (m - 1))
        assert np.all(np.abs(np.cov(cloud.T) - [[1.0, 0.5], [0.5, 1.0]]) < Z * spread)


def test_two_gaussians_takes_its_number_of_points_from_the_name_and_its_draw_from_the_seed() -> None:
    assert load("two-gaussians").x_train.shape == (100, 2)
    assert load("two-gaussians:12").x_test.shape == (12, 2)
    assert load("two-gaussians:12", seed=1).digest() == load("two-gaussians:12", seed=1).digest()
    assert load("two-gaussians:12", seed=1).digest() != load("two-gaussians:12", seed=2).digest()
    with pytest.raises(DataError, match="at least 10 points, not 0"):
        two_gaussians(0, seed=0)


# ---------------------------------------------------------------------------------------------- the real published sets


def published_folder(name: str) -> Path:
    """Where the real files lie; the test that asks is skipped if they are not there."""
    root = Path(os.environ.get("TINYVAE_TEST_DATA") or Path(__file__).parents[2] / "shared")
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not at hand: name a folder that holds it by TINYVAE_TEST_DATA")
    return folder


def test_mnist_is_read_from_a_folder_that_holds_it() -> None:
    mnist = load("mnist", published_folder("mnist"))
    assert (mnist.x_train.shape, mnist.x_test.shape, mnist.image_shape) == ((60_000, 784), (10_000, 784), (28, 28))
    assert mnist.range() == (0.0, 1.0)
    assert mnist.y_train is not None
    assert mnist.y_test is not None
    assert np.bincount(mnist.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert round(mnist.x_train.mean() / 255, 4) == 0.1307  # the mean and deviation that everybody normalizes by
    assert round(mnist.x_train.std() / 255, 4) == 0.3081


def test_binarized_mnist_is_read_from_a_folder_that_holds_it_gzipped() -> None:
    binarized = load("binarized-mnist", published_folder("binarized_mnist"))
    assert (binarized.x_train.shape, binarized.x_test.shape) == ((50_000, 784), (10_000, 784))
    assert binarized.image_shape == (28, 28)
    assert binarized.is_binary()
    assert binarized.y_train is None
    # Drawn from the grey pixels as probabilities, so about as white as they are. A row's share of ones varies by less
    # than 0.1 from row to row, so the mean of 50,000 differs from MNIST's 0.1307 by less than Z 0.1 / sqrt(50,000).
    assert abs(binarized.x_train.mean() - 0.1307) < Z * 0.1 / np.sqrt(50_000) + 5e-5
