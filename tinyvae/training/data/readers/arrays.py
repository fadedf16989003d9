""".npy and .npz files. A .npy file's numbers stay in the file: a batch is read when it is needed."""

from pathlib import Path

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.arrays import open_arrays
from tinyvae.training.data.found import Found, Part
from tinyvae.training.data.readers.archive import read_archive
from tinyvae.training.data.readers.layout import chunks, looking, take
from tinyvae.training.data.readers.observed import check_observed


def read(path: Path) -> Found:
    """The rows of a file that numpy.save, numpy.savez or scipy.sparse.save_npz has written."""
    with open_arrays(path) as arrays:
        if arrays.is_archive:
            return read_archive(path, arrays)
        stored = arrays.find("x")
        x, image_shape = take(path, "x", stored)
        with looking(path, "x", x):
            if stored.dtype == bool:
                _check_bools(path, x)
            notes = check_observed(f"{path}: x", x)
    return Found(path.stem, Part(x), image_shape=image_shape, notes=tuple(notes))


def _check_bools(path: Path, x: np.ndarray) -> None:
    """A bool is a byte, 0 or 1; a damaged file may hold others."""
    for place in chunks(x):
        if x[place].max() > 1:
            raise DataError(f"{path}: is not a readable .npy file (a bool is {x[place].max()}); save it again")
