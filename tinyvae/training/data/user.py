"""A user's own data: .npy, or .npz with `x` and optionally `y`."""

import zipfile
from pathlib import Path

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.dataset import Dataset, split

TEST_FRACTION = 0.1


def load_user_file(path: Path) -> Dataset:
    """x (rows, columns), or (rows, height, width) for images; y (rows,) of whole numbers. A tenth is kept for testing.

    Raises DataError, naming the file and the cause, for anything that cannot be trained on.
    """
    x, y = _read(path)
    if x.dtype == object or x.dtype.kind not in "buif":
        raise DataError(f"{path}: x has dtype {x.dtype}, but numbers are needed")
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise DataError(f"{path}: x has shape {x.shape}, but (rows, columns) or (rows, height, width) is needed")
    image_shape = (x.shape[1], x.shape[2]) if x.ndim == 3 else None
    x = x.reshape(x.shape[0], -1)
    if x.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if bad.size:
            raise DataError(
                f"{path}: {bad.size} rows hold NaN or infinite values (the first is row {bad[0]}); remove them"
            )
        x = x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)
    elif x.dtype != np.uint8:
        x = x.astype(np.uint8 if x.dtype == bool else np.float64)
    if y is not None and (y.shape != (x.shape[0],) or y.dtype.kind not in "bui"):
        raise DataError(f"{path}: y must be {x.shape[0]} whole numbers, one for each row of x, not {y.dtype} {y.shape}")
    return split(path.stem, x, y, TEST_FRACTION, image_shape=image_shape)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded, None
        with loaded:
            if "x" not in loaded.files:
                raise DataError(f"{path}: holds {', '.join(loaded.files) or 'nothing'}, but the data must be called x")
            return loaded["x"], loaded["y"] if "y" in loaded.files else None
    except ValueError as error:
        if "allow_pickle" in str(error) or "pickle" in str(error):
            raise DataError(
                f"{path}: holds Python objects or is no .npy file; save plain numbers with numpy.save"
            ) from error
        raise DataError(f"{path}: is not a readable .npy or .npz file ({error})") from error
    except (OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{path}: is not a readable .npy or .npz file ({error})") from error
