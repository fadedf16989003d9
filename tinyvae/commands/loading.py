"""What the commands on a trained run share: the run, its model, its test data, and other rows to look at."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tinyvae.errors import DataError, UsageError
from tinyvae.model.support import into_unit_interval, shown
from tinyvae.model.vae import VAE
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training import data, streams
from tinyvae.training.checkpoint import Checkpoint
from tinyvae.training.config import BACKENDS, Config, check_data_name, replaced
from tinyvae.training.data import Dataset
from tinyvae.training.data.rows import PARTS, Rows, load_rows
from tinyvae.training.run import check_same_data, load_data, stored_config


@dataclass(frozen=True)
class Trained:
    """A run as it stands: its last checkpoint, the configuration, and the model (of the last or the best epoch)."""

    checkpoint: Checkpoint
    config: Config
    model: VAE
    epoch: int

    def dataset(self, data_dir: str | None) -> Dataset:
        """The run's data, the very same as in training. Raises DataError or CheckpointError if it cannot be had."""
        config = replaced(self.config, {"data_dir": data_dir}) if data_dir else self.config
        dataset = load_data(config)
        check_same_data(self.checkpoint, dataset)
        return dataset


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
    other values, no labels for a conditional model.
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
        architecture.check_support(float(narrow.min()), float(narrow.max()))
        if architecture.classes and rows.label_problem:
            raise DataError(rows.label_problem)
        architecture.check_labels(rows.y if architecture.classes else None, len(x))
    except ValueError as error:
        raise DataError(f"{rows.name}: {error}") from error
    return replace(rows, x=x)


def is_own_data(args: argparse.Namespace, trained: Trained) -> bool:
    """DATA is the very data set of the run: by its name, or as the same file."""
    name, own = args.data, trained.config.data
    return name == own or (Path(name).suffix != "" and Path(name).resolve() == Path(own).resolve())


def _uniform(trained: Trained, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([trained.config.seed, streams.TEST]).random(shape)
