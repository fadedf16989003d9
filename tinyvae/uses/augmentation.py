"""Do samples of a conditional VAE help a classifier that has few labels? See `augment`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvae.backend import as_generator, to_host
from tinyvae.errors import NonFiniteError
from tinyvae.model.vae import VAE
from tinyvae.training.adam import Adam
from tinyvae.uses.classifier import SoftmaxClassifier, fit_softmax

HIDDEN = (128,)  # of the VAE that is trained on the few rows alone
STEPS, BATCH, LR = 2000, 64, 3e-3  # and how it is trained
CLASSIFIER_STEPS, L2 = 500, 0.01  # of each softmax classifier, the same with and without generated rows


@dataclass(frozen=True)
class Mean:
    """A mean over repetitions and its standard error (nan from a single one)."""

    value: float
    standard_error: float

    @classmethod
    def of(cls, values: list[float]) -> "Mean":
        """The mean of some numbers; the standard error is their standard deviation (over n - 1) / sqrt(n)."""
        n = len(values)
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan)


@dataclass(frozen=True)
class Gain:
    """Accuracies on the test rows, means over repetitions that each draw their own real and generated rows."""

    labels: int  # real rows with a label
    real: Mean  # trained on these
    both: Mean  # on these and the generated rows
    generated: Mean  # on the generated rows alone
    difference: Mean  # both - real, pair by pair: its error is smaller than those of the two


def balanced_rows(y: np.ndarray, n: int, rng: np.random.Generator | int) -> np.ndarray:
    """n rows drawn without replacement, of each class the same number, or one more where n does not divide.

    y (rows,) labels -> (n,) row numbers. Raises ValueError if there are fewer rows than classes to draw, or a class has
    too few rows.
    """
    classes, counts = np.unique(y, return_counts=True)
    rng = as_generator(rng)
    if n < len(classes):
        raise ValueError(f"{n} rows cannot hold all {len(classes)} classes; ask for {len(classes)} or more")
    each = np.full(len(classes), n // len(classes))  # (classes,)
    each[rng.permutation(len(classes))[: n % len(classes)]] += 1
    for label, count, wanted in zip(classes, counts, each, strict=True):
        if count < wanted:
            raise ValueError(f"{n} rows need {wanted} of class {label}, which has {count}; ask for fewer")
    drawn = [rng.choice(np.flatnonzero(y == c), k, replace=False) for c, k in zip(classes, each, strict=True)]
    return np.concatenate(drawn)


def generated_rows(
    model: VAE, classes: np.ndarray, per_class: int, rng: np.random.Generator | int, mean: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """`per_class` samples of a conditional VAE for each class: z from N(0, I), then the mean of p(x|z, y), or a draw.

    classes (classes,) labels -> x (classes * per_class, data), y (classes * per_class,).
    """
    y = np.repeat(classes, per_class)
    return to_host(model.sample(len(y), rng, mean=mean, y=y)), y


def train_on(like: VAE, x: np.ndarray, y: np.ndarray, rng: np.random.Generator | int) -> VAE:
    """A small conditional VAE that has seen these rows and no others: one hidden layer, trained by Adam.

    x (rows, data), y (rows,). Latent size, activation, likelihood and classes are those of `like`; a variance that it
    predicts for each value is one learned number here, since a few rows could be copied with none at all.
    Raises NonFiniteError if it diverges.
    """
    a: Any = like.architecture
    rng = as_generator(rng)
    model = VAE(
        a.data_dim, HIDDEN, a.latent_dim, activation=a.activation, likelihood=a.likelihood.shared(), classes=a.classes,
        seed=int(rng.integers(2**31)),
    )  # fmt: skip
    model.start_at(x)
    adam = Adam(model)
    for _ in range(STEPS):
        rows = rng.integers(0, len(x), min(BATCH, len(x)))
        eps = rng.standard_normal((len(rows), a.latent_dim))
        model.loss_and_grad(x[rows], eps, y=y[rows])
        adam.step(LR)
    if not np.isfinite(model.params.flat).all():
        raise NonFiniteError(
            f"the VAE that was trained on {len(x)} rows alone diverged; scale the data to numbers of about 1"
        )
    return model


def augment(
    model: VAE,
    x: np.ndarray,
    y: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    labels: int,
    per_class: int,
    repeats: int,
    rng: np.random.Generator | int,
    *,
    fair: bool = False,
    mean: bool = True,
    progress: Callable[[], None] = lambda: None,
) -> Gain:
    """Train a softmax classifier on a few real rows, on these and generated ones, and on generated ones alone.

    x (rows, data), y (rows,) to draw the real rows from; x_test, y_test to score on; `labels` real rows, `per_class`
    generated ones for each class, in each of `repeats` repetitions. `progress` is called after each.

    The generated rows are samples of `model`: trained with the labels of ALL its training rows, it knows more than the
    few rows tell. So with fair=True a small VAE is trained on the few rows instead (`train_on`), in every repetition;
    then nothing but these rows has been seen by anyone.

    Raises ValueError if the model is not conditional, or as `balanced_rows`.
    """
    if not model.architecture.classes:
        raise ValueError("the model is not conditional: it cannot be asked for rows of a class")
    classes, rng = np.unique(y), as_generator(rng)
    scores: dict[str, list[float]] = {"real": [], "both": [], "generated": []}
    for repetition in rng.spawn(repeats):
        choosing, making = repetition.spawn(2)  # so the real rows are the same whatever is made beside them
        chosen = balanced_rows(y, labels, choosing)
        few, few_y = x[chosen], y[chosen]  # (labels, data), (labels,)
        source = train_on(model, few, few_y, making) if fair else model
        new, new_y = generated_rows(source, classes, per_class, making, mean)
        for name, rows, answers in [
            ("real", few, few_y),
            ("both", np.concatenate([few, new]), np.concatenate([few_y, new_y])),
            ("generated", new, new_y),
        ]:
            scores[name].append(_fit(rows, answers, making).accuracy(x_test, y_test))
        progress()
    difference = [b - r for b, r in zip(scores["both"], scores["real"], strict=True)]
    return Gain(labels, *(Mean.of(values) for values in (*scores.values(), difference)))


def _fit(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> SoftmaxClassifier:
    # a few rows know too little of each column's deviation to divide by it
    return fit_softmax(x, y, rng, l2=L2, steps=CLASSIFIER_STEPS, standardize=False)
