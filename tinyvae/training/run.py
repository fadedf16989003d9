"""A run directory: config.json, metrics.csv, checkpoints/ and figures/. All there is to know about a run is in it."""

import json
import platform
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae import __version__
from tinyvae.errors import CheckpointError, DataError, TinyvaeError, UsageError
from tinyvae.model.params import FlatParams
from tinyvae.model.vae import VAE
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training.batches import Batches
from tinyvae.training.checkpoint import Checkpoint
from tinyvae.training.config import ARRAYS, AUTO, NO_VALID, Config, kinds_of
from tinyvae.training.data import Dataset, load
from tinyvae.training.data.convert import is_path
from tinyvae.training.data.published import Progress
from tinyvae.training.data.regular import exists
from tinyvae.training.data.scale import check_unit_interval
from tinyvae.training.data.user import read_user_rows
from tinyvae.training.engine import Engine
from tinyvae.training.fields import parse_json
from tinyvae.training.files import leftovers, make_folder, read_regular, remove_folders, remove_leftovers, write_text
from tinyvae.training.lock import Lock
from tinyvae.training.metrics import FILE as METRICS
from tinyvae.training.metrics import Evaluation, Row, evaluate, read_table, write_table
from tinyvae.training.record import Record, check_can_go_on, read_record

CONFIG, FIGURES = "config.json", "figures"
MAX_CONFIG = 10_000_000  # bytes
ONE_BYTE = 255 * float(np.finfo("float32").eps)  # what byte / 255 in float32, times 255, is off: two roundings
SHARE = 0.1  # of the training rows that is held out, unless something else is asked for


class FolderTakenError(TinyvaeError):
    """A new folder was wanted, but there is one of that name."""


