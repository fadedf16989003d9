"""Training from Python: `fit` is one call, `Trainer` a loop of one's own. The command line calls the same.

result = tinyvae.fit(model, x, epochs=10, valid=0.1)

for row in tinyvae.Trainer(model, x, epochs=10, valid=0.1, run="runs/mine"):  # checkpoints, and exact resume
    print(row.epoch, row.valid_loss)
"""

import warnings
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import fields
from inspect import GEN_RUNNING, getgeneratorstate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyvae import parts
from tinyvae.errors import CheckpointError, NonFiniteError, UsageError
from tinyvae.model.vae import VAE
from tinyvae.objectives.objective import Objective
from tinyvae.training.arrays import dataset_of
from tinyvae.training.checkpoint import Checkpoint
from tinyvae.training.config import ARRAYS, NO_VALID, Config
from tinyvae.training.data import Dataset
from tinyvae.training.engine import Engine, RunState
from tinyvae.training.metrics import Row
from tinyvae.training.options import Training
from tinyvae.training.progress import Reporter
from tinyvae.training.record import Record
from tinyvae.training.result import History, Result
from tinyvae.training.run import Run, binarized, check_same_data
from tinyvae.training.signals import interruptible
from tinyvae.training.support import check_support, standardize

Callback = Callable[[Row, "Trainer"], object]
_END = object()  # of all updates


class Step(NamedTuple):
    """An update that has been made."""

    epoch: int  # that it was in, from 1
    updates: int  # so far
    loss: float  # of its batch, in nats; on a GPU the last one that was looked at, NaN before that
    row: Row | None  # of the epoch, if this was its last update


