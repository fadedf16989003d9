"""`tinyvae anomaly`: how unlikely each row of some data is under a trained model."""

import argparse
import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tinyvae.commands import loading
from tinyvae.errors import TinyvaeError, UsageError
from tinyvae.training import streams
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset
from tinyvae.training.data.dataset import evenly_spread
from tinyvae.training.data.rows import Rows
from tinyvae.training.files import write_text
from tinyvae.training.run import is_cross_entropy
from tinyvae.uses.anomalies import METHODS, anomaly_scores, auroc, likelihood_scores, threshold
from tinyvae.uses.run_rows import as_trained

SUMMARY = "score the rows of some data by how unlikely they are, and flag the most unlikely"
DESCRIPTION = """\
Score every row of DATA by -log p(x) under a run's model, in nats: by the ELBO, or closer and slower by importance
sampling (likelihood; rows where that cannot be trusted are estimated anew, and scores that even so cannot be trusted
are counted). A row is flagged as an anomaly if it scores above the quantile of the run's own training rows (of more
than 5,000, 5,000 are taken, evenly spread).

If DATA has labels, the AUROC of each against the rest is printed: the probability that a row with this label scores
higher than one without. For a label that the run left out of its training (tinyvae train --leave-out) this is the test
of whether the model notices what it has never seen. If DATA is another data set than the run's, so is the AUROC of its
rows against the run's own test rows.

A low score does not mean that a row is like the data. A model often finds simple rows, such as images that are nearly
all background, likelier than its own data, and the AUROC is then below 0.5 (Nalisnick et al. 2019, "Do deep generative
models know what they don't know?")."""
EXAMPLES = """\
examples:
  tinyvae anomaly runs/digits-20250101-120000 digits --out scores.csv
  tinyvae anomaly runs/digits-20250101-120000 my.npz --score likelihood --quantile 0.95 --out scores.csv
  tinyvae anomaly runs/mnist-20250101-120000 fashion-mnist --out scores.csv"""

SAMPLES = {"elbo": 10, "likelihood": 100}
ROWS = 5000  # of the run's own rows, at most
LABELS = 50  # more different ones are no classes


class Scored(NamedTuple):
    """The scores of some rows, (rows,), and which of them can be trusted, (rows,); None where nobody has looked."""

    scores: np.ndarray
    trusted: np.ndarray | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options."""
    loading.add_arguments(parser)
    loading.add_rows_arguments(parser)
    parser.add_argument("--score", choices=METHODS, default="elbo", help="what a row is scored by (default: elbo)")
    parser.add_argument(
        "--samples", type=int, metavar="K",
        help=f"draws of z for each row (default: {SAMPLES['elbo']} for elbo, {SAMPLES['likelihood']} for likelihood)",
    )  # fmt: skip
    parser.add_argument(
        "--quantile", type=float, default=0.99, metavar="Q",
        help="flag what scores above this quantile of the training rows, from 0 to 1 (default: 0.99)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE",
        help="a .csv table: row (from 0), score, is_anomaly (0 or 1), label if DATA has labels, and with --score "
        "likelihood trusted (0 or 1)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Score, write, summarize."""
    if args.out.suffix != ".csv":
        raise UsageError(f"--out must end in .csv, not {args.out.name!r}")
    if not args.out.parent.is_dir():  # before minutes of work, not after
        raise TinyvaeError(f"{args.out}: cannot be written (there is no such folder); choose another --out")
    args.samples = SAMPLES[args.score] if args.samples is None else args.samples
    if args.samples < 1:
        raise UsageError(f"--samples must be at least 1, not {args.samples}")
    if not 0 <= args.quantile <= 1:
        raise UsageError(f"--quantile must lie in [0, 1], not {args.quantile:g}")
    trained = loading.open_run(args)
    rows = loading.rows_of(args, trained)
    dataset = trained.dataset(args.data_dir)  # without the rows of a label that was left out
    parts = ("train",) if loading.is_own_data(args, trained) else ("train", "test")
    own = {part: _own_rows(dataset, part, trained.config) for part in parts}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        total, done = sum(len(each.x) for each in (rows, *own.values())), 0
        task = bar.add_task(f"{args.samples} draws of z for each row", total=total)

        def scored(each: Rows) -> Scored:
            nonlocal done
            scores = _scores(args, trained, each, lambda n: bar.update(task, completed=done + n))
            done += len(each.x)
            return scores

        own_scores = {part: scored(each) for part, each in own.items()}
        scores = scored(rows)
    limit = threshold(own_scores["train"].scores, args.quantile)
    _write(args.out, scores, limit, rows.y)
    _print(args, trained, dataset, rows, scores, own_scores, limit)
    print(args.out)
    return 0