class Run:
    """The directory of one run, and what has been written there so far. Locked until `close`."""

    def __init__(self, path: Path, lock: Lock) -> None:
        self.path, self.lock = path, lock
        self.rows: list[Row] = []
        self.best_written = 0  # the epoch whose parameters were written as the best
        self.whole: list[tuple[int, int]] = []  # (step, best epoch) of checkpoints known to be whole, the oldest first
        self.history: list[dict[str, Any]] = []  # what the run was begun and resumed with
        self.made: list[Path] = []  # folders that were not there before

    @classmethod
    def create(cls, path: Path, config: Config, model: VAE, must_be_new: bool = False) -> "Run":
        """Make the directory and write config.json. Before training starts, so that a problem shows at once.

        A directory is taken that is empty, or that a run left which ended before its first checkpoint.
        Raises TinyvaeError if the directory cannot be written, is in use, or holds anything else.
        """
        made: list[Path] = []
        lock = None
        try:
            made = make_folder(path)
            if must_be_new and path not in made:
                raise FolderTakenError(f"{path}: is there already")
            lock = Lock(path)
            _check_free(path)
            made += make_folder(path / checkpoints.FOLDER)
            run = cls(path, lock)
            run.made = made
            for unfinished in (path, path / checkpoints.FOLDER):
                remove_leftovers(unfinished)
            (path / METRICS).unlink(missing_ok=True)
            run.write_config(config, model)
        except BaseException as error:
            if lock is not None:  # without it, what is there may be another's by now
                _take_back(path, made)
                lock.release()
            if not isinstance(error, OSError):
                raise
            raise TinyvaeError(
                f"{path}: cannot be written ({error.strerror or error}); choose another --out"
            ) from error
        return run

    @classmethod
    def reopen(cls, path: Path) -> tuple["Run", Checkpoint, Record, list[str]]:
        """An existing run, its newest whole checkpoint, what that says, and a line for each newer one that is damaged.

        Raises UsageError if there is no such directory, TinyvaeError if it is in use or cannot be read or written.
        """
        if not path.is_dir():
            raise UsageError(f"{path}: there is no such run directory")
        try:
            lock = Lock(path)
        except OSError as error:
            raise TinyvaeError(f"{path}: cannot be opened ({error.strerror or error})") from error
        try:
            checkpoint, problems = checkpoints.read_last(path)
            check_can_go_on(checkpoint)
            record = read_record(checkpoint)
            if checkpoint.path != checkpoints.step_path(path, record.state.updates):
                raise CheckpointError(
                    f"{checkpoint.path}: holds step {record.state.updates} under the name of another: rename it"
                )
            run = cls(path, lock)
            run.history = _read_history(path)
            run.rows, lost = read_table(path, record.state.epoch)
            run.whole = _known_whole(path, checkpoint, record)
        except BaseException:
            lock.release()
            raise
        return run, checkpoint, record, problems + lost

    def close(self) -> None:
        """Let others in."""
        self.lock.release()

    @property
    def closed(self) -> bool:
        """Whether others may be in it by now."""
        return self.lock.descriptor < 0

    def abandon(self) -> None:
        """Take back what `create` has made, where nothing else has been written yet."""
        _take_back(self.path, self.made)
        self.close()

    def put_in_order(self, checkpoint: Checkpoint, record: Record) -> str | None:
        """Do what a killed process has left undone: its leftovers, the best epoch's file, checkpoints to delete.

        A line if something cannot be deleted. Raises TinyvaeError if the directory cannot be written.
        """
        for folder in (self.path, self.path / checkpoints.FOLDER, self.path / FIGURES):
            remove_leftovers(folder)
        epoch = record.state.best_epoch
        try:
            if epoch and (checkpoint.best is not None or record.state.best_is_now):
                self._write_best(checkpoint.best_model(), epoch)
        except OSError as error:
            raise TinyvaeError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        return self.prune()

    def restore(self, trainer: Engine, checkpoint: Checkpoint, record: Record) -> str | None:
        """Put the checkpoint's parameters, moments and state into a fresh trainer; a line if the best epoch is lost.

        Raises CheckpointError if the state cannot be one of this trainer's.
        """
        model, asarray, state = trainer.model, trainer.model.backend.asarray, record.state
        checkpoint.copy_params_into(model)
        trainer.m[...], trainer.v[...] = (asarray(checkpoint.moments[name]) for name in checkpoints.MOMENTS)
        try:
            trainer.restore(state)
        except ValueError as error:
            raise CheckpointError(f"{checkpoint.path}: holds no state of this run ({error})") from error
        trainer.seconds = self.rows[-1].seconds if self.rows else 0.0
        if checkpoint.best is not None:
            trainer.best_params[...] = asarray(checkpoint.best)
        elif state.best_epoch and not state.best_is_now:  # a checkpoint of an earlier version: it only names the file
            return self._restore_best(trainer)
        return None

    def _restore_best(self, trainer: Engine) -> str | None:
        """The best epoch's parameters; should they be lost, one line that says why, and no epoch counts as the best."""
        try:
            best = checkpoints.read_checkpoint(checkpoints.best_path(self.path, trainer.state.best_epoch))
            other = VAE.of(best.architecture, dtype=best.dtype)
            best.copy_params_into(other)
        except checkpoints.UnreadableError:
            raise
        except CheckpointError as error:
            trainer.forget_best()
            return str(error)
        trainer.best_params[...] = trainer.model.backend.asarray(other.params.flat)
        return None

    def save(self, trainer: Engine, config: Config, dataset: Dataset, digest: str) -> str | None:
        """Write the metrics, the checkpoint, and the best parameters if they are new; keep the last two of each.

        A line if an older file could not be deleted. Raises NonFiniteError rather than store a NaN, TinyvaeError if the
        disk refuses. Old files stay whole.
        """
        trainer.check_finite()
        state = trainer.state
        try:
            self.save_table()
            run = {
                "config": config.to_dict(),
                "state": state.to_dict(),
                "image_shape": dataset.image_shape,
                "data_digest": digest,
                "scale": dataset.scale,
                "table": None if dataset.table is None else dataset.table.as_dict(),
                "labels": dataset.occurring_labels().tolist() if config.conditional else None,
            }
            tensors = {**trainer.model.params, "adam.m": trainer.m, "adam.v": trainer.v}
            if state.best_epoch and not state.best_is_now:
                tensors[checkpoints.BEST] = trainer.best_params
            path = checkpoints.step_path(self.path, state.updates)
            checkpoints.save_checkpoint(
                path,
                trainer.model.architecture,
                trainer.model.dtype.name,
                tensors,
                run,
                trainer.model.standard,
                trainer.model.labels,
            )
            self.whole = [
                *(known for known in self.whole if known[0] != state.updates),
                (state.updates, state.best_epoch),
            ]
            if state.best_epoch not in (0, self.best_written):
                best = FlatParams(trainer.model.params.shapes, trainer.model.backend, trainer.model.dtype)
                best.flat[...] = trainer.best_params
                self._write_best(trainer.model, state.best_epoch, best)
        except OSError as error:
            kept = checkpoints.saved_steps(self.path)
            remedy = f"then --resume {self.path}" if kept else f"then begin again with --out {self.path}"
            raise TinyvaeError(
                f"{self.path}: a checkpoint cannot be written ({error.strerror or error}); {len(kept)} older ones are "
                f"whole: make room or mend the disk, {remedy}"
            ) from error
        return self.prune()

    def save_table(self) -> None:
        """Write metrics.csv."""
        write_table(self.path, self.rows)

    def _write_best(self, model: VAE, epoch: int, params: FlatParams | None = None) -> None:
        """A model file with the parameters of the epoch whose validation loss is the smallest.

        For whoever wants that model: a run that goes on needs it not, its checkpoint has the same numbers.
        """
        path, params = checkpoints.best_path(self.path, epoch), params or model.params
        about = {"epoch": epoch}
        checkpoints.save_checkpoint(
            path, model.architecture, model.dtype.name, params, about, model.standard, model.labels
        )
        self.best_written = epoch

    def prune(self) -> str | None:
        """Delete checkpoints before the last one, but for the last KEPT that are known to be whole, and best epochs
        that none of these names. A line if that fails. Names after the last one stay: they may be readable by now.
        """
        kept = self.whole[-checkpoints.KEPT :]
        if len(kept) < checkpoints.KEPT:
            return None
        steps, epochs = {step for step, _ in kept}, {best for _, best in kept}
        old = [
            *(path_of(self.path, n)
              for path_of, named in ((checkpoints.step_path, steps), (checkpoints.best_path, epochs))
              for n in checkpoints.saved_numbers(self.path, path_of)
              if n < max(named) and n not in named)
        ]  # fmt: skip
        for path in old:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                return f"{path}: is old and cannot be deleted ({error.strerror or error})"
        return None

    def write_config(self, config: Config, model: VAE) -> None:
        """config.json: the options as resolved, what they run with now, and what they ran with before."""
        now = _describe(model)
        document = {**config.to_dict(), "parameters": int(model.params.flat.size), **now}
        if self.history:
            document["history"] = self.history  # the oldest first
        write_text(self.path / CONFIG, json.dumps(document, indent=2) + "\n")

    def note_resumed(self, config: Config, model: VAE) -> None:
        """What an existing run runs with from now on, into its config.json. Raises TinyvaeError if it cannot."""
        try:
            self.write_config(config, model)
        except OSError as error:
            raise TinyvaeError(f"{self.path}: cannot be written ({error.strerror or error})") from error


