"""A data set in memory: its values, black and white, and the digest that tells it from others."""

from pathlib import Path

import numpy as np
import pytest

from tinyvae.errors import DataError
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset, load_digits
from tinyvae.training.run import load_data

# --------------------------------------------------------------------------------------------------------------- digits


def test_a_value_is_the_stored_byte_times_the_scale() -> None:
    digits = load_digits()
    assert np.array_equal(digits.values(digits.x_test), digits.x_test / 16)
    assert digits.values(digits.x_test, "float32").dtype == np.float32


# ------------------------------------------------------------------------------------------ black and white; the digest


def grey(values: list[float]) -> Dataset:
    x = np.array([values] * 2)
    return Dataset("grey", x, x)


def test_threshold_makes_a_half_white_to_one() -> None:
    binary = grey([0.0, 0.4999, 0.5, 1.0]).thresholded()
    assert binary.x_test.tolist() == [[0, 0, 1, 1]] * 2
    assert binary.is_binary()
    digits = load_digits()
    assert np.array_equal(digits.thresholded().x_test, digits.x_test >= 8)


def test_binary_means_nothing_but_0_and_1() -> None:
    assert grey([0.0, 1.0]).is_binary()
    assert not grey([0.0, 0.5]).is_binary()
    assert not load_digits().is_binary()
    assert Dataset("bytes", np.array([[0, 255]], np.uint8), np.array([[255]], np.uint8), scale=1 / 255).is_binary()


def test_binarize_threshold_changes_the_rows_and_dynamic_leaves_them_to_the_batches() -> None:
    threshold, dynamic, none = (load_data(Config(binarize=how)) for how in ("threshold", "dynamic", "none"))
    assert threshold.is_binary()
    assert dynamic.digest() == none.digest() != threshold.digest()


def test_binarize_is_refused_outside_0_to_1(tmp_path: Path) -> None:
    path = tmp_path / "own.npy"
    np.save(path, np.full((20, 3), 200, np.int16))  # bytes are pixels
    for how in ("threshold", "dynamic"):
        with pytest.raises(DataError, match=r"\[200, 200\], but --binarize needs \[0, 1\]"):
            load_data(Config(data=str(path), binarize=how))


def test_the_digest_sees_every_value_the_type_the_shape_and_the_scale() -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    other = x.copy()
    other[3, 2] += 1
    digests = [
        Dataset("d", x, x).digest(),
        Dataset("d", other, x).digest(),
        Dataset("d", x, other).digest(),
        Dataset("d", x.astype(np.float64), x).digest(),
        Dataset("d", x.reshape(2, 6), x.reshape(2, 6)).digest(),
        Dataset("d", x, x, scale=0.5).digest(),
    ]
    assert len(set(digests)) == len(digests)
    assert Dataset("another name", x.copy(), x.copy()).digest() == digests[0]
