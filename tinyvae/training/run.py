"""A run directory: config.json, metrics.csv, checkpoints/ and figures/. All there is to know about a run is in it."""

import json
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae import __version__
from tinyvae.errors import CheckpointError, TinyvaeError, UsageError
from tinyvae.model.params import FlatParams
from tinyvae.model.vae import VAE
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training.checkpoint import Checkpoint
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset, load
from tinyvae.training.data.convert import is_path
from tinyvae.training.data.published import Progress
from tinyvae.training.data.regular import exists
from tinyvae.training.data.scale import check_unit_interval
from tinyvae.training.files import remove_leftovers, write_text
from tinyvae.training.metrics import Row, read_table, write_table
from tinyvae.training.trainer import RunState, Trainer


class Run:
    """The directory of one run, and what has been written there so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        self.best_written = 0  # the epoch whose parameters were written as the best

    @classmethod
    def create(cls, path: Path, config: Config, model: VAE) -> "Run":
        """Make the directory and write config.json. Before training starts, so that a problem shows at once.

        Raises TinyvaeError if the directory cannot be written, or holds something already.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                resume = f", or go on with it by --resume {path}" if checkpoints.saved_steps(path) else ""
                raise TinyvaeError(f"{path}: is not empty; choose another --out{resume}")
            (path / checkpoints.FOLDER).mkdir()
            write_config(path, config, model)
        except OSError as error:
            for made in (path / checkpoints.FOLDER, path):
                with suppress(OSError):
                    made.rmdir()  # only if it is empty
            raise TinyvaeError(
                f"{path}: cannot be written ({error.strerror or error}); choose another --out"
            ) from error
        return cls(path)

    @classmethod
    def reopen(cls, path: Path) -> tuple["Run", Checkpoint, list[str]]:
        """An existing run, its newest whole checkpoint, and a line for each newer one that is damaged."""
        if not path.is_dir():
            raise UsageError(f"{path}: there is no such run directory")
        checkpoint, problems = checkpoints.read_last(path)
        if "state" not in checkpoint.run:
            raise CheckpointError(f"{checkpoint.path}: is a model without the state of a run")
        if not os.access(path, os.W_OK):
            raise TinyvaeError(f"{path}: cannot be written (permission denied)")
        remove_leftovers(path)
        remove_leftovers(path / checkpoints.FOLDER)
        run = cls(path)
        run.rows = read_table(path, checkpoint.run["state"]["epoch"])
        return run, checkpoint, problems

    def abandon(self) -> None:
        """Take back what `create` has made, where nothing else has been written yet."""
        with suppress(OSError):
            (self.path / "config.json").unlink()
            (self.path / checkpoints.FOLDER).rmdir()
            self.path.rmdir()

    def restore(self, trainer: Trainer, checkpoint: Checkpoint) -> str | None:
        """Put the checkpoint's parameters, moments and state into a fresh trainer; a line if the best epoch is lost."""
        model, asarray = trainer.model, trainer.model.backend.asarray
        checkpoint.copy_params_into(model)
        checkpoint.check_moments(model.params.flat.size)
        trainer.m[...], trainer.v[...] = (asarray(checkpoint.moments[name]) for name in checkpoints.MOMENTS)
        trainer.state = RunState.from_dict(checkpoint.run["state"])
        trainer.seconds = self.rows[-1].seconds if self.rows else 0.0
        return self._restore_best(trainer) if trainer.state.best_epoch else None

    def _restore_best(self, trainer: Trainer) -> str | None:
        """The best epoch's parameters; should they be lost, one line that says why, and no epoch counts as the best."""
        try:
            best = checkpoints.read_checkpoint(checkpoints.best_path(self.path, trainer.state.best_epoch))
        except CheckpointError as error:
            trainer.forget_best()
            return str(error)
        flat = np.concatenate([best.params[name].ravel() for name in trainer.model.params])
        trainer.best_params[...] = trainer.model.backend.asarray(flat)
        self.best_written = trainer.state.best_epoch
        return None

    def save(self, trainer: Trainer, config: Config, dataset: Dataset, digest: str) -> None:
        """Write the metrics, the best parameters if they are new, then the checkpoint; delete all but the last two.

        Raises NonFiniteError rather than store a NaN, TinyvaeError if the disk refuses. Old files stay whole.
        """
        trainer.check_finite()
        state = trainer.state
        try:
            self.save_table()
            if state.best_epoch != self.best_written:
                self._save_best(trainer)
            path = checkpoints.step_path(self.path, state.updates)
            run = {
                "config": config.to_dict(),
                "state": state.to_dict(),
                "image_shape": dataset.image_shape,
                "data_digest": digest,
            }
            tensors = {**trainer.model.params, "adam.m": trainer.m, "adam.v": trainer.v}
            checkpoints.save_checkpoint(path, trainer.model, tensors, run)
            checkpoints.prune(self.path)
        except OSError as error:
            kept = checkpoints.saved_steps(self.path)
            remedy = f"make room or mend the disk, then --resume {self.path}" if kept else "choose another --out"
            raise TinyvaeError(
                f"{self.path}: a checkpoint cannot be written ({error.strerror or error}); {len(kept)} older ones are "
                f"whole: {remedy}"
            ) from error

    def save_table(self) -> None:
        """Write metrics.csv."""
        write_table(self.path, self.rows)

    def _save_best(self, trainer: Trainer) -> None:
        """A model file with the parameters of the epoch whose test loss is the smallest.

        Its name has the epoch, and it is written before the checkpoint that points to it: a kill in between is no loss.
        """
        model, epoch = trainer.model, trainer.state.best_epoch
        best = FlatParams(model.params.shapes, model.backend, model.dtype)
        best.flat[...] = trainer.best_params
        checkpoints.save_checkpoint(checkpoints.best_path(self.path, epoch), model, best, run={"epoch": epoch})
        self.best_written = epoch