class Trainer:
    """Trains `model` on x. Iterate over it for epochs (`Row`), over `steps()` for updates (`Step`), or call `train`.

    model      a `tinyvae.VAE`, trained in place: at the end it has the last epoch's weights
    x          (rows, data) numbers, or images (rows, height, width) for a model of as many numbers; bytes are what
               `likelihood.bytes` says, and NaN was not observed. Or what `tinyvae.load_data` returns
    y          (rows,) labels of a conditional model, by their own names: strings or numbers
    valid      rows held out to tell the best epoch by: a share of x such as 0.1, an array, or a pair (x, y). Without it
               nothing is held out, and there is no best epoch
    run        a directory for checkpoints and metrics, which must be new or empty
    resume     in its place: that of a run to go on with, on the same model and data. It has its own options; of those
               given here only `epochs` may be another
    callbacks  functions (row, trainer), called after every epoch. `trainer.stop()` ends the training
    options    see `tinyvae.training.options.Training`: objective, epochs, batch_size, lr, ...

    With a directory it saves after every few epochs, at the end, and when a loop over it is left.
    `history` are the rows so far; `model`, `state` and `engine.adam` may be looked at between two updates.

    Raises ValueError for options and arrays that do not fit, UsageError, TinyvaeError or CheckpointError for a
    directory that cannot be used, DataError for data that the likelihood cannot have made, and, while it trains,
    NonFiniteError where numbers run away.
    """

    def __init__(
        self, model: VAE, x: Any, *, y: Any = None, valid: Any = None, run: str | Path | None = None,
        resume: str | Path | None = None, callbacks: Iterable[Callback] = (), **options: Any,
    ) -> None:  # fmt: skip
        known = [f.name for f in fields(Training)]
        self.callbacks = _functions(callbacks)
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise TypeError(f"there is no option {unknown[0]}: {', '.join(known)}")
        if run is not None and resume is not None:
            raise ValueError("resume goes on in its own directory: leave run away")
        options = {name: value for name, value in options.items() if value is not None}
        _introduce(model, options)
        whole = dataset_of(model, x, y, valid)
        if resume is not None:
            self._resume(model, whole, Path(resume), options)
        else:
            asked = Training(**options).resolved(len(whole.x_train))
            if asked.patience is not None and whole.x_valid is None:
                raise ValueError("patience goes by rows that are held out: give valid")
            dataset = binarized(whole, asked.binarize, "binarize")
            if model.standard is None:  # else it was trained before, and means what it meant
                standardize(model, dataset, asked.standardize)
            check_support(model, dataset)
            directory = None if run is None else Run.create(Path(run), config_of(model, asked, dataset), model)
            self._set_up(model, dataset, asked, directory)

    @classmethod
    def over(
        cls, model: VAE, dataset: Dataset, options: Training, directory: Run | None = None, digest: str = "",
        reporter: Reporter | None = None,
    ) -> "Trainer":  # fmt: skip
        """For what has made all of these itself, and looked at them: the command line."""
        trainer = cls.__new__(cls)
        trainer.callbacks = []
        trainer._set_up(model, dataset, options, directory, digest, reporter)
        return trainer

    def _set_up(
        self, model: VAE, dataset: Dataset, options: Training, directory: Run | None, digest: str = "",
        reporter: Reporter | None = None,
    ) -> None:  # fmt: skip
        self.model, self.dataset, self.options, self.directory = model, dataset, options, directory
        self.reporter = reporter or Reporter(quiet=True)
        self.digest = digest or ("" if directory is None else dataset.digest(model.classes > 0))
        self.rows = directory.rows if directory is not None else []
        self.saved_updates, self.stopped = -1, False
        self._loop: weakref.ref[Generator[Row | None]] | None = None  # that is under way
        self._whole = True  # no update has been broken off
        try:
            self.engine = Engine(model, dataset, options, listener=self.reporter)
        except BaseException:
            if directory is not None:
                directory.abandon()  # not enough memory, say: it is free for another try
            raise

    def _resume(self, model: VAE, whole: Dataset, path: Path, given: dict[str, Any]) -> None:
        directory, checkpoint, record, damaged = Run.reopen(path)
        try:
            options = _options_of(record, given, path)
            own = (model.architecture.to_dict(), model.dtype.name)  # layers may be written in several ways
            if (checkpoint.architecture.to_dict(), checkpoint.dtype) != own:
                raise UsageError(f"{path}: is the run of another model: {checkpoint.architecture.as_arguments()}")
            done = record.state.epoch
            if options.epochs is not None and options.epochs < done:
                raise UsageError(f"{path}: has {done} epochs behind it: epochs must be at least that")
            dataset = binarized(whole, options.binarize, "binarize")
            digest = check_same_data(checkpoint, record, dataset)
            undone = directory.put_in_order(checkpoint, record)
            checkpoint.copy_params_into(model)  # and where its columns lie, before batches are made for it
            self._set_up(model, dataset, options, directory, digest)
            lost = self.take_up(checkpoint, record)
            if not self.finished():
                directory.note_resumed(self._config(), model)
        except BaseException:
            directory.close()
            raise
        for problem in filter(None, (*damaged, undone, lost)):
            warnings.warn(problem, stacklevel=3)

    def take_up(self, checkpoint: Checkpoint, record: Record) -> str | None:
        """Go on from a checkpoint of the directory; a line if the best epoch's weights are lost."""
        assert self.directory is not None
        lost = self.directory.restore(self.engine, checkpoint, record)
        self.saved_updates = record.state.updates
        return lost

    # ------------------------------------------------------------------------------------------------------- going on

    def __iter__(self) -> Iterator[Row]:
        """Train, and yield the row of each epoch that ends."""
        return (row for row in self._going(waits=False) if row is not None)

    def steps(self) -> Iterator[Step]:
        """Train, and yield after each update. The model may be used in between."""
        for row in self._going(waits=True):
            state = self.state
            yield Step(state.epoch + (row is None), state.updates, self.engine.last_loss, row)

    def train(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end. False if `stop`, asked after every update, ended it early."""
        rows = self._going(waits=False, theirs=dict(np.geterr()))
        with np.errstate(all="ignore"), interruptible() as interrupted:  # NumPy need not warn of what is looked at
            complete = True
            for _ in rows:
                if interrupted() or (stop() and not self.finished()):
                    rows.close()
                    complete = False
                    break
        if interrupted():
            raise KeyboardInterrupt
        return complete

    def _going(self, waits: bool, theirs: dict[str, Any] | None = None) -> Generator[Row | None]:
        """A loop over the updates. One that is under way ends: there is one state.

        theirs: NumPy's error settings of a caller who has silenced them since.
        """
        self._leave()
        if self.directory is not None and self.directory.closed:
            raise UsageError(f"{self.directory.path}: is closed: go on with it by resume")
        self._check_whole()
        loop = self._updates(waits, theirs)
        self._loop = weakref.ref(loop)  # weak, so that it ends as soon as nobody loops over it
        return loop

    def _leave(self) -> None:
        loop = None if self._loop is None else self._loop()
        if loop is None:
            return
        if getgeneratorstate(loop) == GEN_RUNNING:
            raise UsageError("a callback neither closes nor begins a training: it ends one by trainer.stop()")
        loop.close()

    def _updates(self, waits: bool, theirs: dict[str, Any] | None) -> Generator[Row | None]:
        """The engine's updates, and what is due after an epoch."""
        next_of = self._next_calmly if theirs is None else self._next
        theirs = theirs or dict(np.geterr())
        going = self.engine.going(waits)
        try:
            while not self.stopped:
                row, interrupted = next_of(going)
                if row is _END:
                    break
                if row is not None:
                    with np.errstate(**theirs):
                        self._after_epoch(row)
                if interrupted():
                    going.close()
                    self._save_last()
                    raise KeyboardInterrupt
                yield row
        except GeneratorExit:  # the loop over it was left, between two updates
            going.close()
            self._save_last()
            raise
        except NonFiniteError as error:
            self._keep_table(error)
            raise
        going.close()
        self._save_last()

    def _next(self, going: Generator[Row | None]) -> tuple[Any, Callable[[], bool]]:
        """The next update: its row, if it was the last of an epoch; and whether Ctrl-C came meanwhile."""
        self._whole = False
        row = next(going, _END)
        if row is not None and row is not _END:
            self.rows.append(row)  # pyright: ignore[reportArgumentType]
        self._whole = True
        return row, _never

    def _next_calmly(self, going: Generator[Row | None]) -> tuple[Any, Callable[[], bool]]:
        """The same for a caller's own loop: NumPy is silenced, and Ctrl-C waits until the update is done."""
        with np.errstate(all="ignore"), interruptible() as interrupted:
            row, _ = self._next(going)
        return row, interrupted

    def _check_whole(self) -> None:
        if not self._whole:
            resume = "" if self.directory is None else f", or resume {self.directory.path} from its last checkpoint"
            raise UsageError(
                f"an update was broken off in the middle, so this training cannot go on: begin anew{resume}"
            )

    def _after_epoch(self, row: Row) -> None:
        self.reporter.epoch(row)
        every = self.options.checkpoint_every
        assert every is not None  # resolved
        if row.epoch % every == 0:
            self.save()
        for callback in self.callbacks:
            try:
                callback(row, self)
            except BaseException:
                self._save_last()
                raise

    def _keep_table(self, error: NonFiniteError) -> None:
        """The epochs before show where it went wrong."""
        if self.directory is None:
            return
        try:
            self.directory.save_table()
        except OSError as second:
            reason = second.strerror or second
            raise NonFiniteError(f"{error}; and metrics.csv cannot be written ({reason})") from second

    def _save_last(self) -> None:
        if self.saved_updates != self.state.updates:
            self.save()

    def save(self) -> None:
        """A checkpoint of this moment, if there is a directory. Raises NonFiniteError rather than store a NaN,
        UsageError if the directory is closed, or if an update was broken off in the middle."""
        self._check_whole()
        if self.directory is None:
            self.engine.check_finite()
        elif self.directory.closed:
            raise UsageError(f"{self.directory.path}: is closed: nothing more is saved there")
        else:
            self.reporter.warn(self.directory.save(self.engine, self._config(), self.dataset, self.digest))
        self.saved_updates = self.state.updates

    def _config(self) -> Config:
        """What its directory says of it: the command's own configuration, or one of arrays; and what it runs on now."""
        model, config = self.model, self.options
        if not isinstance(config, Config):
            return config_of(model, config, self.dataset)
        return config.changed(backend=model.backend.name, kernels=model.kernels_name)

    def stop(self) -> None:
        """End the training after this update, as if it were done: this trainer makes no more."""
        self.stopped = True

    def finished(self) -> bool:
        """All epochs are done, patience has run out, or it was stopped."""
        return self.stopped or self.engine.finished()

    @property
    def state(self) -> RunState:
        """Where it is: epochs, updates, the best epoch."""
        return self.engine.state

    @property
    def history(self) -> History:
        """The rows of all epochs so far."""
        return History(self.rows)

    def result(self) -> Result:
        """What has come of it so far."""
        best = self.engine.best_params.copy() if self.state.best_epoch else None
        path = None if self.directory is None else self.directory.path
        return Result(self.model, self.history, self.engine.finished(), path, self.state.best_epoch or None, best)

    def close(self) -> None:
        """End a loop that is under way, which saves, and let others into the directory. It is done as well when the
        trainer is no longer used."""
        self._leave()
        if self.directory is not None:
            self.directory.close()

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def fit(model: VAE, x: Any, *, progress: bool = True, **more: Any) -> Result:
    """Train `model` on x, and say how it went: all that `Trainer` takes, for whom one call is enough.

        result = tinyvae.fit(model, x, epochs=10, valid=0.1)
        result.history, result.best_model()

    The model ends with the last epoch's weights. Ctrl-C, also in a notebook, ends after the update under way, and the
    result so far is returned. progress: print a line for some of the epochs. Raises as `Trainer`.
    """
    with Trainer(model, x, **more) as trainer:
        trainer.reporter = trainer.engine.listener = Reporter(quiet=not progress)
        trainer.reporter.start(trainer.state, trainer.engine.epochs, trainer.engine.updates_per_epoch())
        try:
            with interruptible() as interrupted:
                trainer.train(stop=interrupted)
        finally:
            trainer.reporter.stop()
        return trainer.result()


def _never() -> bool:
    return False


def _functions(callbacks: Any) -> list[Callback]:
    if callable(callbacks):
        raise TypeError("callbacks must be several functions: [f] for one")
    return list(callbacks)


def _introduce(model: VAE, options: dict[str, Any]) -> None:
    """Classes that are not the package's own, so that a run's files may name them."""
    parts.introduce(type(model.likelihood), *(type(b.layer) for b in (*model.encoder, *model.decoder)))
    if isinstance(options.get("objective"), Objective):
        parts.introduce(type(options["objective"]))


def config_of(model: VAE, options: Training, dataset: Dataset) -> Config:
    """What a run of arrays stores as its configuration. A function as lr is left out: it has no text."""
    values = {f.name: getattr(options, f.name) for f in fields(Training)}
    values["objective"] = parts.text_of(options.objective_part())
    if callable(options.lr):
        values["lr"] = None
    valid = NO_VALID if dataset.x_valid is None else ARRAYS
    return Config(
        **values, data=ARRAYS, valid=valid, backend=model.backend.name, kernels=model.kernels_name,
        dtype=model.dtype.name, **model.architecture.options(),
    )  # fmt: skip


def _options_of(record: Record, given: dict[str, Any], path: Path) -> Training:
    """The options of a run that is gone on with. Raises UsageError for some that differ from its own."""
    config = record.config
    values = {f.name: getattr(config, f.name) for f in fields(Training)}
    if values["lr"] is None and "lr" not in given:
        raise UsageError(f"{path}: was trained with a function as lr: give it again")
    own = {**values, **({"lr": given["lr"]} if values["lr"] is None else {})}
    try:
        asked = Training(**{**own, **given})
        same = Training(**own)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for name in given:
        if name != "epochs" and not same.says_the_same(asked, name):
            raise UsageError(
                f"{path}: cannot be gone on with other options: {name} is {getattr(same, name)} in the run, not "
                f"{given[name]}"
            )
    if config.data == ARRAYS:
        return asked
    return config.changed(epochs=asked.epochs)  # of the command's: it can go on with it, and evaluate it
