"""Are the posterior means good features? Classifiers on them, beside the raw data and a PCA of the same size.

PCA keeps the directions in which the data vary most. With the mean m and the covariance C = V diag(lambda) V^T of the
training rows, lambda falling, the first K columns of V are the components:

    transform  t = (x - m) V_K         inverse  x^ = m + t V_K^T

Of all K-dimensional linear maps there and back it loses the least: sum_(j > K) lambda_j per row (Bishop 2006, section
12.1). A VAE is to it what a curved sheet is to a plane, so it is the fair thing to compare a latent space with.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvae.backend import as_generator, to_host
from tinyvae.model.vae import VAE
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset
from tinyvae.uses.classifier import accuracy, fit_softmax, knn_predict
from tinyvae.uses.run_rows import as_trained

CHUNK = 4096  # rows that the covariance is summed over at a time


@dataclass(frozen=True)
class PCA:
    """Principal components of a set of rows. Made by `fit_pca`."""

    mean: np.ndarray  # (data,)
    components: np.ndarray  # (size, data): orthonormal rows, the largest variance first
    variances: np.ndarray  # (size,): the variance along each component, over rows - 1

    def transform(self, x: np.ndarray) -> np.ndarray:
        """The coordinates along the components.  x (rows, data) -> (rows, size)."""
        chunks = (x[start : start + CHUNK] - self.mean for start in range(0, len(x), CHUNK))  # (chunk, data) each
        return np.concatenate([centred @ self.components.T for centred in chunks])

    def inverse(self, t: np.ndarray) -> np.ndarray:
        """The point of the data space with these coordinates.  t (rows, size) -> (rows, data)."""
        return t @ self.components + self.mean


def fit_pca(x: np.ndarray, size: int) -> PCA:
    """The first `size` principal components of x (rows, data), by the eigenvectors of its covariance.

    A component's sign is free: here its entry that is largest in magnitude is positive. Forming the covariance squares
    the numbers, so deviations below about 1e-8 of the largest drown in round-off.
    Raises ValueError unless x has at least two rows and 1 <= size <= data.
    """
    x = np.asarray(x)
    if x.ndim != 2 or len(x) < 2 or not 1 <= size <= x.shape[1]:
        raise ValueError(f"PCA needs two rows or more, and from 1 to data components, not {size} of x {x.shape}")
    mean = x.mean(axis=0, dtype=np.float64)  # (data,)
    scatter = np.zeros((x.shape[1], x.shape[1]))  # (data, data)
    for start in range(0, len(x), CHUNK):
        centred = x[start : start + CHUNK] - mean  # (chunk, data)
        scatter += centred.T @ centred
    variances, vectors = np.linalg.eigh(scatter / (len(x) - 1))  # (data,) rising; columns (data, data)
    components = vectors[:, ::-1][:, :size].T  # (size, data)
    largest = np.abs(components).argmax(axis=1)  # (size,)
    signs = np.sign(components[np.arange(size), largest])  # (size,)
    return PCA(mean, components * signs[:, None], np.maximum(variances[::-1][:size], 0))


def embed(model: VAE, x: Any, y: Any = None) -> np.ndarray:
    """The posterior means mu of q(z|x), or q(z|x, y) for a conditional model.  x (rows, data) -> (rows, latent)."""
    return to_host(model.encode(x, y)[0])


def run_rows(dataset: Dataset, part: str, config: Config) -> np.ndarray:
    """All rows of a run's "train" or "test" part as real numbers, drawn 0 or 1 where the run did so in every batch.

    -> (rows, data) in float32, the same at every call. `dataset` is the run's own: what it left out, or made 0 and 1
    once and for all, is so already.
    """
    return as_trained(getattr(dataset, f"x_{part}"), dataset.scale, config, np.float32)


@dataclass(frozen=True)
class FeatureScore:
    """How well classifiers do on one kind of features: the shares of the rows that they get right."""

    features: str
    size: int  # numbers per row
    softmax: float
    knn: float
    rows: int  # that were classified

    def standard_error(self, share: float) -> float:
        """By chance of the rows: sqrt(p (1 - p) / rows)."""
        return math.sqrt(share * (1 - share) / self.rows)


def compare_features(
    model: VAE,
    x_train: np.ndarray,
    y_train: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator | int,
    neighbours: int = 5,
    progress: Callable[[str], None] = lambda stage: None,
) -> list[FeatureScore]:
    """Train a softmax classifier and a vote of neighbours on the training rows; score both on the rows x, y.

    x_train (train rows, data), y_train (train rows,), x (rows, data), y (rows,); `rng`, a generator or a seed, orders
    the classifier's batches.
    -> scores on the posterior means, on x itself, and on its PCA of the latent size (or of the data's, if that is
    smaller). `progress` is told what comes next.

    The neighbours see features as they are, by Euclidean distance; the softmax classifier standardizes its own.
    The encoder of a conditional model is given the labels, so its means may simply repeat them: then their score says
    what z still knows of the label, and no more than that.
    """
    rng, conditional = as_generator(rng), model.architecture.classes > 0
    labels_train, labels = (y_train, y) if conditional else (None, None)
    size = min(model.architecture.latent_dim, x_train.shape[1])

    def posterior_means() -> tuple[np.ndarray, np.ndarray]:
        return embed(model, x_train, labels_train), embed(model, x, labels)

    def principal_components() -> tuple[np.ndarray, np.ndarray]:
        pca = fit_pca(x_train, size)
        return pca.transform(x_train), pca.transform(x)

    kinds: list[tuple[str, Callable[[], tuple[np.ndarray, np.ndarray]]]] = [
        ("posterior means", posterior_means),
        ("the data itself", lambda: (x_train, x)),
        ("PCA", principal_components),
    ]
    scores = []
    for name, make in kinds:
        progress(f"{name}: features")
        train, test = make()  # (train rows, size), (rows, size)
        progress(f"{name}: softmax classifier")
        softmax = fit_softmax(train, y_train, rng).accuracy(test, y)
        progress(f"{name}: nearest neighbours")
        knn = accuracy(knn_predict(train, y_train, test, min(neighbours, len(train))), y)
        scores.append(FeatureScore(name, train.shape[1], softmax, knn, len(test)))
    return scores
