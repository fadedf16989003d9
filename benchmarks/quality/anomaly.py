"""Digits that a model never saw: does it find them unlikely? And images that fool it."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.output import Table
from benchmarks.quality.runs import Run, Workshop
from benchmarks.quality.shown import BLUE, GREY, ORANGE, panels
from tinyvae.training import streams
from tinyvae.training.data.rows import load_rows
from tinyvae.uses.anomalies import anomaly_scores, auroc
from tinyvae.uses.restoring import blurred

TITLE = "Digits that were never seen"
DRAWS = 10
LIKELIHOODS: dict[str, dict[str, Any]] = {"bernoulli": {}, "gaussian": {"likelihood": "gaussian"}}
NET: dict[str, Any] = {"hidden": (512,), "latent": 20, "epochs": 5}
ABOUT = f"""\
784-512-[20], grey MNIST, 5 epochs, seed 0, once without each digit (`--leave-out`) and once with all. A test digit's
score is minus its ELBO, a mean over {DRAWS} draws of z, in nats (cross-entropy on grey pixels, no log p(x)). The
AUROC is the probability that a left-out digit scores higher than one of the other nine: 1 is perfect, 0.5 is chance.
The column "all seen" is the same comparison under the model that has seen this digit too: only what is above it comes
from never having seen the digit. The command: `tinyvae anomaly RUN mnist --out scores.csv`.

The second table asks two models of all digits, one with each likelihood (the Gaussian's sigma learned), for the
scores of images that are no MNIST digits at all (AUROC: against the unchanged test digits). Below 0.5 the model finds
them likelier than its own kind of data, as Nalisnick et al. 2019 ("Do deep generative models know what they don't
know?") found for other pairs of data sets."""
PICTURES = {
    "anomaly": "AUROC of each digit: dots for the model that never saw it, rings for the one that did. A dot at 0.5 or "
    "below means that the digit was not noticed."
}


def run(shop: Workshop, pictures: Path) -> dict[str, Any]:
    """Score the test digits under all models."""
    rows = load_rows("digits" if shop.quick else "mnist", "test", None if shop.quick else shop.data_dir)
    assert rows.y is not None
    assert rows.image_shape is not None
    seen = scores(shop.train(**NET), rows.x)  # (rows,)
    found: dict[str, Any] = {"rows": len(rows.x), "digits": {}, "fooled": {}}
    for digit in range(10):
        here = rows.y == digit  # (rows,)
        left_out = scores(shop.train(**NET, leave_out=str(digit)), rows.x)  # (rows,)
        found["digits"][str(digit)] = {
            "auroc": auroc(left_out, here), "score": float(left_out[here].mean()),
            "others": float(left_out[~here].mean()), "all_seen": auroc(seen, here),
        }  # fmt: skip
        print(f"  without {digit}: AUROC {found['digits'][str(digit)]['auroc']:.3f}", flush=True)
    rng = np.random.default_rng([0, streams.NOISE])
    strange = {
        "no image at all (every pixel 0)": np.zeros_like(rows.x[:1]).repeat(len(rows.x), axis=0),
        "digits at three quarters of their ink": 0.75 * rows.x,
        "digits blurred (mean of 3 x 3)": blurred(rows.x, rows.image_shape),
        "digits upside down": rows.x[:, ::-1],
        "digits in negative (1 - x)": 1 - rows.x,
        "uniform noise": rng.random(rows.x.shape),
    }
    for likelihood, options in LIKELIHOODS.items():
        trained = shop.train(**NET, **options)
        own = scores(trained, rows.x)  # (rows,)
        entries = {"the test digits themselves": {"score": float(own.mean()), "auroc": 0.5}}
        for name, x in strange.items():
            scored = scores(trained, x)  # (rows,)
            truth = np.repeat([False, True], [len(own), len(scored)])
            area = auroc(np.concatenate([own, scored]), truth)
            entries[name] = {"score": float(scored.mean()), "auroc": area}
        found["fooled"][likelihood] = entries
    return found


def scores(run: Run, x: np.ndarray) -> np.ndarray:
    """Minus the ELBO of every row, nats, as `tinyvae anomaly` scores it.  x (rows, data) -> (rows,)"""
    return anomaly_scores(run.model, x, np.random.default_rng([run.config.seed, streams.IMPORTANCE]), samples=DRAWS)


def tables(results: dict[str, Any]) -> list[Table]:
    """The ten digits; the images that are none."""
    digits = [
        [d, f"{r['auroc']:.3f}", f"{r['all_seen']:.3f}", f"{r['score']:.1f}", f"{r['others']:.1f}"]
        for d, r in results["digits"].items()
    ]
    models = results["fooled"]
    fooled = [
        [name, *(cell for r in models.values() for cell in (f"{r[name]['score']:.1f}", f"{r[name]['auroc']:.3f}"))]
        for name in models["bernoulli"]
    ]
    columns = [f"{name}: {what}" for name in models for what in ("mean score", "AUROC")]
    header = ("left out", "AUROC", "AUROC, all seen", "mean score of the digit", "of the others")
    return [
        Table(f"each digit against the other nine, {results['rows']:,} test digits; scores in nats", header, digits),
        Table("under models of all digits, scores in nats", ("images", *columns), fooled),
    ]


def notes(results: dict[str, Any], noise: float | None) -> list[str]:
    """Which digits are noticed, which are not, and what fools the model."""
    digits = results["digits"]
    mean = float(np.mean([r["auroc"] for r in digits.values()]))
    missed = [d for d, r in digits.items() if r["auroc"] <= 0.5]
    best = max(digits, key=lambda d: digits[d]["auroc"])
    worst = min(digits, key=lambda d: digits[d]["auroc"])
    return [
        f"The mean AUROC over the ten digits is {mean:.3f}, from {digits[worst]['auroc']:.3f} (digit {worst}) to "
        f"{digits[best]['auroc']:.3f} (digit {best}).",
        f"Never seen and yet likelier than the rest: {', '.join(missed) if missed else 'no digit'}."
        + (" A 1 has little ink, so it is likely under any of these models." if "1" in missed else ""),
        *(
            f"Likelier than the test digits to the {likelihood} model, although they are none: "
            f"{'; '.join(name for name, r in fooled.items() if r['auroc'] < 0.5) or 'nothing'}."
            for likelihood, fooled in results["fooled"].items()
        ),
    ]


def draw(results: dict[str, Any]) -> dict[str, Figure]:
    """The ten AUROCs, under the model without the digit and under the one with it."""
    figure, (axes,) = panels(1, 3.2)
    digits = results["digits"]
    x = range(len(digits))
    axes.axhline(0.5, color=GREY, lw=1)
    axes.text(1.5, 0.51, "chance", color=GREY, fontsize=9, ha="center", va="bottom")
    for i, r in enumerate(digits.values()):
        axes.plot([i, i], [r["all_seen"], r["auroc"]], color=GREY, lw=1, zorder=1)
    axes.plot(
        x, [r["auroc"] for r in digits.values()], "o", color=BLUE, ms=8, label="this digit left out of the training"
    )
    axes.plot(
        x,
        [r["all_seen"] for r in digits.values()],
        "o",
        mfc="white",
        color=ORANGE,
        ms=8,
        mew=2,
        label="all digits seen",
    )
    axes.set_xticks(x, list(digits))
    axes.set(xlabel="digit", ylabel="AUROC against the other nine", ylim=(-0.04, 1.02))
    axes.legend(frameon=False, loc="lower right")
    return {"anomaly": figure}
