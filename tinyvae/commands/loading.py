"""What `evaluate` and `generate` share: a finished run, its model, its test data."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from tinyvae.errors import UsageError
from tinyvae.model.vae import VAE
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training.checkpoint import Checkpoint
from tinyvae.training.config import BACKENDS, Config, replaced
from tinyvae.training.data import Dataset
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
    """The options that both commands have."""
    parser.add_argument("run_dir", metavar="RUN", type=Path, help="a run directory, made by tinyvae train")
    which = "the parameters of the last epoch, or of the one with the best test loss (default: last)"
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last", help=which)
    parser.add_argument("--data-dir", metavar="DIR", help="where the run's data lies, if not where it was in training")
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
