"""What is measured after every epoch, and the table that it is kept in."""

import csv
import io
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tinyvae.backend import to_host
from tinyvae.errors import CheckpointError
from tinyvae.model.estimates import active_units
from tinyvae.model.vae import VAE
from tinyvae.objectives.objective import Objective
from tinyvae.training.batches import Batches
from tinyvae.training.files import read_regular, write_text

FILE = "metrics.csv"
MAX_BYTES = 1 << 30  # of the table: ten million epochs


@dataclass(frozen=True)
class Evaluation:
    """Means over a data set, in nats for each datum. The loss is the objective's: for the ELBO, nll + beta * kl."""

    loss: float
    nll: float
    kl: float
    active_units: int


def evaluate(model: VAE, batches: Batches, objective: Objective, seed: int) -> Evaluation:
    """What is minimized, and nll and kl beside it, on all rows; the same noise whenever the seed is the same.

    Where the objective has K draws for each row, nll is the mean over the draws.
    """
    xp, objective = model.backend.xp, objective.measured().on(batches.rows)
    sums = xp.zeros(3, dtype="float64")  # of loss, nll and kl
    mu = xp.empty((batches.rows, model.latent_dim), dtype=model.dtype)  # (rows, latent)
    done = 0
    for x, eps, y in batches.in_order(seed):
        n = x.shape[0]
        with model.lock, model.borrowed("evaluate", n) as k:
            q, _, nll = model.run(k, x, eps, y, training=False, missing=batches.missing)
            terms, _ = objective.forward(k, nll, q)
            for i, term in enumerate(terms):
                sums[i] += n * term[0].astype("float64")
            mu[done : done + n] = q.mu
        done += n
    loss, nll_mean, kl_mean = (to_host(sums) / done).tolist()
    return Evaluation(loss + batches.offset, nll_mean + batches.offset, kl_mean, active_units(to_host(mu)))


@dataclass(frozen=True)
class Row:
    """A line of metrics.csv. Losses in nats for each datum.

    The train columns are means over the epoch of what was minimized (with the beta of each step, and free bits); the
    valid columns are of the rows that are held out, after the epoch, with the run's final beta and without free bits.
    Without such rows they are None, and empty in the file.
    """

    epoch: int
    seconds: float
    train_loss: float
    train_nll: float
    train_kl: float
    valid_loss: float | Any = None
    valid_nll: float | Any = None
    valid_kl: float | Any = None
    active_units: int | Any = None


def write_table(run: Path, rows: list[Row]) -> None:
    """Replace the run's metrics.csv."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in rows)
    write_text(run / FILE, text.getvalue())


def read_table(run: Path, epochs: int) -> tuple[list[Row], list[str]]:
    """The rows of the run's metrics.csv up to `epochs`, and one line if the file is gone.

    Raises CheckpointError if it cannot be read, is damaged, or lacks an epoch.
    """
    path = run / FILE
    if epochs == 0:
        return [], []
    try:
        text = io.StringIO(read_regular(path, MAX_BYTES).decode(), newline="")
        rows = [_row(line) for line in csv.DictReader(text, restval="")]
    except FileNotFoundError:
        return [], [f"{path}: is gone, and with it the losses of {epochs} epochs"]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise CheckpointError(f"{path}: cannot be read as the run's metrics ({error}); {_REMEDY}") from error
    rows = [row for row in rows if row.epoch <= epochs]
    if not rows or [row.epoch for row in rows] != list(range(epochs - len(rows) + 1, epochs + 1)):
        raise CheckpointError(f"{path}: lacks some of the {epochs} epochs that the checkpoint has behind it; {_REMEDY}")
    return rows, []


_REMEDY = "move it away to go on without these losses"


def _row(line: dict[str, str]) -> Row:
    """Raises ValueError or KeyError for anything that `write_table` did not write."""
    may_lack = {field.name for field in fields(Row) if field.default is None}
    empty = {name for name in may_lack if line[name] == ""}
    values = {field.name: float(line[field.name]) for field in fields(Row) if field.name not in empty}
    whole = {name: int(line[name]) for name in ("epoch", "active_units") if name not in empty}
    right = all(math.isfinite(value) for value in values.values()) and min(whole.values()) >= 0
    if not right or empty not in (set(), may_lack):
        raise ValueError(f"a row reads {', '.join(line.values())[:80]}")
    return Row(**{**values, **whole})  # pyright: ignore[reportArgumentType] - whole numbers are
