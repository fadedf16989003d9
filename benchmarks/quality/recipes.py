"""The recipes of `tinyvae recipes`, with ten epochs on MNIST each."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.output import Table
from benchmarks.plots import WIDTH
from benchmarks.quality.runs import Run, Workshop, log_p, losses
from benchmarks.quality.shown import BLUE, LOSS_HEADER, ORANGE, difference, loss_cells, save
from tinyvae import recipes
from tinyvae.backend import to_host
from tinyvae.recipes import evidence
from tinyvae.training import figures, streams
from tinyvae.training.data import two_gaussians
from tinyvae.training.run import is_cross_entropy

TITLE = "The recipes"
EPOCHS = 10
ABOUT = f"""\
The five recipes of `tinyvae recipes list`, each variant trained as `tinyvae recipes run NAME --epochs {EPOCHS}` does
(`two-gaussians`: its own 100 epochs). log p(x) by importance sampling with 100 draws, on all test rows, only where
the model is a density of the data: Bernoulli on grey pixels is cross-entropy, and no likelihood. A density of real
numbers can exceed 1, so log p(x) can be positive. Losses under different likelihoods cannot be compared with each
other. The loss of beta-4 is nll + 4 kl; the runs without a digit are tested without it, too."""
PICTURES = {
    "manifold": "`manifold`, beta 1: the decoder's mean at 15 x 15 points of the latent plane, in equal steps of "
    "probability under the prior. Neighbours look alike, and most digits have a region. Between the regions lie "
    "shapes that are no digit.",
    "convolutional": "`convolutional`: 40 samples of each net (the decoder's mean at z drawn from the prior). Many are "
    "no digits under either: a latent space of 100 dimensions has room that no digit was encoded to.",
    "two-gaussians": "`two-gaussians`, 20,000 points: fresh points of the mixture, and draws of the model with the "
    "noise of p(x|z), on top of each other. Neither colour has a region of its own.",
}


def run(shop: Workshop, pictures: Path) -> dict[str, Any]:
    """Train all variants, measure, draw."""
    found: dict[str, Any] = {"variants": [], "findings": []}
    for name in recipes.names():
        epochs = None if name == "two-gaussians" else EPOCHS
        made = [(v.name, shop.train(**v.options)) for v in recipes.changed(recipes.load(name), None, None, epochs)]
        for variant, each in made:
            entry = {"recipe": name, "variant": variant, **losses(each)}
            if not is_cross_entropy(each.config, each.dataset):
                entry["log_p"], entry["log_p_se"] = log_p(each)
            found["variants"].append(entry)
        outcomes = [_outcome(variant, each, shop) for variant, each in made]
        if name == "shared-weights":
            found["findings"] += [vars(f) for f in evidence.shared_weights(outcomes, print)]
        elif name == "features":
            found["findings"] += [
                vars(evidence.anomaly(outcome, outcome.config.leave_out, print))
                for outcome in outcomes
                if outcome.config.leave_out is not None
            ]
        elif name == "two-gaussians":
            for outcome in outcomes:
                (outcome.path / "figures").mkdir(exist_ok=True)
            found["findings"] += [vars(f) for f in evidence.two_gaussians_overlap(outcomes, print)]
            save(_overlay(made[0][1], outcomes[0]), pictures / "two-gaussians.png")
        elif name == "convolutional":
            save(_beside(made), pictures / "convolutional.png")
        elif name == "manifold":
            model, shape = made[0][1].model, made[0][1].dataset.image_shape
            save(figures.manifold(model, shape), pictures / "manifold.png")
    return found


def _outcome(name: str, made: Run, shop: Workshop) -> evidence.Outcome:
    """As `tinyvae recipes run` has it; the data where it lies today."""
    config = replace(made.config, data_dir=str(shop.data_dir)) if shop.data_dir else made.config
    return evidence.Outcome(name, made.path, config, made.model, made.test)


def _overlay(run: Run, outcome: evidence.Outcome) -> Figure:
    """Fresh points of the mixture and draws of the model, drawn in one shuffled order so that none covers the other."""
    fresh = two_gaussians(evidence.FRESH, run.config.seed + 1).x_test  # (FRESH, 2)
    points = np.concatenate([fresh, evidence.draws(outcome.model, len(fresh), run.config.seed)])  # (2 FRESH, 2)
    colours = np.repeat([BLUE, ORANGE], len(fresh))
    order = np.random.default_rng(0).permutation(len(points))
    figure = Figure(figsize=(WIDTH / 2, WIDTH / 2), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*points[order].T, s=7, c=colours[order].tolist(), alpha=0.6, linewidths=0)
    for label, colour in (("fresh points of the mixture", BLUE), ("draws of the model", ORANGE)):
        axes.plot([], [], "o", ms=5, color=colour, label=f"{len(fresh):,} {label}")
    axes.set(xlabel="x1", ylabel="x2", aspect="equal")
    axes.legend(loc="upper left", fontsize=8)
    axes.grid(alpha=0.3)
    return figure


def _beside(made: list[tuple[str, Run]], lines: int = 5, columns: int = 8) -> Figure:
    """Samples of two runs, side by side."""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    for axes, (name, each) in zip(figure.subplots(1, 2), made, strict=True):
        assert each.dataset.image_shape is not None
        h, w = each.dataset.image_shape
        x = to_host(each.model.sample(lines * columns, np.random.default_rng([0, streams.SAMPLES])))  # (n, data)
        sheet = x.reshape(lines, columns, h, w).transpose(0, 2, 1, 3).reshape(lines * h, columns * w)
        axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[], title=f"{name}: test loss {each.test.loss:.2f} nats")
    return figure


def tables(results: dict[str, Any]) -> list[Table]:
    """The losses of all variants, and what was found beside them."""
    rows = []
    for v in results["variants"]:
        known = f"{v['log_p']:.2f} +- {v['log_p_se']:.2f}" if "log_p" in v else "-"
        rows.append([f"{v['recipe']}: {v['variant']}", *loss_cells(v), known])
    found = [Table(f["title"], f["columns"], f["rows"]) for f in results["findings"]]
    return [Table("test set, nats for each datum", ("recipe: variant", *LOSS_HEADER, "log p(x)"), rows), *found]


def notes(results: dict[str, Any], noise: float | None) -> list[str]:
    """What the convolutions bring."""
    losses_of = {v["variant"]: v["loss"] for v in results["variants"] if v["recipe"] == "convolutional"}
    conv, dense = losses_of["convolutional"], losses_of["dense"]
    of, seeds = "the dense net of nearly as many parameters", "the seeds of 784-400-[20] (its own were not measured)"
    return [difference("The convolutional net", conv, dense, noise, of, seeds)]


def draw(results: dict[str, Any]) -> dict[str, Figure]:
    """All pictures of this part are made from the models, by `run`."""
    return {}
