"""Training runs that the experiments share: made by `tinyvae train`, kept in one folder, and used again."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.backend import to_host
from tinyvae.commands import evaluate as evaluate_command
from tinyvae.commands import loading, train
from tinyvae.commands.train_options import GROUPS
from tinyvae.model.estimates import log_likelihood
from tinyvae.model.vae import VAE
from tinyvae.training import checkpoint, streams
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset
from tinyvae.training.data.dataset import evenly_spread
from tinyvae.training.metrics import Evaluation, Row, read_table
from tinyvae.training.run import batches_to_test, measured_on_test
from tinyvae.uses.run_rows import as_trained

ORDER = [name for names in GROUPS.values() for name in names]
FETCHED = ("mnist", "binarized-mnist")  # data that lies in a folder of the user's
Options = dict[str, Any]  # of `tinyvae train`, by their names there; lists and tuples for several values


@dataclass(frozen=True)
class Run:
    """A run that came to its end: its last epoch's model and losses, and its data."""

    path: Path
    options: Options
    config: Config
    model: VAE
    load: Callable[[], Dataset]
    rows: list[Row]

    @cached_property
    def dataset(self) -> Dataset:
        """Its data, once somebody asks."""
        return self.load()

    @cached_property
    def test(self) -> Evaluation:
        """The losses of the test rows after the last epoch."""
        return measured_on_test(self.model, self.dataset, self.config)

    @property
    def last(self) -> Row:
        """The losses after the last epoch."""
        return self.rows[-1]

    def test_rows(self, most: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """The test rows as the model saw them, or `most` of them evenly spread: x (rows, data), y (rows,) or None."""
        stored, y = self.dataset.x_test, self.dataset.y_test
        assert stored is not None
        chosen = evenly_spread(len(stored), most or len(stored))  # (rows,)
        if self.config.binarize == "dynamic" and most is None:
            x = self._drawn()
        else:
            x = as_trained(stored[chosen], self.dataset.scale, self.config)  # (rows, data)
        return x, None if y is None else y[chosen]

    def _drawn(self) -> np.ndarray:
        """All test rows, made 0 and 1 by the very draws that `tinyvae evaluate` makes.  -> (rows, data)"""
        batches = batches_to_test(self.model, self.dataset, self.config)
        return np.concatenate([to_host(x).copy() for x, _, _ in batches.in_order(self.config.seed)])


@dataclass
class Workshop:
    """Where the runs lie and where their data comes from; `quick` replaces MNIST by small digits and short runs."""

    out: Path
    data_dir: Path | None = None
    quick: bool = False
    kept: dict[str, Run] = field(default_factory=dict)

    def train(self, **options: Any) -> Run:
        """The run of these options: read if it is complete, gone on with if it was stopped, else trained."""
        options = self._shortened(options)
        name = slug(options)
        if name not in self.kept:
            self._make(self.out / name, options)
            self.kept = {name: self._read(self.out / name, options)}  # one at a time: a data set is large
        return self.kept[name]

    def _shortened(self, options: Options) -> Options:
        """The options, with MNIST for data unless they say otherwise; for a first look, of a small and short run."""
        usual = Config()
        given = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
        options = {"data": "mnist"} | {n: v for n, v in given.items() if n == "data" or v != getattr(usual, n)}
        options.pop("valid", None)  # no run here holds rows out: see `_make`
        if not self.quick:
            return options
        small: Options = {
            "data": "two-gaussians:200" if options["data"].startswith("two-gaussians") else "digits",
            "epochs": 2,
        }
        small |= {name: (4,) * len(options[name]) for name in ("hidden", "conv") if name in options}
        small |= {"latent": min(options["latent"], 4)} if "latent" in options else {}
        return options | small

    def _make(self, path: Path, options: Options) -> None:
        """Train by the train command's own code, or go on with a run that was stopped."""
        asked: dict[str, Any] = {"backend": "numpy", "valid": "none"}  # all training rows, as in the papers
        if self.data_dir and options["data"] in FETCHED:  # where data lies is no part of a run: it may move
            asked["data_dir"] = str(self.data_dir)
        if checkpoint.saved_steps(path):
            last, _ = checkpoint.read_last(path)
            if last.run["state"]["epoch"] >= last.run["config"]["epochs"]:
                return
            place: dict[str, Any] = {"resume": path}
        else:
            place = {"out": path}
            asked |= options
        print(f"  tinyvae train {' '.join(words(options))}", flush=True)
        if train.train(asked, **place, draw=False):
            raise KeyboardInterrupt  # it was stopped by a signal, and saved

    def _read(self, path: Path, options: Options) -> Run:
        trained = loading.opened(path, backend="numpy")
        where = str(self.data_dir) if self.data_dir and options["data"] in FETCHED else None
        rows, _ = read_table(path, trained.epoch)
        return Run(path, options, trained.config, trained.model, lambda: trained.dataset(where), rows)


def words(options: Options) -> list[str]:
    """The options as arguments of `tinyvae train`."""
    found = []
    for name in sorted(options, key=ORDER.index):  # in the order of the help
        value = options[name]
        flag = f"--{name.replace('_', '-')}"
        values = value if isinstance(value, list | tuple) else (value,)
        found += [flag] if value is True else [flag, *map(str, values)]
    return found


def slug(options: Options) -> str:
    """A folder's name that tells all options: the same options, the same run."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", " ".join(words(options))).strip("-")


def log_p(run: Run, samples: int = evaluate_command.SAMPLES, most: int | None = None) -> tuple[float, float]:
    """The mean of log p(x) over the test rows, as `tinyvae evaluate` estimates it, and its standard error, in nats."""
    x, y = run.test_rows(most)
    rng = np.random.default_rng([run.config.seed, streams.IMPORTANCE])
    found = log_likelihood(run.model, x, samples, rng, y=y if run.model.architecture.classes else None).log_p  # (rows,)
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found)))


def losses(run: Run) -> dict[str, Any]:
    """What a table shows of every run, as JSON values."""
    test = run.test
    return {
        "parameters": int(run.model.params.flat.size), "epochs": run.last.epoch, "loss": test.loss, "nll": test.nll,
        "kl": test.kl, "active_units": test.active_units, "latent": run.model.architecture.latent_dim,
        "options": " ".join(words({k: v for k, v in run.options.items() if k != "data"})),
    }  # fmt: skip
