"""An architecture's layers, each with views on its parameters and gradients in the flat buffers."""

import math
from types import ModuleType
from typing import Any

from tinyvae.model.architecture import Architecture
from tinyvae.model.layers import BatchNorm, Conv, ConvTranspose, Dense, LabelledDense, Layer, TiedDense
from tinyvae.model.params import FlatParams


class Builder:
    """Builds the two halves of a model."""

    def __init__(
        self, kernels: ModuleType, architecture: Architecture, params: FlatParams, grads: FlatParams, xp: Any
    ) -> None:
        self.kernels, self.architecture, self.params, self.grads, self.xp = kernels, architecture, params, grads, xp

    def encoder(self) -> list[Layer]:
        """data -> convolutions -> hidden -> head: the last layer is linear and makes mu and logvar."""
        a, layers = self.architecture, []
        for i in range(len(a.conv)):
            W, _, dW, _ = self._weights(f"encoder.conv{i}")
            activation, b, db, normalization = self._hidden(f"encoder.conv{i}", a.images[i + 1])
            image, places = a.images[i], a.images[i + 1]
            layers.append(Conv(self.kernels, image, places, W, b, dW, db, activation, needs_dx=i > 0))
            layers += normalization
        last = len(a.hidden)
        for i in range(last + 1):
            layers += self._dense(f"encoder.{i}", i == 0, is_hidden=i < last, needs_dx=i > 0 or bool(a.conv))
        return layers

    def decoder(self) -> list[Layer]:
        """z -> hidden -> transposed convolutions -> output: the last layer is linear, the logits or the mean."""
        a, layers = self.architecture, []
        last = len(a.decoder_hidden)
        for i in range(last + 1):
            if a.tied:
                layers.append(self._tied(i, last))
            else:
                layers += self._dense(f"decoder.{i}", i == 0, is_hidden=i < last or bool(a.conv), needs_dx=True)
        for i in range(len(a.conv)):
            places, image = a.images[-1 - i], a.images[-2 - i]
            W, b, dW, db = self._weights(f"decoder.conv{i}")
            if i == len(a.conv) - 1:
                layers.append(ConvTranspose(image, places, W, b, dW, db, "linear"))
                continue
            activation, b, db, normalization = self._hidden(f"decoder.conv{i}", image)
            layers.append(ConvTranspose(image, places, W, b, dW, db, activation))
            layers += normalization
        return layers

    def _weights(self, name: str) -> tuple[Any, Any, Any, Any]:
        w, b = f"{name}.weight", f"{name}.bias"
        return self.params[w], self.params[b], self.grads[w], self.grads[b]

    def _dense(self, name: str, takes_labels: bool, is_hidden: bool, needs_dx: bool) -> list[Layer]:
        W, b, dW, db = self._weights(name)
        activation, normalization = "linear", []
        if is_hidden:
            activation, b, db, normalization = self._hidden(name, (W.shape[1],))
        kind = LabelledDense if takes_labels and self.architecture.classes else Dense
        return [kind(self.kernels, W, b, dW, db, activation, needs_dx), *normalization]

    def _hidden(self, name: str, shape: tuple[int, ...]) -> tuple[str, Any, Any, list[Layer]]:
        """A hidden layer's activation, bias and its gradient, and what follows the layer.

        With batch normalization both activation and bias come after it: it would take any earlier bias away.
        """
        activation, b, db = self.architecture.activation, self.params[f"{name}.bias"], self.grads[f"{name}.bias"]
        if not self.architecture.batch_norm:
            return activation, b, db, []
        scale, mean, var = (f"{name}.{part}" for part in ("scale", "running_mean", "running_var"))
        layer = BatchNorm(
            math.prod(shape), activation, self.params[scale], b, self.grads[scale], db,
            self.params[mean], self.params[var],
        )  # fmt: skip
        return "linear", self.xp.zeros_like(b), self.xp.zeros_like(b), [layer]

    def _tied(self, i: int, last: int) -> Layer:
        activation = "linear" if i == last else self.architecture.activation
        v, b = f"encoder.{last - i}.weight", f"decoder.{i}.bias"
        part = slice(None, self.architecture.latent_dim if i == 0 else None)  # of the head: the columns that make mu
        V, dV = self.params[v][:, part], self.grads[v][:, part]  # (out, in) each
        return TiedDense(self.kernels, V, self.params[b], dV, self.grads[b], activation, self.xp)
