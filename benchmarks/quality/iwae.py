"""The importance-weighted bound as the objective, beside the ELBO."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.output import Table
from benchmarks.quality.collapse import NET
from benchmarks.quality.runs import Workshop, log_p, losses
from benchmarks.quality.shown import LOSS_HEADER, loss_cells

TITLE = "The importance-weighted bound"
IWAE: dict[str, Any] = {"objective": "iwae", "importance": 5}
LONGER = 30  # epochs
RUNS: dict[str, dict[str, Any]] = {
    "elbo": {},
    "iwae, K = 1": IWAE | {"importance": 1},
    "iwae, K = 5": IWAE,
    f"elbo, {LONGER} epochs": {"epochs": LONGER},
    f"iwae, K = 5, {LONGER} epochs": IWAE | {"epochs": LONGER},
}
SAMPLES, ROWS = 1000, 1000
ABOUT = f"""\
784-200-200-[50], tanh, dynamic binarization, seed 0, {NET["epochs"]} and {LONGER} epochs. Under either objective an
epoch has as many updates, but a step with K draws costs more. K = 1 is a control: the bound is then the ELBO, with a
draw in place of the closed form of the KL. log p(x) with {SAMPLES:,} draws for each of {ROWS:,} test rows, evenly
spread; +- is the standard error over the rows, which are the same for all. The loss is minus the bound that was the
objective, so losses of different objectives cannot be compared with each other, but log p(x) can. What seeds change
was measured in the part on collapse, after 10 epochs.

Burda et al. 2016, table 1, with this net: -log p(x) of 86.76 and 19 active units by the ELBO; 85.54 and 22 by K = 5;
84.78 and 25 by K = 50. They train for 3,280 epochs in batches of 20 with a falling learning rate, and use 5,000 draws
on all test rows. Their numbers are no target for so few epochs, but the direction can be compared."""
NOISE = "collapse"  # the same net
PICTURES: dict[str, str] = {}


def run(shop: Workshop, pictures: Path) -> dict[str, Any]:
    """Train and estimate."""
    found = {}
    for name, options in RUNS.items():
        made = shop.train(**NET | options)
        samples, rows = (5, 50) if shop.quick else (SAMPLES, ROWS)
        log, error = log_p(made, samples, rows)
        found[name] = {**losses(made), "log_p": log, "log_p_se": error, "seconds": made.last.seconds}
    return found


def tables(results: dict[str, Any]) -> list[Table]:
    """A line for each run."""
    rows = [[name, *loss_cells(r), f"{r['log_p']:.2f} +- {r['log_p_se']:.2f}"] for name, r in results.items()]
    return [Table("test set, nats for each datum", ("objective", *LOSS_HEADER, "log p(x)"), rows)]


def notes(results: dict[str, Any], noise: float | None) -> list[str]:
    """The gain in log p(x) and in active units."""
    found = []
    for name, r in results.items():
        if not name.startswith("iwae"):
            continue
        base = results[f"elbo, {LONGER} epochs" if name.endswith("epochs") else "elbo"]
        gain = r["log_p"] - base["log_p"]
        way = "higher (better)" if gain > 0 else "lower (worse)"
        sure = "" if noise is None else ", more than seeds differ by" if abs(gain) > noise else ", which is seed noise"
        units = f"{r['active_units']} active units against {base['active_units']}"
        found.append(f"{name}: log p(x) is {abs(gain):.2f} nats {way} than by the ELBO{sure}; {units}.")
    return found


def draw(results: dict[str, Any]) -> dict[str, Figure]:
    """The table says it all."""
    return {}
