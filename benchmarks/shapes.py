"""What is trained in a measurement: an architecture, a batch, synthetic pixels, and the arithmetic that it costs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import count, pairwise
from typing import Any, NamedTuple

import numpy as np

from tinyvae.layers.conv import Conv
from tinyvae.likelihoods import likelihood
from tinyvae.model.architecture import Architecture
from tinyvae.model.vae import VAE

LR = 1e-3
WINDOW = Conv.kernel**2  # pixels under a convolution's window
SCALE = 1 / 255  # pixels are bytes


@dataclass(frozen=True)
class Shape:
    """A VAE `data_dim -> (conv ->) hidden -> latent -> reversed(hidden) (-> reversed(conv)) -> data_dim`, its data set
    and its objective: the ELBO, or with `draws` the importance-weighted bound.
    """

    name: str
    data_dim: int
    hidden: tuple[int, ...]
    latent: int
    activation: str = "relu"
    batch: int = 128
    rows: int = 59_904  # MNIST's 60,000, cut to whole batches of 128
    dynamic: bool = False  # each pixel is drawn anew, as 0 or 1, in every batch
    conv: tuple[int, ...] = ()  # channels
    image_shape: tuple[int, int] | None = None  # of the pixels, for convolutions
    batch_norm: bool = False
    classes: int = 0  # of labels, in a conditional model
    draws: int = 0  # of z for each row; 0 for the ELBO

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> "Shape":
        """The inverse of `to_dict` and of `dataclasses.asdict`, after a way through JSON.

        Raises ValueError for fields that are not known here: without them it would be another model.
        """
        unknown = sorted(d.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"a shape has no {', '.join(unknown)} here: this version measures no such models")
        values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in d.items()}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """What is not as by default: an older version, which lacks a field, can read all that do not need it."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    @property
    def is_plain(self) -> bool:
        """Dense layers and the ELBO, nothing else: what the peers train too."""
        return self.architecture().plain_activation() is not None and not self.draws

    @property
    def objective(self) -> str:
        """What is minimized, as `tinyvae train --objective` takes it."""
        return f"iwae:draws={self.draws}" if self.draws else "elbo"

    def architecture(self) -> Architecture:
        """The model's description of itself."""
        return Architecture.checked(
            self.data_dim, self.hidden, self.latent, None, self.activation, likelihood("bernoulli"), tied=False,
            classes=self.classes, conv=self.conv, image_shape=self.image_shape, batch_norm=self.batch_norm,
        )  # fmt: skip

    def model(self, **options: Any) -> VAE:
        """The model with its initial weights; `options` are those of `VAE`: kernels, dtype, backend, seed."""
        return VAE(
            self.data_dim, self.hidden, self.latent, activation=self.activation, classes=self.classes, conv=self.conv,
            image_shape=self.image_shape, batch_norm=self.batch_norm, **options,
        )  # fmt: skip

    def layers(self) -> list[tuple[int, int]]:
        """(in, out) of every dense layer, from the data to the data. Labels are further inputs of each half's first."""
        architecture = self.architecture()
        encoder, *others = pairwise(architecture.encoder_widths)
        decoder, *rest = pairwise(architecture.decoder_widths)
        encoder, decoder = ((i + self.classes, o) for i, o in (encoder, decoder))
        return [encoder, *others, decoder, *rest]

    def products(self) -> list[tuple[int, int, int]]:
        """(rows, in, out) of every layer's y = x W, from the data to the data.

        A convolution's rows are the places of its window, and what the window covers (4 x 4 pixels) are the inputs; in
        its adjoint they are the outputs, before they are added up.
        """
        decoded = self.batch * max(self.draws, 1)  # rows of the decoder
        sizes = list(pairwise(self.architecture().images))
        down = [(self.batch * h * w, WINDOW * a, b) for (_, _, a), (h, w, b) in sizes]
        up = [(decoded * h * w, b, WINDOW * a) for (_, _, a), (h, w, b) in reversed(sizes)]
        layers, encoder = self.layers(), len(self.hidden) + 1
        dense = [(self.batch if i < encoder else decoded, *layer) for i, layer in enumerate(layers)]
        return [*down, *dense, *up]

    def flops(self) -> int:
        """Of the matrix products in a step: y = x W, dW = x^T dy, and dx = dy W^T in all layers but the first.

        Normalization, activations and the objective are not products; a label is a row with a single 1, multiplied.
        """
        product = [2 * rows * i * o for rows, i, o in self.products()]
        return 3 * sum(product) - product[0]

    def parameters(self) -> int:
        """Weights, biases and scales: what Adam moves, and not the running averages of batch normalization."""
        return sum(math.prod(p.shape) for _, p in self.architecture().params() if p.trainable)

    def weights(self, seed: int = 0) -> dict[str, np.ndarray]:
        """The initial weights of every candidate, by name: (in, out), (4, 4, in, out) and (out,), float32."""
        return {name: a.copy() for name, a in self.model(kernels="reference", seed=seed).params.items()}

    def pixels(self) -> np.ndarray:
        """The data: bytes (rows, data), about four in five of them 0 and more ink towards the middle, as in MNIST."""
        rng = np.random.default_rng(0)
        ink = 0.4 * np.sin(np.linspace(0, np.pi, self.data_dim)) ** 2  # the share of pixels that are not 0
        x = rng.integers(1, 256, (self.rows, self.data_dim), dtype=np.uint8)
        x[rng.random(x.shape, dtype=np.float32) >= ink] = 0
        return x

    def labels(self) -> np.ndarray | None:
        """The label of every row (rows,), for a conditional model."""
        return np.random.default_rng(3).integers(0, self.classes, self.rows) if self.classes else None

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
        Shape("784-400-20-norm", 784, (400,), 20, batch_norm=True),
        Shape("784-400-20-labels", 784, (400,), 20, classes=10),
        Shape("784-200-200-50-iwae", 784, (200, 200), 50, "tanh", batch=100, rows=60_000, draws=5),
        Shape("conv-32-64", 784, (), 100, conv=(32, 64), image_shape=(28, 28)),
        Shape("conv-32-64-norm-labels", 784, (), 100, conv=(32, 64), image_shape=(28, 28), batch_norm=True, classes=10),
    )
}
TINY = (
    Shape("tiny relu", 12, (8,), 3, batch=16, rows=64),
    Shape("tiny tanh", 12, (8, 6), 2, "tanh", batch=10, rows=50),
    Shape("tiny binarized", 12, (8,), 3, batch=16, rows=64, dynamic=True),
    Shape("tiny norm", 12, (8,), 3, batch=16, rows=64, batch_norm=True),
    Shape("tiny labels", 12, (8,), 3, batch=16, rows=64, classes=3),
    Shape("tiny iwae", 12, (8, 6), 2, "tanh", batch=10, rows=50, draws=4),
    Shape("tiny conv", 48, (), 3, batch=16, rows=64, conv=(4, 5), image_shape=(8, 6)),
    Shape("tiny conv norm labels", 48, (), 3, batch=16, rows=64, conv=(4, 5), image_shape=(8, 6), batch_norm=True,
          classes=3),
)  # fmt: skip


class Given(NamedTuple):
    """A batch with nothing left to chance."""

    rows: np.ndarray  # (batch,) of the data
    eps: np.ndarray  # (batch, latent) standard normal; (batch, draws, latent) where z is drawn several times
    u: np.ndarray  # (batch, data) uniform: a pixel becomes 1 where u < x


def given_batches(shape: Shape, steps: int) -> list[Given]:
    """The batches on which all candidates must compute the same losses.

    u lies half-way between two values of a pixel, so that no rounding of pixel / 255 can decide a draw.
    """
    rng = np.random.default_rng(2)
    batches = []
    for _ in range(steps):
        rows = rng.permutation(shape.rows)[: shape.batch]
        draws = (shape.draws,) if shape.draws else ()
        eps = rng.standard_normal((shape.batch, *draws, shape.latent), dtype=np.float32)
        u = (rng.integers(0, 255, (shape.batch, shape.data_dim)) + 0.5) / 255
        batches.append(Given(rows, eps, u.astype(np.float32)))
    return batches
