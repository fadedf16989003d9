"""The usual models by a few numbers: their layers, names and start, images, and what is impossible."""

import math
from typing import Any

import numpy as np
import pytest
from strategies import EVERY_FUSED, assert_within, eps_of

import tinyvae
from tinyvae.layers.starts import HEAD_GAIN
from tinyvae.ops import convolution
from tinyvae.ops.activations import ACTIVATIONS

EPS = eps_of("float64")
EVERY = ["reference", *EVERY_FUSED]
KERNEL, STRIDE, PAD = 4, 2, 1  # of the convolutions that these models have
IMAGE_SHAPES = [(28, 28), (8, 8), (7, 5), (4, 9)]


def conv_model(shape: tuple[int, int], conv: tuple[int, ...] = (3,), **options: Any) -> tinyvae.VAE:
    return tinyvae.VAE(shape[0] * shape[1], (), 3, conv=conv, image_shape=shape, **options)


# -------------------------------------------------------------------------------------------------------------- widths


def test_the_decoder_mirrors_the_encoder_unless_it_has_widths_of_its_own() -> None:
    mirrored, own = tinyvae.VAE(9, (7, 5), 2), tinyvae.VAE(9, (7, 5), 2, decoder_hidden=(4,))
    assert [mirrored.params[f"decoder.{i}.weight"].shape for i in range(3)] == [(2, 5), (5, 7), (7, 9)]
    assert [own.params[f"decoder.{i}.weight"].shape for i in range(2)] == [(2, 4), (4, 9)]
    assert "decoder.2.weight" not in own.params


def test_each_likelihood_has_the_outputs_it_needs() -> None:
    width = lambda likelihood: tinyvae.VAE(6, (5,), 2, likelihood=likelihood).params["decoder.1.weight"].shape
    assert width("gaussian:sigma=predicted") == (5, 2 * 6)
    assert width("gaussian:sigma=fixed:0.3") == width("bernoulli") == width("poisson") == (5, 6)


def test_tied_weights_have_no_names_of_their_own_and_collect_both_gradients() -> None:
    tied = tinyvae.VAE(6, (5, 4), 2, tied=True, activation="tanh", dtype="float64")
    free = tinyvae.VAE(6, (5, 4), 2, activation="tanh", dtype="float64")
    rng = np.random.default_rng(0)
    tied.params.flat += 0.3 * rng.standard_normal(tied.params.flat.shape)
    assert set(free.params) - set(tied.params) == {f"decoder.{i}.weight" for i in range(3)}
    for name in tied.params:
        free.params[name][...] = tied.params[name]
    shared = [(0, slice(2)), (1, slice(None)), (2, slice(None))]  # of the head, the half that makes mu
    for i, half in shared:
        free.params[f"decoder.{i}.weight"][...] = tied.params[f"encoder.{2 - i}.weight"][:, half].T
    x, eps = rng.uniform(0, 1, (4, 6)), rng.standard_normal((4, 2))
    off = 1e4 * EPS  # 6 layers, of sums of less than 10 terms
    assert_within(tied.loss_and_grad(x, eps), free.loss_and_grad(x, eps), off)
    for i, half in shared:
        expected = free.grads[f"encoder.{2 - i}.weight"].copy()
        expected[:, half] += free.grads[f"decoder.{i}.weight"].T
        assert_within(tied.grads[f"encoder.{2 - i}.weight"], expected, off)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "linear"])
def test_weights_start_as_he_or_glorot_say_and_biases_at_0(activation: str) -> None:
    model = tinyvae.VAE(300, (200,), 50, activation=activation, dtype="float64", seed=1)
    for name, p in model.params.items():
        if name.endswith("bias"):
            assert np.all(p == 0)
            continue
        fan_in, fan_out = p.shape
        first = name.split(".")[1] == "0"
        he = first and ACTIVATIONS[activation].rectifier
        variance = 2 / fan_in if he else 2 / (fan_in + fan_out)
        variance *= 1 if first else HEAD_GAIN**2
        limit = math.sqrt(3 * variance)  # of the uniform numbers with this variance
        assert (np.abs(p).max() > 1.5 * limit) == he  # normal numbers go beyond, uniform ones never
        # 5 standard errors of the variance (kurtosis 3 for normal numbers, less for uniform ones)
        assert abs(p.var() / variance - 1) < 5 * math.sqrt(2 / p.size)


# -------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("kernels", EVERY)
@pytest.mark.parametrize("shape", IMAGE_SHAPES)
def test_a_model_gives_back_images_of_the_size_it_was_given(shape: tuple[int, int], kernels: str) -> None:
    model = conv_model(shape, (2, 3), kernels=kernels)
    x = np.random.default_rng(0).uniform(0, 1, (4, model.data_dim))
    mu, logvar = model.encode(x)
    assert mu.shape == logvar.shape == (4, 3)
    assert model.decode(mu).shape == model.draw(mu, np.random.default_rng(0)).shape == x.shape


