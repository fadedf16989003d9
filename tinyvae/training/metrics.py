"""What is measured after every epoch, and the table that it is kept in."""

import csv
import io
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tinyvae.backend import to_host
from tinyvae.errors import CheckpointError
from tinyvae.model.estimates import active_units
from tinyvae.model.iwae import iwae_forward
from tinyvae.model.vae import VAE
from tinyvae.ops.importance import bound_forward
from tinyvae.training.batches import Batches
from tinyvae.training.files import read_regular, write_text

FILE = "metrics.csv"
MAX_BYTES = 1 << 30  # of the table: ten million epochs


@dataclass(frozen=True)
class Evaluation:
    """Means over a data set, in nats for each datum. loss = nll + beta * kl: at beta = 1, minus the ELBO.

    Under the importance-weighted objective loss is minus that bound.
    """

    loss: float
    nll: float
    kl: float
    active_units: int


def evaluate(model: VAE, batches: Batches, beta: float, seed: int) -> Evaluation:
    """The model's loss on all rows, with one draw of z for each; the same noise whenever the seed is the same.

    Where the batches hold K draws for each row, the loss is the importance-weighted bound's instead, and nll is the
    mean over the draws.
    """
    xp, latent = model.backend.xp, model.architecture.latent_dim
    nll, kl, bound = (xp.zeros((), dtype="float64") for _ in range(3))
    mu = xp.empty((batches.rows, latent), dtype=model.dtype)  # (rows, latent)
    done = 0
    for x, eps, y in batches.in_order(seed):
        with model.lock:
            if batches.draws:
                bound += bound_forward(iwae_forward(model, x, eps, y)).sum(dtype="float64")
            else:
                model.likelihood_loss(model.forward(x, eps, y), x, dnll=0.0, with_gradient=False)
            nll += model.nll.sum(dtype="float64") / max(batches.draws, 1)
            kl += model.kl.sum(dtype="float64")
            mu[done : done + x.shape[0]] = model.head[:, :latent]
        done += x.shape[0]
    nll_mean, kl_mean = float(to_host(nll)) / done, float(to_host(kl)) / done
    loss = -float(to_host(bound)) / done if batches.draws else nll_mean + beta * kl_mean
    return Evaluation(loss, nll_mean, kl_mean, active_units(to_host(mu)))


@dataclass(frozen=True)
class Row:
    """A line of metrics.csv. Losses in nats for each datum.

    The train columns are means over the epoch of what was minimized (with the beta of each step, and free bits);
    the test columns are measured after the epoch, with the run's final beta and without free bits.
    """

    epoch: int
    seconds: float
    train_loss: float
    train_nll: float
    train_kl: float
    test_loss: float
    test_nll: float
    test_kl: float
    active_units: int


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
    values = {field.name: float(line[field.name]) for field in fields(Row)}
    whole = {name: int(line[name]) for name in ("epoch", "active_units")}
    if not all(math.isfinite(value) for value in values.values()) or min(whole.values()) < 0:
        raise ValueError(f"a row reads {', '.join(line.values())[:80]}")
    return Row(**{**values, **whole})  # pyright: ignore[reportArgumentType] - whole numbers are
