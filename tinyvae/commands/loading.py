"""What the commands on a trained run share: the run, its model, its test data, and other rows to look at."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tinyvae import parts
from tinyvae.errors import CheckpointError, DataError, TinyvaeError, UsageError
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.likelihoods.support import into_unit_interval, shown
from tinyvae.model.steering import listed
from tinyvae.model.vae import VAE
from tinyvae.objectives.objective import Objective
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training import streams
from tinyvae.training.checkpoint import Checkpoint, StrangerError
from tinyvae.training.config import BACKENDS, DATA, NO_VALID, Config, check_data_name
from tinyvae.training.data import Dataset
from tinyvae.training.data.rows import PARTS, Rows, load_rows
from tinyvae.training.data.table import Table
from tinyvae.training.record import Record, read_record
from tinyvae.training.run import check_same_data, load_data


@dataclass(frozen=True)
class Trained:
    """A run as it stands: its last checkpoint and what that says, and the model (of the last or the best epoch)."""

    checkpoint: Checkpoint
    record: Record
    model: VAE
    epoch: int
    _loaded: dict[str | None, Dataset] = field(default_factory=dict, repr=False, compare=False)

    @property
    def config(self) -> Config:
        """The run's options."""
        return self.record.config

    @property
    def table(self) -> Table | None:
        """How the columns of the run's table became numbers. Raises CheckpointError if that is damaged."""
        try:
            return None if self.record.table is None else Table.of_dict(self.record.table)
        except ValueError as error:
            raise CheckpointError(f"{self.checkpoint.path}: holds no table of this version ({error})") from error

    def dataset(self, data_dir: str | None) -> Dataset:
        """The run's data, the very same as in training. Raises DataError or CheckpointError if it cannot be had."""
        if data_dir not in self._loaded:
            config = self.config.changed(data_dir=data_dir) if data_dir else self.config
            dataset = load_data(config, downloads=bool(data_dir or not config.data_dir))
            check_same_data(self.checkpoint, self.record, dataset)
            own = self.record.image_shape
            if dataset.image_shape != own:  # the same numbers, but a mask or a picture would not be the same
                raise CheckpointError(
                    f"{self.checkpoint.path}: was made with {_kind(own)}, but {dataset.name} now holds "
                    f"{_kind(dataset.image_shape)}"
                )
            self._loaded[data_dir] = dataset
        return self._loaded[data_dir]

    def labels(self, data_dir: str | None) -> np.ndarray | None:
        """The labels that a conditional run's training rows have, (labels,) ascending.

        None if its data cannot be had any more: a line on stderr then says that labels cannot be checked.
        """
        if self.record.labels is not None:
            return np.array(self.record.labels)
        try:  # a run of an earlier version
            y = self.dataset(data_dir).y_train
        except TinyvaeError as error:
            print(f"note: which labels the run was trained with cannot be checked: {error}", file=sys.stderr)
            return None
        assert y is not None  # of a conditional run, as `load_data` holds
        return np.unique(y)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """RUN, and which of its models: what `open_run` reads, but for the backend."""
    parser.add_argument("run_dir", metavar="RUN", type=Path, help="a run directory, made by tinyvae train")
    which = "the parameters of the last epoch, or of the one with the best validation loss (default: last)"
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last", help=which)
    own = "the file and class of a likelihood or objective of your own that the run was trained with"
    parser.add_argument("--own", metavar="FILE.py:CLASS", action="append", help=own)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all commands on a run and its data have."""
    add_run_arguments(parser)
    parser.add_argument("--data-dir", metavar="DIR", help="where published data lies, if not where the run found it")
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="default: auto: cupy where it works, else numpy"
    )


def open_run(args: argparse.Namespace) -> Trained:
    """The run that the arguments name. Raises UsageError if there is none, CheckpointError if it is damaged."""
    return opened(args.run_dir, args.checkpoint, args.backend, args.own or ())


def opened(path: Path, which: str = "last", backend: str = "auto", own: Sequence[str] = ()) -> Trained:
    """The same without a command line. which: "last" or "best"; own: as --own."""
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such run directory")
    for text in own:
        try:
            parts.typed(text, Likelihood, Objective)
        except ValueError as error:
            raise UsageError(f"--own {error}") from error
    try:
        last, problems = checkpoints.read_last(path)
        for problem in problems:
            print(f"warning: {problem}; looking at {last.path.name}", file=sys.stderr)
        record = read_record(last)
    except StrangerError as error:
        raise CheckpointError(f"{error}; name the file of its class: --own FILE.py:CLASS") from error
    state = record.state
    if which == "last":
        return Trained(last, record, last.model(backend), state.epoch)
    if not state.best_epoch:
        why = "no epoch is done" if record.config.valid != NO_VALID else "nothing was held out to tell it by"
        raise UsageError(f"{path}: no epoch is the best ({why}): leave --checkpoint best away")
    if last.best is None and not state.best_is_now:  # a checkpoint of an earlier version: it only names the file
        best = checkpoints.read_checkpoint(checkpoints.best_path(path, state.best_epoch))
        return Trained(last, record, best.model(backend), state.best_epoch)
    return Trained(last, record, last.best_model(backend), state.best_epoch)


def add_rows_arguments(parser: argparse.ArgumentParser) -> None:
    """DATA and --part: rows for a trained model to look at."""
    names = "|".join(DATA)
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
        check_data_name(args.data)
    except ValueError as error:
        raise UsageError(str(error).replace("--data ", "DATA ", 1)) from error
    folder = args.data_dir or (trained.config.data_dir if args.data == trained.config.data else None)
    rows = load_rows(
        args.data,
        args.part,
        Path(folder) if folder else None,
        trained.config.seed,
        table=trained.table,
        scale=trained.record.scale,
        label=trained.config.label,
    )
    architecture, x = trained.model.architecture, rows.x
    if x.shape[1] != architecture.data_dim:
        raise DataError(f"{rows.name}: has {x.shape[1]} columns, but the run was trained on {architecture.data_dim}")
    own = trained.record.image_shape
    if None not in (rows.image_shape, own) and rows.image_shape != own:
        raise DataError(f"{rows.name}: holds {_kind(rows.image_shape)}, but the run was trained on {_kind(own)}")
    if rows.image_shape is not None and own is None:
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
                low, high = float(x.min()), float(x.max())
                wrong = f"the data lies in [{shown(low)}, {shown(high)}], but the run binarized data in [0, 1]"
                raise ValueError(f"{wrong}; {into_unit_interval(low, high)}")
            level = 0.5 if trained.config.binarize == "threshold" else _uniform(trained, x.shape)
            x = (x >= level).astype(np.float64) if isinstance(level, float) else (level < x).astype(np.float64)
        with np.errstate(over="ignore"):  # what is too large for the model's precision becomes infinite, and is refused
            narrow = x.astype(trained.model.dtype)
        architecture.check_values(narrow)
        if architecture.classes and rows.label_problem:
            raise DataError(rows.label_problem)
        trained.model.label_codes(rows.y if architecture.classes else None, len(x))
    except ValueError as error:
        raise DataError(f"{rows.name}: {error}") from error
    return replace(rows, x=x)


def _check_occur(name: str, y: np.ndarray, labels: np.ndarray | None) -> None:
    if labels is None:
        return
    strange = np.setdiff1d(y, labels)  # (labels,) ascending
    if len(strange):
        raise DataError(
            f"{name}: has the label{'s' if len(strange) > 1 else ''} {listed(strange)}, which no training row of the "
            f"run has: these have {listed(labels)}"
        )


def _kind(image_shape: tuple[int, ...] | None) -> str:
    return f"images of {' x '.join(map(str, image_shape))} pixels" if image_shape else "rows that are no images"


def is_own_data(args: argparse.Namespace, trained: Trained) -> bool:
    """DATA is the very data set of the run: by its name, or as the same file."""
    name, own = args.data, trained.config.data
    return name == own or (Path(name).suffix != "" and Path(name).resolve() == Path(own).resolve())


def _uniform(trained: Trained, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([trained.config.seed, streams.TEST]).random(shape)
