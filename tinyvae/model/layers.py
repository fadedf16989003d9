"""Layers that own their buffers. Rows in, rows out: an image between two convolutions is a row of pixels too.

A dense layer's buffers are made once for the largest batch, so that a training step allocates nothing. Convolutions and
batch normalization are made of the readable `ops`, which make arrays as they go.
"""

from types import ModuleType
from typing import Any, Protocol

from tinyvae.backend import Array
from tinyvae.model.architecture import PAD, STRIDE
from tinyvae.ops import activations, convolution, normalization


class Layer(Protocol):
    """What the model asks of a layer. `width` is that of its output rows, `y` its last output."""

    activation: str
    width: int
    y: Array

    def allocate(self, xp: Any, rows: int, work: Array) -> None:
        """Make the buffers for batches of up to `rows` rows."""

    def forward(self, x: Array) -> Array:
        """x (batch, in) -> y (batch, width)."""
        ...

    def backward(self, dy: Array) -> Array | None:
        """dy (batch, width) -> dx (batch, in), or None if nobody asks for it; the parameters' gradients on the way."""


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
        self.width = W.shape[1]

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


class LabelledDense(Dense):
    """A dense layer that sees the labels as well: y = f([x, onehot] W + b), W (in + classes, out).

    `onehot` (rows, classes) is set by the model before the forward pass. Nobody asks for its gradient.
    """

    onehot: Array

    def allocate(self, xp: Any, rows: int, work: Array) -> None:
        """Make the buffers for batches of up to `rows` rows."""
        super().allocate(xp, rows, work)
        self.joined = xp.empty((rows, self.W.shape[0]), dtype=self.W.dtype)

    def forward(self, x: Array) -> Array:
        """x (batch, in) -> y (batch, out)."""
        joined = self.joined[: x.shape[0]]  # (batch, in + classes)
        joined[:, : x.shape[1]] = x
        joined[:, x.shape[1] :] = self.onehot
        return super().forward(joined)

    def backward(self, dy: Array) -> Array | None:
        """dy (batch, out) -> dx (batch, in), without the labels' part."""
        dx = super().backward(dy)
        return None if dx is None else dx[:, : -self.onehot.shape[1]].copy()


class BatchNorm:
    """y = f(scale h + shift), h = the columns of x at mean 0 and variance 1; columns are channels, or dense outputs.

    With `training` the batch's own mean and variance, else their running averages. These are moved on in `backward`,
    which is called once in a training step, and not in `forward`, which may be only a look.
    """

    def __init__(
        self, width: int, activation: str, scale: Array, shift: Array, dscale: Array, dshift: Array,
        running_mean: Array, running_var: Array,
    ) -> None:  # fmt: skip
        self.width, self.activation = width, activation
        self.scale, self.shift = scale, shift  # (columns,) each, as all of these
        self.dscale, self.dshift = dscale, dshift
        self.running_mean, self.running_var = running_mean, running_var
        self.training = False

    def allocate(self, xp: Any, rows: int, work: Array) -> None:
        """No buffers: the arrays are made as needed."""

    def forward(self, x: Array) -> Array:
        """x (batch, width) -> y (batch, width)."""
        forward, _ = activations.ACTIVATIONS[self.activation]
        a = x.reshape(-1, self.scale.shape[0])  # (batch * places, columns)
        if self.training:
            a, self.h, self.mean, self.var = normalization.batch_norm_forward(a, self.scale, self.shift)
        else:
            a = normalization.batch_norm_evaluate(a, self.scale, self.shift, self.running_mean, self.running_var)
        self.y = forward(a).reshape(x.shape)
        return self.y

    def backward(self, dy: Array) -> Array:
        """dy (batch, width) -> dx (batch, width); counts the batch into the running averages."""
        _, backward = activations.ACTIVATIONS[self.activation]
        shape = self.h.shape  # (batch * places, columns)
        da = backward(dy.reshape(shape), self.y.reshape(shape))
        dx, self.dscale[...], self.dshift[...] = normalization.batch_norm_backward(da, self.h, self.var, self.scale)
        rows = shape[0]
        self.running_mean[...] = normalization.running_average(self.running_mean, self.mean)
        if rows > 1:  # a single row knows nothing of the variance
            unbiased = self.var * (rows / (rows - 1))  # algorithm 2 of the paper
            self.running_var[...] = normalization.running_average(self.running_var, unbiased)
        return dx.reshape(dy.shape)


