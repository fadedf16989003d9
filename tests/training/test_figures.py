"""The pictures: their axes named, their panels counted, drawn for every kind of data and latent space."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from figure_data import dataset, history, model_for
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from strategies import sampled

from tinyvae.training import figures
from tinyvae.training.data import Dataset, two_gaussians
from tinyvae.training.metrics import Row

DPI = figures.DPI
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of a few pixels: the tests look at what is in them, not at how fine they are."""
    monkeypatch.setattr(figures, "DPI", 25)


def named(figure: Figure) -> None:
    """Every axes with a frame says what it shows and what its axes mean; something names the whole."""
    assert figure.axes
    for axes in figure.axes:
        if axes.axison and len(axes.get_xticks()) and axes.get_label() != "<colorbar>":
            assert axes.get_title(), "an untitled panel"
            assert axes.get_xlabel(), "an x axis without a name"
    assert any(axes.get_title() for axes in figure.axes) or figure.get_suptitle()


def drawn(figure: Figure, path: Path) -> None:
    """The figure can be drawn without a warning (warnings are errors here) and is not an empty sheet."""
    figures.save_figure(figure, path)
    assert path.read_bytes().startswith(PNG)
    pixels = imread(path)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 2


def picture(axes: Axes) -> np.ndarray:
    """The numbers of an image, -1 where there is a gap."""
    a = np.ma.asarray(axes.get_images()[0].get_array(), dtype="float64")
    return np.ma.filled(np.ma.masked_invalid(a), -1.0)


def dots(axes: Axes, i: int = 0) -> np.ndarray:
    return np.asarray(axes.collections[i].get_offsets())


# ---------------------------------------------------------------------------------------------------------- loss curves


@pytest.mark.parametrize("rows", sampled([history(1), history(2), history(30), history(400), history(5, slope=0.0)], 2))
def test_loss_curves_show_train_and_test_of_three_quantities(tmp_path: Path, rows: list[Row]) -> None:
    figure = figures.loss_curves(rows)
    named(figure)
    drawn(figure, tmp_path / "loss.png")
    assert [axes.get_title().split(":")[0].split(" ")[0] for axes in figure.axes] == ["loss", "nll", "kl"]
    for axes, name in zip(figure.axes, ("loss", "nll", "kl"), strict=True):
        assert (axes.get_xlabel(), axes.get_ylabel()) == (
            ("epoch", "epoch (the first ones lie outside)")[len(rows) > 20],
            "nats per datum",
        )
        train, test = axes.get_lines()
        assert np.asarray(train.get_xdata()).tolist() == [row.epoch for row in rows]
        assert np.asarray(train.get_ydata()).tolist() == [getattr(row, f"train_{name}") for row in rows]
        assert np.asarray(test.get_ydata()).tolist() == [getattr(row, f"valid_{name}") for row in rows]
        low, high = axes.get_ylim()
        assert low < min(getattr(rows[-1], f"{part}_{name}") for part in ("train", "valid")) < high
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["train", "held out"]


def test_the_first_epochs_do_not_flatten_the_curve_of_the_rest() -> None:
    rows = history(100)
    steep = [Row(1, 0.1, 1e6, 1e6, 2.0, 1e6, 1e6, 2.0, 2), *rows[1:]]
    low, high = figures.loss_curves(steep).axes[0].get_ylim()
    assert high - low < 3


# ------------------------------------------------------------------------------------- reconstructions, samples, sheets


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("test", sampled([1, 3, 12, 50], 3))
def test_reconstructed_images_stand_below_their_originals(tmp_path: Path, test: int, labels: bool) -> None:
    data = dataset("images", labels, test=test)
    model = model_for(data)
    figure = figures.reconstructions(model, data)
    drawn(figure, tmp_path / "a.png")
    n = min(test, 12)
    assert len(figure.axes) == 2 * n
    assert figure.get_suptitle()
    assert [figure.axes[i].get_ylabel() for i in (0, n)] == ["data", "decoded"]
    shown = [picture(axes).ravel() for axes in figure.axes]
    for original, decoded in zip(shown[:n], shown[n:], strict=True):
        assert (original == data.x_valid).all(axis=1).any()
        expected = model.decode(model.encode(original[None])[0])[0]
        # a row alone or among others: float32 sums of fewer than 10 terms below 10, in another order
        assert np.abs(decoded - expected).max() < 1e-5


@pytest.mark.parametrize("kind", ["vectors", "plane", "numbers"])
def test_reconstructed_numbers_are_dots_against_a_diagonal(tmp_path: Path, kind: str) -> None:
    data = dataset(kind)
    figure = figures.reconstructions(model_for(data, likelihood="gaussian"), data)
    named(figure)
    drawn(figure, tmp_path / "a.png")
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("data", "decoded from mu")
    assert sorted(dots(axes)[:, 0]) == sorted(data.x_valid.ravel())
    (diagonal,) = axes.get_lines()
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())


