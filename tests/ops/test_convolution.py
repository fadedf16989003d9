"""Convolution and its transpose: loops written out, SciPy, and what adjoint means.

Most arrays hold small whole numbers. Their products and sums are exact in float64, so equality is exact too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import Plant, after, assert_killed, both, instead
from scipy import signal
from strategies import SEEDS, assert_within, eps_of, sampled

from tinyvae.ops import convolution, dense


@dataclass(frozen=True)
class Window:
    """A convolution of images (batch, height, width, inward) to `outward` channels."""

    batch: int
    height: int
    width: int
    inward: int
    outward: int
    kernel: int
    stride: int
    pad: int
    seed: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def sliding(self) -> tuple[int, int]:
        return self.stride, self.pad

    @property
    def places(self) -> tuple[int, int]:
        down, across = (len(range(0, n + 2 * self.pad - self.kernel + 1, self.stride)) for n in self.shape)
        return down, across

    def draw(self, *shapes: tuple[int, ...]) -> list[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        return [rng.integers(-8, 9, shape).astype(float) for shape in shapes]

    def arrays(self) -> list[np.ndarray]:
        """x, W, b and y: an image, the weights, the bias, and an array of the output's shape."""
        return self.draw(
            (self.batch, *self.shape, self.inward), (self.kernel, self.kernel, self.inward, self.outward),
            (self.outward,), (self.batch, *self.places, self.outward),
        )  # fmt: skip


@st.composite
def windows(draw: st.DrawFn) -> Window:
    kernel, stride, pad = (draw(st.integers(*bounds)) for bounds in [(1, 4), (1, 3), (0, 2)])
    smallest = max(1, kernel - 2 * pad)
    height, width = (smallest + draw(st.integers(0, 6)) for _ in range(2))
    batch, inward, outward = (draw(st.integers(1, 3)) for _ in range(3))
    return Window(batch, height, width, inward, outward, kernel, stride, pad, draw(SEEDS))


def padded(x: np.ndarray, pad: int) -> np.ndarray:
    return np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])


@given(windows())
def test_conv2d_is_four_loops(window: Window) -> None:
    x, W, b, y = window.arrays()
    y[...] = b
    image = padded(x, window.pad)
    for n, i, j, o in np.ndindex(y.shape):
        for di, dj, c in np.ndindex(*W.shape[:3]):
            y[n, i, j, o] += image[n, window.stride * i + di, window.stride * j + dj, c] * W[di, dj, c, o]
    np.testing.assert_array_equal(convolution.conv2d_forward(x, W, b, *window.sliding), y)


@given(windows())
def test_conv2d_is_scipys_correlation_of_each_pair_of_channels(window: Window) -> None:
    x, W, b, _ = window.arrays()
    y = convolution.conv2d_forward(x, W, b, *window.sliding)
    for n, o in np.ndindex(window.batch, window.outward):
        channels = [
            signal.correlate2d(image, W[:, :, c, o], mode="valid")
            for c, image in enumerate(np.moveaxis(padded(x, window.pad)[n], -1, 0))
        ]
        expected = np.sum(channels, axis=0)[:: window.stride, :: window.stride] + b[o]
        np.testing.assert_array_equal(y[n, :, :, o], expected)


def matrix(window: Window, W: np.ndarray) -> np.ndarray:
    """The convolution as a matrix (places out, height width in): a column for each pixel and channel."""
    pixels = window.height * window.width * window.inward
    units = np.eye(pixels).reshape(pixels, *window.shape, window.inward)
    return convolution.conv2d_forward(units, W, np.zeros(window.outward), *window.sliding).reshape(pixels, -1).T


@given(windows())
def test_the_transposed_convolution_is_the_transposed_matrix(window: Window) -> None:
    x, W, _, y = window.arrays()
    (b,) = window.draw((window.inward,))
    M = matrix(window, W)
    expected = (y.reshape(window.batch, -1) @ M).reshape(x.shape) + b
    got = convolution.conv_transpose2d_forward(y, W, b, window.shape, *window.sliding)
    np.testing.assert_array_equal(got, expected)


@given(windows())
def test_each_is_the_others_adjoint(window: Window) -> None:
    x, W, _, y = window.arrays()
    no_bias = np.zeros(window.outward), np.zeros(window.inward)
    there = (convolution.conv2d_forward(x, W, no_bias[0], *window.sliding) * y).sum()
    back = (x * convolution.conv_transpose2d_forward(y, W, no_bias[1], window.shape, *window.sliding)).sum()
    assert there == back
    rows = convolution.patches(x, window.kernel, *window.sliding)
    (r,) = window.draw(rows.shape)
    assert (rows * r).sum() == (x * convolution.fold(r, window.shape, *window.sliding)).sum()


