"""Arrays that are handed over in Python, as a data set: looked at, and kept as they came where that is possible."""

import math
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from tinyvae.backend import to_host
from tinyvae.model.labels import flat_labels, in_words, label_values
from tinyvae.model.vae import VAE
from tinyvae.training.config import ARRAYS
from tinyvae.training.data import Dataset
from tinyvae.training.data.dataset import CHUNK, check_share
from tinyvae.training.data.picked import lies_in_a_file


def dataset_of(model: VAE, x: Any, y: Any = None, valid: Any = None) -> Dataset:
    """x, y and what is held out, for this model: see `tinyvae.Trainer`. Raises ValueError for what does not fit."""
    if isinstance(x, Dataset):  # what `load_data` returns
        if y is not None:
            raise ValueError("a data set has labels of its own: leave y away")
        whole = replace(x, x_valid=None, y_valid=None, rows_valid=None) if valid is not None else x
        _check_width(model, whole.x_train, "x")
        whole = replace(whole, image_shape=_image_shape(model, whole.image_shape, "x"))
        if model.classes:
            known = [part.y for part in whole.parts() if part.y is not None]
            given = np.concatenate(known) if known else None
            _labels(model, given, sum(map(len, known)), "labels in the data set")
    else:
        x, shape = _rows(model, x, "x")
        y, shape = _labels(model, y, len(x), "y"), _image_shape(model, shape, "x")
        whole = Dataset(ARRAYS, x, y_train=y, image_shape=shape).with_bytes_as(model.likelihood.bytes)
    if valid is None:
        return whole
    if isinstance(valid, Real) and not isinstance(valid, bool):
        check_share("valid", float(valid))
        return whole.with_valid(float(valid))
    pair = valid if isinstance(valid, tuple) else (valid, None)
    if len(pair) != 2:
        raise ValueError("valid must be a share such as 0.1, an array, or a pair (x, y)")
    rows, shape = _rows(model, pair[0], "valid")
    if None not in (shape, whole.image_shape) and shape != whole.image_shape:
        raise ValueError(f"valid holds images of {shape}, and x of {whole.image_shape}")
    if rows.dtype != whole.x_train.dtype:
        if np.uint8 in (rows.dtype, whole.x_train.dtype):
            raise ValueError(f"valid is {rows.dtype} and x is {whole.x_train.dtype}: bytes and numbers do not mix")
        rows = rows.astype(whole.x_train.dtype)
    return replace(whole, x_valid=rows, y_valid=_labels(model, pair[1], len(rows), "the labels of valid"))


def _rows(model: VAE, x: Any, name: str) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """x as (rows, data), in a dtype that is kept, and the shape of images if it held some."""
    x = x if lies_in_a_file(x) else to_host(x)
    if x.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold numbers, not {x.dtype}")
    _check_width(model, x, name)
    shape = tuple(x.shape[1:]) if x.ndim == 3 or (x.ndim == 4 and x.shape[3] == 3) else None
    if x.ndim == 4 and x.shape[1] == 3 and x.shape[3] != 3:
        raise ValueError(f"{name} has its colours first, {x.shape}: x = x.transpose(0, 2, 3, 1) puts them last")
    x = x.reshape(len(x), -1)
    for at in range(0, len(x) if x.dtype.kind == "f" else 0, CHUNK):
        infinite = np.isinf(x[at : at + CHUNK]).any(axis=1)  # (chunk,)
        if infinite.any():
            raise ValueError(f"{name} holds infinite values, the first in row {at + int(infinite.argmax())}")
    if x.dtype in (bool, np.uint8):
        return x.astype(np.uint8, copy=False), shape
    return x.astype(np.float32 if x.dtype.kind == "f" and x.dtype.itemsize <= 4 else np.float64, copy=False), shape


def _image_shape(model: VAE, shape: tuple[int, ...] | None, name: str) -> tuple[int, ...] | None:
    """That of the images: convolutions know it, also of rows."""
    own = getattr(model.architecture, "image_shape", None)
    if None not in (own, shape) and own != shape:
        raise ValueError(f"{name} holds images of {shape}, but the model is made for {own}")
    return own or shape


def _check_width(model: VAE, x: np.ndarray, name: str) -> None:
    if x.ndim < 2 or not len(x) or math.prod(x.shape[1:]) != model.data_dim:
        raise ValueError(f"{name} must have shape (rows, {model.data_dim}), with at least one row, not {x.shape}")


def _labels(model: VAE, y: Any, rows: int, name: str) -> np.ndarray | None:
    """Labels of a conditional model; a model that takes none has no use for them."""
    if not model.classes:
        return None
    if y is None:
        wanted = in_words(model.labels or range(model.classes))
        raise ValueError(f"the model is conditional: it needs {name}, of {wanted}")
    try:
        y = flat_labels(to_host(y) if hasattr(y, "dtype") else y)
        if y.shape != (rows,):
            raise ValueError(f"there are {len(y)} for {rows} rows")
        if model.labels is None and not _fits(y, model.classes):
            values = label_values([y])
            if len(values) != model.classes:
                raise ValueError(f"{len(values)} different ones occur, {in_words(values)}: the model is made for "
                                 f"{model.classes} (classes={len(values)} makes it for these)")  # fmt: skip
            model.labels = values
        model.label_codes(y, rows)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return y


def _fits(y: np.ndarray, classes: int) -> bool:
    """Whether they are whole numbers from 0 on already."""
    return y.dtype.kind in "iu" and y.min() >= 0 and y.max() < classes