def _take_back(path: Path, made: list[Path]) -> None:
    """Remove what `Run.create` made, as far as nothing else has been written."""
    if path / checkpoints.FOLDER in made:  # then there was no config.json before either
        with suppress(OSError):
            (path / CONFIG).unlink(missing_ok=True)
    remove_folders(made)


def _check_free(path: Path) -> None:
    """Raises TinyvaeError if the directory holds anything that a run which never saved would not have left."""
    folder = path / checkpoints.FOLDER
    ours = {CONFIG, METRICS} if folder.is_dir() and not folder.is_symlink() else set()  # the folder is made first
    unfinished = {*leftovers(path), *leftovers(folder)}
    others = [p for p in path.iterdir() if p not in unfinished and p != folder and p.name not in ours]
    if ours:
        others += [p for p in folder.iterdir() if p not in unfinished]
    elif folder.is_symlink() or folder.exists():
        others.append(folder)
    if others:
        resume = f", or go on with it by --resume {path}" if checkpoints.saved_steps(path) else ""
        raise TinyvaeError(f"{path}: is not empty; choose another --out{resume}")


def _known_whole(path: Path, checkpoint: Checkpoint, record: Record) -> list[tuple[int, int]]:
    """The newest checkpoint and the one before it that is whole: (step, best epoch) of each, the older first.

    Raises CheckpointError if one in between cannot be read: it may be whole, and is not to be deleted for that.
    """
    known = [(record.state.updates, record.state.best_epoch)]
    steps = checkpoints.saved_steps(path)
    for candidate in reversed(steps[: steps.index(checkpoint.path)]):
        if len(known) == checkpoints.KEPT:
            break
        try:
            state = read_record(checkpoints.read_checkpoint(candidate)).state
        except (checkpoints.UnreadableError, checkpoints.StrangerError):
            raise
        except CheckpointError:
            continue  # damaged
        known.insert(0, (state.updates, state.best_epoch))
    return known


def check_same_data(checkpoint: Checkpoint, record: Record, dataset: Dataset) -> str:
    """The digest of the data; CheckpointError if the run began with other data."""
    digest = dataset.digest(with_labels=record.config.conditional)
    if digest != record.data_digest:
        raise CheckpointError(f"{checkpoint.path}: was made with other data than {dataset.name} holds now")
    return digest


