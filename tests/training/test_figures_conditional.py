"""Pictures of a conditional model: a column for each label, a z with every label, paths within a label."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_data import canvas, dataset, history

import tinyvae
from tinyvae.training import figures
from tinyvae.training.data import Dataset

CLASSES = 3


@pytest.fixture
def model() -> tinyvae.VAE:
    return tinyvae.VAE(6, (4,), 2, classes=CLASSES, dtype="float64")


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
    assert data.y_valid is not None
    picture = canvas(figures.labels(model, data, n=4))
    rows = figures._spread(data.held_out(), 4)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(cell(picture, i, 0), data.x_valid[row])
        mu, _ = model.encode(data.x_valid[row : row + 1], data.y_valid[row : row + 1])
        for label in range(CLASSES):
            expected = model.decode(mu, np.array([label]))[0]
            np.testing.assert_allclose(cell(picture, i, 2 + label), expected, rtol=1e-12)


def test_interpolation_goes_between_rows_of_one_label(model: tinyvae.VAE) -> None:
    data = dataset("images")
    assert data.y_valid is not None
    pairs = figures._same_label_pairs(data.held_out(), 5).reshape(-1, 2)
    assert len(pairs) == CLASSES  # one for each label that there is
    assert (data.y_valid[pairs[:, 0]] == data.y_valid[pairs[:, 1]]).all()
    figures.interpolation(model, data)
    path = figures.interpolation_path(model, data.x_valid[:2], np.array([2, 1]), 5)
    mu, _ = model.encode(data.x_valid[:2], np.array([2, 1]))
    np.testing.assert_allclose(path[[0, 4]], model.decode(mu, np.array([2, 2])), rtol=1e-12)  # the first one's label


@pytest.mark.parametrize("kind", ["images", "vectors", "plane"])
def test_all_pictures_are_drawn(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 25)
    data = dataset(kind)
    of_kind = tinyvae.VAE(data.data_dim, (4,), 2, classes=CLASSES)
    drawn = {path.stem for path in figures.write_figures(tmp_path, of_kind, data, history(3))}
    assert ("labels" in drawn) == (kind == "images")
    assert {"loss", "reconstructions", "interpolation", "latent"} <= drawn


def test_the_pictures_of_a_run_show_no_label_that_nobody_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 10)
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.update({path.stem: figure}))
    H, W, labels = 4, 6, np.array([2, 4, 5])
    x = np.random.default_rng(0).uniform(0, 1, (40, H * W))
    data = Dataset(
        "tiny", x[:30], y_train=np.resize(labels, 30), x_valid=x[30:], y_valid=np.resize(labels, 10), image_shape=(H, W)
    )
    model = tinyvae.VAE(H * W, (4,), 2, classes=6, dtype="float64", kernels="numpy")
    figures.write_figures(tmp_path, model, data, history(3), seed=0)

    def cell(name: str, row: int, column: int) -> np.ndarray:
        picture = canvas(drawn[name])
        top, left = row * (H + 1), column * (W + 1)
        return picture[top : top + H, left : left + W].ravel()

    assert canvas(drawn["samples"]).shape[1] == 3 * (W + 1) - 1
    assert canvas(drawn["labels"]).shape[1] == 5 * (W + 1) - 1
    z = np.random.default_rng([0, figures.streams.SAMPLES]).standard_normal((63, 2))
    for column, label in enumerate(labels):
        expected = model.decode(z[column : column + 1], np.array([label]))[0]
        np.testing.assert_allclose(cell("samples", 0, column), expected, rtol=1e-12)
    first = figures.manifold_points()[:1]
    np.testing.assert_allclose(cell("manifold", 0, 0), model.decode(first, np.array([2]))[0], rtol=1e-12)
    for name, words in [("samples", "labels 2, 4, 5"), ("labels", "labels 2, 4, 5"), ("manifold", "with label 2")]:
        assert drawn[name].axes[0].get_title().endswith(words)
