"""What makes one VAE another: widths, channels, activation, likelihood, labels. Checked, and saved with the weights."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from tinyvae.backend import to_host
from tinyvae.model.params import Shapes
from tinyvae.model.support import into_unit_interval, shown
from tinyvae.ops.activations import ACTIVATIONS
from tinyvae.ops.convolution import output_size

ACTIVATION_NAMES = tuple(name for name in ACTIVATIONS if name != "linear")
LIKELIHOODS = ("bernoulli", "gaussian")
KERNEL, STRIDE, PAD = 4, 2, 1  # of every convolution: each halves the height and the width
IMAGE_CHANNELS = 1


@dataclass(frozen=True)
class Architecture:
    """See `tinyvae.VAE` for what the fields mean."""

    ABSENT: ClassVar = {"sigma": None, "classes": 0, "conv": (), "image_shape": None, "batch_norm": False}

    data_dim: int
    hidden: tuple[int, ...]
    latent_dim: int
    decoder_hidden: tuple[int, ...]
    activation: str
    likelihood: str
    sigma: str | None  # None for a Bernoulli
    tied: bool
    classes: int = 0
    conv: tuple[int, ...] = ()
    image_shape: tuple[int, int] | None = None  # None without convolutions
    batch_norm: bool = False

    @classmethod
    def checked(
        cls, data_dim: int, hidden: Sequence[int], latent_dim: int, decoder_hidden: Sequence[int] | None,
        activation: str, likelihood: str, sigma: str | None, tied: bool, classes: int = 0,
        conv: Sequence[int] = (), image_shape: Sequence[int] | None = None, batch_norm: bool = False,
    ) -> "Architecture":  # fmt: skip
        """The architecture, or ValueError saying which part is impossible."""
        data_dim, latent_dim = checked_count("data_dim", data_dim), checked_count("latent_dim", latent_dim)
        hidden = _checked_widths("hidden", hidden)
        mirrored = hidden[::-1]
        decoder_hidden = mirrored if decoder_hidden is None else _checked_widths("decoder_hidden", decoder_hidden)
        if activation not in ACTIVATION_NAMES:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATION_NAMES)}, not {activation!r}")
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood must be 'bernoulli' or 'gaussian', not {likelihood!r}")
        if likelihood == "gaussian":
            parse_sigma(sigma)
        else:
            sigma = None
        if tied and decoder_hidden != mirrored:
            raise ValueError(f"tied weights need a decoder that mirrors the encoder: decoder_hidden must be {mirrored}")
        if tied and sigma == "predicted":
            raise ValueError("tied weights have no output for a predicted sigma: use sigma 'learned' or 'fixed:VALUE'")
        if classes:
            classes = checked_count("classes", classes)
        conv = _checked_widths("conv", conv)
        if conv and sigma == "predicted":
            raise ValueError("convolutions have no output for a predicted sigma: use sigma 'learned' or 'fixed:VALUE'")
        for name, given in (("labels (classes)", classes), ("convolutions", conv), ("batch normalization", batch_norm)):
            if tied and given:
                raise ValueError(f"tied weights do not go with {name}: leave one of the two away")
        shape = _checked_image(data_dim, image_shape, len(conv)) if conv else None
        return cls(
            data_dim, hidden, latent_dim, decoder_hidden, activation, likelihood, sigma, tied, classes, conv, shape,
            bool(batch_norm),
        )  # fmt: skip

    @property
    def sigma_value(self) -> float | None:
        """The number after "fixed:", else None."""
        return None if self.sigma is None else parse_sigma(self.sigma)

    @property
    def is_plain(self) -> bool:
        """Dense layers and nothing else: what the captured step on a GPU is made for."""
        return not (self.classes or self.conv or self.batch_norm)

    @property
    def images(self) -> list[tuple[int, int, int]]:
        """(height, width, channels) from the data through every convolution; empty without one."""
        if self.image_shape is None:
            return []
        images = [(*self.image_shape, IMAGE_CHANNELS)]
        for channels in self.conv:
            h, w, _ = images[-1]
            images.append((output_size(h, KERNEL, STRIDE, PAD), output_size(w, KERNEL, STRIDE, PAD), channels))
        return images

    @property
    def flat_dim(self) -> int:
        """Width of the rows between convolutions and dense layers; the data's own where there are no convolutions."""
        return int(np.prod(self.images[-1])) if self.conv else self.data_dim

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """Of the dense layers: from the data, or the last convolution, to the head, which holds mu and logvar."""
        return (self.flat_dim, *self.hidden, 2 * self.latent_dim)

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Of the dense layers: from z to the logits or the mean (and logvar, where it is predicted), or to where the
        convolutions begin."""
        return (self.latent_dim, *self.decoder_hidden, self.flat_dim * (2 if self.sigma == "predicted" else 1))

    def shapes(self) -> Shapes:
        """The name and shape of every parameter, in the order of the flat buffer.

        A transposed convolution of the decoder has the weights (4, 4, out, in) of the convolution it is the adjoint of.
        Labels enter each half's first dense layer as further inputs. With batch normalization a hidden layer's bias is
        added after it, and its running mean and variance stand among the parameters, with gradients that stay 0: so
        they are saved, copied and resumed like all else.
        """
        shapes: Shapes = {}

        def layer(name: str, weight: tuple[int, ...], width: int, hidden: bool) -> None:
            shapes[f"{name}.weight"] = weight
            shapes[f"{name}.bias"] = (width,)
            if hidden and self.batch_norm:
                shapes.update({f"{name}.{part}": (width,) for part in ("scale", "running_mean", "running_var")})

        channels = [image[2] for image in self.images]
        for i, (inward, outward) in enumerate(pairwise(channels)):
            layer(f"encoder.conv{i}", (KERNEL, KERNEL, inward, outward), outward, hidden=True)
        for part, widths in [("encoder", self.encoder_widths), ("decoder", self.decoder_widths)]:
            for i, (inward, outward) in enumerate(pairwise(widths)):
                if self.tied and part == "decoder":
                    shapes[f"decoder.{i}.bias"] = (outward,)
                    continue
                last = i == len(widths) - 2 and not (part == "decoder" and self.conv)
                layer(f"{part}.{i}", (inward + (self.classes if i == 0 else 0), outward), outward, hidden=not last)
        for i, (inward, outward) in enumerate(pairwise(reversed(channels))):
            last = i == len(self.conv) - 1
            layer(f"decoder.conv{i}", (KERNEL, KERNEL, outward, inward), outward, hidden=not last)
        if self.sigma == "learned":
            shapes["likelihood.logvar"] = (1,)
        return shapes

    def as_arguments(self) -> str:
        """As the arguments of a call of `VAE`: the widths, the likelihood, and what differs from the defaults."""
        mirrored, has_sigma = self.decoder_hidden == self.hidden[::-1], self.sigma is not None
        shown = [
            f"{self.data_dim}, hidden={self.hidden}, latent_dim={self.latent_dim}",
            "" if mirrored else f"decoder_hidden={self.decoder_hidden}",
            "" if self.activation == "relu" else f"activation={self.activation!r}",
            f"likelihood={self.likelihood!r}" + (f", sigma={self.sigma!r}" if has_sigma else ""),
            "tied=True" if self.tied else "",
            f"classes={self.classes}" if self.classes else "",
            f"conv={self.conv}, image_shape={self.image_shape}" if self.conv else "",
            "batch_norm=True" if self.batch_norm else "",
        ]
        return ", ".join(filter(None, shown))

    def check_labels(self, y: Any, rows: int) -> None:
        """Raises ValueError if a conditional model gets no labels y (rows,) in 0..classes-1, or another model any."""
        if not self.classes:
            if y is not None:
                raise ValueError("the model is not conditional: it takes no labels y")
            return
        if y is None:
            raise ValueError(f"the model is conditional: it needs labels y, whole numbers from 0 to {self.classes - 1}")
        if getattr(y, "shape", None) != (rows,) or y.dtype.kind not in "iu":
            raise ValueError(f"labels must be {rows} whole numbers, one for each row, not {_kind(y)}")
        low, high = int(to_host(y.min())), int(to_host(y.max()))
        if low < 0 or high >= self.classes:
            raise ValueError(
                f"labels must lie in 0..{self.classes - 1}, as in training, but they reach from {low} to {high}"
            )

    def check_support(self, smallest: float, largest: float) -> None:
        """Raises ValueError if data between these two numbers is impossible under the likelihood (NaN always is)."""
        if not (abs(smallest) < float("inf") and abs(largest) < float("inf")):
            raise ValueError("the data holds NaN or infinite values")
        if self.likelihood == "bernoulli" and not (smallest >= 0 and largest <= 1):
            raise ValueError(
                f"the data lies in [{shown(smallest)}, {shown(largest)}], but a Bernoulli likelihood needs [0, 1]; "
                f"{into_unit_interval(smallest, largest)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, ready for `VAE(**d)`."""
        d, absent = asdict(self), self.ABSENT  # what is not there need not be named
        return {name: value for name, value in d.items() if name not in absent or value != absent[name]}