def _own_rows(dataset: Dataset, part: str, config: Config) -> Rows:
    """Some rows of the run's own training or test part."""
    stored, y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")  # (rows, data), (rows,) or None
    chosen = evenly_spread(len(stored), ROWS)  # (chosen,)
    x = as_trained(stored[chosen], dataset.scale, config)  # (chosen, data)
    return Rows(f"{dataset.name}, {part}", x, None if y is None else y[chosen], dataset.image_shape)


def _scores(args: argparse.Namespace, trained: loading.Trained, rows: Rows, progress: Callable[[int], None]) -> Scored:
    rng = np.random.default_rng([trained.config.seed, streams.IMPORTANCE])
    y = rows.y if trained.model.architecture.classes else None
    if args.score == "likelihood":
        return Scored(*likelihood_scores(trained.model, rows.x, rng, args.samples, y, progress))
    return Scored(anomaly_scores(trained.model, rows.x, rng, args.score, args.samples, y, progress), None)


def _write(path: Path, scored: Scored, limit: float, y: np.ndarray | None) -> None:
    columns: dict[str, Any] = {"row": range(len(scored.scores)), "score": scored.scores.tolist()}
    columns["is_anomaly"] = (scored.scores > limit).astype(int).tolist()
    if y is not None:
        columns["label"] = y.tolist()
    if scored.trusted is not None:
        columns["trusted"] = scored.trusted.astype(int).tolist()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(zip(*columns.values(), strict=True))
    try:
        write_text(path, text.getvalue())
    except OSError as error:
        raise TinyvaeError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from error


def _print(
    args: argparse.Namespace, trained: loading.Trained, dataset: Dataset, rows: Rows, scored: Scored,
    own: dict[str, Scored], limit: float,
) -> None:  # fmt: skip
    scores, own_scores = scored.scores, {part: each.scores for part, each in own.items()}  # (rows,), (own rows,) each
    console = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
    flagged = scores > limit  # (rows,)
    console.print(f"{args.run_dir}: {len(scores):,} rows of {rows.name}, mean score {scores.mean():.2f} nats")
    console.print(
        f"threshold {limit:.2f} nats: the {args.quantile:g} quantile of {len(own_scores['train']):,} training rows"
    )
    console.print(f"flagged   {int(flagged.sum()):,} rows ({flagged.mean():.1%})")
    for name, each in [(rows.name, scored), *((f"the run's own {part} rows", each) for part, each in own.items())]:
        if each.trusted is not None and not each.trusted.all():
            count = int((~each.trusted).sum())
            console.print(f"cannot be trusted: the scores of {count:,} of {len(each.scores):,} rows of {name}")
    if "test" in own_scores:
        test = own_scores["test"]  # (rows,)
        area = auroc(np.concatenate([test, scores]), np.repeat([False, True], [len(test), len(scores)]))
        console.print(
            f"AUROC     {area:.3f} against {len(test):,} of the run's own test rows, mean score {test.mean():.2f}"
        )
        if area < 0.5:
            console.print(
                "below 0.5: the model finds this data likelier than its own; "
                "a high likelihood does not mean that a row is like the training data"
            )
    if is_cross_entropy(trained.config, dataset):
        console.print("note: Bernoulli on grey values: these are cross-entropies, not -log p(x)")
    if rows.y is not None:
        _print_labels(console, trained, rows.y, scores, flagged)


def _print_labels(
    console: Console, trained: loading.Trained, y: np.ndarray, scores: np.ndarray, flagged: np.ndarray
) -> None:
    labels, left_out = np.unique(y), trained.config.leave_out
    if not 1 < len(labels) <= LABELS:
        count = "1 label" if len(labels) == 1 else f"{len(labels):,} different labels"
        console.print(f"{count}: no AUROC of each (from 2 to {LABELS} have one)")
        return
    console.print("AUROC of each label against the rest:")
    table = Table(box=None, pad_edge=False)
    for name in ("label", "rows", "mean score", "flagged", "AUROC"):
        table.add_column(name, justify="right", header_style="")
    table.add_column("")
    for label in labels:
        here = y == label  # (rows,)
        table.add_row(
            str(label), f"{here.sum():,}", f"{scores[here].mean():.2f}", f"{flagged[here].mean():.1%}",
            f"{auroc(scores, here):.3f}", "<- left out of training" if str(label) == left_out else "",
            style="bold" if str(label) == left_out else "",
        )  # fmt: skip
    console.print(table)
