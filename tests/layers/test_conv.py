"""Convolution and its transpose as layers: any window, any number of channels, on all kernels.

Arrays hold small whole numbers. Their products and sums are exact in float64, so equality is exact too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import assert_killed, instead
from scipy import signal
from strategies import EVERY_FUSED, SEEDS

from layers.running import Numbers, run
from tinyvae.kernels.contract import Window
from tinyvae.layers import Conv, ConvTranspose
from tinyvae.layers import conv as conv_file
from tinyvae.layers import conv_transpose as conv_transpose_file
from tinyvae.ops.activations import LINEAR
from tinyvae.ops.convolution import (
    conv2d_backward,
    conv2d_forward,
    conv_transpose2d_backward,
    conv_transpose2d_forward,
)

EVERY = ["reference", *EVERY_FUSED]
ROWS = 3


@dataclass(frozen=True)
class Case:
    """Images (height, width, channels), and a window over them that makes `out` channels."""

    image: tuple[int, int, int]
    out: int
    kernel: int
    stride: int
    pad: int
    seed: int

    @property
    def options(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "stride": self.stride, "pad": self.pad}

    def draw(self, *shape: int, more: int = 0) -> np.ndarray:
        return np.random.default_rng((self.seed, more)).integers(-8, 9, shape).astype(float)

    def weight(self) -> np.ndarray:
        return self.draw(self.kernel, self.kernel, self.image[2], self.out, more=1)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kernel, stride, pad = (draw(st.integers(*bounds)) for bounds in [(1, 4), (1, 4), (0, 4)])
    smallest = max(1, kernel - 2 * pad)
    height, width = (smallest + draw(st.integers(0, 6)) for _ in range(2))
    return Case((height, width, draw(st.integers(1, 3))), draw(st.integers(1, 3)), kernel, stride, pad, draw(SEEDS))


COLOUR = Case((7, 5, 3), 2, 3, 2, 1, 0)  # RGB; the stride leaves a remainder of the width with the border
SOME = [COLOUR, Case((28, 28, 1), 3, 4, 2, 1, 0), Case((6, 9, 2), 3, 2, 3, 0, 1), Case((4, 4, 2), 1, 1, 1, 2, 2)]


def convolution_agrees(case: Case, kernels: str = "reference") -> None:
    layer = Conv(case.image, case.out, "relu", **case.options)
    p: Numbers = {"weight": case.weight(), "bias": case.draw(case.out, more=2)}
    x = case.draw(ROWS, *case.image)
    a = conv2d_forward(x, p["weight"], p["bias"], case.stride, case.pad)
    assert layer.inputs == x[0].size
    assert layer.places == a.shape[1:]
    dy = case.draw(*a.shape, more=3)
    ran = run(layer, x.reshape(ROWS, -1), p, dy.reshape(ROWS, -1), kernels=kernels)
    np.testing.assert_array_equal(ran.y, np.maximum(a, 0).reshape(ROWS, layer.width))
    expected = conv2d_backward(dy * (a > 0), x, p["weight"], case.stride, case.pad)
    for got, right in zip((ran.dx, ran.g["weight"], ran.g["bias"]), expected, strict=True):
        np.testing.assert_array_equal(got.reshape(right.shape), right)


def transpose_agrees(case: Case, kernels: str = "reference") -> None:
    layer = ConvTranspose(case.image, case.out, "relu", **case.options)
    p: Numbers = {"weight": case.weight(), "bias": case.draw(case.image[2], more=2)}
    places = Conv(case.image, case.out, **case.options).places
    x = case.draw(ROWS, *places)
    a = conv_transpose2d_forward(x, p["weight"], p["bias"], case.image[:2], case.stride, case.pad)
    dy = case.draw(*a.shape, more=3)
    ran = run(layer, x.reshape(ROWS, layer.inputs), p, dy.reshape(ROWS, -1), kernels=kernels)
    np.testing.assert_array_equal(ran.y, np.maximum(a, 0).reshape(ROWS, layer.width))
    expected = conv_transpose2d_backward(dy * (a > 0), x, p["weight"], case.stride, case.pad)
    for got, right in zip((ran.dx, ran.g["weight"], ran.g["bias"]), expected, strict=True):
        np.testing.assert_array_equal(got.reshape(right.shape), right)


@given(cases())
def test_it_is_the_operation_and_then_the_activation_whatever_the_window(case: Case) -> None:
    convolution_agrees(case)
    transpose_agrees(case)


@pytest.mark.parametrize("case", SOME, ids=str)
@pytest.mark.parametrize("kernels", EVERY_FUSED)
def test_it_is_the_same_on_all_kernels(kernels: str, case: Case) -> None:
    convolution_agrees(case, kernels)
    transpose_agrees(case, kernels)


@given(cases())
def test_it_is_scipys_correlation_of_each_pair_of_channels(case: Case) -> None:
    layer, x, W = Conv(case.image, case.out, bias=False, **case.options), case.draw(ROWS, *case.image), case.weight()
    y = run(layer, x.reshape(ROWS, -1), {"weight": W}).y.reshape(ROWS, *layer.places)
    padded = np.pad(x, [(0, 0), (case.pad, case.pad), (case.pad, case.pad), (0, 0)])
    for n, o in np.ndindex(ROWS, case.out):
        channels = [signal.correlate2d(padded[n, :, :, c], W[:, :, c, o], mode="valid") for c in range(case.image[2])]
        np.testing.assert_array_equal(y[n, :, :, o], np.sum(channels, axis=0)[:: case.stride, :: case.stride])


@given(cases(), st.sampled_from(EVERY))
def test_each_is_the_others_adjoint(case: Case, kernels: str) -> None:
    """<conv(x), y> = <x, transpose(y)> with one weight, whatever remainder the stride leaves."""
    there, back = (cls(case.image, case.out, bias=False, **case.options) for cls in (Conv, ConvTranspose))
    assert (there.inputs, there.width) == (back.width, back.inputs)
    p, x, y = {"weight": case.weight()}, case.draw(ROWS, there.inputs), case.draw(ROWS, there.width, more=4)
    assert (run(there, x, p, kernels=kernels).y * y).sum() == (x * run(back, y, p, kernels=kernels).y).sum()


@pytest.mark.parametrize("kernels", EVERY)
def test_a_window_that_never_touches_a_pixel_gives_it_the_bias_and_no_gradient(kernels: str) -> None:
    """A stride wider than the window leaves gaps."""
    image, options = (5, 5, 1), dict[str, Any](kernel=2, stride=3, pad=0)
    p = {"weight": np.ones((2, 2, 1, 1)), "bias": np.array([7.0])}
    y = run(ConvTranspose(image, 1, **options), np.ones((1, 4)), p, kernels=kernels).y.reshape(5, 5)
    touched = np.ones((5, 5), bool)
    touched[2], touched[:, 2] = False, False
    np.testing.assert_array_equal(y, np.where(touched, 8, 7))
    ran = run(Conv(image, 1, **options), np.ones((1, 25)), p, np.ones((1, 4)), kernels=kernels)
    np.testing.assert_array_equal(ran.dx.reshape(5, 5), touched)


@pytest.mark.parametrize("layer", [Conv, ConvTranspose])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 0}, "a window needs kernel and stride of at least 1, and pad of at least 0, not 0, 2 and 1"),
        ({"stride": 0}, "not 4, 0 and 1"),
        ({"pad": -1}, "not 4, 2 and -1"),
        ({"image": (9, 1, 1), "pad": 0}, "images of 9 x 1 pixels are too small for a window of 4 x 4"),
    ],
)
def test_a_window_that_fits_nowhere_is_refused(layer: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(**{"image": (9, 7, 1), "channels": 3, **options}).params().__next__()


@pytest.mark.parametrize("options", [{}, {"kernel": 3, "stride": 1}, {"kernel": 2, "stride": 3, "pad": 0}], ids=str)
def test_weights_keep_the_mean_square_before_a_rectifier_at_twice_the_inputs(options: dict[str, Any]) -> None:
    """He et al. 2015: half of it is lost at the rectifier. Where windows reach, and away from the border."""
    rng, image, channels = np.random.default_rng(0), (17, 17, 32), 48
    for layer in (Conv(image, channels, "relu", **options), ConvTranspose(image, channels, "relu", **options)):
        weight, bias = layer.params()
        assert bias.start == 0
        assert callable(weight.start)
        p = {"weight": weight.start(rng), "bias": np.zeros(bias.shape)}
        x = rng.standard_normal((20, layer.inputs))
        a = run(layer, x, p, dy=None).y  # after the rectifier: half of the mean square
        shape = layer.places if isinstance(layer, Conv) else image
        inner = a.reshape(-1, *shape)[:, 1:-1, 1:-1]
        reached = inner[:, (inner != 0).any(axis=(0, 2, 3))][:, :, (inner != 0).any(axis=(0, 1, 3))]
        # more than 6,000 weights: 2 % each, of the mean square of numbers with heavy tails; 5 of them
        assert 2 * np.mean(reached**2) == pytest.approx(2, rel=0.1), layer


def test_planted_bugs_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def moved(window: Window, **change: int) -> Window:
        return window._replace(**{name: getattr(window, name) + by for name, by in change.items()})

    true = conv_file.checked_window
    shifted = lambda *a: moved(true(*a), pad=1, height=-1, width=-1)
    assert_killed(monkeypatch, instead(conv_file, "checked_window", shifted), lambda: convolution_agrees(COLOUR))

    def averaged(self: Conv, k: Any, p: Any, x: Any, context: Any, forward: Any = Conv.forward) -> Any:
        y, back = forward(self, k, p, x, context)
        return y, lambda da, g: (back(da, g), np.multiply(g["weight"], 1 / ROWS, out=g["weight"]))[0]

    assert_killed(monkeypatch, instead(Conv, "forward", averaged), lambda: convolution_agrees(COLOUR))

    def linear(self: Any, k: Any, p: Any, x: Any, context: Any, forward: Any = ConvTranspose.forward) -> Any:
        y, back = forward(self, k, p, x, context)
        return y._replace(f=LINEAR), back  # so the slope of its own activation is left away

    assert_killed(monkeypatch, instead(ConvTranspose, "forward", linear), lambda: transpose_agrees(COLOUR))
    as_a_convolution = instead(conv_transpose_file, "covers", lambda window: window.kernel**2)  # inputs to a pixel
    start = lambda: test_weights_keep_the_mean_square_before_a_rectifier_at_twice_the_inputs({})
    assert_killed(monkeypatch, as_a_convolution, start)
