"""Posterior collapse: latent dimensions that the model leaves unused, and what helps against that."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.output import Table
from benchmarks.plots import WIDTH
from benchmarks.quality.runs import Run, Workshop, log_p, losses
from benchmarks.quality.shown import BLUE, LOSS_HEADER, ORANGE, loss_cells
from tinyvae.backend import to_host
from tinyvae.model.vae import CHUNK
from tinyvae.training import streams

TITLE = "Collapse, and its remedies"
NET: dict[str, Any] = {
    "hidden": (200, 200), "latent": 50, "activation": "tanh", "binarize": "dynamic", "epochs": 10
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "plain, seed 1": {"seed": 1},
    "plain, seed 2": {"seed": 2},
    "--beta-warmup 5": {"beta_warmup": 5},
    "--free-bits 0.1": {"free_bits": 0.1},
    "--free-bits 0.5": {"free_bits": 0.5},
    "--beta-warmup 5 --free-bits 0.1": {"beta_warmup": 5, "free_bits": 0.1},
}
ABOUT = """\
784-200-200-[50], tanh, dynamic binarization (so this is a likelihood), 10 epochs, seed 0 unless said. An active unit
is a latent dimension whose mu varies over the test rows by more than 0.01 (Burda et al. 2016). Loss, nll and kl are
those of the plain ELBO for all, whatever was minimized. log p(x) on all test rows with 100 draws each, +- its
standard error over the rows; the rows are the same for all, so differences between runs are surer than these errors."""
NOISE = "collapse"
PICTURES = {
    "collapse": "Mean KL of each latent dimension on the test rows, largest first. Plain training leaves most of them "
    "at 0: they say nothing about x. Free bits lift this tail to about the allowance; with "
    "0.5 nats for each dimension, hardly one carries more than that."
}


def run(shop: Workshop, pictures: Path) -> dict[str, Any]:
    """Train all variants."""
    found = {}
    for name, options in VARIANTS.items():
        made = shop.train(**NET, **options)
        log, error = log_p(made)
        found[name] = {**losses(made), "log_p": log, "log_p_se": error, "kl_of_each": kl_of_each(made)}
    return found


def kl_of_each(run: Run) -> list[float]:
    """The mean KL of each latent dimension over the test rows, in nats, the largest first."""
    x, _ = run.test_rows()
    rng, latent = np.random.default_rng([run.config.seed, streams.TEST]), run.model.architecture.latent_dim
    total = np.zeros(latent)
    for start in range(0, len(x), CHUNK):
        chunk = x[start : start + CHUNK]
        _, kl = run.model.rows_loss(chunk, rng.standard_normal((len(chunk), latent)))  # (chunk, latent)
        total += to_host(kl).sum(axis=0, dtype=np.float64)
    return sorted((total / len(x)).tolist(), reverse=True)


def seed_noise(results: dict[str, Any]) -> float:
    """The largest difference between log p(x) of the plain runs, in nats."""
    found = [r["log_p"] for name, r in results.items() if name.startswith("plain")]
    return max(found) - min(found)


def tables(results: dict[str, Any]) -> list[Table]:
    """A line for each remedy."""
    rows = [
        [name, *loss_cells(r), f"{sum(k > 0.01 for k in r['kl_of_each'])}", f"{r['log_p']:.2f} +- {r['log_p_se']:.2f}"]
        for name, r in results.items()
    ]
    header = ("training", *LOSS_HEADER, "dimensions with KL > 0.01", "log p(x)")
    return [Table("test set, nats for each datum", header, rows)]


def notes(results: dict[str, Any], noise: float | None) -> list[str]:
    """Which remedies raise the active units, and which of these the likelihood."""
    plain, found = results["plain"], []
    if noise is not None:
        found.append(f"log p(x) of plain runs with other seeds differs by {noise:.2f} nats at most.")
    for name, r in results.items():
        if name.startswith("plain"):
            continue
        units, gain = r["active_units"] - plain["active_units"], r["log_p"] - plain["log_p"]
        count = f"{abs(units)} active units {'more' if units > 0 else 'fewer'}" if units else "as many active units"
        better = f"log p(x) is {abs(gain):.2f} nats {'higher (better)' if gain > 0 else 'lower (worse)'}"
        sentence = f"`{name}`: {count}, and {better}"
        if noise is not None and abs(gain) <= noise:
            sentence += ", no more than seeds differ by"
        elif units > 0 and gain < 0:
            sentence += ": more units, and yet a worse model after these epochs"
        found.append(f"{sentence}.")
    return found


def draw(results: dict[str, Any]) -> dict[str, Figure]:
    """The KL of each dimension, plain against each remedy."""
    remedies = [name for name in results if not name.startswith("plain")]
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    plain = results["plain"]["kl_of_each"]
    grid = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    for axes, name in zip(grid, remedies, strict=True):
        x = np.arange(1, len(plain) + 1)
        axes.bar(x, results[name]["kl_of_each"], color=ORANGE, width=0.8, label="with it")
        axes.step([0.5, *(x + 0.5)], [plain[0], *plain], where="pre", color=BLUE, lw=1.6, label="plain")
        axes.set_title(name, fontsize=10)
        axes.set_ylim(0, None)
        axes.grid(axis="y", alpha=0.3)
        axes.legend(frameon=False)
    figure.supxlabel("latent dimension, by its KL", fontsize=10)
    figure.supylabel("mean KL (nats)", fontsize=10)
    return {"collapse": figure}
