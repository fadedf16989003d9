"""The size of the numbers: data that the likelihood cannot have made, or that no training can do much with."""

import numpy as np

from tinyvae.errors import DataError
from tinyvae.likelihoods.support import into_unit_interval, shown
from tinyvae.training.data.dataset import CHUNK, Dataset

# Tried on 1,000 rows of 5 columns, hidden 32, learned sigma, 800 steps: columns of standard deviation 10 end at 92 nats
# where independent Gaussians have 18.6, those of 60 at 17,286, and those of 100 diverge in the first batch; one column
# with the mean 10 costs 2 nats, 100 costs 55, 10,000 diverges. At 0.1 sigma has not come down yet: 2.7 for -4.5.
LARGE = 5.0  # a column's mean or standard deviation
SMALL = 0.15  # the largest standard deviation of all columns
_WORDS = {"train": "training", "valid": "validation", "test": "test"}


def check_unit_interval(dataset: Dataset, whose: str) -> None:
    """Raises DataError unless every value lies in [0, 1]: how far, how many, where the first is, and what to do.

    whose  what needs them there, as the beginning of the message's second half
    """
    low, high = dataset.range()
    if low >= 0 and high <= 1:
        return
    outside, first, whole = 0, "", True
    for part, stored, _, rows in dataset.parts():
        for start in range(0, len(stored), CHUNK):
            x = dataset.values(stored[start : start + CHUNK])
            out = (x < 0) | (x > 1)  # (chunk, data)
            whole = whole and bool((x == np.floor(x)).all())
            if out.any() and not first:
                row, column = np.argwhere(out)[0]
                where = f"{start + row} of the {_WORDS[part]} rows" if rows is None else rows[start + row]
                first = f"{shown(float(x[row, column]))} in row {where}, column {column}"
            outside += int(out.sum())
    total = sum(part.x.size for part in dataset.parts())
    raise DataError(
        f"{dataset.name}: the data lies in [{shown(low)}, {shown(high)}], but {whose} needs [0, 1] ({outside:,} of "
        f"{total:,} values are outside, the first is {first}); {into_unit_interval(low, high, whole)}"
    )


def check_representable(dataset: Dataset, dtype: str) -> None:
    """Raises DataError if the square of a value is beyond `dtype`: no Gaussian's loss could be a number."""
    largest = float(np.sqrt(np.finfo(dtype).max))
    low, high = dataset.range()
    if not max(-low, high) >= largest:  # NaN: nothing was observed
        return
    columns = np.fmax.reduce([_largest(x) for x in dataset.chunks()], axis=0) * dataset.scale  # (data,)
    column = int(np.nanargmax(columns))  # of those that were observed at all
    many = int((columns >= largest).sum())
    raise DataError(
        f"{dataset.name}: column {column} reaches {columns[column]:.3g}, and the square of that is beyond {dtype}"
        f"{f'; so are {many} columns' if many > 1 else ''}: {_standardize(dataset, columns[column])}"
    )


def too_large(dataset: Dataset) -> str | None:
    """The column whose numbers are the largest, and the line that standardizes; None if all are of about unit size."""
    low, high = dataset.range()
    if max(-low, high) <= LARGE:
        return None
    mean, std = column_moments(dataset)
    size = np.maximum(np.abs(mean), std)  # (data,)
    if size.max() <= LARGE:
        return None
    column, many = int(size.argmax()), int((size > LARGE).sum())
    others = f" ({many} of {len(size)} columns are larger than {LARGE:g})" if many > 1 else ""
    return (
        f"column {column} has mean {mean[column]:.3g} and standard deviation {std[column]:.3g}{others}; "
        f"{_standardize(dataset, float(size.max()))}"
    )


def scale_note(dataset: Dataset) -> str | None:
    """One line on real data that trains badly, too large or too small; None if its size is about 1."""
    large = too_large(dataset)
    if large:
        return f"real values train well at about unit size, but {large}"
    std = column_moments(dataset)[1].max()
    if 0 < std < SMALL:
        return (
            f"real values train well at about unit size, but no column has a standard deviation above {std:.3g}; "
            f"{_standardize(dataset, 1.0)}"
        )
    return None


def column_moments(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column of the training rows, (data,) each, without overflow: of the numbers
    that were observed, and 0 where none was."""
    unit = max(map(abs, dataset.range())) or 1.0
    x = dataset.x_train
    chunks = [slice(start, start + CHUNK) for start in range(0, len(x), CHUNK)]
    seen = np.maximum(sum(np.sum(~np.isnan(x[c]), axis=0) for c in chunks), 1)  # (data,)
    mean = sum(np.nansum(dataset.values(x[c]) / unit, axis=0) for c in chunks) / seen  # (data,)
    var = sum(np.nansum(np.square(dataset.values(x[c]) / unit - mean), axis=0) for c in chunks) / seen  # (data,)
    return np.asarray(mean * unit), np.asarray(np.sqrt(var) * unit)


def _standardize(dataset: Dataset, largest: float) -> str:
    """The line that gives every column mean 0 and standard deviation 1, in an arithmetic that bears it."""
    x = dataset.x_train
    begin = "" if x.dtype == np.float64 else "x = x.astype(float); "
    if largest > 1e150:  # whose square is beyond float64
        begin = "x = x / np.maximum(np.abs(x).max(0), 1); "
    first = x[:1]
    changes = np.any([(rows != first).any(axis=0) for rows in dataset.chunks("train")], axis=0)  # (data,)
    constant = not changes.all()
    std = "np.where(x.std(0) > 0, x.std(0), 1)" if constant else "x.std(0)"
    return f"standardize: {begin}x = (x - x.mean(0)) / {std}"


def _largest(x: np.ndarray) -> np.ndarray:
    return np.fmax(-np.fmin.reduce(x, axis=0).astype(float), np.fmax.reduce(x, axis=0).astype(float))
