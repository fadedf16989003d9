"""The command line from within a test: what a command returns, data of a user's own, and what a run wrote."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae import load_data
from tinyvae.commands import main
from tinyvae.training.data import load_digits

TINY = ["--hidden", "6", "--latent", "2", "--epochs", "3", "--no-figures", "--quiet", "--backend", "numpy"]
BASE = ["--data", "own.npz", *TINY]


def run(*argv: str | Path) -> int:
    try:
        return main([str(a) for a in argv])
    except SystemExit as end:  # argparse's way
        return end.code if isinstance(end.code, int) else -1


def small_digits(folder: Path) -> Path:
    """60 of the digits, as a user would save images of their own."""
    digits = load_digits()
    assert digits.y_train is not None
    path = folder / "own.npz"
    np.savez(path, x=digits.x_train[:60].reshape(60, 8, 8) / 16, y=digits.y_train[:60])
    return path


def held_out(data: str | Path, path: Path) -> Path:
    """The test rows of a data set as a file: a run that holds these out has metrics of the test rows."""
    dataset = load_data(str(data))
    labels: dict[str, Any] = {} if dataset.y_test is None else {"y": dataset.y_test}
    np.savez(path, x=dataset.values(dataset.x_test), **labels)
    return path


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def roundings_of_means(batch: int) -> float:
    """How far loss may be from nll + beta kl in float32, relative to the loss: each is a mean over batches of so many
    rows. A row's part of the loss is rounded twice, and each of the two sums at most batch - 1 times, in any order."""
    return (2 + 2 * (batch - 1)) * float(np.finfo(np.float32).eps) / 2


def without_time(folder: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in metrics(folder)]
