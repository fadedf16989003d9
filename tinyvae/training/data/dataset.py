"""A data set: the rows to train on, those held out to choose an epoch by, those to test on, and how to read them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from tinyvae.errors import DataError
from tinyvae.model.labels import label_values
from tinyvae.training.data.picked import picked

CHUNK = 4096  # rows
MIN_TEST_ROWS = 2  # an interpolation has two ends, a standard error two numbers
MIN_ROWS = 10  # fewer cannot be split into a part to train on and a part to test on


class Part(NamedTuple):
    """Rows for one purpose."""

    name: str  # train, valid or test
    x: np.ndarray  # (rows, data)
    y: np.ndarray | None  # (rows,) labels by their own names
    rows: np.ndarray | None  # (rows,) where each stands in the file it is from

    def taken(self, rows: np.ndarray) -> "Part":
        """Some of the rows: numbers or truth values."""
        return self._replace(
            x=picked(self.x, rows), y=None if self.y is None else self.y[rows],
            rows=(np.arange(len(self.x)) if self.rows is None else self.rows)[rows],
        )  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """Rows of data, stored as they came (bytes stay bytes); a value is `x * scale`."""

    name: str
    x_train: np.ndarray  # (rows, data)
    x_test: Any = None  # (rows, data), or None
    y_train: np.ndarray | None = None  # (rows,) labels by their own names
    y_test: np.ndarray | None = None
    scale: float = 1.0
    image_shape: tuple[int, ...] | None = None  # (height, width), or (height, width, 3) in colour
    rows_train: np.ndarray | None = None  # (rows,) where each row stands in the file it is from, for messages
    rows_test: np.ndarray | None = None
    label_problem: str = ""  # why the labels that there are cannot be used, if so; there are none then
    x_valid: Any = None  # (rows, data), or None
    y_valid: Any = None
    rows_valid: np.ndarray | None = None
    notes: tuple[str, ...] = ()  # lines that a user must see: what was left out, what is missing
    table: Any = None  # how the columns of a table became numbers, and back: see `table.Table`

    @property
    def data_dim(self) -> int:
        """Width of a row."""
        return self.x_train.shape[1]

    def values(self, x: np.ndarray, dtype: str = "float64") -> np.ndarray:
        """Stored rows as real numbers."""
        return np.multiply(x, self.scale, dtype=dtype)

    def parts(self) -> Iterator[Part]:
        """The parts that there are: train, valid, test."""
        for name in ("train", "valid", "test"):
            x = getattr(self, f"x_{name}")
            if x is not None:
                yield Part(name, x, getattr(self, f"y_{name}"), getattr(self, f"rows_{name}"))

    def held_out(self) -> Part:
        """The rows for pictures: those held out to choose by, else those trained on. Test rows are not looked at."""
        found = {part.name: part for part in self.parts()}
        return found.get("valid") or found["train"]

    def chunks(self, *names: str) -> Iterator[np.ndarray]:
        """The stored rows of these parts, or of all, so many at a time that their copies are no matter."""
        parts = (part for part in self.parts() if not names or part.name in names)
        return (part.x[at : at + CHUNK] for part in parts for at in range(0, len(part.x), CHUNK))

    def is_whole(self) -> bool:
        """Whether all values that were observed are whole numbers: counts."""
        return all(((x == np.floor(x)) | np.isnan(x)).all() for x in map(self.values, self.chunks()))

    def range(self) -> tuple[float, float]:
        """The smallest and the largest value of those that were observed, which NaN were not; NaN if none was."""
        low = [float(np.fmin.reduce(x, axis=None)) for x in self.chunks()]
        high = [float(np.fmax.reduce(x, axis=None)) for x in self.chunks()]
        return float(np.fmin.reduce(low)) * self.scale, float(np.fmax.reduce(high)) * self.scale

    def is_binary(self) -> bool:
        """Every value is 0 or 1."""
        one = 1 / self.scale
        return all(bool(((x == 0) | (x == one)).all()) for x in self.chunks())  # most data shows itself in the first

    def occurring_labels(self) -> np.ndarray:
        """The labels that training rows have, (labels,) ascending."""
        assert self.y_train is not None
        return np.unique(self.y_train)

    def label_values(self) -> tuple[Any, ...]:
        """The labels that occur in any part, ascending."""
        return label_values(part.y for part in self.parts() if part.y is not None)

    def check_classes(self) -> None:
        """Raises DataError unless every row has a label, and most labels are of several rows."""
        if any(part.y is None for part in self.parts()):
            needed = f"{self.name}: has no labels; --conditional needs y, a label for every row"
            raise DataError(self.label_problem or needed)
        many, rows = len(self.label_values()), len(self.x_train)
        if many > max(10, rows / 2):
            raise DataError(f"{self.name}: has {many:,} different labels for {rows:,} rows: these are no classes")

    def listed_labels(self) -> str:
        """The labels that occur, "0, 1, 2", or how many there are between which."""
        return _listed(np.array(self.label_values()))

    def without(self, label: Any) -> "Dataset":
        """Without the rows of one label. Raises DataError if there are no labels, or no such rows, or few others."""
        kept = {}
        for part in self.parts():
            if part.y is None:
                raise DataError(self.label_problem or f"{self.name}: has no labels, so none can be left out")
            kept[part.name] = part.y.astype(str) != str(label)  # (rows,)
        if all(rows.all() for rows in kept.values()):
            raise DataError(f"{self.name}: has no rows with label {label}; its labels are {self.listed_labels()}")
        if any(kept[name].sum() < (MIN_ROWS if name == "train" else MIN_TEST_ROWS) for name in kept):
            raise DataError(f"{self.name}: without label {label} too few rows are left")
        return self._changed({part.name: part.taken(kept[part.name]) for part in self.parts()})

    def thresholded(self) -> "Dataset":
        """Every value at least 1/2 becomes 1, every other one 0; what was not observed stays so."""
        whole = not any(np.isnan(x).any() for x in self.chunks())

        def black_or_white(x: np.ndarray) -> np.ndarray:
            made = np.empty(x.shape, np.uint8 if whole else np.float32)
            for at in range(0, len(x), CHUNK):
                few = x[at : at + CHUNK]
                made[at : at + CHUNK] = np.where(np.isnan(few), few, few >= 0.5 / self.scale)
            return made

        parts = {part.name: part._replace(x=black_or_white(part.x)) for part in self.parts()}
        return replace(self._changed(parts), scale=1.0)

    def with_valid(self, share: float) -> "Dataset":
        """With a share of the training rows held out, always the same ones, whatever the run's seed.

        Raises DataError if too few are left.
        """
        train = next(self.parts())
        check_enough(self.name, len(train.x), "to train on and to hold some out (--valid none holds none out)")
        first, second = shared_out(len(train.x), share)
        return self._changed({"train": train.taken(first), "valid": train.taken(second)})

    def with_bytes_as(self, meaning: str) -> "Dataset":
        """With bytes as a likelihood takes them: "pixels" are scaled to [0, 1], others stay whole numbers."""
        if meaning != "pixels" or self.x_train.dtype != np.uint8 or self.scale != 1 or self.range()[1] <= 1:
            return self
        return replace(self, scale=1 / 255)

    def _changed(self, parts: dict[str, Part]) -> "Dataset":
        values = {
            f"{field}_{name}": getattr(part, field) for name, part in parts.items() for field in ("x", "y", "rows")
        }
        return replace(self, **values)

    def digest(self, with_labels: bool = False) -> str:
        """A fingerprint of the rows: a run is resumed on the data that it began with, or not at all.

        For a conditional model the labels count too.
        """
        h = hashlib.sha256()
        parts = list(self.parts())
        for a in (*(part.x for part in parts), *(part.y for part in parts if with_labels)):
            assert a is not None  # a conditional model has labels
            h.update(f"{a.shape} {a.dtype} {self.scale}".encode())
            for at in range(0, len(a), CHUNK):
                few = a[at : at + CHUNK]
                h.update(np.ascontiguousarray(few).data if few.dtype.kind != "U" else repr(few.tolist()).encode())
        return h.hexdigest()


def _listed(y: np.ndarray) -> str:
    labels = np.unique(y)
    return ", ".join(map(str, labels)) if len(labels) <= 20 else f"{len(labels)} from {labels[0]} to {labels[-1]}"


def split(name: str, x: np.ndarray, y: np.ndarray | None, test_fraction: float, **fields: object) -> Dataset:
    """Set a share of the rows aside for testing: always the same ones, whatever the run's seed."""
    check_enough(name, len(x), "to train and to test on")
    train, test = shared_out(len(x), test_fraction)
    fields |= {"rows_train": train, "rows_test": test}
    if y is not None:
        fields |= {"y_train": y[train], "y_test": y[test]}
    return Dataset(name, picked(x, train), picked(x, test), **fields)  # pyright: ignore[reportArgumentType] - checked by Dataset's users


def shared_out(rows: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the rows that stay and of the share that is set aside, both ascending."""
    order = np.random.default_rng(0).permutation(rows)
    cut = rows - max(MIN_TEST_ROWS, round(rows * share))
    return np.sort(order[:cut]), np.sort(order[cut:])


def check_enough(name: str, rows: int, purpose: str) -> None:
    """Raises DataError for fewer rows than can be parted."""
    if rows < MIN_ROWS:
        raise DataError(f"{name}: {rows} rows are too few {purpose}; at least {MIN_ROWS} are needed")


def check_share(name: str, share: float) -> None:
    """Raises ValueError unless this is a share of the rows that leaves most of them."""
    if not 0 < share <= 0.5:
        raise ValueError(f"{name} must be a share of the rows above 0 and at most 0.5, not {share:g}")


def evenly_spread(rows: int, most: int) -> np.ndarray:
    """The numbers of all rows, or of `most` of them, the first and the last among them: files may be sorted."""
    return np.linspace(0, rows - 1, min(rows, most)).round().astype(int)