def test_reconstructions_take_the_labels_in_turn() -> None:
    data = dataset("images", test=50)
    shown = [picture(axes) for axes in figures.reconstructions(model_for(data), data).axes[:12]]
    assert data.y_valid is not None
    where = [int(np.flatnonzero((data.x_valid == a.ravel()).all(axis=1))[0]) for a in shown]
    assert data.y_valid[where].tolist() == [0, 1, 2] * 4


def test_a_sheet_puts_images_side_by_side_with_gaps_between(tmp_path: Path) -> None:
    x = np.arange(5 * 6, dtype=float).reshape(5, 6) / 30
    figure = figures.sheet(x, (3, 2), "five", columns=3)
    drawn(figure, tmp_path / "a.png")
    (axes,) = figure.axes
    assert axes.get_title() == "five"
    canvas = picture(axes)
    assert canvas.shape == (3 + 1 + 3, 2 + 1 + 2 + 1 + 2)
    assert np.array_equal(canvas[4:, 3:5], x[4].reshape(3, 2))
    assert np.all(canvas[3] == -1)
    assert np.all(canvas[4:, 5:] == -1)  # the place of a sixth


@pytest.mark.parametrize("n", sampled([1, 2, 64, 225], 3))
@pytest.mark.parametrize("kind", ["images", "vectors", "numbers"])
def test_samples_of_any_number_are_drawn(tmp_path: Path, kind: str, n: int) -> None:
    data = dataset(kind)
    figure = figures.samples(model_for(data), data.image_shape, n, seed=0)
    named(figure)
    drawn(figure, tmp_path / "a.png")
    assert f"{n} samples" in figure.axes[0].get_title()
    if kind != "images":
        assert picture(figure.axes[0]).shape == (n, data.data_dim)
        assert figure.axes[1].get_ylabel() == "value"  # of the colours


# -------------------------------------------------------------------------------------------------------- interpolation


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("kind", ["images", "vectors", "plane", "numbers"])
def test_interpolations_begin_and_end_at_test_data(tmp_path: Path, kind: str, labels: bool) -> None:
    data = dataset(kind, labels)
    model = model_for(data, likelihood="gaussian")
    figure = figures.interpolation(model, data)
    named(figure)
    drawn(figure, tmp_path / "a.png")
    if kind == "images":
        assert len(figure.axes) == 5 * 11
        assert figure.axes[0].get_title() == figure.axes[10].get_title() == "data"
        ends = [picture(figure.axes[i]).ravel() for i in (0, 10, 44, 54)]
        assert all((end == data.x_valid).all(axis=1).any() for end in ends)
    elif kind == "plane":
        assert len(figure.axes[0].get_lines()) == 2 * 5
    else:
        assert picture(figure.axes[0]).shape == (5 * 11, data.data_dim)


def test_a_path_goes_straight_from_one_mu_to_the_other() -> None:
    data = dataset("images")
    model = model_for(data)
    path = figures.interpolation_path(model, data.x_valid[:2], None, 5)
    mu = model.encode(data.x_valid[:2])[0]
    # float32, in batches of other sizes: sums of fewer than 10 terms below 10
    assert np.abs(path[[0, 4]] - model.decode(mu)).max() < 1e-5
    assert np.abs(path[2] - model.decode(mu.mean(axis=0)[None])[0]).max() < 1e-5


# ----------------------------------------------------------------------------------------------------- the latent space


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("latent", sampled([1, 2, 3, 20], 2))
def test_the_latent_space_is_drawn_in_the_plane_whatever_its_dimension(
    tmp_path: Path, latent: int, labels: bool
) -> None:
    data = dataset("vectors", labels)
    figure = figures.latent_space(model_for(data, latent), data)
    named(figure)
    drawn(figure, tmp_path / "a.png")
    (axes,) = figure.axes
    assert axes.get_ylabel()
    assert len(axes.collections) == (3 if labels else 1)
    assert [text.get_text() for text in axes.texts] == (["0", "1", "2"] if labels else [])
    points = np.concatenate([dots(axes, i) for i in range(len(axes.collections))])
    assert points.shape == (12, 2)
    assert np.isfinite(points).all()


def test_the_principal_directions_are_those_of_most_variance() -> None:
    data = dataset("vectors", labels=False)
    model = model_for(data, latent=4)
    axes = figures.latent_space(model, data).axes[0]
    points = dots(axes)
    mu = model.encode(data.x_valid)[0].astype("float64")
    variances = np.sort(np.linalg.eigvalsh(np.cov(mu.T)))[::-1]
    # eigenvalues and singular values of 4 x 4 numbers below 10, in float64: 1e-12 leaves a factor of 1000
    assert np.abs(np.var(points, axis=0, ddof=1) - variances[:2]).max() < 1e-12 * variances[0]
    assert f"{100 * variances[0] / variances.sum():.0f}%" in axes.get_xlabel()


