"""Which data is standardized before a training, and which is not."""

from typing import Any

import numpy as np
import pytest

import tinyvae
from tinyvae.errors import DataError
from tinyvae.training.data import Dataset
from tinyvae.training.support import standardize

REAL = 60 * np.random.default_rng(0).standard_normal((40, 4)) + 300
BYTES = np.random.default_rng(0).integers(0, 256, (40, 4)).astype(np.uint8)
UNIT = np.random.default_rng(0).random((40, 4))


def model_of(likelihood: str) -> tinyvae.VAE:
    return tinyvae.VAE(4, (3,), 2, likelihood=likelihood, kernels="numpy")


def data(x: np.ndarray, **options: Any) -> Dataset:
    return Dataset("own", x, **options)


@pytest.mark.parametrize(
    ("likelihood", "dataset", "auto", "on"),
    [
        ("gaussian", data(REAL), True, True),
        ("laplace", data(REAL), True, True),
        ("gaussian:sigma=predicted", data(REAL), True, True),
        ("gaussian:sigma=columns", data(REAL.astype(np.float32)), True, True),
        ("gaussian", data(UNIT, image_shape=(2, 2)), False, True),
        ("gaussian", data(BYTES, scale=1 / 255), False, True),
        ("gaussian:sigma=fixed:2", data(REAL), False, False),
        ("laplace:scale=fixed:2", data(REAL), False, False),
        ("bernoulli", data(UNIT), False, False),
        ("poisson", data(np.floor(9 * UNIT)), False, False),
        ("mixed:columns=gaussian*2+poisson", data(np.floor(99 * UNIT)), True, True),
    ],
)
def test_real_columns_are_brought_to_0_and_1_and_nothing_else(
    likelihood: str, dataset: Dataset, auto: bool, on: bool
) -> None:
    for how, wanted in (("off", False), ("auto", auto)):
        model = model_of(likelihood)
        said = standardize(model, dataset, how)
        assert (model.standard is not None) == wanted == (said is not None)
    if not on:
        with pytest.raises(DataError, match=r"^own: has no column that a \w+ takes as real: nothing can be standard"):
            standardize(model_of(likelihood), dataset, "on")
        return
    model = model_of(likelihood)
    assert "real columns are standardized" in (standardize(model, dataset, "on") or "")
    assert model.standard is not None
    real, x = model.likelihood.real(4), dataset.values(dataset.x_train)
    np.testing.assert_allclose(model.standard.mean, np.where(real, x.mean(axis=0), 0), rtol=1e-10)
    np.testing.assert_allclose(model.standard.std, np.where(real, x.std(axis=0), 1), rtol=1e-10)


def test_the_training_rows_alone_are_asked() -> None:
    dataset = Dataset("own", REAL[:20], x_test=REAL[20:30] + 1e3, x_valid=REAL[30:] - 1e3)
    model = model_of("gaussian")
    standardize(model, dataset, "auto")
    assert model.standard is not None
    np.testing.assert_allclose(model.standard.mean, REAL[:20].mean(axis=0), rtol=1e-12)


def test_numbers_whose_squares_are_beyond_float64_are_named() -> None:
    x = REAL.copy()
    x[3, 2] = 1e200
    with pytest.raises(DataError, match=r"^own: column 2 holds numbers whose squares are beyond float64"):
        standardize(model_of("gaussian"), data(x), "auto")
    with pytest.raises(DataError, match="column 2"):
        tinyvae.fit(model_of("gaussian"), x, epochs=1, progress=False)


def test_fit_refuses_on_for_data_that_is_not_real() -> None:
    with pytest.raises(DataError, match="has no column that a Bernoulli takes as real"):
        tinyvae.fit(model_of("bernoulli"), UNIT, standardize="on", epochs=1, progress=False)