def load_data(config: Config, progress: Progress = lambda file: None, downloads: bool = True) -> Dataset:
    """The data set of a configuration: without the label that is left out, binarized where that was asked for.

    downloads  what is missing may be downloaded: not where a run's file, and no user, names the folder
    Raises DataError if it cannot be had, or lacks the labels that the configuration needs.
    """
    if config.data == ARRAYS:
        raise DataError(
            "the run was trained in Python, on arrays that are in no file: evaluate it there, on the model that "
            "tinyvae.load reads from its directory"
        )
    folder = Path(config.data_dir) if config.data_dir else None
    path = Path(config.data)
    if folder is not None and is_path(config.data) and not exists(path):
        path = folder / path.name  # a user's file that has moved since
    own = config.valid == AUTO
    name = str(path) if is_path(config.data) or path.is_dir() else config.data
    dataset = load(name, folder, config.seed, progress, downloads, own, config.label, kinds_of(config.kinds))
    if config.likelihood is not None or dataset.table is None:
        dataset = dataset.with_bytes_as(config.likelihood_or_usual().bytes)
    dataset = with_held_out(dataset, config)
    if config.conditional:
        dataset.check_classes()
    if config.leave_out is not None:
        dataset = dataset.without(config.leave_out)
    return binarized(dataset, config.binarize, "--binarize")


def with_held_out(dataset: Dataset, config: Config) -> Dataset:
    """With the rows held out that `--valid` names. Raises DataError if they cannot be had, or have another width."""
    valid = config.valid
    if valid == AUTO:
        return dataset if dataset.x_valid is not None else dataset.with_valid(SHARE)
    dataset = replace(dataset, x_valid=None, y_valid=None, rows_valid=None)
    if valid == NO_VALID:
        return dataset
    if not is_path(valid):
        return dataset.with_valid(float(valid))
    rows = read_user_rows(Path(valid), dataset.table, config.label)
    if rows.x.shape[1] != dataset.data_dim:
        raise DataError(f"{valid}: has {rows.x.shape[1]} columns, but {dataset.name} has {dataset.data_dim}")
    x, dtype = rows.x, dataset.x_train.dtype
    if x.dtype != dtype:  # bytes beside bytes mean the same
        with np.errstate(invalid="ignore"):  # NaN is no byte, which is seen below
            given = x / dataset.scale
            x = (np.round(given) if dtype == np.uint8 else given).astype(dtype)
        if dtype == np.uint8 and not np.allclose(x, given, rtol=0, atol=ONE_BYTE):
            raise DataError(f"{valid}: holds other numbers than bytes, of which {dataset.name} is made: save it alike")
    return replace(dataset, x_valid=x, y_valid=rows.y)


def binarized(dataset: Dataset, how: str, whose: str) -> Dataset:
    """As `binarize` asks: grey values are looked at, and made 0 and 1 where that is done once. Raises DataError."""
    if how == "none":
        return dataset
    check_unit_interval(dataset, whose)
    return dataset.thresholded() if how == "threshold" else dataset


def measured_on_test(model: VAE, dataset: Dataset, config: Config) -> Evaluation:
    """The losses of the test rows, by the objective at its end. Raises DataError if there are none."""
    return evaluate(model, batches_to_test(model, dataset, config), config.objective_part(), config.seed)


def batches_to_test(model: VAE, dataset: Dataset, config: Config) -> Batches:
    """The test rows as batches, with the noise of every evaluation of the run. Raises DataError if there are none."""
    if dataset.x_test is None:
        raise DataError(f"{dataset.name}: has no test rows")
    assert config.batch_size is not None  # resolved
    return Batches(
        model, dataset.x_test, dataset.scale, config.batch_size, config.binarize == "dynamic", dataset.y_test,
        config.objective_part().samples,
    )  # fmt: skip


def is_cross_entropy(config: Config, dataset: Dataset) -> bool:
    """A Bernoulli on grey values: a usable loss, but no log-likelihood. Whoever prints it says so."""
    likelihood = config.likelihood_part()
    of_0_and_1 = likelihood.interval is not None and likelihood.discrete and likelihood.step == 1
    return of_0_and_1 and config.binarize != "dynamic" and not dataset.is_binary()


def _describe(model: VAE) -> dict[str, Any]:
    """What a run is run with."""
    return {
        "versions": {
            "tinyvae": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            **({"cupy": model.backend.xp.__version__} if model.backend.name == "cupy" else {}),
        },
        "platform": platform.platform(),
        "command": sys.argv,
    }


def _read_history(path: Path) -> list[dict[str, Any]]:
    """What the run was begun and resumed with so far, the oldest first; empty if config.json is gone.

    Raises CheckpointError if it is there and cannot be read.
    """
    try:
        found = parse_json(read_regular(path / CONFIG, MAX_CONFIG))
        earlier = found.get("history", [])
        if not isinstance(earlier, list):
            raise ValueError("its history is no list")
        return [*earlier, {name: found[name] for name in ("versions", "platform", "command") if name in found}]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path / CONFIG}: cannot be read as the run's configuration ({error}); mend it, or move it away"
        ) from error