@pytest.mark.parametrize("shape", IMAGE_SHAPES)
def test_the_encoder_is_the_convolutions_and_then_the_dense_layer(shape: tuple[int, int]) -> None:
    model = conv_model(shape, (2, 3), dtype="float64", activation="tanh")
    rng = np.random.default_rng(1)
    model.params.flat += 0.1 * rng.standard_normal(model.params.flat.shape)
    p, x = model.params, rng.uniform(0, 1, (4, shape[0] * shape[1]))
    h, sizes = x.reshape(4, *shape, 1), []
    for i in range(2):
        sizes.append(h.shape[1:])
        W, b = p[f"encoder.conv{i}.weight"], p[f"encoder.conv{i}.bias"]
        h = np.tanh(convolution.conv2d_forward(h, W, b, STRIDE, PAD))
    assert h.shape[1:3] == tuple(
        (((n + 2 * PAD - KERNEL) // STRIDE + 1) + 2 * PAD - KERNEL) // STRIDE + 1 for n in shape
    )
    head = h.reshape(4, -1) @ p["encoder.0.weight"] + p["encoder.0.bias"]
    # some hundred roundings of sums of terms of size 1
    assert_within(np.hstack(model.encode(x)), head, 1e3 * EPS)
    z = rng.standard_normal((4, 3))
    h = np.tanh(z @ p["decoder.0.weight"] + p["decoder.0.bias"]).reshape(h.shape)
    for i, size in enumerate(reversed(sizes)):
        W, b = p[f"decoder.conv{i}.weight"], p[f"decoder.conv{i}.bias"]
        h = convolution.conv_transpose2d_forward(h, W, b, size[:2], STRIDE, PAD)
        h = np.tanh(h) if i == 0 else h
    assert_within(model.decode(z), 1 / (1 + np.exp(-h.reshape(4, -1))), 1e3 * EPS)


@pytest.mark.parametrize("shape", [(1, 63), (63, 1), (2, 2), (3, 3), (9, 7), (28, 28)])
def test_as_many_convolutions_as_fit_can_be_used_and_no_more(shape: tuple[int, int]) -> None:
    fit, smallest = 0, min(shape)
    while smallest + 2 * PAD >= KERNEL:
        fit, smallest = fit + 1, smallest // 2  # each halves: (n + 2 - 4) // 2 + 1 = n // 2
    model = conv_model(shape, (2,) * fit)
    assert model.decode(np.zeros((1, 3))).shape == (1, shape[0] * shape[1])
    with pytest.raises(ValueError, match=rf"too small for {fit + 1} convolutions: use {fit}"):
        conv_model(shape, (2,) * (fit + 1))


@pytest.mark.parametrize("kernels", EVERY)
def test_a_batch_is_its_rows_and_a_small_batch_after_a_large_one_is_right(kernels: str) -> None:
    model = conv_model((7, 5), (2, 3), kernels=kernels, activation="elu")
    x = np.random.default_rng(3).uniform(0, 1, (9, 35))
    whole = model.encode(x)[0]
    few = model.encode(x[:2])[0]
    assert_within(few, whole[:2], 200 * eps_of("float32"))  # sums of at most 64 terms of size 1, three layers of them


# ---------------------------------------------------------------------------------------------------------- impossible

PREDICTED = "make one number for each of the data, but the likelihood needs mean and logvar"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_dim": 0}, "data_dim must be a whole number, at least 1, not 0"),
        ({"data_dim": 7.0}, r"data_dim .* not 7\.0"),
        ({"latent_dim": -1}, "latent_dim .* not -1"),
        ({"latent_dim": True}, "latent_dim .* not True"),
        ({"hidden": (5, 0)}, "hidden .* not 0"),
        ({"hidden": 5}, r"hidden must be a list of widths, such as \[400\], not 5"),
        ({"decoder_hidden": (5, "x")}, "decoder_hidden .* not 'x'"),
        ({"activation": "swosh"}, "activation must be one of linear, relu, .* not 'swosh'"),
        ({"likelihood": "cauchy"}, "likelihood must be one of bernoulli, .* not 'cauchy'"),
        ({"tied": True, "decoder_hidden": (3,)}, r"mirrors the encoder: decoder_hidden must be \(4,\)"),
        ({"tied": True, "likelihood": "gaussian:sigma=predicted"}, f"tied weights {PREDICTED}"),
        ({"tied": True, "batch_norm": True}, "tied weights do not go with batch normalization"),
        ({"tied": True, "classes": 3}, r"tied weights do not go with labels \(classes\)"),
        ({"conv": (4,)}, "convolutions need images"),
        ({"conv": (4,), "image_shape": (63,)}, "convolutions need images"),
        ({"conv": (4,), "image_shape": 5}, "convolutions need images"),
        ({"conv": (4,), "image_shape": (8, 8)}, "image_shape is 8 x 8 = 64 pixels, but data_dim is 63"),
        ({"conv": (4,), "image_shape": (9, 0)}, "image_shape must be a whole number, at least 1, not 0"),
        ({"conv": (0,), "image_shape": (9, 7)}, "conv must be a whole number, at least 1, not 0"),
        ({"conv": 4, "image_shape": (9, 7)}, "conv must be a list of widths"),
        ({"conv": (1.5,), "image_shape": (9, 7)}, "conv must be a whole number"),
        ({"conv": (4,), "image_shape": (9, 7), "tied": True}, "tied weights do not go with convolutions"),
        ({"conv": (4,), "image_shape": (9, 7), "likelihood": "gaussian:sigma=predicted"}, f"convolutions {PREDICTED}"),
        ({"dtype": "float16"}, "dtype must be 'float32' or 'float64', not 'float16'"),
        ({"kernels": "fast"}, "kernels must be one of fused, numpy, numba, cuda, reference, not 'fast'"),
        ({"backend": "torch"}, "backend must be 'auto', 'numpy' or 'cupy', not 'torch'"),
    ],
)  # fmt: skip
def test_an_impossible_model_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        tinyvae.VAE(**({"data_dim": 63, "hidden": (4,), "latent_dim": 2} | options))
    assert "\n" not in str(error.value)
