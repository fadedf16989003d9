"""Convolution: y = f(patches(x) W + b). Derived in `ops.convolution`; tutorial 12."""

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import ClassVar

from tinyvae.kernels.contract import Kernels, Rows, Window
from tinyvae.layers.layer import Backward, Context, Layer, Param, Views
from tinyvae.layers.starts import weights
from tinyvae.ops.activations import Activation, activation


@dataclass(frozen=True, eq=False)
class Conv(Layer):
    """y = f(patches(x) W + b): a window slides over images and makes `channels` numbers at each place.

    image: (height, width, channels) of x, whose rows are images pixel by pixel;  kernel, stride, pad: of the window.
    x (rows, height width in) -> (rows, places channels), again images. `places` is their (down, across, channels).
    bias, start, gain: as in `Dense`. Raises ValueError if the window does not fit into the image.
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
        return self.window.image

    @property
    def width(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Numbers in an image of y."""
        return math.prod(self.places)

    @property
    def places(self) -> tuple[int, int, int]:
        """(down, across, channels) of y."""
        return self.window.down, self.window.across, self.channels

    def params(self) -> Iterator[Param]:
        """weight (kernel, kernel, in, channels), bias (channels,)."""
        w = self.window
        shape = (w.kernel, w.kernel, w.channels, self.channels)
        yield Param(
            "weight", shape, weights(shape, w.patch, covers(w) * self.channels, self.start or self.f, self.gain)
        )
        if self.bias:
            yield Param("bias", (self.channels,), 0.0)

    def forward(self, k: Kernels, p: Views, x: Rows, context: Context) -> tuple[Rows, Backward]:
        """y = f(patches(x) W + b); back: dW = patches(x)^T da, da_below = fold(da W^T) f'(below)."""
        W = p["weight"].reshape(self.window.patch, self.channels)
        y = k.convolve(x.y, W, p.get("bias"), activation(self.f), self.window)

        def backward(da, g):
            k.convolve_gradient(x.y, da, g["weight"].reshape(W.shape), self.window)
            if self.bias:
                k.column_sums(da.reshape(-1, self.channels), g["bias"])
            return k.convolve_back(da, W, x, self.window)

        return y, backward


def checked_window(image: tuple[int, int, int], kernel: int, stride: int, pad: int) -> Window:
    """The window over images of that shape. Raises ValueError if it fits nowhere."""
    window = Window(*image, kernel, stride, pad)
    if min(kernel, stride) < 1 or pad < 0:
        raise ValueError(
            f"a window needs kernel and stride of at least 1, and pad of at least 0, not {kernel}, {stride} and {pad}"
        )
    if min(window.down, window.across) < 1:
        raise ValueError(f"images of {image[0]} x {image[1]} pixels are too small for a window of {kernel} x {kernel}")
    return window


def covers(window: Window) -> float:
    """How many windows cover a pixel: (kernel / stride)^2; 1 where the stride leaves gaps."""
    return max(1.0, window.kernel / window.stride) ** 2
