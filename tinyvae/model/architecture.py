"""The usual models, said by a few numbers: widths, channels, activation, likelihood, labels -> their layers."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from math import prod
from typing import Any, ClassVar

from tinyvae import parts
from tinyvae.layers import BatchNorm, Conv, ConvTranspose, Dense, Labelled, Tied
from tinyvae.layers.layer import Layer
from tinyvae.layers.starts import HEAD_GAIN
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.model.description import Description, Named, check_widths, checked_count
from tinyvae.ops.activations import activation as activation_named


@dataclass(frozen=True)
class Architecture(Description):
    """See `tinyvae.VAE` for what the fields mean."""

    ABSENT: ClassVar = {"classes": 0, "conv": (), "image_shape": None, "batch_norm": False}

    hidden: tuple[int, ...]
    decoder_hidden: tuple[int, ...]
    activation: str = "relu"
    tied: bool = False
    conv: tuple[int, ...] = ()
    image_shape: tuple[int, ...] | None = None  # (height, width), or with 3 colours; None without convolutions
    batch_norm: bool = False

    @classmethod
    def checked(
        cls, data_dim: int, hidden: Sequence[int], latent_dim: int, decoder_hidden: Sequence[int] | None,
        activation: str, likelihood: Likelihood, tied: bool, classes: int = 0,
        conv: Sequence[int] = (), image_shape: Sequence[int] | None = None, batch_norm: bool = False,
    ) -> "Architecture":  # fmt: skip
        """The architecture, or ValueError saying which part is impossible."""
        data_dim, latent_dim = checked_count("data_dim", data_dim), checked_count("latent_dim", latent_dim)
        hidden = _checked_widths("hidden", hidden)
        mirrored = hidden[::-1]
        decoder_hidden = mirrored if decoder_hidden is None else _checked_widths("decoder_hidden", decoder_hidden)
        activation_named(activation)
        if tied and decoder_hidden != mirrored:
            raise ValueError(f"tied weights need a decoder that mirrors the encoder: decoder_hidden must be {mirrored}")
        if classes:
            classes = checked_count("classes", classes)
        conv = _checked_widths("conv", conv)
        for what, given in (("tied weights", tied), ("convolutions", bool(conv))):
            if given and likelihood.output_width(data_dim) != data_dim:
                raise ValueError(
                    f"{what} make one number for each of the data, but the likelihood needs "
                    f"{' and '.join(likelihood.outputs)}: use sigma 'learned' or 'fixed:VALUE'"
                )
        for name, given in (("labels (classes)", classes), ("convolutions", conv), ("batch normalization", batch_norm)):
            if tied and given:
                raise ValueError(f"tied weights do not go with {name}: leave one of the two away")
        shape = _checked_image(data_dim, image_shape) if conv else None
        found = cls(
            data_dim, latent_dim, likelihood, classes, hidden, decoder_hidden, activation, bool(tied), conv, shape,
            bool(batch_norm),
        )  # fmt: skip
        check_widths(*found.halves(), likelihood)
        return found

    # ---------------------------------------------------------------------------------------------------------- layers

    def halves(self) -> tuple[list[Named], list[Named]]:
        """data -> convolutions -> hidden -> head, and z -> hidden -> transposed convolutions -> output."""
        convolutions = self._convolutions()
        encoder = [n for c in convolutions for n in c]
        flat = encoder[-1].layer.width if encoder else self.data_dim
        widths = (flat, *self.hidden)
        for i, (inward, outward) in enumerate(pairwise(widths)):
            encoder += self._hidden(f"encoder.{i}", self._dense(inward, outward, first=i == 0))
        last = len(self.hidden)
        head = self._dense(widths[-1], 2 * self.latent_dim, first=last == 0, end=True)
        encoder.append(Named(f"encoder.{last}", head))
        if self.tied:
            return encoder, self._tied(encoder)
        return encoder, self._decoder(flat, [c[0].layer for c in convolutions])

    def _decoder(self, flat: int, convolutions: list[Any]) -> list[Named]:
        widths, decoder = (self.latent_dim, *self.decoder_hidden), []
        for i, (inward, outward) in enumerate(pairwise(widths)):
            decoder += self._hidden(f"decoder.{i}", self._dense(inward, outward, first=i == 0))
        last = len(self.decoder_hidden)
        if not convolutions:
            end = self._dense(widths[-1], self.likelihood.output_width(self.data_dim), first=last == 0, end=True)
            return [*decoder, Named(f"decoder.{last}", end)]
        decoder += self._hidden(f"decoder.{last}", self._dense(widths[-1], flat, first=last == 0))
        for i, mirrored in enumerate(reversed(convolutions)):
            name, options = f"decoder.conv{i}", (mirrored.image, mirrored.channels)
            if i == len(convolutions) - 1:
                decoder.append(Named(name, ConvTranspose(*options, gain=HEAD_GAIN, start="linear")))
            else:
                layer = ConvTranspose(*options, **self._before_norm())
                decoder += self._hidden(name, layer, columns=mirrored.image[2])
        return decoder

    def _convolutions(self) -> list[list[Named]]:
        """Each convolution, with its batch normalization if there is any."""
        found: list[list[Named]] = []
        shape = self.image_shape
        image = None if shape is None else (shape[0], shape[1], shape[2] if len(shape) == 3 else 1)
        for i, channels in enumerate(self.conv):
            assert image is not None
            layer = Conv(image, channels, **self._before_norm())
            try:
                image = layer.places
            except ValueError as error:
                h, w = (shape or (0, 0))[:2]
                raise ValueError(
                    f"images of {h} x {w} pixels are too small for {len(self.conv)} convolutions: use {i}"
                ) from error
            found.append(self._hidden(f"encoder.conv{i}", layer, columns=channels))
        return found

    def _before_norm(self) -> dict[str, Any]:
        """Options of a hidden layer: with batch normalization, activation and bias come after that."""
        if self.batch_norm:
            return {"f": "linear", "bias": False, "start": self.activation}
        return {"f": self.activation}

    def _dense(self, inputs: int, width: int, first: bool, end: bool = False) -> Layer:
        options: dict[str, Any] = {"gain": HEAD_GAIN} if end else self._before_norm()
        if first and self.classes:
            return Labelled(inputs, width, count=self.classes, **options)
        return Dense(inputs, width, **options)

    def _hidden(self, name: str, layer: Layer, columns: int | None = None) -> list[Named]:
        norm = [Named(name, BatchNorm(layer.width, columns or layer.width, self.activation))] if self.batch_norm else []
        return [Named(name, layer), *norm]

    def _tied(self, encoder: list[Named]) -> list[Named]:
        """Mirrors the encoder; its first layer uses the columns of the head that make mu."""
        decoder, width = [], self.latent_dim
        for i, (_, of) in enumerate(reversed(encoder)):
            layer = Tied(of, width, "linear" if i == len(encoder) - 1 else self.activation)
            decoder.append(Named(f"decoder.{i}", layer))
            width = layer.width
        return decoder

    # ------------------------------------------------------------------------------------------------------------ text

    def options(self) -> dict[str, Any]:
        """See `Description`."""
        mirrored = self.decoder_hidden == self.hidden[::-1]
        return super().options() | {
            "hidden": self.hidden, "decoder_hidden": None if mirrored else self.decoder_hidden,
            "activation": self.activation, "tied": self.tied, "conv": self.conv, "batch_norm": self.batch_norm,
        }  # fmt: skip

    def plain_activation(self) -> str | None:
        """See `Description`."""
        return None if self.classes or self.conv or self.batch_norm else self.activation

    @property
    def images(self) -> list[tuple[int, int, int]]:
        """(height, width, channels) from the data through every convolution; empty without one."""
        layers = [c[0].layer for c in self._convolutions()]
        return [layers[0].image, *(layer.places for layer in layers)] if layers else []  # pyright: ignore

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """Of the dense layers: from the data, or the last convolution, to the head, which holds mu and logvar."""
        flat = self._convolutions()[-1][0].layer.width if self.conv else self.data_dim
        return (flat, *self.hidden, 2 * self.latent_dim)

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Of the dense layers: from z to the outputs, or to where the convolutions begin."""
        last = self.encoder_widths[0] if self.conv else self.likelihood.output_width(self.data_dim)
        return (self.latent_dim, *self.decoder_hidden, last)

    def as_arguments(self) -> str:
        """The widths, the likelihood, and what differs from the defaults."""
        mirrored = self.decoder_hidden == self.hidden[::-1]
        shown = [
            f"{self.data_dim}, hidden={self.hidden}, latent_dim={self.latent_dim}",
            "" if mirrored else f"decoder_hidden={self.decoder_hidden}",
            "" if self.activation == Architecture.activation else f"activation={self.activation!r}",
            f"likelihood={parts.text_of(self.likelihood)!r}",
            "tied=True" if self.tied else "",
            f"classes={self.classes}" if self.classes else "",
            f"conv={self.conv}, image_shape={self.image_shape}" if self.conv else "",
            "batch_norm=True" if self.batch_norm else "",
        ]
        return ", ".join(filter(None, shown))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, ready for `VAE(**d)`."""
        d = {f.name: getattr(self, f.name) for f in fields(self)}
        d["likelihood"] = parts.text_of(self.likelihood)
        return {name: value for name, value in d.items() if name not in self.ABSENT or value != self.ABSENT[name]}


def _checked_widths(name: str, widths: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(widths, Sequence) or isinstance(widths, str):
        raise ValueError(f"{name} must be a list of widths, such as [400], not {widths!r}")
    return tuple(checked_count(name, width) for width in widths)


def _checked_image(data_dim: int, shape: Sequence[int] | None) -> tuple[int, ...]:
    if not isinstance(shape, Sequence) or len(shape) not in (2, 3):
        raise ValueError(
            "convolutions need images: data of shape (rows, height, width), or image_shape=(height, width); in colour "
            "(rows, height, width, 3), or (height, width, 3)"
        )
    sizes = tuple(checked_count("image_shape", size) for size in shape)
    if prod(sizes) != data_dim:
        said = " x ".join(map(str, sizes))
        raise ValueError(f"image_shape is {said} = {prod(sizes)} pixels, but data_dim is {data_dim}")
    return sizes
