"""What the commands on a trained run share: the run, its model, its test data, and other rows to look at."""

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinyvae.errors import CheckpointError, DataError, TinyvaeError, UsageError
from tinyvae.model.steering import listed
from tinyvae.model.vae import VAE
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training import data, streams
from tinyvae.training.checkpoint import Checkpoint
from tinyvae.training.config import BACKENDS, Config, check_data_name, replaced
from tinyvae.training.data import Dataset
from tinyvae.training.data.rows import PARTS, Rows, load_rows
from tinyvae.training.run import check_same_data, load_data, stored_config

WITH_EVERY_LABEL = ("digits", "mnist", "fashion-mnist")  # of their classes: known without loading them


@dataclass(frozen=True)
class Trained:
    """A run as it stands: its last checkpoint, the configuration, and the model (of the last or the best epoch)."""

    checkpoint: Checkpoint
    config: Config
    model: VAE
    epoch: int
    _loaded: dict[str | None, Dataset] = field(default_factory=dict, repr=False, compare=False)

    def dataset(self, data_dir: str | None) -> Dataset:
        """The run's data, the very same as in training. Raises DataError or CheckpointError if it cannot be had."""
        if data_dir not in self._loaded:
            config = replaced(self.config, {"data_dir": data_dir}) if data_dir else self.config
            dataset = load_data(config)
            check_same_data(self.checkpoint, dataset)
            own = self.image_shape
            if dataset.image_shape != own:  # the same numbers, but a mask or a picture would not be the same
                raise CheckpointError(
                    f"{self.checkpoint.path}: was made with {_kind(own)}, but {dataset.name} now holds "
                    f"{_kind(dataset.image_shape)}"
                )
            self._loaded[data_dir] = dataset
        return self._loaded[data_dir]

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(height, width) of the images that the run was trained on; None if these were no images."""
        shape = self.checkpoint.run["image_shape"]
        return shape and (shape[0], shape[1])

    def labels(self, data_dir: str | None) -> np.ndarray | None:
        """The labels that a conditional run's training rows have, (labels,) ascending.

        None if its data cannot be had any more: a line on stderr then says that labels cannot be checked.
        """
        classes = self.model.architecture.classes
        if self.config.data in WITH_EVERY_LABEL:
            return np.arange(classes)  # a conditional run leaves none out
        try:
            y = self.dataset(data_dir).y_train
        except TinyvaeError as error:
            print(f"note: which labels the run was trained with cannot be checked: {error}", file=sys.stderr)
            return None
        assert y is not None  # of a conditional run, as `load_data` holds
        return np.unique(y)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all commands on a run have."""
    parser.add_argument("run_dir", metavar="RUN", type=Path, help="a run directory, made by tinyvae train")
    which = "the parameters of the last epoch, or of the one with the best test loss (default: last)"
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last", help=which)
    parser.add_argument("--data-dir", metavar="DIR", help="where published data lies, if not where the run found it")
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="default: auto: cupy where it works, else numpy"
    )


def open_run(args: argparse.Namespace) -> Trained:
    """The run that the arguments name. Raises UsageError if there is none, CheckpointError if it is damaged."""
    path: Path = args.run_dir
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such run directory")
    last, _ = checkpoints.read_last(path)
    config = stored_config(last)
    if args.checkpoint == "best":
        best = checkpoints.read_checkpoint(checkpoints.best_path(path, last.run["state"]["best_epoch"]))
        return Trained(last, config, best.model(args.backend), best.run["epoch"])
    return Trained(last, config, last.model(args.backend), last.run["state"]["epoch"])


def add_rows_arguments(parser: argparse.ArgumentParser) -> None:
    """DATA and --part: rows for a trained model to look at."""
    names = "|".join(data.NAMES)
    parser.add_argument("data", metavar="DATA", help=f"{names}, or the path of a .npy or .npz file")
    parser.add_argument(
        "--part", choices=PARTS, default="test", help="which rows of a named data set (default: test; a file: all)"
    )


def rows_of(args: argparse.Namespace, trained: Trained) -> Rows:
    """The rows that DATA and --part name, made black and white as the run's own data was.

    Raises UsageError or DataError if they cannot be had, or if the run's model cannot have made them: another width,
    images of another shape, other values; for a conditional model no labels, or some that it was not trained with.
    """
    try:
        check_data_name(args.data, data.NAMES)
    except ValueError as error:
        raise UsageError(str(error).replace("--data ", "DATA ", 1)) from error
    folder = args.data_dir or (trained.config.data_dir if args.data == trained.config.data else None)
    rows = load_rows(args.data, args.part, Path(folder) if folder else None, trained.config.seed)
    architecture, x = trained.model.architecture, rows.x
    if x.shape[1] != architecture.data_dim:
        raise DataError(f"{rows.name}: has {x.shape[1]} columns, but the run was trained on {architecture.data_dim}")
    if None not in (rows.image_shape, trained.image_shape) and rows.image_shape != trained.image_shape:
        raise DataError(
            f"{rows.name}: holds {_kind(rows.image_shape)}, but the run was trained on {_kind(trained.image_shape)}"
        )
    if rows.image_shape is not None and trained.image_shape is None:
        print(
            f"note: {rows.name}: {_kind(rows.image_shape)} are taken as rows of {x.shape[1]} numbers, pixel row after "
            "pixel row, for the run was trained on rows",
            file=sys.stderr,
        )
    if architecture.classes and rows.y is not None:
        _check_occur(rows.name, rows.y, trained.labels(args.data_dir))
    try:
        if trained.config.binarize != "none":
            if x.min() < 0 or x.max() > 1:
                raise ValueError(f"the data lies in [{x.min():g}, {x.max():g}], but the run binarized data in [0, 1]")
            level = 0.5 if trained.config.binarize == "threshold" else _uniform(trained, x.shape)
            x = (x >= level).astype(np.float64) if isinstance(level, float) else (level < x).astype(np.float64)
        with np.errstate(over="ignore"):  # what is too large for the model's precision becomes infinite, and is refused
            narrow = x.astype(trained.model.dtype)
        architecture.check_support(float(narrow.min()), float(narrow.max()))
        architecture.check_labels(rows.y if architecture.classes else None, len(x))
    except ValueError as error:
        raise DataError(f"{rows.name}: {error}") from error
    return Rows(rows.name, x, rows.y, rows.image_shape)


def _check_occur(name: str, y: np.ndarray, labels: np.ndarray | None) -> None:
    if labels is None:
        return
    strange = np.setdiff1d(y, labels)  # (labels,) ascending
    if len(strange):
        raise DataError(
            f"{name}: has the label{'s' if len(strange) > 1 else ''} {listed(strange)}, which no training row of the "
            f"run has: these have {listed(labels)}"
        )


def _kind(image_shape: tuple[int, int] | None) -> str:
    return f"images of {image_shape[0]} x {image_shape[1]} pixels" if image_shape else "rows that are no images"


def is_own_data(args: argparse.Namespace, trained: Trained) -> bool:
    """DATA is the very data set of the run: by its name, or as the same file."""
    name, own = args.data, trained.config.data
    return name == own or (Path(name).suffix != "" and Path(name).resolve() == Path(own).resolve())


def _uniform(trained: Trained, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([trained.config.seed, streams.TEST]).random(shape)