def test_more_labels_than_colours_are_one_colour() -> None:
    data = dataset("vectors", test=50)
    many = Dataset("many", data.x_train, y_train=np.arange(20), x_valid=data.x_valid, y_valid=np.arange(50))
    assert len(figures.latent_space(model_for(many), many).axes[0].collections) == 1


def test_a_latent_space_that_carries_nothing_is_drawn_all_the_same(tmp_path: Path) -> None:
    data = dataset("vectors")
    model = model_for(data, latent=3)
    model.params.flat[...] = 0
    drawn(figures.latent_space(model, data), tmp_path / "a.png")


def test_the_manifold_covers_the_prior_from_the_top_left() -> None:
    z = figures.manifold_points()
    assert z.shape == (225, 2)
    assert z[0, 0] < 0 < z[0, 1]
    assert z[1, 0] > z[0, 0]  # to the right z1 grows
    assert z[15, 1] < z[0, 1]  # downwards z2 falls
    assert np.array_equal(z[112], [0, 0])
    figure = figures.manifold(model_for(dataset("images")), (3, 2))
    assert picture(figure.axes[0]).shape == (15 * 4 - 1, 15 * 3 - 1)


def test_data_in_the_plane_stand_beside_as_many_draws(tmp_path: Path) -> None:
    data = two_gaussians(30, seed=0)
    figure = figures.data_and_samples(model_for(data, likelihood="gaussian"), data, seed=0)
    named(figure)
    drawn(figure, tmp_path / "a.png")
    clouds = [dots(axes) for axes in figure.axes]
    assert np.array_equal(clouds[0], data.x_train)
    assert [len(cloud) for cloud in clouds] == [30, 30, 30]
    assert clouds[1].std() > clouds[2].std()  # draws have the noise that means lack
    assert figure.axes[0].get_ylabel() == "x2"


def test_the_draws_and_the_means_are_of_the_same_z() -> None:
    data = two_gaussians(50, seed=0)
    model = model_for(data, likelihood="gaussian")
    model.params["likelihood.logvar"][...] = -40.0  # noise of 2e-9: a draw is its mean
    figure = figures.data_and_samples(model, data, seed=0)
    draws, means = (dots(figure.axes[i]) for i in (1, 2))
    assert np.abs(draws - means).max() < 1e-6


# -------------------------------------------------------------------------------------------------- all of them at once


@pytest.mark.parametrize(
    ("kind", "latent", "names"),
    [
        ("images", 2, "loss reconstructions samples interpolation latent manifold"),
        ("images", 3, "loss reconstructions samples interpolation latent"),
        ("vectors", 1, "loss reconstructions samples interpolation latent"),
        ("numbers", 2, "loss reconstructions samples interpolation latent manifold"),
        ("plane", 2, "loss data_and_samples reconstructions interpolation latent"),
    ],
)
def test_write_figures_draws_what_fits_the_data(tmp_path: Path, kind: str, latent: int, names: str) -> None:
    data = dataset(kind)
    paths = figures.write_figures(tmp_path, model_for(data, latent, "gaussian"), data, history(1))
    assert [p.relative_to(tmp_path) for p in paths] == [Path("figures") / f"{name}.png" for name in names.split()]
    assert all(p.read_bytes().startswith(PNG) for p in paths)
    assert sorted(paths) == sorted((tmp_path / "figures").iterdir())


@pytest.mark.parametrize(("kind", "latent"), [("images", 2), ("vectors", 2), ("plane", 3)])
def test_two_test_rows_are_enough_for_every_picture(tmp_path: Path, kind: str, latent: int) -> None:
    data = dataset(kind, test=2)  # the fewest that a split makes
    figures.write_figures(tmp_path, model_for(data, latent), data, history(1))


def test_a_sheet_of_tall_images_is_of_a_size_that_can_be_drawn() -> None:
    figure = figures.sheet(np.zeros((64, 2000)), (2000, 1), "tall")
    width, height = figure.get_size_inches()
    assert width * height * DPI**2 < 100e6  # pixels, of 4 bytes each


def test_a_failing_save_leaves_the_old_picture_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = figures.loss_curves(history(2))
    (tmp_path / "a.png").write_bytes(b"the old one")

    def fail(figure: Figure, file: BinaryIO, **options: Any) -> None:
        file.write(PNG)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="No space"):
        figures.save_figure(figure, tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"the old one"


def test_pictures_need_no_screen_and_leave_no_global_state() -> None:
    code = (
        "import sys, tempfile; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from figure_data import *; from tinyvae.training import figures\n"
        "data = dataset('images'); folder = tempfile.TemporaryDirectory()\n"
        "figures.write_figures(Path(folder.name), model_for(data), data, history(2)); folder.cleanup()\n"
        "print([m for m in sys.modules if m in ('matplotlib.pyplot', 'tkinter', 'PyQt5')])"
    )
    argv = [sys.executable, "-c", code, str(Path(__file__).parents[1])]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
