"""Training aids: batch normalization, clipping, accumulated batches; first what seeds alone change."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.output import Table
from benchmarks.quality.runs import Workshop, losses
from benchmarks.quality.shown import LOSS_HEADER, difference, loss_cells
from tinyvae.errors import NonFiniteError

TITLE = "Training aids, and what seeds alone change"
NET: dict[str, Any] = {"hidden": (400,), "latent": 20, "epochs": 10}
SEEDS = (0, 1, 2)
AIDS: dict[str, dict[str, Any]] = {
    "--batch-norm": {"batch_norm": True},
    "--clip-norm 10": {"clip_norm": 10.0},
    "--accumulate 2": {"accumulate": 2},
}
RATES = (0.01, 0.03)
HIGH: dict[str, dict[str, Any]] = {
    "plain": {},
    "--clip-norm 10": {"clip_norm": 10.0},
    "--batch-norm": {"batch_norm": True},
}
ABOUT = """\
784-400-[20], grey MNIST, 10 epochs, batches of 128, learning rate 0.001 unless said, seed 0 unless said. The loss is
cross-entropy, as the pixels are grey. `--accumulate 2` makes half as many updates in as many epochs."""
PICTURES: dict[str, str] = {}


def run(shop: Workshop, pictures: Path) -> dict[str, Any]:
    """Train all."""
    found: dict[str, Any] = {"seeds": {}, "aids": {}, "high": {}}
    for seed in SEEDS:
        found["seeds"][f"plain, seed {seed}"] = losses(shop.train(**NET, seed=seed))
    for name, options in AIDS.items():
        found["aids"][name] = losses(shop.train(**NET, **options))
    for rate in RATES:
        for name, options in HIGH.items():
            found["high"][f"--lr {rate:g}, {name}"] = _tried(shop, {**NET, "lr": rate, **options})
    return found


def _tried(shop: Workshop, options: dict[str, Any]) -> dict[str, Any] | None:
    """The losses; None where training came to a loss that is no number."""
    try:
        return losses(shop.train(**options))
    except NonFiniteError as error:
        print(f"  {error}", flush=True)
        return None


def seed_noise(results: dict[str, Any]) -> float:
    """The largest difference between the test losses of the seeds, in nats."""
    found = [r["loss"] for r in results["seeds"].values()]
    return max(found) - min(found)


def tables(results: dict[str, Any]) -> list[Table]:
    """Seeds and aids in one table, high learning rates in another."""
    header = ("training", *LOSS_HEADER)
    usual = [[name, *loss_cells(r)] for name, r in (results["seeds"] | results["aids"]).items()]
    lost = ["-", "-", "no number", "-", "-", "-"]
    high = [[name, *(loss_cells(r) if r else lost)] for name, r in results["high"].items()]
    return [
        Table("test set, nats for each datum", header, usual),
        Table("with a high learning rate", header, high),
    ]


def notes(results: dict[str, Any], noise: float | None) -> list[str]:
    """Each aid against plain training with the same seed."""
    plain, noise = results["seeds"]["plain, seed 0"]["loss"], seed_noise(results)
    found = [
        f"Three seeds differ by {noise:.2f} nats at most. Smaller differences are called none. Other nets may differ "
        "by more: see collapse, where three seeds of another net are compared."
    ]
    found += [difference(f"`{name}`", r["loss"], plain, noise) for name, r in results["aids"].items()]
    for rate in RATES:
        base = results["high"][f"--lr {rate:g}, plain"]
        if base is None:
            found.append(f"Plain training at a learning rate of {rate:g} does not survive: its loss is no number.")
            continue
        found.append(difference(f"Plain training at {rate:g}", base["loss"], plain, noise, "at 0.001"))
        for name in HIGH:
            r = results["high"][f"--lr {rate:g}, {name}"]
            if name != "plain" and r is not None:
                found.append(difference(f"`{name}` at {rate:g}", r["loss"], base["loss"], noise, "plain there"))
    high = {name: r["loss"] for name, r in results["high"].items() if r is not None}
    if high:
        best = min(high, key=lambda name: high[name])
        found.append(difference(f"The best of these, `{best}`", high[best], plain, noise, "plain training at 0.001"))
    return found


def draw(results: dict[str, Any]) -> dict[str, Figure]:
    """The table says it all."""
    return {}
