"""A user's own data: .npy, or .npz with `x` and optionally `y`."""

from pathlib import Path

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.dataset import Dataset, split

TEST_FRACTION = 0.1


def load_user_file(path: Path) -> Dataset:
    """A user's rows, a tenth of them kept for testing. Raises DataError for anything that cannot be trained on."""
    x, y, image_shape = read_user_rows(path)
    return split(path.stem, x, y, TEST_FRACTION, image_shape=image_shape)


def read_user_rows(path: Path) -> tuple[np.ndarray, np.ndarray | None, tuple[int, int] | None]:
    """x (rows, data), y (rows,) or None, and the shape of an image or None, in the order of the file.

    The file's x is (rows, columns), or (rows, height, width) for images; its y (rows,) holds whole numbers.
    Raises DataError, naming the file and the cause, for anything else.
    """
    x, y = _read(path)
    if x.dtype.kind not in "buif":
        raise DataError(f"{path}: x has dtype {x.dtype}, but numbers are needed")
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise DataError(f"{path}: x has shape {x.shape}, but (rows, columns) or (rows, height, width) is needed")
    image_shape = (x.shape[1], x.shape[2]) if x.ndim == 3 else None
    x = x.reshape(x.shape[0], -1)
    if x.dtype in (bool, np.uint8):
        x = x.astype(np.uint8, copy=False)
    else:
        narrow = x.dtype.kind == "f" and x.dtype.itemsize <= 4
        with np.errstate(over="ignore"):  # a long double beyond float64 becomes infinite, and is refused below
            x = x.astype(np.float32 if narrow else np.float64, copy=False)
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if bad.size:
            first = f"{bad.size} of {len(x)} rows, the first is row {bad[0]}"
            raise DataError(f"{path}: x holds NaN or infinite values ({first}); remove these rows")
    if y is not None and (y.shape != (x.shape[0],) or y.dtype.kind not in "bui"):
        raise DataError(f"{path}: y must be {x.shape[0]} whole numbers, one for each row of x, not {y.dtype} {y.shape}")
    return x, y if y is None or y.dtype != bool else y.astype(np.uint8), image_shape


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None
            arrays = {name: loaded[name] for name in ("x", "y") if name in loaded.files}
            names = loaded.files
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; if it has moved, name its folder with --data-dir") from error
    except Exception as error:  # a damaged file makes NumPy and zipfile raise nearly anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        if "pickle" in reason:
            reason = "it holds Python objects, or is no such file at all"
        raise DataError(
            f"{path}: is not a readable .npy or .npz file ({reason}); save numbers with numpy.save"
        ) from error
    if "x" not in arrays:
        raise DataError(f"{path}: holds {', '.join(names) or 'nothing'}, but the data must be called x")
    if not all(isinstance(a, np.ndarray) for a in arrays.values()):
        raise DataError(f"{path}: x and y must be arrays; save them with numpy.savez(file, x=x, y=y)")
    return arrays["x"], arrays.get("y")
