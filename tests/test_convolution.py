"""Convolution, its transpose, and models made of them: loops written out, SciPy, and what adjoint means.

Most arrays hold small whole numbers. Their products and sums are exact in float64, so equality is exact too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal
from strategies import EVERY_FUSED, SEEDS, assert_within, eps_of

import tinyvae
from tinyvae.model.architecture import KERNEL, PAD, STRIDE, Architecture
from tinyvae.model.init import initial_weights
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


# ---------------------------------------------------------------------------------------------------------- operations


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


# -------------------------------------------------------------------------------------------------------------- models

IMAGE_SHAPES = [(28, 28), (8, 8), (7, 5), (4, 9)]


def conv_model(shape: tuple[int, int], conv: tuple[int, ...] = (3,), **options: Any) -> tinyvae.VAE:
    return tinyvae.VAE(shape[0] * shape[1], (), 3, conv=conv, image_shape=shape, **options)


@pytest.mark.parametrize("kernels", ["reference", *EVERY_FUSED])
@pytest.mark.parametrize("shape", IMAGE_SHAPES)
def test_a_model_gives_back_images_of_the_size_it_was_given(shape: tuple[int, int], kernels: str) -> None:
    model = conv_model(shape, (2, 3), kernels=kernels)
    x = np.random.default_rng(0).uniform(0, 1, (4, model.architecture.data_dim))
    mu, logvar = model.encode(x)
    assert mu.shape == logvar.shape == (4, 3)
    assert model.decode(mu).shape == model.draw(mu, np.random.default_rng(0)).shape == x.shape
    sizes = [[n, (n + 2 * PAD - KERNEL) // STRIDE + 1] for n in shape]
    assert [image[:2] for image in model.architecture.images[:2]] == list(zip(*sizes, strict=True))
    assert [image[2] for image in model.architecture.images] == [1, 2, 3]


@pytest.mark.parametrize("shape", IMAGE_SHAPES)
def test_the_encoder_is_the_convolutions_and_then_the_dense_layer(shape: tuple[int, int]) -> None:
    model = conv_model(shape, (2, 3), dtype="float64", activation="tanh")
    rng = np.random.default_rng(1)
    model.params.flat += 0.1 * rng.standard_normal(model.params.flat.shape)
    p, x = model.params, rng.uniform(0, 1, (4, shape[0] * shape[1]))
    h = x.reshape(4, *shape, 1)
    for i in range(2):
        h = np.tanh(convolution.conv2d_forward(h, p[f"encoder.conv{i}.weight"], p[f"encoder.conv{i}.bias"], 2, 1))
    head = h.reshape(4, -1) @ p["encoder.0.weight"] + p["encoder.0.bias"]
    # some hundred roundings of sums of terms of size 1
    assert_within(np.hstack(model.encode(x)), head, 1e3 * eps_of("float64"))
    z = rng.standard_normal((4, 3))
    h = np.tanh(z @ p["decoder.0.weight"] + p["decoder.0.bias"]).reshape(4, *model.architecture.images[2])
    for i, size in enumerate([model.architecture.images[1], model.architecture.images[0]]):
        W, b = p[f"decoder.conv{i}.weight"], p[f"decoder.conv{i}.bias"]
        h = convolution.conv_transpose2d_forward(h, W, b, size[:2], 2, 1)
        h = np.tanh(h) if i == 0 else h
    assert_within(model.decode(z), 1 / (1 + np.exp(-h.reshape(4, -1))), 1e3 * eps_of("float64"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": None}, "convolutions need images"),
        ({"image_shape": (63,)}, "convolutions need images"),
        ({"image_shape": 5}, "convolutions need images"),
        ({"image_shape": (8, 8)}, "image_shape is 8 x 8 = 64 pixels, but data_dim is 63"),
        ({"image_shape": (9, 0)}, "image_shape must be a whole number, at least 1, not 0"),
        ({"conv": (4, 4, 4, 4)}, "images of 9 x 7 pixels are too small for 4 convolutions: use 2"),
        ({"conv": (0,)}, "conv must be a whole number, at least 1, not 0"),
        ({"conv": 4}, "conv must be a list of widths"),
        ({"conv": (1.5,)}, "conv must be a whole number"),
        ({"tied": True}, "tied weights do not go with convolutions"),
        ({"tied": True, "conv": (), "batch_norm": True}, "tied weights do not go with batch normalization"),
        ({"tied": True, "conv": (), "classes": 3}, r"tied weights do not go with labels \(classes\)"),
        ({"likelihood": "gaussian", "sigma": "predicted"}, "convolutions have no output for a predicted sigma"),
    ],
)
def test_an_impossible_architecture_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tinyvae.VAE(63, (5,), 2, **{"conv": (4,), "image_shape": (9, 7), **options})


@pytest.mark.parametrize("shape", [(1, 63), (63, 1), (2, 2), (3, 3), (9, 7), (28, 28)])
def test_as_many_convolutions_as_fit_can_be_used_and_no_more(shape: tuple[int, int]) -> None:
    fit, smallest = 0, min(shape)
    while smallest + 2 * PAD >= KERNEL:
        fit, smallest = fit + 1, smallest // 2  # each halves: (n + 2 - 4) // 2 + 1 = n // 2
    model = conv_model(shape, (2,) * fit)
    assert model.decode(np.zeros((1, 3))).shape == (1, shape[0] * shape[1])
    with pytest.raises(ValueError, match=rf"too small for {fit + 1} convolutions: use {fit}"):
        conv_model(shape, (2,) * (fit + 1))


def test_initial_weights_keep_the_mean_square_before_a_rectifier_at_twice_the_inputs() -> None:
    """He et al. 2015: half of it is lost at the rectifier. Away from the border, where no window is cut off."""
    size, channels = 16, (32, 48)
    made = Architecture.checked(
        size * size, (), 2, None, "relu", "bernoulli", None, False, conv=channels, image_shape=(size, size)
    )
    flat, offset, params = initial_weights(made, seed=0), 0, {}
    for name, shape in made.shapes().items():
        params[name] = flat[offset : offset + int(np.prod(shape))].reshape(shape)
        offset += params[name].size
    assert offset == flat.size
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 16, 16, channels[0]))
    y = convolution.conv2d_forward(x, params["encoder.conv1.weight"], np.zeros(channels[1]), STRIDE, PAD)
    small = rng.standard_normal((20, 8, 8, channels[1]))
    image = convolution.conv_transpose2d_forward(
        small, params["decoder.conv0.weight"], np.zeros(channels[0]), (16, 16), STRIDE, PAD
    )
    for name, a in [("encoder", y), ("decoder", image)]:
        # 24,576 weights, and numbers of x as many as that or more: 1 % each; 5 of them
        assert np.mean(a[:, 1:-1, 1:-1] ** 2) == pytest.approx(2, rel=0.05), name
        assert not params[f"{name}.conv0.bias"].any()


@pytest.mark.parametrize("kernels", ["reference", *EVERY_FUSED])
def test_a_batch_is_its_rows_and_a_small_batch_after_a_large_one_is_right(kernels: str) -> None:
    model = conv_model((7, 5), (2, 3), kernels=kernels, activation="elu")
    x = np.random.default_rng(3).uniform(0, 1, (9, 35))
    whole = model.encode(x)[0]
    few = model.encode(x[:2])[0]
    assert_within(few, whole[:2], 200 * eps_of("float32"))  # sums of at most 64 terms of size 1, three layers of them
