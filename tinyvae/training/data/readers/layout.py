"""Arrays as rows: what shapes and kinds of numbers are taken, and what to do with the others.

(rows, columns), or images: (rows, height, width), and with one channel or three, before or behind height and width. A
row of an image runs over height, width, channel: `x[i].reshape(image_shape)` is the picture.
"""

import math
import mmap
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from tinyvae.errors import DataError
from tinyvae.training.data.arrays import Stored
from tinyvae.training.data.memory import enough_memory

CHUNK = 1 << 24  # bytes of an array that are looked at, or converted, at once


def take(path: Path, name: str, stored: Stored) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """The array as (rows, columns), and the shape of an image. Raises DataError, with a remedy, if it is neither.

    Bytes stay bytes (bools are 0 and 1), floats of at most 4 bytes become float32, all other numbers float64. An array
    in a .npy file stays there (a memory map), if it is uint8, bool, float32 or float64 of this machine's byte order,
    row after row, and has its channel last. Any other is converted in memory, a chunk at a time.
    """
    check_numbers(path, name, stored)
    image_shape, channel = image_of(path, name, stored.shape)
    target = kept_as(stored.dtype)
    rows, columns = stored.shape[0], math.prod(stored.shape[1:])
    as_it_is = target.itemsize == stored.dtype.itemsize and target.kind in (stored.dtype.kind, "u")
    as_it_is = as_it_is and stored.dtype.isnative and channel is None and not stored.fortran
    copied = rows * columns * target.itemsize if not as_it_is else 0
    needed, mapped = (copied, stored.size) if stored.map else (stored.size + copied, 0)
    remedy = fewer(path)
    if mapped and as_it_is:
        remedy = f"if the address space is limited, lift that (ulimit -v); or {remedy}"
    elif mapped:
        remedy = f"float32, float64 or bytes, row after row, would be read where they are; or {remedy}"
    with enough_memory(needed, f"{path}: {name}, {stored}", remedy, already=mapped):
        source = stored.map() if stored.map else stored.read()
        if as_it_is:
            return source.reshape(rows, columns).view(target), image_shape
        return _copied(path, name, source, target, channel, stored.fortran), image_shape


def kept_as(dtype: np.dtype) -> np.dtype:
    """Bytes stay bytes, floats of at most 4 bytes become float32, all other numbers float64."""
    if dtype in (bool, np.uint8):
        return np.dtype(np.uint8)
    return np.dtype(np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64)


def looking(path: Path, name: str, x: np.ndarray) -> AbstractContextManager[None]:
    """Around code that looks at x chunk by chunk: memory that runs out is called so."""
    return enough_memory(min(x.nbytes, 3 * CHUNK), f"{path}: {name}, {x.shape} {x.dtype}", fewer(path))


def chunks(x: np.ndarray) -> Iterator[slice]:
    """Rows, a few at a time: about CHUNK bytes. Of a mapped file, those that were looked at leave the process again."""
    step = max(1, CHUNK // max(1, x[:1].nbytes))
    mapped = getattr(x, "_mmap", None)  # a memory map's
    for start in range(0, len(x), step):
        yield slice(start, start + step)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)  # the system keeps the pages as long as it has room


def _copied(path: Path, name: str, source: np.ndarray, target: np.dtype, channel: int | None, fortran: bool
            ) -> np.ndarray:  # fmt: skip
    """The numbers in another type or order."""
    x = np.empty((len(source), source[0].size), target)
    if channel is None:
        view = x.reshape(source.shape)
    else:
        behind = (*source.shape[:channel], *source.shape[channel + 1 :], source.shape[channel])
        view = np.moveaxis(x.reshape(behind), -1, channel)  # as the source has it, on the memory of x
    columns = ((..., k) for k in range(source.shape[-1]))  # in Fortran's order, the last index is the slowest one
    for place in columns if fortran else chunks(source):
        part = source[place]
        with np.errstate(over="ignore"):
            view[place] = part
        if part.dtype.kind == "f" and part.dtype.itemsize > 8 and (np.isinf(view[place]) & ~np.isinf(part)).any():
            raise DataError(
                f"{path}: {name} holds long doubles beyond float64; bring them there: x = x / np.abs(x).max()"
            )
    return x


