"""How the linear heads start: starts from the literature, over the models of this page, README and tutorial 9."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.output import Table
from benchmarks.quality import aids, collapse
from benchmarks.quality.runs import Workshop, losses
from tinyvae import recipes
from tinyvae.commands import train
from tinyvae.layers.conv import covers
from tinyvae.model.vae import VAE
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset

TITLE = "How the heads start"
SEEDS = (0, 1, 2)
EPOCHS = 10
PAGE_9: dict[str, Any] = {"data": "digits", "binarize": "threshold", "hidden": (64, 64), "epochs": 100}


def recipe(name: str, variant: str) -> dict[str, Any]:
    """The options of a recipe's variant, as the part on recipes trains it."""
    found = recipes.load(name)
    epochs = EPOCHS if found.data == "mnist" else None
    return next(v.options for v in recipes.changed(found, None, None, epochs) if v.name == variant)


MODELS: dict[str, dict[str, Any]] = {
    "784-400-[20]": aids.NET,
    "784-400-[20], batch norm": aids.NET | {"batch_norm": True},
    "784-400-[20], labels": aids.NET | {"conditional": True},
    "784-512-[2]": recipe("manifold", "beta-1"),
    "784-500-[20], binarized": {"data": "binarized-mnist", "hidden": (500,), "latent": 20, "epochs": EPOCHS},
    "784-200-200-[50], tanh, binarized": collapse.NET,
    "784-256-256-[256], tied": recipe("shared-weights", "cross-entropy"),
    "784-256-256-[256], tied, Gaussian": recipe("shared-weights", "squared-error"),
    "2-20-10-[2], tanh, Gaussian": recipe("two-gaussians", "many-points"),
    "64-128-[8], digits": {"data": "digits"},
    "64-64-64-[2], digits": PAGE_9 | {"latent": 2, "lr": 2e-3},
    "64-64-64-[8], tanh, digits": PAGE_9 | {"latent": 8, "activation": "tanh"},
}
COSTLY: dict[str, dict[str, Any]] = {
    "784-200-200-[50], tanh, binarized, IWAE K = 5": collapse.NET | {"objective": "iwae", "importance": 5},
    "784-conv 32-64-[100]": recipe("convolutional", "convolutional"),
}
FINALISTS = 2
ABOUT = f"""\
The last layer of each half is linear. The encoder's makes mu and logvar, the decoder's what the likelihood needs. Where
should their weights start? Measured here: Glorot's range (Glorot & Bengio 2010: uniform, variance 2 / (fan in + fan
out)); a tenth of it for both, or for one of them, so that q(z|x) begins near the prior, or p(x|z) without opinions;
LeCun's variance 1 / fan in (LeCun et al. 1998); PyTorch's 1 / (3 fan in), with biases as far from 0; and "means": the
output's bias at the logit of each pixel's mean (Burda et al. 2016; a Gaussian's stays at 0), with Glorot's range and
with a tenth of it, which is what tinyvae does. Hidden layers start as ever (He et al. 2015 before rectifiers, else
Glorot). The models are those of this page, of README and of tutorial 9; where one is tied, the decoder's last layer
has no weights of its own. Seeds 0, 1 and 2; {EPOCHS} epochs on MNIST.

A start's regret is how many nats its mean loss lies above that of the model's best start. The last two models are
costly, and are trained only from the {FINALISTS} starts whose worst regret over the others is smallest."""
PICTURES: dict[str, str] = {}
Gain = Callable[[float, float], float]  # of fan in and fan out


@dataclass(frozen=True)
class Start:
    """What the heads start at: Glorot's range times a gain."""

    encoder: Gain
    output: Gain
    bias: float = 0.0  # uniform on +- bias / sqrt(fan in)
    means: bool = False  # the output's bias says the mean of each column: see `VAE.start_at`


def times(gain: float) -> Gain:
    """The same gain whatever the fans."""
    return lambda fan_in, fan_out: gain


def of_variance(share: float) -> Gain:
    """The variance share / fan_in, as a gain on Glorot's 2 / (fan_in + fan_out)."""
    return lambda fan_in, fan_out: math.sqrt(share * (fan_in + fan_out) / (2 * fan_in))


STARTS = {
    "a tenth of Glorot": Start(times(0.1), times(0.1)),
    "Glorot": Start(times(1), times(1)),
    "a tenth, encoder alone": Start(times(0.1), times(1)),
    "a tenth, decoder alone": Start(times(1), times(0.1)),
    "LeCun": Start(of_variance(1), of_variance(1)),
    "PyTorch": Start(of_variance(1 / 3), of_variance(1 / 3), bias=1),
    "Glorot, means": Start(times(1), times(1), means=True),
    "a tenth, means": Start(times(0.1), times(0.1), means=True),
}


