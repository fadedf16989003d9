"""What the experiments' pages have in common: how numbers are written, and what is called a difference."""

import io
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image  # matplotlib brings it

from benchmarks.plots import WIDTH
from tinyvae.training.files import write_atomically

DPI = 110
SHADES = 128  # colours of a PNG: enough for a chart or grey digits, and a third of the bytes
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#777777"  # Okabe and Ito
LOSS_HEADER = ("parameters", "epochs", "loss", "nll", "kl", "active units")


def loss_cells(found: dict[str, Any]) -> list[str]:
    """The cells under LOSS_HEADER of what `runs.losses` found."""
    nats = [f"{found[name]:.2f}" for name in ("loss", "nll", "kl")]
    return [f"{found['parameters']:,}", str(found["epochs"]), *nats, f"{found['active_units']} of {found['latent']}"]


def percent(share: float, error: float | None = None) -> str:
    """In percent, with a standard error where there is one."""
    return f"{100 * share:.1f}" if error is None else f"{100 * share:.1f} +- {100 * error:.1f}"


def difference(
    name: str, loss: float, base: float, noise: float | None, of: str = "plain training", seeds: str = "seeds"
) -> str:
    """A sentence on how a loss compares with another. noise: what losses of several seeds differ by, if it is known."""
    gap = loss - base
    way = "lower (better)" if gap < 0 else "higher (worse)"
    sentence = f"{name}: {abs(gap):.2f} nats {way} than {of}"
    if noise is None:
        return f"{sentence}."
    verdict = f"no more than {seeds} differ by: no difference" if abs(gap) <= noise else f"more than {seeds} do"
    return f"{sentence}, {verdict}."


def panels(columns: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the page, and its axes side by side."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False, **options)[0])
    for each in axes:
        each.grid(alpha=0.3)
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    """Write a small PNG, for a page that lies in a repository."""
    whole = io.BytesIO()
    figure.savefig(whole, format="png", dpi=DPI)
    small = Image.open(whole).convert("RGB").quantize(SHADES, dither=Image.Dither.NONE)
    write_atomically(path, lambda file: small.save(file, format="PNG", optimize=True))
