"""Arrays as data sets: what is taken as it is, what is changed, and one line for what does not fit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planted import after, assert_killed

import tinyvae
from tinyvae.errors import DataError
from tinyvae.training import arrays
from tinyvae.training.data import Dataset
from tinyvae.training.trainer import Trainer, fit

ROWS, DATA = 20, 6
X = np.random.default_rng(0).random((ROWS, DATA)).astype(np.float32)
BYTES = np.random.default_rng(0).integers(0, 256, (ROWS, DATA)).astype(np.uint8)
Y = np.arange(ROWS) % 3


def model(**more: Any) -> tinyvae.VAE:
    return tinyvae.VAE(DATA, (5,), 2, **{"kernels": "numpy", **more})


def dataset_of(*args: Any, **more: Any) -> Any:
    return arrays.dataset_of(*args, **more)


def weights(x: Any, **more: Any) -> np.ndarray:
    of_model = {name: more.pop(name) for name in ("kernels", "likelihood", "classes", "dtype") if name in more}
    return fit(model(**of_model), x, progress=False, epochs=2, batch_size=8, **more).model.params.flat


# -------------------------------------------------------------------------------------------------------- what is kept


def test_nothing_is_held_out_unless_it_is_asked_for() -> None:
    whole = dataset_of(model(), X)
    assert np.shares_memory(whole.x_train, X)  # no copy
    assert whole.x_valid is None
    assert whole.x_test is None
    assert [part.name for part in whole.parts()] == ["train"]


def test_a_share_is_held_out_and_the_rest_is_trained_on() -> None:
    whole = dataset_of(model(classes=3), X, Y, valid=0.25)
    assert (len(whole.x_train), len(whole.x_valid)) == (15, 5)
    together = np.concatenate([whole.x_train, whole.x_valid])
    assert sorted(map(tuple, together)) == sorted(map(tuple, X))
    for part in whole.parts():
        np.testing.assert_array_equal(part.x, X[part.rows])
        np.testing.assert_array_equal(part.y, Y[part.rows])
    np.testing.assert_array_equal(dataset_of(model(), X, valid=np.float64(0.25)).x_valid, whole.x_valid)
    np.testing.assert_array_equal(dataset_of(model(), X, valid=np.float32(0.25)).x_valid, whole.x_valid)


def test_arrays_and_pairs_are_held_out_as_they_are() -> None:
    for valid in (X[:4], (X[:4], None), X[:4].tolist(), X[:4].astype(float)):
        whole = dataset_of(model(), X, valid=valid)
        assert whole.x_valid.dtype == np.float32
        np.testing.assert_array_equal(whole.x_valid, X[:4])
        assert np.shares_memory(whole.x_train, X)
    whole = dataset_of(model(classes=3), X, Y, valid=(X[:4], Y[:4].tolist()))
    np.testing.assert_array_equal(whole.y_valid, Y[:4])


def test_held_out_rows_do_not_change_the_training() -> None:
    np.testing.assert_array_equal(weights(X, valid=X[:5] ** 2), weights(X))


def test_bytes_are_pixels_where_data_lies_in_0_to_1() -> None:
    whole = dataset_of(model(), BYTES)
    assert np.shares_memory(whole.x_train, BYTES)
    assert whole.scale == 1 / 255
    np.testing.assert_allclose(whole.values(whole.x_train), BYTES / 255, rtol=1e-15)  # a product of a rounded 1 / 255
    np.testing.assert_allclose(weights(BYTES), weights(BYTES / 255), rtol=0, atol=1e-6)  # of 6 steps of 1e-3
    assert dataset_of(model(), (BYTES > 99).astype(np.uint8)).scale == 1.0  # black and white
    assert dataset_of(model(), BYTES > 99).x_train.dtype == np.uint8
    assert dataset_of(model(likelihood="poisson"), BYTES).scale == 1.0  # counts


def test_pixels_that_are_not_scaled_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant = after(Dataset, "with_bytes_as", lambda whole: replace(whole, scale=whole.scale * 0.99))
    assert_killed(monkeypatch, plant, test_bytes_are_pixels_where_data_lies_in_0_to_1)


def test_images_are_rows_with_a_shape() -> None:
    images = X.reshape(ROWS, 2, 3)
    whole = dataset_of(model(), images, valid=images[:4])
    assert whole.image_shape == (2, 3)
    assert whole.x_valid.shape == (4, DATA)
    np.testing.assert_array_equal(whole.x_train, X)
    np.testing.assert_array_equal(weights(images), weights(X))
    assert dataset_of(model(), X).image_shape is None


def test_convolutions_know_their_images_also_from_rows() -> None:
    made = tinyvae.VAE(32, (5,), 2, conv=(2,), image_shape=(4, 8), kernels="numpy")
    x = np.random.default_rng(0).random((ROWS, 32))
    for given in (x, x.reshape(ROWS, 4, 8), Dataset("flat", x)):
        assert dataset_of(made, given).image_shape == (4, 8)
    for given in (x.reshape(ROWS, 8, 4), Dataset("turned", x, image_shape=(8, 4))):
        with pytest.raises(ValueError, match=r"x holds images of \(8, 4\), but the model is made for \(4, 8\)"):
            dataset_of(made, given)
    with pytest.raises(ValueError, match=r"valid holds images of \(8, 4\), and x of \(4, 8\)"):
        dataset_of(made, x, valid=x.reshape(ROWS, 8, 4))


LAYOUTS = {
    "a list": lambda x: x.tolist(),
    "Fortran's order": np.asfortranarray,
    "a view": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "turned twice": lambda x: x[::-1].copy()[::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "another byte order": lambda x: x.astype(x.dtype.newbyteorder()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernels", ["numpy", "reference"])
def test_how_an_array_lies_in_memory_is_no_matter(layout: str, kernels: str) -> None:
    x = LAYOUTS[layout](X)
    before = np.array(x)
    expected = weights(X.astype(float) if layout == "a list" else X, kernels=kernels, valid=0.2)
    np.testing.assert_array_equal(weights(x, kernels=kernels, valid=0.2), expected)
    np.testing.assert_array_equal(np.array(x), before)  # a caller's own


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "uint16", "bool", "longdouble"])
def test_every_kind_of_number_is_taken(dtype: str) -> None:
    x = (X > 0.5).astype(dtype)
    kept = dataset_of(model(), x).x_train
    np.testing.assert_array_equal(kept, x.astype(float))
    assert kept.dtype in (np.uint8, np.float32, np.float64)
    assert np.isfinite(weights(x)).all()


def test_nan_was_not_observed_and_trains() -> None:
    x = X.copy()
    x[::3, 2] = np.nan
    x[:, 4] = np.nan  # a column that nobody has seen
    for likelihood in ("bernoulli", "gaussian", "poisson"):
        data = np.floor(9 * x) if likelihood == "poisson" else x
        result = fit(model(likelihood=likelihood), data, progress=False, epochs=2, valid=0.2)
        assert np.isfinite(result.model.params.flat).all()
        last = result.history[-1].valid_loss
        assert last is not None
        assert np.isfinite(last)


def test_what_is_not_observed_is_in_no_gradient() -> None:
    """Rows of NaN alone say nothing: the loss of such a row is its KL, and a mean over all rows counts it."""
    x = np.full((8, DATA), np.nan, np.float32)
    x[0, 0] = 0.5
    row = fit(model(), x, progress=False, epochs=1, lr=lambda epochs: 0.0).history[0]
    assert np.isclose(row.train_loss, row.train_nll + row.train_kl)
    assert 0 < row.train_nll < 2 / 8  # one Bernoulli of eight rows


def test_values_that_are_impossible_are_found_beside_nan() -> None:
    x = X.copy()
    x[3, 2], x[5, 1] = np.nan, 7.0
    with pytest.raises(DataError, match=r"1 of 120 values are outside, the first is 7 in row 5"):
        weights(x)
    with pytest.raises(DataError, match="holds NaN or infinite values"):
        weights(np.full_like(X, np.nan), likelihood="gaussian")
    large = X.astype(float)
    large[3, 2], large[5, 1] = np.nan, 1e200
    with pytest.raises(DataError, match=r"column 1 holds numbers whose squares are beyond float64"):
        weights(large, likelihood="gaussian")


def test_a_loaded_data_set_is_taken_whole() -> None:
    digits = tinyvae.load_data("digits")
    made = tinyvae.VAE(64, (5,), 2, kernels="numpy")
    assert dataset_of(made, digits).x_train is digits.x_train
    assert dataset_of(made, digits).image_shape == (8, 8)
    held = replace(digits, x_valid=digits.x_train[:9])
    assert dataset_of(made, held).x_valid is held.x_valid  # its own
    assert len(dataset_of(made, held, valid=0.5).x_valid) == round(len(digits.x_train) / 2)
    assert fit(made, digits, progress=False, epochs=1).complete


# ---------------------------------------------------------------------------------------------------- what does not fit


def with_infinity(value: float) -> np.ndarray:
    x = X.copy()
    x[7, 3] = value
    return x


@pytest.mark.parametrize(
    ("x", "more", "says"),
    [
        (X[:, :5], {}, r"x must have shape \(rows, 6\), with at least one row, not \(20, 5\)"),
        (X[:0], {}, r"not \(0, 6\)"),
        (X[0], {}, r"not \(6,\)"),
        (3.0, {}, r"not \(\)"),
        (X.astype(str), {}, "x must hold numbers, not <U32"),
        (X + 1j, {}, "x must hold numbers, not complex64"),
        (X.astype(object), {}, "x must hold numbers, not object"),
        (with_infinity(np.inf), {}, "x holds infinite values, the first in row 7"),
        (with_infinity(-np.inf), {}, "x holds infinite values, the first in row 7"),
        (X, {"valid": with_infinity(np.inf)}, "valid holds infinite values, the first in row 7"),
        (X, {"valid": X[:, :5]}, r"valid must have shape \(rows, 6\)"),
        (X, {"valid": 0.0}, "valid must be a share of the rows above 0 and at most 0.5, not 0"),
        (X, {"valid": 0.7}, "valid must be a share"),
        (X, {"valid": 5}, "valid must be a share"),
        (X, {"valid": float("nan")}, "valid must be a share"),
        (X, {"valid": True}, r"valid must have shape \(rows, 6\)"),
        (X, {"valid": "0.1"}, "valid must hold numbers"),
        (X, {"valid": (X, Y, Y)}, r"valid must be a share such as 0.1, an array, or a pair \(x, y\)"),
        (X, {"valid": BYTES}, "valid is uint8 and x is float32: bytes and numbers do not mix"),
        (BYTES, {"valid": X}, "valid is float32 and x is uint8: bytes and numbers do not mix"),
        (Dataset("rows", X), {"y": Y}, "a data set has labels of its own: leave y away"),
        (Dataset("rows", X[:, :5]), {}, r"x must have shape \(rows, 6\)"),
    ],
    ids=lambda v: "",
)
def test_what_does_not_fit_gets_one_line(x: Any, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        Trainer(model(), x, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("y", "more", "says"),
    [
        (None, {}, "the model is conditional: it needs y, of 0, 1, 2"),
        (Y[:-1], {}, "y: there are 19 for 20 rows"),
        (Y + 0.5 * np.arange(20), {}, "y: 8 different ones occur.* the model is made for 3"),
        (np.where(Y == 0, np.nan, Y), {}, "y: labels hold NaN"),
        (Y // 2 + 5, {}, r"y: 2 different ones occur, 5, 6: the model is made for 3 \(classes=2"),
        (Y, {"valid": X}, "it needs the labels of valid"),
        (Y + 1, {"valid": (X, Y)}, "the labels of valid: labels must be of 1, 2, 3, not 0"),
        (Y, {"valid": (X, Y[:3])}, "the labels of valid: there are 3 for 20 rows"),
    ],
    ids=lambda v: "",
)
def test_labels_that_do_not_fit_get_one_line(y: Any, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Trainer(model(classes=3), X, y=y, **more)


@pytest.mark.parametrize(
    ("x", "more", "says"),
    [
        (2 * X, {}, r"the data lies in \[0.*needs \[0, 1\]"),
        (X, {"valid": 2 * X}, "of the validation rows"),
        (X, {"likelihood": "poisson"}, "whole"),
        (X.astype(float) * 1e30, {"likelihood": "gaussian", "standardize": "off"}, "that is beyond float32"),
        (2 * X, {"likelihood": "gaussian", "binarize": "threshold"}, "binarize"),
        (X[:5], {"valid": 0.2}, "5 rows are too few"),
    ],
    ids=lambda v: "",
)
def test_data_that_the_likelihood_cannot_have_made_is_refused(x: Any, more: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        weights(x, **more)