@given(windows())
def test_folding_patches_counts_how_often_a_pixel_is_covered(window: Window) -> None:
    x, *_ = window.arrays()
    count = np.zeros(window.shape)
    for i, j in np.ndindex(*window.places):
        top, left = window.stride * i - window.pad, window.stride * j - window.pad
        bottom, right = top + window.kernel, left + window.kernel
        count[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] += 1
    folded = convolution.fold(convolution.patches(x, window.kernel, *window.sliding), window.shape, *window.sliding)
    np.testing.assert_array_equal(folded, x * count[:, :, None])


@given(windows())
def test_each_backward_is_the_others_forward(window: Window) -> None:
    x, W, _, y = window.arrays()
    sliding = window.sliding
    dx, dW, db = convolution.conv2d_backward(y, x, W, *sliding)
    there = convolution.conv_transpose2d_forward(y, W, np.zeros(window.inward), window.shape, *sliding)
    np.testing.assert_array_equal(dx, there)
    np.testing.assert_array_equal(db, y.sum(axis=(0, 1, 2)))
    dy, dW_transposed, db = convolution.conv_transpose2d_backward(x, y, W, *sliding)
    np.testing.assert_array_equal(dy, convolution.conv2d_forward(x, W, np.zeros(window.outward), *sliding))
    np.testing.assert_array_equal(db, x.sum(axis=(0, 1, 2)))
    np.testing.assert_array_equal(dW, dW_transposed)  # of <conv2d(x), y> by W, in both
    # <conv2d(x), y> is linear in W: so it is <W, its gradient>
    assert (W * dW).sum() == (dy * y).sum()


@given(windows(), st.integers(-3, 3))
def test_both_are_linear_but_for_the_bias(window: Window, factor: int) -> None:
    x, W, b, y = window.arrays()
    x2, y2 = window.draw(x.shape, y.shape)
    (c,) = window.draw((window.inward,))

    def conv(x: Any) -> Any:
        return convolution.conv2d_forward(x, W, b, *window.sliding) - b

    def transposed(y: Any) -> Any:
        return convolution.conv_transpose2d_forward(y, W, c, window.shape, *window.sliding) - c

    np.testing.assert_array_equal(conv(factor * x + x2), factor * conv(x) + conv(x2))
    np.testing.assert_array_equal(transposed(factor * y + y2), factor * transposed(y) + transposed(y2))


@given(windows())
def test_an_image_moved_by_the_stride_moves_the_output_by_one(window: Window) -> None:
    x, W, _, _ = window.arrays()
    margin = window.kernel + window.stride  # of zeros: nothing wraps around
    canvas, zero = padded(x, margin), np.zeros(window.outward)
    for axis in (1, 2):
        moved = np.roll(canvas, window.stride, axis)
        y, y_moved = (convolution.conv2d_forward(a, W, zero, *window.sliding) for a in (canvas, moved))
        np.testing.assert_array_equal(y_moved, np.roll(y, 1, axis))


@given(windows())
def test_a_window_of_one_pixel_is_a_dense_layer_on_every_pixel(window: Window) -> None:
    x, b = window.draw((window.batch, *window.shape, window.inward), (window.outward,))
    (W,) = window.draw((window.inward, window.outward))
    y = convolution.conv2d_forward(x, W[None, None], b, stride=1, pad=0)
    flat = x.reshape(-1, window.inward)
    np.testing.assert_array_equal(y.reshape(-1, window.outward), dense.dense_forward(flat, W, b))
    dx, dW, db = convolution.conv2d_backward(y, x, W[None, None], stride=1, pad=0)
    expected = dense.dense_backward(y.reshape(-1, window.outward), flat, W)
    np.testing.assert_array_equal(dx.reshape(flat.shape), expected[0])
    np.testing.assert_array_equal(dW[0, 0], expected[1])
    np.testing.assert_array_equal(db, expected[2])


@given(windows())
def test_float32_is_float64_rounded(window: Window) -> None:
    rng = np.random.default_rng(window.seed)
    x, W, b, y = (rng.standard_normal(a.shape).astype("float32") for a in window.arrays())
    c = rng.standard_normal(window.inward).astype("float32")
    covered, sliding = window.kernel**2, window.sliding

    def both(change: Any) -> tuple[np.ndarray, np.ndarray]:
        x_, W_, b_, y_, c_ = map(change, (x, W, b, y, c))
        there = convolution.conv2d_forward(x_, W_, b_, *sliding)
        return there, convolution.conv_transpose2d_forward(y_, W_, c_, window.shape, *sliding)

    got, exact = both(np.positive), both(lambda a: a.astype("float64"))
    size = both(lambda a: np.abs(a.astype("float64")))
    terms = covered * window.inward + 1, window.outward + covered + 1  # a rounding for each
    for i in range(2):
        assert got[i].dtype == np.float32
        assert_within(got[i], exact[i], terms[i] * eps_of("float32") * size[i])


