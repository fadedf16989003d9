"""`tinyvae embed`: the posterior means of some rows, as numbers, and how good they are as features."""

import argparse
import csv
import io
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tinyvae.backend import to_host
from tinyvae.commands import loading
from tinyvae.errors import DataError, TinyvaeError, UsageError
from tinyvae.training import streams
from tinyvae.training.data import Dataset
from tinyvae.training.data.rows import Rows
from tinyvae.training.files import write_atomically, write_text
from tinyvae.uses.features import FeatureScore, compare_features, run_rows

SUMMARY = "the latent means of some rows as .npz or .csv, and how good they are as features"
DESCRIPTION = """\
Encode every row of DATA with a run's model: mu, the mean of q(z|x), in the order of the rows. An .npz file holds mu,
logvar (the log of the variance of q) and, where DATA has labels, y; a .csv file has columns z1, z2, ... and label.

--compare asks whether mu is a good feature: a softmax classifier (logistic regression) and a vote of the 5 nearest
neighbours learn the labels of the run's training rows from mu, from the data itself, and from as many principal
components (PCA) as z has dimensions. Printed is how many rows of DATA each gets right. The encoder never saw a label,
unless the run is conditional: then it is given the labels, those of DATA too, and a line says so."""
EXAMPLES = """\
examples:
  tinyvae embed runs/digits-20250101-120000 digits --out test.npz
  tinyvae embed runs/digits-20250101-120000 my.npy --out z.csv
  tinyvae embed runs/mnist-20250101-120000 mnist --compare"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options."""
    loading.add_arguments(parser)
    loading.add_rows_arguments(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="an .npz or .csv file to write; needed unless there is --compare"
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="classify DATA's rows by mu, by the data and by PCA (needs labels)",
    )


def run(args: argparse.Namespace) -> int:
    """Encode, write, compare."""
    if args.out is None and not args.compare:
        raise UsageError("nothing to do: add --out FILE, --compare, or both")
    if args.out is not None and args.out.suffix not in (".npz", ".csv"):
        raise UsageError(f"--out must end in .npz or .csv, not {args.out.name!r}")
    trained = loading.open_run(args)
    rows = loading.rows_of(args, trained)
    own = trained.dataset(args.data_dir) if args.compare else None
    labels = [(rows.name, rows.y, rows.label_problem)]
    if own is not None:
        labels.append((own.name, own.y_train, own.label_problem))
    for name, y, problem in labels if args.compare else []:
        if y is None:
            raise DataError(
                problem or f"{name}: has no labels, and --compare needs some: leave it out, or add y to an .npz file"
            )
    if args.out is not None:
        _write(args.out, trained, rows)
    if own is not None:
        _print(args, trained, own, rows, _compare(trained, own, rows))
    if args.out is not None:
        print(args.out)
    return 0


def _write(path: Path, trained: loading.Trained, rows: Rows) -> None:
    conditional = trained.model.architecture.classes > 0
    mu, logvar = trained.model.encode(rows.x, rows.y if conditional else None)
    far = np.flatnonzero(~np.isfinite(to_host(mu)).all(axis=1) | ~np.isfinite(to_host(logvar)).all(axis=1))
    if far.size:
        raise DataError(f"{rows.name}: row {far[0]} is too far from the run's data: its mu or logvar is no number")
    arrays = {"mu": to_host(mu), "logvar": to_host(logvar), **({} if rows.y is None else {"y": rows.y})}
    try:
        if path.suffix == ".npz":
            write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))
        else:
            write_text(path, _csv(arrays["mu"], rows.y))
    except OSError as error:
        raise TinyvaeError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from error


def _csv(mu: np.ndarray, y: np.ndarray | None) -> str:
    """Numbers with as many digits as tell them apart: reading them back gives the same."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([f"z{j + 1}" for j in range(mu.shape[1])] + ([] if y is None else ["label"]))
    for i, row in enumerate(mu):
        table.writerow([str(number) for number in row] + ([] if y is None else [int(y[i])]))
    return text.getvalue()


def _compare(trained: loading.Trained, own: Dataset, rows: Rows) -> list[FeatureScore]:
    assert own.y_train is not None
    assert rows.y is not None
    x_train = run_rows(own, "train", trained.config)  # (train rows, data)
    rng = np.random.default_rng([trained.config.seed, streams.ORDER])
    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        return compare_features(
            trained.model, x_train, own.y_train, rows.x, rows.y, rng,
            progress=lambda stage: bar.update(task, description=stage),
        )  # fmt: skip


def _print(
    args: argparse.Namespace, trained: loading.Trained, own: Dataset, rows: Rows, scores: list[FeatureScore]
) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("features", "numbers", "softmax", "neighbours"):
        table.add_column(heading, justify="left" if heading == "features" else "right")
    for score in scores:
        shares = [f"{100 * s:.2f} +- {100 * score.standard_error(s):.2f} %" for s in (score.softmax, score.knn)]
        table.add_row(score.features, str(score.size), *shares)
    console = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
    console.print(f"{args.run_dir} after epoch {trained.epoch}: right labels, of {len(rows.x):,} rows of {rows.name}")
    console.print(table)
    if trained.model.architecture.classes:
        console.print(
            "note: this run is conditional: its encoder is given the labels, so its means may repeat them; "
            "their score is no forecast for rows without labels"
        )
    assert own.y_train is not None
    assert rows.y is not None
    unknown = int(np.isin(rows.y, own.y_train, invert=True).sum())
    if unknown:
        console.print(f"note: {unknown:,} rows have labels that no training row has, so nothing gets these right")
    if loading.is_own_data(args, trained) and (args.part != "test" or Path(args.data).suffix):
        console.print("note: the classifiers learned from some of these very rows, so the scores are too good")