# ----------------------------------------------------------------------------------------- what it must be, what helps


def check_numbers(path: Path, name: str, x: Stored) -> None:
    """Raises DataError unless the array holds real numbers."""
    if x.dtype.kind in "buif":
        return
    kind = f"{len(x.dtype.names)} fields (records)" if x.dtype.names else f"dtype {x.dtype}"
    raise DataError(f"{path}: {name} has {kind}, but numbers are needed; {_as_numbers(path, x.dtype)}")


def _as_numbers(path: Path, dtype: np.dtype) -> str:
    if dtype.hasobject:
        return (
            f"it holds Python objects, which are never unpickled; if you trust the file: x = np.load({str(path)!r}, "
            "allow_pickle=True).astype(float), and save that with numpy.save"
        )
    if dtype.names:
        return "put its fields side by side: x = np.stack([x[name].astype(float) for name in x.dtype.names], axis=1)"
    return {
        "U": "if they are numbers written out: x = x.astype(float)",
        "S": "if they are numbers written out: x = x.astype(float)",
        "c": "real and imaginary parts side by side: x = np.concatenate([x.real, x.imag], axis=1)",
        "M": "as days since the first: x = (x - x.min()) / np.timedelta64(1, 'D')",
        "m": "as days: x = x / np.timedelta64(1, 'D')",
    }.get(dtype.kind, "save numbers with numpy.save")


def image_of(path: Path, name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...] | None, int | None]:
    """The shape of an image, None for rows; and which axis has the channels, if it is not the last.

    Raises DataError for a shape that is no rows or images, or that could be more than one kind of images.
    """
    if 0 not in shape:
        if len(shape) == 2:
            return None, None
        if len(shape) == 3:
            return (shape[1], shape[2]), None
        if len(shape) == 4:
            _, a, b, c = shape
            if c == 1 and a not in (1, 3, 4):
                return (a, b), None
            if a == 1 and c not in (1, 3, 4):
                return (b, c), None
            if c == 3 and a not in (1, 3, 4):
                return (a, b, 3), None
            if a == 3 and c not in (1, 3, 4):
                return (b, c, 3), 1
    right = "(rows, columns), or images: (rows, height, width), (rows, height, width, 3) or (rows, 3, height, width)"
    raise DataError(f"{path}: {name} has shape {shape}, but {right} is needed{_as_rows(shape)}")


def _as_rows(shape: tuple[int, ...]) -> str:
    """How such an array becomes rows; nothing for an empty one."""
    if 0 in shape or not shape:
        return ""
    if len(shape) == 1:
        return "; rows of one number: x = x[:, None]"
    if len(shape) == 4:
        _, a, b, c = shape
        if a in (1, 3, 4) and c in (1, 3, 4):
            small = "either axis can be that of the channels"
            if a == 1:  # a height of 1, or one channel before height and width
                return f"; {small}: x = x[:, 0], which is {(shape[0], b, c)}, takes the first for it"
            if c == 1:
                return f"; {small}: x = x[..., 0], which is {shape[:3]}, takes the last for it"
            return f"; {small}; flat rows: x = x.reshape(len(x), -1)"
        if c == 4:
            return "; there are four channels, the last is taken for opacity: x = x[..., :3] leaves it out"
        if a == 4:
            return "; there are four channels, the last is taken for opacity: x = x[:, :3] leaves it out"
        if b in (1, 3):
            return "; if the last axis has the images: x = np.moveaxis(x, -1, 0)"
    return "; flat rows: x = x.reshape(len(x), -1)"


def fewer(path: Path) -> str:
    """The remedy for too little memory."""
    if path.suffix.lower() == ".npy":
        return f"take every tenth row: np.save('fewer.npy', np.load({str(path)!r}, mmap_mode='r')[::10])"
    return "save fewer rows, or the same as float32 or as bytes"
