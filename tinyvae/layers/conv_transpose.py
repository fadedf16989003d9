"""Transposed convolution: y = f(fold(x W^T) + b), the adjoint of a convolution. Derived in `ops.convolution`."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import ClassVar

from tinyvae.kernels.contract import Kernels, Rows, Window
from tinyvae.layers.conv import checked_window, covers
from tinyvae.layers.layer import Backward, Context, Layer, Param, Views
from tinyvae.layers.starts import weights
from tinyvae.ops.activations import Activation, activation


@dataclass(frozen=True, eq=False)
class ConvTranspose(Layer):
    """y = f(fold(x W^T) + b): each number of x is spread over a window of the images y.

    image: (height, width, channels) of y;  channels: of x, at each place of the window over y.
    x (rows, places channels) -> (rows, height width out). Other options as in `Conv`, which it mirrors: W is the weight
    (kernel, kernel, out, channels) of the convolution from y to x.
    """

    replayed: ClassVar = True

    image: tuple[int, int, int]
    channels: int
    f: str | Activation = "linear"
    _: KW_ONLY
    kernel: int = 4
    stride: int = 2
    pad: int = 1
    bias: bool = True
    start: str | Activation | None = None
    gain: float = 1.0

    @cached_property
    def window(self) -> Window:
        """The window over the images. Raises ValueError if it does not fit."""
        return checked_window(self.image, self.kernel, self.stride, self.pad)

    @property
    def inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Numbers in an image of x."""
        return self.window.down * self.window.across * self.channels

    @property
    def width(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Numbers in an image of y."""
        return self.window.image

    def params(self) -> Iterator[Param]:
        """weight (kernel, kernel, out, channels), bias (out,)."""
        w = self.window
        shape = (w.kernel, w.kernel, w.channels, self.channels)
        yield Param(
            "weight", shape, weights(shape, covers(w) * self.channels, w.patch, self.start or self.f, self.gain)
        )
        if self.bias:
            yield Param("bias", (w.channels,), 0.0)

    def forward(self, k: Kernels, p: Views, x: Rows, context: Context) -> tuple[Rows, Backward]:
        """y = f(fold(x W^T) + b); back: dW = patches(da)^T x, da_below = (patches(da) W) f'(below)."""
        W = p["weight"].reshape(self.window.patch, self.channels)
        y = k.spread(x.y, W, p.get("bias"), activation(self.f), self.window)

        def backward(da, g):
            k.convolve_gradient(da, x.y, g["weight"].reshape(W.shape), self.window)
            if self.bias:
                k.column_sums(da.reshape(-1, self.window.channels), g["bias"])
            return k.spread_back(da, W, x, self.window)

        return y, backward