def check_same_data(checkpoint: Checkpoint, dataset: Dataset) -> str:
    """The digest of the data; CheckpointError if the run began with other data."""
    digest = dataset.digest(with_labels=stored_config(checkpoint).conditional)
    if digest != checkpoint.run["data_digest"]:
        raise CheckpointError(f"{checkpoint.path}: was made with other data than {dataset.name} holds now")
    return digest


def load_data(config: Config, progress: Progress = lambda file: None) -> Dataset:
    """The data set of a configuration: without the label that is left out, binarized where that was asked for.

    Raises DataError if it cannot be had, or lacks the labels that the configuration needs.
    """
    folder = Path(config.data_dir) if config.data_dir else None
    path = Path(config.data)
    if folder is not None and is_path(config.data) and not exists(path):
        path = folder / path.name  # a user's file that has moved since
    dataset = load(str(path) if path.suffix else config.data, folder, config.seed, progress)
    if config.conditional:
        dataset.check_classes()
    if config.leave_out is not None:
        dataset = dataset.without(config.leave_out)
    if config.binarize == "none":
        return dataset
    check_unit_interval(dataset, "--binarize")
    return dataset.thresholded() if config.binarize == "threshold" else dataset


def is_cross_entropy(config: Config, dataset: Dataset) -> bool:
    """A Bernoulli on grey values: a usable loss, but no log-likelihood. Whoever prints it says so."""
    return config.likelihood == "bernoulli" and config.binarize != "dynamic" and not dataset.is_binary()


def stored_config(checkpoint: Checkpoint) -> Config:
    """The configuration of the run that wrote the checkpoint."""
    try:
        return Config.from_dict(checkpoint.run["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path}: holds no configuration of this version ({error})") from error


def write_config(path: Path, config: Config, model: VAE) -> None:
    """config.json: the options as resolved, and what they run with."""
    write_text(path / "config.json", json.dumps(_describe(config, model), indent=2) + "\n")


def _describe(config: Config, model: VAE) -> dict[str, Any]:
    """What config.json holds: the options as resolved, and what they were run with."""
    return {
        **config.to_dict(),
        "parameters": int(model.params.flat.size),
        "versions": {
            "tinyvae": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            **({"cupy": model.backend.xp.__version__} if model.backend.name == "cupy" else {}),
        },
        "platform": platform.platform(),
        "command": sys.argv,
    }