class Conv:
    """y = f(conv2d(x)): the patches of the images as rows of a dense layer.

    `image` is (height, width, channels) of x, `places` of y. `needs_dx` is False for the first layer of the encoder.
    """

    def __init__(
        self, kernels: ModuleType, image: tuple[int, int, int], places: tuple[int, int, int],
        W: Array, b: Array, dW: Array, db: Array, activation: str, needs_dx: bool,
    ) -> None:  # fmt: skip
        self.image, self.places, self.activation, self.needs_dx = image, places, activation, needs_dx
        self.kernels, self.kernel, self.b, self.db = kernels, W.shape[0], b, db
        self.W, self.dW = W.reshape(-1, W.shape[-1]), dW.reshape(-1, W.shape[-1])  # (k k in, out), views
        self.width = places[0] * places[1] * places[2]

    def allocate(self, xp: Any, rows: int, work: Array) -> None:
        """Make the buffers for batches of up to `rows` rows."""
        self.xp, self.work = xp, work
        self.y_buffer = xp.empty((rows, self.width), dtype=self.W.dtype)

    def forward(self, x: Array) -> Array:
        """x (batch, height width in) -> y (batch, places out), a view on this layer's buffer."""
        batch = x.shape[0]
        rows = convolution.patches(x.reshape(batch, *self.image), self.kernel, STRIDE, PAD)
        self.rows = rows.reshape(-1, self.W.shape[0])  # (batch places, k k in)
        self.y = self.y_buffer[:batch]
        y = self.y.reshape(-1, self.W.shape[1])  # (batch places, out), a view
        self.kernels.dense_forward(self.rows, self.W, self.b, self.activation, y=y, work=self.work)
        return self.y

    def backward(self, dy: Array) -> Array | None:
        """dy (batch, places out) -> dx (batch, height width in). Destroys dy and y."""
        batch, out = dy.shape[0], self.W.shape[1]
        drows = self.xp.empty_like(self.rows) if self.needs_dx else None  # (batch places, k k in)
        self.kernels.dense_backward(
            dy.reshape(-1, out), self.rows, self.W, self.y.reshape(-1, out), self.activation,
            dx=drows, dW=self.dW, db=self.db, work=self.work,
        )  # fmt: skip
        if drows is None:
            return None
        drows = drows.reshape(batch, *self.places[:2], self.kernel, self.kernel, self.image[2])
        return convolution.fold(drows, self.image[:2], STRIDE, PAD).reshape(batch, -1)


class ConvTranspose:
    """y = f(conv_transpose2d(x)): the adjoint of a convolution. `places` is (down, across, in) of x, `image` of y."""

    def __init__(
        self, image: tuple[int, int, int], places: tuple[int, int, int],
        W: Array, b: Array, dW: Array, db: Array, activation: str,
    ) -> None:  # fmt: skip
        self.image, self.places, self.activation = image, places, activation
        self.W, self.b, self.dW, self.db = W, b, dW, db  # (k, k, out, in): W is the convolution's
        self.width = image[0] * image[1] * image[2]

    def allocate(self, xp: Any, rows: int, work: Array) -> None:
        """No buffers: the arrays are made as needed."""

    def forward(self, x: Array) -> Array:
        """x (batch, places in) -> y (batch, height width out)."""
        forward, _ = activations.ACTIVATIONS[self.activation]
        self.x = x.reshape(-1, *self.places)  # (batch, down, across, in)
        a = convolution.conv_transpose2d_forward(self.x, self.W, self.b, self.image[:2], STRIDE, PAD)
        self.y = forward(a).reshape(x.shape[0], -1)
        return self.y

    def backward(self, dy: Array) -> Array:
        """dy (batch, height width out) -> dx (batch, places in)."""
        _, backward = activations.ACTIVATIONS[self.activation]
        da = backward(dy, self.y).reshape(-1, *self.image)  # (batch, height, width, out)
        dx, self.dW[...], self.db[...] = convolution.conv_transpose2d_backward(da, self.x, self.W, STRIDE, PAD)
        return dx.reshape(dy.shape[0], -1)
