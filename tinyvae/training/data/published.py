"""The published data sets: which files, from where, and how to know that they are the right ones."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyvae.errors import DataError
from tinyvae.training.data.dataset import Dataset
from tinyvae.training.data.formats import read_amat, read_idx, unzipped
from tinyvae.training.data.partial import remove_leftovers
from tinyvae.training.data.regular import FOLDER, exists, open_regular, problem, reason

Progress = Callable[[str], Any]  # file name -> a progress bar (total, update(n), close()), or None


@dataclass(frozen=True)
class Published:
    """A file that the world holds copies of."""

    file: str
    hash: str  # "sha256:..." or "md5:..." of the file
    size: int  # its bytes: no more of it is read, from a disk or from a mirror


@dataclass(frozen=True)
class Source:
    """A data set's files and the mirrors that serve them, in the order they are tried."""

    mirrors: tuple[str, ...]
    files: tuple[Published, ...]


MNIST = Source(
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    (
        Published(
            "train-images-idx3-ubyte.gz",
            "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            9_912_422,
        ),
        Published(
            "train-labels-idx1-ubyte.gz",
            "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            28_881,
        ),
        Published(
            "t10k-images-idx3-ubyte.gz",
            "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            1_648_877,
        ),
        Published(
            "t10k-labels-idx1-ubyte.gz",
            "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            4_542,
        ),
    ),
)
FASHION_MNIST = Source(  # its authors publish md5 sums; those of the labels are theirs
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    (
        Published(
            "train-images-idx3-ubyte.gz",
            "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            26_421_880,
        ),
        Published("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe", 29_515),
        Published(
            "t10k-images-idx3-ubyte.gz",
            "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            4_422_102,
        ),
        Published("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310", 5_148),
    ),
)
BINARIZED_MNIST = Source(  # Larochelle's static binarization; the hashes are of the unzipped text
    ("http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",),
    (
        Published(
            "binarized_mnist_train.amat",
            "sha256:ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
            78_400_000,
        ),
        Published(
            "binarized_mnist_test.amat",
            "sha256:e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
            15_680_000,
        ),
        Published(
            "binarized_mnist_valid.amat",
            "sha256:1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
            15_680_000,
        ),
    ),
)


def load_idx_set(name: str, source: Source, folder: Path, progress: Progress, downloads: bool = True) -> Dataset:
    """MNIST or Fashion-MNIST: 60,000 + 10,000 grey images of 28 x 28 bytes, with labels 0 to 9."""
    paths = [fetch(source, published, folder, progress, downloads) for published in source.files]
    return Dataset(
        name,
        read_idx(paths[0], (60_000, 28, 28)).reshape(60_000, 784),
        read_idx(paths[2], (10_000, 28, 28)).reshape(10_000, 784),
        read_idx(paths[1], (60_000,)),
        read_idx(paths[3], (10_000,)),
        scale=1 / 255,
        image_shape=(28, 28),
    )


def load_binarized_mnist(folder: Path, progress: Progress, downloads: bool = True, with_valid: bool = False) -> Dataset:
    """50,000 + 10,000 black-and-white images of 28 x 28; no labels; with Larochelle's own 10,000 held-out rows, if
    these are asked for."""
    rows = {"x_train": 50_000, "x_test": 10_000, "x_valid": 10_000}
    found = {
        part: read_amat(fetch(BINARIZED_MNIST, published, folder, progress, downloads), rows[part], 784)
        for part, published in zip(rows, BINARIZED_MNIST.files, strict=True)
        if part != "x_valid" or with_valid
    }
    return Dataset("binarized-mnist", image_shape=(28, 28), **found)  # pyright: ignore[reportArgumentType]


def fetch(source: Source, published: Published, folder: Path, progress: Progress, downloads: bool = True) -> Path:
    """The path of a verified file: one that is there already (or its gzipped form), or with `downloads` a fresh one.

    Raises DataError if a file is there but is not the published one, or if it cannot be had.
    """
    if exists(folder) and problem(folder) != FOLDER:
        raise DataError(f"{folder}: {problem(folder) or 'is a file, not a folder'}; choose another --data-dir")
    if downloads:
        remove_leftovers(folder, published.file)
    for path in (folder / published.file, folder / f"{published.file}.gz"):
        if exists(path):
            _verify(path, published)
            return path
    if not downloads:
        raise DataError(
            f"{folder}: the run found {published.file} there, and it is gone; name its folder by --data-dir"
        )
    from tinyvae.training.data.download import NoMirrorError, download  # here: most runs need no network

    try:
        return download(source.mirrors, published.file, published.hash, published.size, folder, progress)
    except NoMirrorError as error:
        needed = ", ".join(p.file for p in source.files)
        raise DataError(
            f"{error}; put these files into {folder} (or name their folder with --data-dir): {needed}"
        ) from error


def _verify(path: Path, published: Published) -> None:
    algorithm, expected = published.hash.split(":")
    h, left = hashlib.new(algorithm, usedforsecurity=False), published.size
    try:
        with unzipped(path) if path.name != published.file else open_regular(path) as f:
            while block := f.read(min(1 << 20, left + 1)):
                h.update(block)
                left -= len(block)
                if left < 0:
                    break
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)})") from error
    difference = f"its {algorithm} is {h.hexdigest()[:16]}..., not {expected[:16]}..."
    if left < 0:
        difference = f"it holds more than the {published.size:,} bytes of that"
    if left < 0 or h.hexdigest() != expected:
        raise DataError(
            f"{path}: is not the published file ({difference}); "
            "name another folder with --data-dir, or delete it to have it downloaded again"
        )
