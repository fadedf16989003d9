"""Data sets by name or by path. See `load`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training import streams
from tinyvae.training.data.convert import is_path
from tinyvae.training.data.dataset import MIN_ROWS, split
from tinyvae.training.data.dataset import Dataset as Dataset
from tinyvae.training.data.published import FASHION_MNIST, MNIST, Progress, load_binarized_mnist, load_idx_set
from tinyvae.training.data.regular import FOLDER, problem
from tinyvae.training.data.user import load_user_file

DIGITS_TEST_FRACTION = 0.2


def load(
    data: str, data_dir: Path | None = None, seed: int = 0, progress: Progress = lambda file: None,
    downloads: bool = True, own_valid: bool = False, label: str | None = None, kinds: Mapping[str, str] | None = None,
) -> Dataset:  # fmt: skip
    """The data set called `data`: digits, mnist, fashion-mnist, binarized-mnist, two-gaussians or two-gaussians:N, or
    the path of a file or a folder (see `found.find`).

    data_dir  where published files are looked for and downloaded to (default: the user's cache directory); if it has a
              folder of the data set's name, that one
    seed      draws the points of two-gaussians
    progress  makes a progress bar for a download, from the file's name
    downloads  what is missing may be downloaded into data_dir
    own_valid  rows that the data itself sets aside to choose a model by are loaded too (binarized-mnist has such)

    label, kinds  of a table: the column of labels; column -> kind, where it is another than it looks like

    Raises DataError if the data cannot be had or cannot be trained on.
    """
    if is_path(data):
        return load_user_file(Path(data), label, kinds)
    name, _, points = data.partition(":")
    if name == "digits":
        return load_digits()
    if name == "two-gaussians":
        return two_gaussians(int(points) if points else 100, seed)
    if name in ("mnist", "fashion-mnist"):
        source = MNIST if name == "mnist" else FASHION_MNIST
        return load_idx_set(name, source, _folder(name, data_dir), progress, downloads)
    if name == "binarized-mnist":
        return load_binarized_mnist(_folder(name, data_dir), progress, downloads, own_valid)
    return load_user_file(Path(data), label, kinds)


def load_digits() -> Dataset:
    """The 1,797 digits of 8 x 8 pixels that ship with the package (see DIGITS.md); one in five is for testing."""
    path = Path(__file__).with_name("digits.npz")
    with np.load(path, allow_pickle=False) as file:
        x, y = file["x"].reshape(-1, 64), file["y"]
    return split("digits", x, y, DIGITS_TEST_FRACTION, scale=1 / 16, image_shape=(8, 8))


def two_gaussians(points: int, seed: int) -> Dataset:
    """`points` draws to train on and as many to test on, from two equal Gaussians in the plane.

    Means (1, 1) and (1.5, 0.5), covariance [[1, 0.5], [0.5, 1]]; the label is the component.
    """
    if points < MIN_ROWS:
        raise DataError(f"two-gaussians needs at least {MIN_ROWS} points, not {points}")
    rng = np.random.default_rng([seed, streams.DATA])
    y = rng.integers(0, 2, 2 * points)
    means = np.array([[1.0, 1.0], [1.5, 0.5]])
    noise = rng.multivariate_normal(np.zeros(2), [[1.0, 0.5], [0.5, 1.0]], 2 * points)
    x = means[y] + noise  # (2 points, 2)
    return Dataset("two-gaussians", x[:points], x[points:], y[:points], y[points:])


def _folder(name: str, data_dir: Path | None) -> Path:
    if data_dir is not None:  # MNIST and Fashion-MNIST have files of the same names
        return data_dir / name if problem(data_dir / name) == FOLDER else data_dir
    import pooch  # only for the place where this system keeps caches

    return Path(pooch.os_cache("tinyvae")) / name
