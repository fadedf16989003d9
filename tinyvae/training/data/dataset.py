"""A data set in memory: the rows to train on, the rows to test on, and how to read them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tinyvae.errors import DataError

MIN_TEST_ROWS = 2  # an interpolation has two ends, a standard error two numbers
MIN_ROWS = 10  # fewer cannot be split into a part to train on and a part to test on


@dataclass(frozen=True)
class Dataset:
    """Rows of data, stored as they came (bytes stay bytes); a value is `x * scale`."""

    name: str
    x_train: np.ndarray  # (rows, data)
    x_test: np.ndarray  # (rows, data)
    y_train: np.ndarray | None = None  # (rows,) whole numbers
    y_test: np.ndarray | None = None
    scale: float = 1.0
    image_shape: tuple[int, int] | None = None
    rows_train: np.ndarray | None = None  # (rows,) where each row stands in the file it is from, for messages
    rows_test: np.ndarray | None = None
    label_problem: str = ""  # why the labels that there are cannot be used, if so; there are none then

    @property
    def data_dim(self) -> int:
        """Width of a row."""
        return self.x_train.shape[1]

    def values(self, x: np.ndarray, dtype: str = "float64") -> np.ndarray:
        """Stored rows as real numbers."""
        return np.multiply(x, self.scale, dtype=dtype)

    def chunks(self) -> Iterator[np.ndarray]:
        """All rows as real numbers, some at a time."""
        return (self.values(x[at : at + 4096]) for x in (self.x_train, self.x_test) for at in range(0, len(x), 4096))

    def is_whole(self) -> bool:
        """Whether all values are whole numbers: counts."""
        return all((x == np.floor(x)).all() for x in self.chunks())

    def range(self) -> tuple[float, float]:
        """The smallest and the largest value; NaN if there is one."""
        low = min(self.x_train.min(), self.x_test.min())
        high = max(self.x_train.max(), self.x_test.max())
        return float(low) * self.scale, float(high) * self.scale

    def is_binary(self) -> bool:
        """Every value is 0 or 1."""
        one = 1 / self.scale
        chunks = (x[i : i + 1000] for x in (self.x_train, self.x_test) for i in range(0, len(x), 1000))
        return all(
            bool(((x == 0) | (x == one)).all()) for x in chunks
        )  # in chunks: most data shows itself in the first

    def occurring_labels(self) -> np.ndarray:
        """The labels that training rows have, (labels,) ascending."""
        assert self.y_train is not None
        return np.unique(self.y_train)

    def classes(self) -> int:
        """How many labels a conditional model must know: 0 to the largest that there is."""
        assert self.y_train is not None
        assert self.y_test is not None
        return int(max(self.y_train.max(), self.y_test.max())) + 1

    def check_classes(self) -> None:
        """Raises DataError unless every row has a label, and these are whole numbers from 0 on, without wide gaps."""
        if self.y_train is None or self.y_test is None:
            needed = f"{self.name}: has no labels; --conditional needs y, whole numbers from 0 on, for every row"
            raise DataError(self.label_problem or needed)
        y = np.unique(np.concatenate([self.y_train, self.y_test]))
        right = f"number them from 0 to {len(y) - 1}: y = np.unique(y, return_inverse=True)[1]"
        if y[0] < 0:
            raise DataError(f"{self.name}: has labels below 0; --conditional needs whole numbers from 0 on; {right}")
        if self.classes() > 10 * len(y):
            raise DataError(f"{self.name}: has {len(y)} different labels, but they reach to {y[-1]}; {right}")

    def listed_labels(self) -> str:
        """The labels that occur, "0, 1, 2", or how many there are between which."""
        assert self.y_train is not None
        assert self.y_test is not None
        return _listed(np.concatenate([self.y_train, self.y_test]))

    def without(self, label: int) -> "Dataset":
        """Without the rows of one label. Raises DataError if there are no labels, or no such rows, or few others."""
        if self.y_train is None or self.y_test is None:
            raise DataError(self.label_problem or f"{self.name}: has no labels, so none can be left out")
        train, test = self.y_train != label, self.y_test != label  # (rows,) each
        if train.all() and test.all():
            raise DataError(f"{self.name}: has no rows with label {label}; its labels are {_listed(self.y_train)}")
        if train.sum() < MIN_ROWS or test.sum() < MIN_TEST_ROWS:
            raise DataError(f"{self.name}: without label {label} too few rows are left")
        rows_train, rows_test = self.rows_train, self.rows_test
        return replace(
            self, x_train=self.x_train[train], y_train=self.y_train[train], x_test=self.x_test[test],
            y_test=self.y_test[test], rows_train=None if rows_train is None else rows_train[train],
            rows_test=None if rows_test is None else rows_test[test],
        )  # fmt: skip

    def thresholded(self) -> "Dataset":
        """Every value at least 1/2 becomes 1, every other one 0."""
        half = 0.5 / self.scale
        binary = [(x >= half).astype(np.uint8) for x in (self.x_train, self.x_test)]
        return replace(self, x_train=binary[0], x_test=binary[1], scale=1.0)

    def digest(self, with_labels: bool = False) -> str:
        """A fingerprint of the rows: a run is resumed on the data that it began with, or not at all.

        For a conditional model the labels count too.
        """
        h = hashlib.sha256()
        for x in (self.x_train, self.x_test, *((self.y_train, self.y_test) if with_labels else ())):
            assert x is not None  # a conditional model has labels
            h.update(f"{x.shape} {x.dtype} {self.scale}".encode())
            h.update(np.ascontiguousarray(x).data)
        return h.hexdigest()


def _listed(y: np.ndarray) -> str:
    labels = np.unique(y)
    return (
        ", ".join(map(str, labels)) if len(labels) <= 20 else f"{len(labels)} numbers from {labels[0]} to {labels[-1]}"
    )


def split(name: str, x: np.ndarray, y: np.ndarray | None, test_fraction: float, **fields: object) -> Dataset:
    """Set a share of the rows aside for testing: always the same ones, whatever the run's seed."""
    if x.shape[0] < MIN_ROWS:
        raise DataError(
            f"{name}: {x.shape[0]} rows are too few to train and to test on; at least {MIN_ROWS} are needed"
        )
    order = np.random.default_rng(0).permutation(x.shape[0])
    cut = x.shape[0] - max(MIN_TEST_ROWS, round(x.shape[0] * test_fraction))
    train, test = np.sort(order[:cut]), np.sort(order[cut:])
    fields |= {"rows_train": train, "rows_test": test}
    if y is not None:
        fields |= {"y_train": y[train], "y_test": y[test]}
    return Dataset(name, x[train], x[test], **fields)  # pyright: ignore[reportArgumentType] - checked by Dataset's users


def evenly_spread(rows: int, most: int) -> np.ndarray:
    """The numbers of all rows, or of `most` of them, the first and the last among them: files may be sorted."""
    return np.linspace(0, rows - 1, min(rows, most)).round().astype(int)