def parse_sigma(sigma: str | None) -> float | None:
    """The number of "fixed:NUMBER", None for "learned" and "predicted". Raises ValueError for anything else."""
    if sigma in ("learned", "predicted"):
        return None
    kind, _, text = str(sigma).partition(":")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if kind != "fixed" or not 0 < value < float("inf"):
        raise ValueError(f"sigma must be 'learned', 'predicted' or 'fixed:VALUE' with VALUE > 0, not {sigma!r}")
    return value


def _checked_widths(name: str, widths: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(widths, Sequence) or isinstance(widths, str):
        raise ValueError(f"{name} must be a list of widths, such as [400], not {widths!r}")
    return tuple(checked_count(name, width) for width in widths)


def checked_count(name: str, count: Any) -> int:
    """A width, or a number of rows, draws or steps. Raises ValueError unless it is a whole number, at least 1."""
    if isinstance(count, (bool, np.bool_)) or not isinstance(count, Integral) or count < 1:
        raise ValueError(f"{name} must be a whole number, at least 1, not {count!r}")
    return int(count)


def _checked_image(data_dim: int, shape: Sequence[int] | None, convolutions: int) -> tuple[int, int]:
    if not isinstance(shape, Sequence) or len(shape) != 2:
        raise ValueError(
            "convolutions need images: data of shape (rows, height, width), or image_shape=(height, width)"
        )
    h, w = (checked_count("image_shape", size) for size in shape)
    if h * w != data_dim:
        raise ValueError(f"image_shape is {h} x {w} = {h * w} pixels, but data_dim is {data_dim}")
    smallest = min(h, w)
    for i in range(convolutions):
        if smallest + 2 * PAD < KERNEL:
            raise ValueError(f"images of {h} x {w} pixels are too small for {convolutions} convolutions: use {i}")
        smallest = output_size(smallest, KERNEL, STRIDE, PAD)
    return h, w


def _kind(y: Any) -> str:
    return f"{y.dtype} {y.shape}" if hasattr(y, "dtype") else type(y).__name__
