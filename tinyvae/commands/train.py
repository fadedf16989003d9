"""`tinyvae train`: from data to a run directory with checkpoints, metrics and pictures."""

import argparse
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from tinyvae import backend as backends
from tinyvae import blas, parts
from tinyvae.commands.train_options import add_arguments as add_arguments
from tinyvae.errors import CheckpointError, TinyvaeError, UsageError
from tinyvae.kernels import announce_compilation
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.model.vae import VAE
from tinyvae.objectives import objective as objective_named
from tinyvae.objectives.objective import Objective
from tinyvae.training import config as configs
from tinyvae.training.baseline import independent_loss, verdict
from tinyvae.training.checkpoint import Checkpoint, StrangerError
from tinyvae.training.config import ARRAYS, Config
from tinyvae.training.data import Dataset
from tinyvae.training.data.regular import exists
from tinyvae.training.data.scale import scale_note
from tinyvae.training.progress import Reporter
from tinyvae.training.record import Record
from tinyvae.training.run import FolderTakenError, Run, check_same_data, is_cross_entropy, load_data
from tinyvae.training.signals import StopRequest
from tinyvae.training.support import check_support, standardize
from tinyvae.training.trainer import Trainer

SUMMARY = "train a VAE and draw what it learned"
DESCRIPTION = """\
Train a variational autoencoder. Without arguments: on the 1,797 small digits that ship with tinyvae, in seconds.

The run directory (--out) then holds config.json, metrics.csv, checkpoints/ and figures/. Ctrl-C finishes the step,
saves, and says how to go on. All losses are in nats for each datum: loss = nll + beta * kl
(with --objective iwae, minus that bound)."""
EXAMPLES = """\
examples:
  tinyvae train
  tinyvae train --data mnist --hidden 400 --latent 20
  tinyvae train --data mnist --hidden 512 --latent 2            a picture of the whole latent space
  tinyvae train --data my.npy --likelihood gaussian             rows of real numbers
  tinyvae train --resume runs/mnist-20250101-120000 --epochs 20"""

NOT_STORED = ("out", "resume", "no_figures", "quiet", "keep_blas")
MAY_CHANGE = ("data_dir", "epochs")  # when a run is resumed


def run(args: argparse.Namespace) -> int:
    """Train; the exit code: 0, or 128 + signal if it was stopped and saved."""
    given = vars(args)
    options = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items() if n not in NOT_STORED}
    for name in ("out", "resume"):
        if given.get(name) == "":
            raise UsageError(f"--{name} must name a directory")
    out, resume = (Path(given[name]) if name in given else None for name in ("out", "resume"))
    return train(options, out, resume, draw="no_figures" not in given, reporter=Reporter(quiet="quiet" in given))


