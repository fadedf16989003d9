"""A model that is given the labels: its loss, its styles, and whether its samples help a classifier."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.output import Table
from benchmarks.quality.runs import Workshop, losses
from benchmarks.quality.shown import LOSS_HEADER, loss_cells, percent, save
from tinyvae.training import figures, streams
from tinyvae.uses.augmentation import Mean, augment
from tinyvae.uses.features import run_rows

TITLE = "Conditional models, and samples as training data"
NET: dict[str, Any] = {"hidden": (400,), "latent": 20, "epochs": 10}
LABELS, PER_CLASS, REPEATS = (10, 100, 1000), 100, 5
SURE = 4.6  # standard errors: five repetitions make them uncertain themselves (Student's t, 4 degrees, 1 %)
ABOUT = f"""\
784-400-[20], grey MNIST, 10 epochs, seed 0, with and without the labels (`--conditional`). The conditional loss bounds
-log p(x|y), the other -log p(x). Since p(x) >= p(x|y) p(y), the first can be smaller by up to log 10 = 2.30 nats for
nothing but being told the label.

Then: N training digits with labels, as many of each class, train a softmax classifier on raw pixels: alone, with {
    10 * PER_CLASS:,} generated digits ({PER_CLASS} of each class), and generated ones only. Accuracy on the 10,000 test
digits; +- is the standard error over {REPEATS} repetitions with other digits; "gain" is taken pair by pair. "all
labels": the samples come from the run above, which has seen all 60,000 labels, so this is no help for somebody who
has N. "fair": a small conditional VAE is trained on the N digits alone. The commands: `tinyvae augment RUN` and
`tinyvae augment RUN --fair`."""
PICTURES = {
    "conditional": "Left column: test digits. Then the z of each, decoded with every label. With its own label a digit "
    "comes back. With another one, weight and slant are kept, but the result is often half the old digit: this z is "
    "large enough to hold part of the shape, too, so class and style are separated only in part."
}


def run(shop: Workshop, pictures: Path) -> dict[str, Any]:
    """Train both, draw the styles, measure the samples."""
    found: dict[str, Any] = {"losses": {"plain": losses(shop.train(**NET))}, "augment": []}
    made = shop.train(**NET, conditional=True)
    found["losses"]["--conditional"] = losses(made)
    save(figures.labels(made.model, made.dataset), pictures / "conditional.png")
    x, x_test = (run_rows(made.dataset, part, made.config) for part in ("train", "test"))  # (rows, data) each
    y, y_test = made.dataset.y_train, made.dataset.y_test
    assert y is not None
    assert y_test is not None
    for n in LABELS[:1] if shop.quick else LABELS:
        for fair in (False, True):
            rng = np.random.default_rng([0, streams.SAMPLES, n])
            per_class, repeats = (5, 2) if shop.quick else (PER_CLASS, REPEATS)
            gain = augment(made.model, x, y, x_test, y_test, n, per_class, repeats, rng, fair=fair)
            entry = {name: vars(getattr(gain, name)) for name in ("real", "both", "generated", "difference")}
            found["augment"].append({"labels": n, "samples": "fair" if fair else "all labels", **entry})
            print(
                f"  {n} labels, {'fair' if fair else 'all labels'}: gain {100 * gain.difference.value:.1f} %",
                flush=True,
            )
    return found


def tables(results: dict[str, Any]) -> list[Table]:
    """Losses; accuracies."""
    rows = [
        [
            f"{r['labels']:,}, {r['samples']}",
            *(_share(Mean(**r[name])) for name in ("real", "both", "generated", "difference")),
        ]
        for r in results["augment"]
    ]
    header = ("labels, samples from", "real", "real + generated", "generated alone", "gain")
    return [
        Table(
            "test set, nats for each datum",
            ("training", *LOSS_HEADER),
            [[n, *loss_cells(r)] for n, r in results["losses"].items()],
        ),
        Table("right labels in %", header, rows),
    ]


def _share(mean: Mean) -> str:
    return percent(mean.value, mean.standard_error)


def notes(results: dict[str, Any], noise: float | None) -> list[str]:
    """What the labels bring the loss, and the samples the classifier."""
    plain, conditional = (results["losses"][name] for name in ("plain", "--conditional"))
    gap = plain["loss"] - conditional["loss"]
    found = [
        f"The conditional loss is {gap:.2f} nats lower, of which 2.30 could come from the label alone; its kl is "
        f"{plain['kl'] - conditional['kl']:.2f} nats lower: z need not tell which digit it is."
    ]
    for r in results["augment"]:
        gain, error = (r["difference"][name] for name in ("value", "standard_error"))
        verdict = "helps" if gain > SURE * error else "harms" if gain < -SURE * error else "makes no sure difference"
        shown = f"{100 * gain:+.1f} +- {100 * error:.1f} %"
        found.append(f"{r['labels']:,} labels, {r['samples']}: adding samples {verdict} ({shown}).")
    return found


def draw(results: dict[str, Any]) -> dict[str, Figure]:
    """The picture is made from the model, by `run`."""
    return {}