@given(windows())
def test_shapes_whatever_remainder_the_stride_leaves(window: Window) -> None:
    x, W, b, y = window.arrays()
    down, across = (convolution.output_size(n, window.kernel, *window.sliding) for n in window.shape)
    assert (down, across) == window.places
    assert convolution.conv2d_forward(x, W, b, *window.sliding).shape == y.shape
    c = np.zeros(window.inward)
    assert convolution.conv_transpose2d_forward(y, W, c, window.shape, *window.sliding).shape == x.shape


# ---------------------------------------------------------------------------------------------------------------- bugs

TRUE_PATCHES, TRUE_CONV, TRUE_BACKWARD = convolution.patches, convolution.conv2d_forward, convolution.conv2d_backward


def folded(rows: Any, shape: tuple[int, int], stride: int, pad: int, add: bool = True, crop: int | None = None) -> Any:
    n, down, across, kernel, _, c = rows.shape
    (h, w), crop = shape, pad if crop is None else crop
    canvas = np.zeros((n, h + 2 * pad, w + 2 * pad, c), rows.dtype)
    for i, j in np.ndindex(kernel, kernel):
        at = canvas[:, i : i + stride * down : stride, j : j + stride * across : stride]
        at[...] = (at if add else 0) + rows[:, :, :, i, j]
    return canvas[:, crop : crop + h, crop : crop + w]


def padded_at_the_end(x: Any, kernel: int, stride: int, pad: int) -> Any:
    return TRUE_PATCHES(np.pad(x, [(0, 0), (0, 2 * pad), (0, 2 * pad), (0, 0)]), kernel, stride, 0)


def untransposed(x: Any, W: Any, b: Any, shape: tuple[int, int], stride: int, pad: int) -> Any:
    k, _, channels, out = W.shape
    rows = x.reshape(-1, out) @ W.reshape(out, -1)  # the right shape, the wrong order
    return convolution.fold(rows.reshape(*x.shape[:3], k, k, channels), shape, stride, pad) + b


def flipped_backward(dy: Any, x: Any, W: Any, stride: int, pad: int) -> Any:
    dx, dW, db = TRUE_BACKWARD(dy, x, W[::-1, ::-1], stride, pad)
    return dx, dW[::-1, ::-1], db


def scaled(i: int, factor: float) -> Any:
    return lambda results: tuple(r * factor if j == i else r for j, r in enumerate(results))


BUGS: dict[str, tuple[Plant, Any]] = {
    "the last patch overwrites the others": (
        instead(convolution, "fold", lambda *a: folded(*a, add=False)), test_each_is_the_others_adjoint),
    "the border is cut off at the end": (
        instead(convolution, "fold", lambda *a: folded(*a, crop=0)), test_each_is_the_others_adjoint),
    "the border is added at the end, both ways": (
        both(instead(convolution, "patches", padded_at_the_end),
             instead(convolution, "fold", lambda *a: folded(*a, crop=0))),
        test_conv2d_is_scipys_correlation_of_each_pair_of_channels),
    "a flipped kernel, both ways": (
        both(instead(convolution, "conv2d_forward", lambda x, W, b, stride, pad: TRUE_CONV(
                x, W[::-1, ::-1], b, stride, pad)),
             instead(convolution, "conv2d_backward", flipped_backward)), test_conv2d_is_four_loops),
    "a flipped kernel in dx": (
        instead(convolution, "conv2d_backward", lambda dy, x, W, *sliding: (
            flipped_backward(dy, x, W, *sliding)[0], *TRUE_BACKWARD(dy, x, W, *sliding)[1:])),
        test_each_backward_is_the_others_forward),
    "dW averaged": (
        after(convolution, "conv2d_backward", scaled(1, 0.5)), test_each_backward_is_the_others_forward),
    "db of the first place of each image": (
        instead(convolution, "conv2d_backward", lambda dy, *a: (
            *TRUE_BACKWARD(dy, *a)[:2], dy[:, 0, 0].sum(axis=0))), test_each_backward_is_the_others_forward),
    "the border counts once": (
        instead(convolution, "output_size", lambda size, kernel, stride, pad: (size + pad - kernel) // stride + 1),
        test_shapes_whatever_remainder_the_stride_leaves),
    "W not transposed": (
        instead(convolution, "conv_transpose2d_forward", untransposed),
        test_the_transposed_convolution_is_the_transposed_matrix),
    "the transposed bias gradient averaged": (
        after(convolution, "conv_transpose2d_backward", scaled(2, 1 / 35)), test_each_backward_is_the_others_forward),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, *BUGS[bug])
