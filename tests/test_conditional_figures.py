"""Pictures of a conditional model: a column for each label, a z with every label, paths within a label."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_figures import dataset, history

import tinyvae
from tinyvae.training import figures

CLASSES = 3


@pytest.fixture
def model() -> tinyvae.VAE:
    return tinyvae.VAE(6, (4,), 2, classes=CLASSES, dtype="float64")


def canvas(figure: Any) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array(), dtype=float)


def cell(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    """One image of 3 x 2 pixels out of a sheet with gaps of one pixel."""
    return picture[4 * row : 4 * row + 3, 3 * column : 3 * column + 2].ravel()


def test_samples_stand_in_one_column_for_each_label(model: tinyvae.VAE) -> None:
    picture = canvas(figures.samples(model, (3, 2), 10, seed=0))
    assert picture.shape == (3 * 4 - 1, CLASSES * 3 - 1)  # 9 of the 10: as many of each label
    z = np.random.default_rng([0, figures.streams.SAMPLES]).standard_normal((9, 2))
    for i in range(9):
        expected = model.decode(z[i : i + 1], np.array([i % CLASSES]))[0]
        np.testing.assert_allclose(cell(picture, i // CLASSES, i % CLASSES), expected, rtol=1e-12)


def test_the_picture_of_labels_decodes_each_rows_z_with_each_label(model: tinyvae.VAE) -> None:
    data = dataset("images")
    assert data.y_test is not None
    picture = canvas(figures.labels(model, data, n=4))
    rows = figures._spread(data, 4)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(cell(picture, i, 0), data.x_test[row])
        mu, _ = model.encode(data.x_test[row : row + 1], data.y_test[row : row + 1])
        for label in range(CLASSES):
            expected = model.decode(mu, np.array([label]))[0]
            np.testing.assert_allclose(cell(picture, i, 2 + label), expected, rtol=1e-12)


def test_interpolation_goes_between_rows_of_one_label(model: tinyvae.VAE) -> None:
    data = dataset("images")
    assert data.y_test is not None
    pairs = figures._same_label_pairs(data, 5).reshape(-1, 2)
    assert len(pairs) == CLASSES  # one for each label that there is
    assert (data.y_test[pairs[:, 0]] == data.y_test[pairs[:, 1]]).all()
    figures.interpolation(model, data)
    path = figures.interpolation_path(model, data.x_test[:2], np.array([2, 1]), 5)
    mu, _ = model.encode(data.x_test[:2], np.array([2, 1]))
    np.testing.assert_allclose(path[[0, 4]], model.decode(mu, np.array([2, 2])), rtol=1e-12)  # the first one's label


@pytest.mark.parametrize("kind", ["images", "vectors", "plane"])
def test_all_pictures_are_drawn(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 25)
    data = dataset(kind)
    of_kind = tinyvae.VAE(data.data_dim, (4,), 2, classes=CLASSES)
    drawn = {path.stem for path in figures.write_figures(tmp_path, of_kind, data, history(3))}
    assert ("labels" in drawn) == (kind == "images")
    assert {"loss", "reconstructions", "interpolation", "latent"} <= drawn
