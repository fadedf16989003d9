"""Dense layers that own their buffers: made once for the largest batch, so that a training step allocates nothing."""

from types import ModuleType
from typing import Any

from tinyvae.backend import Array
from tinyvae.model.architecture import Architecture
from tinyvae.model.params import FlatParams


class Dense:
    """y = f(x W + b), with views on its parameters and gradients, and buffers for y and dx.

    `needs_dx` is False for the first layer of the encoder: nobody asks for the gradient of the data.
    """

    def __init__(
        self, kernels: ModuleType, W: Array, b: Array, dW: Array, db: Array, activation: str, needs_dx: bool = True
    ) -> None:
        self.kernels = kernels
        self.W, self.b = W, b  # (in, out), (out,)
        self.dW, self.db = dW, db  # (in, out), (out,)
        self.activation = activation
        self.needs_dx = needs_dx

    def allocate(self, xp: Any, rows: int, work: Array) -> None:
        """Make the buffers for batches of up to `rows` rows."""
        self.work = work
        self.y_buffer = xp.empty((rows, self.W.shape[1]), dtype=self.W.dtype)
        self.dx_buffer = xp.empty((rows, self.W.shape[0]), dtype=self.W.dtype) if self.needs_dx else None

    def forward(self, x: Array) -> Array:
        """x (batch, in) -> y (batch, out), a view on this layer's buffer: the next call overwrites it."""
        self.x = x
        self.y = self.y_buffer[: x.shape[0]]
        self.kernels.dense_forward(x, self.W, self.b, self.activation, y=self.y, work=self.work)
        return self.y

    def backward(self, dy: Array) -> Array | None:
        """dy (batch, out) -> dx (batch, in), and dW, db into the gradient buffer. Destroys dy and y."""
        dx = None if self.dx_buffer is None else self.dx_buffer[: dy.shape[0]]
        self.kernels.dense_backward(
            dy, self.x, self.W, self.y, self.activation, dx=dx, dW=self.dW, db=self.db, work=self.work
        )
        return dx


class TiedDense(Dense):
    """A decoder layer whose W is (a part of) an encoder layer's weight, transposed: W = V^T, so dL/dV gains dW^T."""

    def __init__(self, kernels: ModuleType, V: Array, b: Array, dV: Array, db: Array, activation: str, xp: Any) -> None:
        dW = xp.empty((V.shape[1], V.shape[0]), dtype=V.dtype)  # (in, out)
        super().__init__(kernels, V.T, b, dW, db, activation)
        self.dV = dV  # (out, in), the encoder's gradient

    def add_shared_gradient(self) -> None:
        """dV = dV_from_encoder + dW^T; call it once the encoder's backward has written its part."""
        self.dV += self.dW.T


def build_encoder(
    kernels: ModuleType, architecture: Architecture, params: FlatParams, grads: FlatParams
) -> list[Dense]:
    """data -> hidden -> head: the last layer is linear and makes mu and logvar."""
    last = len(architecture.hidden)
    layers = []
    for i in range(last + 1):
        w, b = f"encoder.{i}.weight", f"encoder.{i}.bias"
        activation = "linear" if i == last else architecture.activation
        layers.append(Dense(kernels, params[w], params[b], grads[w], grads[b], activation, needs_dx=i > 0))
    return layers


def build_decoder(
    kernels: ModuleType, architecture: Architecture, params: FlatParams, grads: FlatParams, xp: Any
) -> list[Dense]:
    """z -> hidden -> output: the last layer is linear and makes the logits, or the mean (and logvar)."""
    last = len(architecture.decoder_hidden)
    layers = []
    for i in range(last + 1):
        w, b = f"decoder.{i}.weight", f"decoder.{i}.bias"
        activation = "linear" if i == last else architecture.activation
        if architecture.tied:
            v = f"encoder.{last - i}.weight"
            part = slice(None, architecture.latent_dim if i == 0 else None)  # of the head: the columns that make mu
            V, dV = params[v][:, part], grads[v][:, part]  # (out, in) each
            layers.append(TiedDense(kernels, V, params[b], dV, grads[b], activation, xp))
        else:
            layers.append(Dense(kernels, params[w], params[b], grads[w], grads[b], activation))
    return layers
