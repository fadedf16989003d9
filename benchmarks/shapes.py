"""What is trained in a measurement: an architecture, a batch, synthetic pixels, and the arithmetic that it costs."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any, NamedTuple

import numpy as np

from tinyvae.model.architecture import Architecture
from tinyvae.model.init import initial_weights

LR = 1e-3
SCALE = 1 / 255  # pixels are bytes


@dataclass(frozen=True)
class Shape:
    """A VAE `data_dim -> hidden -> latent -> reversed(hidden) -> data_dim` and the data set that it is trained on."""

    name: str
    data_dim: int
    hidden: tuple[int, ...]
    latent: int
    activation: str = "relu"
    batch: int = 128
    rows: int = 59_904  # MNIST's 60,000, cut to whole batches of 128
    dynamic: bool = False  # each pixel is drawn anew, as 0 or 1, in every batch

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> "Shape":
        """The inverse of `dataclasses.asdict`, after a way through JSON."""
        return cls(**{**d, "hidden": tuple(d["hidden"])})

    def architecture(self) -> Architecture:
        """The model's description of itself."""
        return Architecture.checked(
            self.data_dim, self.hidden, self.latent, None, self.activation, "bernoulli", "learned", tied=False
        )

    def layers(self) -> list[tuple[int, int]]:
        """(in, out) of every dense layer, from the data to the data."""
        encoder = (self.data_dim, *self.hidden, 2 * self.latent)
        decoder = (self.latent, *reversed(self.hidden), self.data_dim)
        return [*pairwise(encoder), *pairwise(decoder)]

    def flops(self) -> int:
        """Of the matrix products in a step: y = x W, dW = x^T dy, and dx = dy W^T in all layers but the first."""
        product = [2 * self.batch * i * o for i, o in self.layers()]
        return 3 * sum(product) - product[0]

    def parameters(self) -> int:
        """Weights and biases."""
        return sum(i * o + o for i, o in self.layers())

    def weights(self, seed: int = 0) -> dict[str, np.ndarray]:
        """The initial weights of every candidate, by name: (in, out) and (out,), float32."""
        flat, tensors, start = initial_weights(self.architecture(), seed).astype(np.float32), {}, 0
        for name, shape in self.architecture().shapes().items():
            size = int(np.prod(shape))
            tensors[name] = flat[start : start + size].reshape(shape)
            start += size
        return tensors

    def pixels(self) -> np.ndarray:
        """The data: bytes (rows, data), about four in five of them 0 and more ink towards the middle, as in MNIST."""
        rng = np.random.default_rng(0)
        ink = 0.4 * np.sin(np.linspace(0, np.pi, self.data_dim)) ** 2  # the share of pixels that are not 0
        x = rng.integers(1, 256, (self.rows, self.data_dim), dtype=np.uint8)
        x[rng.random(x.shape, dtype=np.float32) >= ink] = 0
        return x

    def orders(self) -> Iterator[np.ndarray]:
        """The rows of one epoch after the other, each in a new order, cut to whole batches."""
        for epoch in count(1):
            order = np.random.default_rng([1, epoch]).permutation(self.rows)
            yield order[: self.rows - self.rows % self.batch]


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("784-400-20", 784, (400,), 20),
        Shape("784-512-2", 784, (512,), 2),
        Shape("784-200-200-50", 784, (200, 200), 50, "tanh", batch=100, rows=60_000),
        Shape("64-128-8", 64, (128,), 8, batch=64, rows=1_408),
        Shape("784-400-20-binarized", 784, (400,), 20, dynamic=True),
    )
}
TINY = (
    Shape("tiny relu", 12, (8,), 3, batch=16, rows=64),
    Shape("tiny tanh", 12, (8, 6), 2, "tanh", batch=10, rows=50),
    Shape("tiny binarized", 12, (8,), 3, batch=16, rows=64, dynamic=True),
)


class Given(NamedTuple):
    """A batch with nothing left to chance."""

    rows: np.ndarray  # (batch,) of the data
    eps: np.ndarray  # (batch, latent) standard normal
    u: np.ndarray  # (batch, data) uniform: a pixel becomes 1 where u < x


def given_batches(shape: Shape, steps: int) -> list[Given]:
    """The batches on which all candidates must compute the same losses.

    u lies half-way between two values of a pixel, so that no rounding of pixel / 255 can decide a draw.
    """
    rng = np.random.default_rng(2)
    batches = []
    for _ in range(steps):
        rows = rng.permutation(shape.rows)[: shape.batch]
        eps = rng.standard_normal((shape.batch, shape.latent), dtype=np.float32)
        u = (rng.integers(0, 255, (shape.batch, shape.data_dim)) + 0.5) / 255
        batches.append(Given(rows, eps, u.astype(np.float32)))
    return batches