def train(
    options: dict[str, Any], out: Path | None = None, resume: Path | None = None, draw: bool = True,
    reporter: Reporter | None = None,
) -> int:  # fmt: skip
    """What the command does, with options as in `Config`, those alone that are given; the exit code."""
    options, reporter = dict(options), reporter or Reporter(quiet=True)
    try:
        if "data" in options:
            configs.check_data_name(options["data"])
        for name in ("data", "data_dir", "valid"):  # so that a run can be evaluated from anywhere
            if name in options and exists(Path(options[name])) and options[name] not in configs.DATA:
                options[name] = str(Path(options[name]).resolve())
        for name, base in (("likelihood", Likelihood), ("objective", Objective)):
            if parts.is_typed(options.get(name, "")):
                options[name] = _typed(name, options[name], base)
        asked = Config(**options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if resume is not None:
        if out is not None:
            raise UsageError("--resume goes on in its own directory: leave --out away")
        session = Session.resumed(resume, options, draw, reporter)
    else:
        session = Session.fresh(asked, out, reporter)
    try:
        if not session.trainer.finished():
            with StopRequest() as stop:  # until here Ctrl-C ends the command at once: there is nothing to save yet
                complete = session.train(stop)
            if not complete:
                reporter.line(f"stopped and saved; go on with: tinyvae train --resume {session.run.path}")
                return stop.exit_code
        session.finish(draw)
    finally:
        session.run.close()
    return 0


def _typed(name: str, text: str, base: type) -> str:
    try:
        return parts.typed(text, base)
    except ValueError as error:
        raise UsageError(f"--{name} {error}") from error


class Session:
    """A trainer and what belongs around it: lines, pictures, the directory."""

    def __init__(self, config: Config, trainer: Trainer, run: Run, reporter: Reporter) -> None:
        self.config, self.trainer, self.run, self.reporter = config, trainer, run, reporter

    @classmethod
    def fresh(cls, asked: Config, out: Path | None, reporter: Reporter) -> "Session":
        """A new run."""
        dataset = load_data(asked, reporter.download)
        try:
            suits = None if dataset.table is None else dataset.table.likelihood()
            config = asked.resolved(dataset.x_train.shape[0], suits)
            config, model = build(config, dataset, reporter)
        except ValueError as error:
            raise UsageError(str(error)) from error
        standardized = standardize(model, dataset, config.standardize)
        check_support(model, dataset)
        run = Run.create(out, config, model) if out else new_run(config, dataset, model)
        try:
            describe(config, dataset, model, run.path, reporter, standardized)
            digest = dataset.digest(config.conditional)
        except BaseException:
            run.abandon()
            raise
        return cls(config, Trainer.over(model, dataset, config, run, digest, reporter), run, reporter)

    @classmethod
    def resumed(cls, path: Path, options: dict[str, Any], draw: bool, reporter: Reporter) -> "Session":
        """A run that was stopped. Options that differ from its own are refused, but for MAY_CHANGE.

        Also one that is finished, if `draw` and some of its pictures are missing.
        """
        try:
            run, checkpoint, record, problems = Run.reopen(path)
        except StrangerError as error:
            raise CheckpointError(f"{error}; give it once more: --{error.kind} FILE.py:CLASS") from error
        try:
            for problem in problems:
                reporter.warn(f"{problem}; going on from {checkpoint.path.name}")
            if record.config.data == ARRAYS:
                raise UsageError(
                    f"{path} was begun in Python, on arrays: go on with it there, by tinyvae.fit(model, x, "
                    f"resume={str(path)!r})"
                )
            differences = record.config.differences(fixed_options(options, record.config))
            if differences:
                raise UsageError(f"{path} cannot be resumed with other options: {'; '.join(differences)}")
            config = record.config.changed(**{k: v for k, v in options.items() if k in MAY_CHANGE})
            reporter.warn(run.put_in_order(checkpoint, record))
            undrawn = draw and "epochs" not in options and bool(_missing_figures(path, checkpoint, record))
            state = record.state
            assert config.epochs is not None
            if state.epoch >= config.epochs and not undrawn:
                raise UsageError(f"{path} has all its {state.epoch} epochs; to go on, give --epochs more than that")
            dataset = load_data(config, reporter.download, downloads="data_dir" in options or not config.data_dir)
            digest = check_same_data(checkpoint, record, dataset)
            config, model = build(config, dataset, reporter)
            checkpoint.copy_params_into(model)  # and where its columns lie, before batches are made for it
            session = cls(config, Trainer.over(model, dataset, config, run, digest, reporter), run, reporter)
            lost = session.trainer.take_up(checkpoint, record)
            if lost:
                reporter.warn(f"{lost}; the best epoch is looked for anew")
            if session.trainer.finished() and not undrawn:
                raise UsageError(
                    f"{path} has stopped for want of a better validation loss (--patience {config.patience})"
                )
            if not session.trainer.finished():
                run.note_resumed(config, model)
        except BaseException:
            run.close()
            raise
        where = f"epoch {state.epoch + 1}, batch {state.batch + 1}" if state.batch else f"epoch {state.epoch + 1}"
        if not session.trainer.finished():
            reporter.line(f"going on with {path} at {where}, from {checkpoint.path.name}")
        return session

    def train(self, stop: StopRequest) -> bool:
        """Run the trainer, which saves at the end, whatever the reason. False if it was stopped."""
        trainer = self.trainer
        self.reporter.start(trainer.state, trainer.engine.epochs, trainer.engine.updates_per_epoch())
        try:
            return trainer.train(stop=lambda: stop.received is not None)
        finally:
            self.reporter.stop()

    def _set_beside_columns(self) -> None:
        """Independent columns, whatever came of the model."""
        trainer, dataset = self.trainer, self.trainer.dataset
        if not trainer.history:
            return
        last, part = trainer.history[-1], dataset.held_out()
        alone = independent_loss(trainer.model, dataset, part.x)
        nll, kl = (last.train_nll, last.train_kl) if last.valid_loss is None else (last.valid_nll, last.valid_kl)
        assert nll is not None
        assert kl is not None
        what = "pixels" if dataset.image_shape else "columns"
        self.reporter.line(f"after the last epoch nll + kl is {nll + kl:.2f}; independent {what} have {alone:.2f}")
        self.reporter.warn(verdict(nll + kl, alone, what))

    def finish(self, draw: bool) -> None:
        """The last lines, and the pictures."""
        trainer, line = self.trainer, self.reporter.line
        state = trainer.state
        if state.epoch < trainer.engine.epochs:
            line(f"stopped after epoch {state.epoch}: no better validation loss for {self.config.patience} epochs")
        if state.best_loss is not None:
            line(f"best validation loss {state.best_loss:.2f} after epoch {state.best_epoch}")
        self._set_beside_columns()
        line(f"{trainer.engine.seconds:.1f} s of training")
        if draw:
            from tinyvae.training.figures import write_figures  # matplotlib takes a while to load

            try:
                paths = write_figures(
                    self.run.path, trainer.model, trainer.dataset, trainer.history, self.config.seed
                )  # fmt: skip
            except (OSError, MemoryError) as error:
                reason = "not enough memory" if isinstance(error, MemoryError) else error.strerror or error
                raise TinyvaeError(
                    f"{self.run.path}: trained and saved, but not all pictures are drawn ({reason}); "
                    f"draw them with: tinyvae train --resume {self.run.path}"
                ) from error
            line("pictures:")
            for path in paths:
                line(f"  {path}")
        line(f"next: tinyvae evaluate {self.run.path}")


def fixed_options(options: dict[str, Any], stored: Config) -> dict[str, Any]:
    """Those that must be as they are in the run. "auto" and "fused" leave the choice open: they fit what was chosen."""
    fitting = {"auto"} if stored.kernels == "reference" else {"auto", "fused"}
    return {name: v for name, v in options.items() if name not in MAY_CHANGE and v not in fitting}


def build(config: Config, dataset: Dataset, reporter: Reporter) -> tuple[Config, VAE]:
    """The model of a resolved configuration, and the configuration with the backend and kernels that it got."""
    backend = config.backend
    if backend == "auto":
        problem = backends.cupy_problem(config.device)
        backend = "numpy" if problem else "cupy"
        if problem:
            reporter.line(f"backend: numpy ({problem.partition(':')[0]})")
    assert config.hidden is not None
    assert config.latent is not None
    try:
        model = VAE(
            dataset.data_dim, config.hidden, config.latent, decoder_hidden=config.decoder_hidden,
            activation=config.activation, likelihood=config.likelihood_part(),
            tied=config.tied, classes=dataset.label_values() if config.conditional else 0, conv=config.conv,
            image_shape=dataset.image_shape, batch_norm=config.batch_norm, backend=backend, kernels=config.kernels,
            dtype=config.dtype, device=config.device, seed=config.seed,
        )  # fmt: skip
        config.objective_part().check(model.architecture.has_batch_norm)
    except ValueError as error:
        raise UsageError(str(error)) from error
    kept = "once: they are kept for the next run"
    anew = "at every run: there is no folder that only you can write to; NUMBA_CACHE_DIR can name one"
    tell = lambda is_kept: reporter.line(f"compiling the kernels ({kept if is_kept else anew})")
    announce_compilation(model.kernels_name, tell)
    return config.changed(backend=model.backend.name, kernels=model.kernels_name), model


def new_run(config: Config, dataset: Dataset, model: VAE) -> Run:
    """runs/<data>-<date and time>, with a number behind it if several runs start in one second."""
    base = Path("runs") / f"{dataset.name}-{datetime.now():%Y%m%d-%H%M%S}"
    for n in count(1):
        with suppress(FolderTakenError):
            return Run.create(base if n == 1 else base.with_name(f"{base.name}-{n}"), config, model, must_be_new=True)
    raise AssertionError("there is always another number")


def _missing_figures(path: Path, checkpoint: Checkpoint, record: Record) -> list[str]:
    """The names of the pictures that a finished run should have and has not."""
    from tinyvae.training import figures  # matplotlib takes a while to load

    names = figures.names(checkpoint.architecture, record.image_shape)
    return [name for name in names if not figures.path_of(path, name).exists()]


def describe(
    config: Config, dataset: Dataset, model: VAE, path: Path, reporter: Reporter, standardized: str | None
) -> None:
    """What is about to happen, in a few lines."""
    a: Any = model.architecture  # of numbers: a run has no other
    line = reporter.line
    purposes = {"train": "to train on", "valid": "held out", "test": "to test on"}
    line(f"data: {dataset.name}, {', '.join(f'{len(p.x):,} rows {purposes[p.name]}' for p in dataset.parts())}")
    for note in dataset.notes:
        line(f"note: {note}")
    images = ["x".join(map(str, image)) for image in a.images[:-1]]
    middle = (*a.encoder_widths[:-1], f"[{a.latent_dim}]", *a.decoder_widths[1:])
    widths = " - ".join(map(str, (*images, *middle, *reversed(images))))
    extras = [
        "tied" if a.tied else "",
        "batch norm" if a.batch_norm else "",
        f"conditional on labels {dataset.listed_labels()}" if a.classes else "",
        "" if config.objective_part() == objective_named(Config.objective) else str(config.objective),
    ]
    about = ", ".join(filter(None, [widths, a.activation, parts.text_of(a.likelihood), *extras]))
    line(f"model: {about}; {model.params.flat.size:,} parameters")
    line(f"machine: {model.backend.name}, {model.kernels_name} kernels, {model.dtype.name}; seed {config.seed}")
    settings = blas.summary()
    if model.backend.name == "numpy" and settings:
        line(settings)
    if is_cross_entropy(config, dataset):
        line(
            "note: Bernoulli on grey values is binary cross-entropy: a common loss, but no log-likelihood "
            "(--binarize dynamic makes it one)"
        )
    note = scale_note(dataset) if a.likelihood.scale_matters and model.standard is None else None
    for text in filter(None, (note, standardized)):
        line(f"note: {text}")
    if dataset.label_problem:
        line(f"note: the labels are left aside: {dataset.label_problem}")
    line(f"run: {path}")
    line()