@contextmanager
def started(start: Start) -> Iterator[None]:
    """New models of the train command start so."""
    build, start_at = train.build, VAE.start_at

    def built(config: Config, dataset: Dataset, reporter: Any) -> tuple[Config, VAE]:
        config, model = build(config, dataset, reporter)
        begin(model, start, config.seed)
        return config, model

    train.build = built
    if not start.means:
        VAE.start_at = lambda self, x: None  # type: ignore[method-assign]  # what the start under test leaves out
    try:
        yield
    finally:
        train.build, VAE.start_at = build, start_at


def begin(model: VAE, start: Start, seed: int) -> None:
    """Scale the weights of both heads, and set their biases."""
    rng = np.random.default_rng([seed, 1])
    for (layer, p, _), gain in ((model.encoder[-1], start.encoder), (model.decoder[-1], start.output)):
        head: Any = layer
        fan_in, fan_out = fans(head)
        if "weight" in p:  # else it is the encoder's
            p["weight"][...] *= gain(fan_in, fan_out) / head.gain
        p["bias"][...] = rng.uniform(-1, 1, p["bias"].shape) * start.bias / math.sqrt(fan_in)


def fans(layer: Any) -> tuple[float, float]:
    """fan_in and fan_out, as `tinyvae.layers.starts` counts them."""
    if hasattr(layer, "window"):
        return covers(layer.window) * layer.channels, layer.window.patch
    return layer.inputs, layer.width


def run(shop: Workshop, pictures: Path) -> dict[str, Any]:
    """Train all, the costly models only from the starts that do best on the others."""
    models, costly = (dict([*m.items()][-2:]) for m in (MODELS, COSTLY)) if shop.quick else (MODELS, COSTLY)
    found = {model: {name: of_seeds(shop, name, o) for name in STARTS} for model, o in models.items()}
    best = sorted(STARTS, key=lambda name: worst(found, name))[:FINALISTS]
    return found | {model: {name: of_seeds(shop, name, o) for name in best} for model, o in costly.items()}


def of_seeds(shop: Workshop, name: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The losses of all seeds. The runs of a start lie in a folder of its own."""
    own = replace(shop, out=shop.out / "starts" / re.sub(r"\W+", "-", name), kept={})
    with started(STARTS[name]):
        return [losses(own.train(**options, seed=seed)) for seed in SEEDS[: 1 if shop.quick else None]]


def mean(runs: list[dict[str, Any]]) -> float:
    """The mean loss over the seeds."""
    return float(np.mean([r["loss"] for r in runs]))


def worst(results: dict[str, Any], name: str) -> tuple[float, str]:
    """The largest regret of a start in nats, and the model that has it."""
    return max((mean(by[name]) - min(map(mean, by.values())), model) for model, by in results.items() if name in by)


def spread(by: dict[str, Any]) -> float:
    """What the seeds of one start differ by: the median over the starts."""
    return float(np.median([np.ptp([r["loss"] for r in runs]) for runs in by.values()]))


def tables(results: dict[str, Any]) -> list[Table]:
    """The mean loss of every start with every model, its worst regret, and the active units."""
    names = list(STARTS)
    rows = [
        [model, *(f"{mean(by[n]):.2f}" if n in by else "-" for n in names), f"{spread(by):.2f}"]
        for model, by in results.items()
    ]
    rows.append(["**worst regret**", *(f"{worst(results, n)[0]:.2f}" for n in names), ""])
    units = [
        [model, *(", ".join(str(r["active_units"]) for r in by[n]) if n in by else "-" for n in names)]
        for model, by in results.items()
    ]
    header = ("model", *names)
    return [
        Table("test loss, nats for each datum, mean over the seeds", (*header, "seeds differ by"), rows),
        Table("active units with seeds 0, 1, 2", header, units),
    ]


def notes(results: dict[str, Any], noise: float | None) -> list[str]:
    """Each start's worst, the best start first."""
    every = sorted((worst(results, name), name) for name in STARTS)
    return [f"{name}: at most {regret:.2f} nats above a model's best start, with {of}." for (regret, of), name in every]


def draw(results: dict[str, Any]) -> dict[str, Figure]:
    """None: the tables say it."""
    return {}
