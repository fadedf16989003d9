"""What a recipe measures once its variants are trained: tables of text, ready to print."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tinyvae.backend import to_host
from tinyvae.model.description import Description
from tinyvae.model.vae import VAE
from tinyvae.training import streams
from tinyvae.training.config import Config
from tinyvae.training.data import two_gaussians
from tinyvae.training.data.rows import Rows, load_rows
from tinyvae.training.metrics import Evaluation
from tinyvae.uses import two_sample
from tinyvae.uses.anomalies import anomaly_scores, auroc
from tinyvae.uses.features import compare_features

FRESH = 2000  # points in each sample of the two-sample test
PERMUTATIONS = 999
DRAWS = 10  # of z for a row's anomaly score

Told = Callable[[str], None]  # is told what is being measured


@dataclass(frozen=True)
class Outcome:
    """A variant, trained."""

    name: str
    path: Path  # of its run
    config: Config
    model: VAE
    test: Evaluation  # of the test rows, after the last epoch


@dataclass(frozen=True)
class Findings:
    """A table of text: its title, the names of its columns, and its rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def losses(outcomes: list[Outcome]) -> Findings:
    """Parameters and test losses of all variants, after the last epoch."""
    rows = [
        (
            o.name, f"{o.model.params.flat.size:,}", f"{o.test.loss:.2f}", f"{o.test.nll:.2f}",
            f"{o.test.kl:.2f}", o.config.objective_part().formula(), f"{o.test.active_units} of {o.config.latent}",
        )
        for o in outcomes
    ]  # fmt: skip
    columns = ("variant", "parameters", "loss", "nll", "kl", "the loss is", "active units")
    return Findings("test set, nats for each datum", columns, tuple(rows))


def measure(recipe: str, outcomes: list[Outcome], told: Told = lambda stage: None) -> list[Findings]:
    """The losses, and what else the recipe called `recipe` is about."""
    more = {"shared-weights": shared_weights, "two-gaussians": two_gaussians_overlap, "features": features}.get(recipe)
    return [losses(outcomes), *(more(outcomes, told) if more else [])]


def shared_weights(outcomes: list[Outcome], told: Told) -> list[Findings]:
    """The squared error of the decoded means, which both likelihoods can be compared in; what tying saves."""
    told("squared errors")
    rows = []
    for o in outcomes:
        untied = size_of(replace(o.model.architecture, tied=False))
        error = squared_error(o.model, _rows(o.config, "test").x)
        rows.append((o.name, f"{o.model.params.flat.size:,}", f"{untied:,}", f"{error:.2f}"))
    columns = ("variant", "parameters", "without tying", "squared error")
    return [Findings("test images decoded from mu, squared error summed over pixels", columns, tuple(rows))]


def size_of(architecture: Description) -> int:
    """The number of parameters of an architecture."""
    return sum(int(np.prod(shape)) for shape in architecture.shapes().values())


def squared_error(model: VAE, x: np.ndarray) -> float:
    """|x - E p(x|z = mu(x))|^2, summed over x's columns, mean over its rows.  x (rows, data)."""
    decoded = to_host(model.decode(model.encode(x)[0])).astype(np.float64)  # (rows, data)
    return float(np.square(x - decoded).sum(axis=1).mean())


def two_gaussians_overlap(outcomes: list[Outcome], told: Told) -> list[Findings]:
    """Fresh draws of the true mixture against draws of each model, and two comparisons that show the scale.

    One is a second fresh sample of the truth: no model can do better. The other is that sample moved to the nearest
    points of [0, 1] x [0, 1], where a decoder that ends in a sigmoid has all its outputs: no real training, but kind
    to such a decoder, since each point goes no further than it must.
    Also draws data_and_samples_overlaid.png into each run's figures.
    """
    seed = outcomes[0].config.seed
    truth = two_gaussians(FRESH, seed + 1)  # another seed than the training data's
    fresh, second = truth.x_test, truth.x_train  # (FRESH, 2) each
    samples = [("a second fresh sample", second)]
    for o in outcomes:
        drawn = draws(o.model, FRESH, seed)
        two_sample.save_overlay(o.path / "figures" / "data_and_samples_overlaid.png", fresh, drawn)
        samples.append((f"the model, {o.name}", drawn))
    samples.append(("the second sample, moved into [0, 1]^2", np.clip(second, 0, 1)))
    rows = []
    for name, sample in samples:
        told(f"{PERMUTATIONS} shuffles: {name}")
        rng = np.random.default_rng([seed, streams.TEST])
        found = two_sample.permutation_test(fresh, sample, rng, PERMUTATIONS)
        rows.append((name, f"{found.distance:.4f}", f"{found.p_value:.3f}"))
    inside = float(((fresh >= 0) & (fresh <= 1)).all(axis=1).mean())
    title = f"{FRESH:,} fresh points of the true mixture ({inside:.0%} of them in [0, 1]^2) against {FRESH:,} of"
    return [Findings(title, ("sample", "energy distance", "p-value"), tuple(rows))]


def draws(model: VAE, n: int, seed: int) -> np.ndarray:
    """n draws of x from the model, noise of p(x|z) included.  -> (n, data)"""
    return to_host(model.sample(n, np.random.default_rng([seed, streams.SAMPLES]), mean=False)).astype(np.float64)


def features(outcomes: list[Outcome], told: Told) -> list[Findings]:
    """Classifiers on the features of the variant that saw all digits; the left-out digit's AUROC for the other."""
    findings = []
    for o in outcomes:
        leave_out = o.config.leave_out
        findings.append(classification(o, told) if leave_out is None else anomaly(o, leave_out, told))
    return findings


def classification(o: Outcome, told: Told) -> Findings:
    """Accuracy on the test rows of a softmax classifier and of 5 neighbours, trained on the training rows."""
    train, test = _rows(o.config, "train"), _rows(o.config, "test")
    assert train.y is not None
    assert test.y is not None
    rng = np.random.default_rng([o.config.seed, streams.ORDER])
    scores = compare_features(o.model, train.x, train.y, test.x, test.y, rng, progress=told)
    rows = [(s.features, str(s.size), f"{s.softmax:.1%}", f"{s.knn:.1%}") for s in scores]
    title = f"{o.name}: accuracy on the test rows"
    return Findings(title, ("features", "numbers per row", "softmax classifier", "5 neighbours"), tuple(rows))


def anomaly(o: Outcome, label: str, told: Told) -> Findings:
    """AUROC of the digit that was left out against all others, on the test rows, by two scores."""
    told(f"{o.name}: anomaly scores")
    test = _rows(o.config, "test")
    assert test.y is not None
    here = test.y.astype(str) == label  # (rows,)
    rng = np.random.default_rng([o.config.seed, streams.TEST])
    bound = anomaly_scores(o.model, test.x, rng, samples=DRAWS)  # (rows,)
    error = np.square(test.x - to_host(o.model.decode(o.model.encode(test.x)[0]))).sum(axis=1)  # (rows,)
    rows = [(name, f"{auroc(scores, here):.3f}")
            for name, scores in (("minus the ELBO", bound), ("squared error of the decoded mu", error))]  # fmt: skip
    return Findings(f"{o.name}: is a {label} an anomaly?", ("score", "AUROC"), tuple(rows))


def _rows(config: Config, part: str) -> Rows:
    return load_rows(config.data, part, Path(config.data_dir) if config.data_dir else None, config.seed)
