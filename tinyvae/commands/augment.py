"""`tinyvae augment`: do the samples of a conditional run help a classifier that has few labels?"""

import argparse
import math

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tinyvae.commands import loading
from tinyvae.errors import DataError, UsageError
from tinyvae.training import streams
from tinyvae.uses.augmentation import Gain, Mean, augment, balanced_rows
from tinyvae.uses.features import run_rows

SUMMARY = "do samples of a conditional run help a classifier that has few labels?"
DESCRIPTION = """\
Draw N training rows with their labels, as many of each class, and train a softmax classifier (logistic regression)
three times: on these N rows, on these and generated rows, and on generated rows alone. Printed is the accuracy on the
run's test rows, the mean of R repetitions with other rows, and its standard error. "gain" is the difference that the
generated rows make, taken pair by pair. Whether they help or harm, it is printed just the same.

Two questions can be asked, and the answers differ:

  tinyvae augment RUN          Generated rows come from the run's model. It was trained with ALL labels of its training
                               set, so the N rows are not all that has been used: this shows how much the model knows
                               of the classes, and not what can be won from N labels.
  tinyvae augment RUN --fair   For every draw a small conditional VAE (one hidden layer of 128) is trained on the N rows
                               alone. This is what augmentation can do for somebody who has N labels and nothing else.

The run must be conditional (tinyvae train --conditional)."""
EXAMPLES = """\
examples:
  tinyvae augment runs/digits-20250101-120000
  tinyvae augment runs/digits-20250101-120000 --fair --labels 20 50 --per-class 50 --repeats 10"""

LABELS = (10, 100, 1000)
PER_CLASS = 100
REPEATS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options."""
    loading.add_arguments(parser)
    parser.add_argument(
        "--labels", type=int, nargs="+", metavar="N",
        help=f"how many real rows with labels, one experiment each (default: {' '.join(map(str, LABELS))}, as far as "
        "the data has them)",
    )  # fmt: skip
    parser.add_argument(
        "--per-class", type=int, default=PER_CLASS, metavar="N",
        help=f"how many rows are generated for each class (default: {PER_CLASS})",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=int, default=REPEATS, metavar="R", help=f"repetitions with other rows (default: {REPEATS})"
    )
    parser.add_argument("--fair", action="store_true", help="generate by a small VAE that has seen the N rows alone")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draws the rows (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Repeat and print."""
    for name, smallest in (("per_class", 1), ("repeats", 1), ("seed", 0)):
        if getattr(args, name) < smallest:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {smallest}, not {getattr(args, name)}")
    trained = loading.open_run(args)
    if not trained.model.architecture.classes:
        raise UsageError(
            f"{args.run_dir}: is not conditional, so it cannot be asked for rows of a class; "
            "train with tinyvae train --conditional"
        )
    dataset = trained.dataset(args.data_dir)
    if dataset.y_train is None or dataset.y_test is None:
        raise DataError(f"{dataset.name}: has no labels, but the run was trained with some")
    args.labels = args.labels or [n for n in LABELS if _refusal(dataset.y_train, n) is None] or [LABELS[0]]
    for n in args.labels:
        refusal = _refusal(dataset.y_train, n)
        if refusal:
            raise UsageError(f"--labels {n}: {refusal}")
    x, x_test = (run_rows(dataset, part, trained.config) for part in ("train", "test"))  # (rows, data) each
    binary = trained.config.binarize != "none" or dataset.is_binary()
    gains = []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(args.labels) * args.repeats)
        for n in args.labels:
            bar.update(task, description=f"{n} labels")
            gain = augment(
                trained.model, x, dataset.y_train, x_test, dataset.y_test, n, args.per_class, args.repeats,
                np.random.default_rng([args.seed, streams.SAMPLES, n]),
                fair=args.fair, mean=not binary, progress=lambda: bar.advance(task),
            )  # fmt: skip
            gains.append(gain)
    _print(args, len(x_test), len(np.unique(dataset.y_train)), gains)
    return 0


def _refusal(y: np.ndarray, n: int) -> str | None:
    """Why n rows, as many of each class, cannot be drawn; None if they can."""
    try:
        balanced_rows(y, n, np.random.default_rng(0))
    except ValueError as error:
        return str(error)
    return None


def _print(args: argparse.Namespace, rows: int, classes: int, gains: list[Gain]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("labels", "real", "real + generated", "generated", "gain"):
        table.add_column(heading, justify="right")
    for gain in gains:
        shown = [_percent(mean) for mean in (gain.real, gain.both, gain.generated)]
        table.add_row(f"{gain.labels:,}", *shown, _percent(gain.difference, "+"))
    console = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
    count = f"{classes} x {args.per_class:,} generated rows"
    if args.fair:
        console.print(f"{count} from a small VAE that was trained on the labelled rows alone")
    else:
        console.print(f"{count} from {args.run_dir}, which has seen ALL labels of its training set (see --fair)")
    repeats = "1 repetition" if args.repeats == 1 else f"{args.repeats:,} repetitions"
    console.print(f"accuracy on {rows:,} test rows in %: means of {repeats} +- standard error")
    console.print(table)


def _percent(mean: Mean, sign: str = "-") -> str:
    error = "" if math.isnan(mean.standard_error) else f" +- {100 * mean.standard_error:.2f}"
    return f"{100 * mean.value:{sign}.2f}{error}"
