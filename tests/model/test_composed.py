"""Models of layers that are given one by one: widths, names by position, text and back."""

import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
from planted import assert_killed, instead
from strategies import assert_within, eps_of

import tinyvae
from tinyvae import layers, likelihoods, parts
from tinyvae.checking.examples import all_layers, text
from tinyvae.checking.models import CASES, build
from tinyvae.layers import BatchNorm, Conv, ConvTranspose, Dense, Labelled, Layer, Residual, Tied
from tinyvae.layers.starts import HEAD_GAIN
from tinyvae.model.composed import Composed

OFF = 1e4 * eps_of("float64")  # a few layers, of sums of less than 100 terms


def small(**options: Any) -> tinyvae.VAE:
    encoder = [Dense(12, 7, "relu"), Residual(7, 4), BatchNorm(7, 7, "swish"), Dense(7, 6, gain=0.1)]
    return tinyvae.VAE(encoder=encoder, decoder=[Dense(3, 7, "gelu"), Dense(7, 12)], dtype="float64", **options)


def test_names_are_by_position_and_sizes_are_read_off_the_layers() -> None:
    model = small()
    assert (model.data_dim, model.latent_dim, model.classes) == (12, 3, 0)
    assert list(model.params) == [
        "encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "encoder.1.bias", "encoder.1.weight_out",
        "encoder.1.bias_out", "encoder.2.bias", "encoder.2.scale", "encoder.2.running_mean", "encoder.2.running_var",
        "encoder.3.weight", "encoder.3.bias", "decoder.0.weight", "decoder.0.bias", "decoder.1.weight",
        "decoder.1.bias",
    ]  # fmt: skip
    assert model.params["encoder.1.weight"].shape == (7, 4)
    assert "residual:inputs=7,hidden=4" in repr(model)


def test_dense_layers_one_by_one_are_the_model_of_their_widths() -> None:
    """The same start, the same numbers."""
    widths = tinyvae.VAE(12, (7, 5), 3, activation="tanh", dtype="float64", seed=4)
    head: dict[str, Any] = {"gain": HEAD_GAIN}
    model = tinyvae.VAE(
        encoder=[Dense(12, 7, "tanh"), Dense(7, 5, "tanh"), Dense(5, 6, **head)],
        decoder=[Dense(3, 5, "tanh"), Dense(5, 7, "tanh"), Dense(7, 12, **head)], dtype="float64", seed=4,
    )  # fmt: skip
    assert list(model.params) == list(widths.params)
    np.testing.assert_array_equal(model.params.flat, widths.params.flat)
    rng = np.random.default_rng(0)
    x, eps = rng.uniform(0, 1, (5, 12)), rng.standard_normal((5, 3))
    assert model.loss_and_grad(x, eps) == widths.loss_and_grad(x, eps)
    np.testing.assert_array_equal(model.grads.flat, widths.grads.flat)


def test_a_tied_and_a_labelled_model_are_those_of_the_options() -> None:
    rng = np.random.default_rng(0)
    x, eps, y = rng.uniform(0, 1, (5, 12)), rng.standard_normal((5, 3)), np.arange(5) % 4
    first, head = Dense(12, 7, "tanh"), Dense(7, 6)
    tied = tinyvae.VAE(encoder=[first, head], decoder=[Tied(head, 3, "tanh"), Tied(first, 7)], dtype="float64")
    labelled = tinyvae.VAE(
        encoder=[Labelled(12, 7, "tanh", count=4), Dense(7, 6)],
        decoder=[Labelled(3, 7, "tanh", count=4), Dense(7, 12)], dtype="float64",
    )  # fmt: skip
    cases: list[tuple[tinyvae.VAE, dict[str, Any], Any]] = [(tied, {"tied": True}, None), (labelled, {"classes": 4}, y)]
    for model, options, labels in cases:
        other = tinyvae.VAE(12, (7,), 3, activation="tanh", dtype="float64", **options)
        other.params.flat[...] = model.params.flat[...] = rng.standard_normal(model.params.flat.shape)
        assert list(other.params) == list(model.params)
        assert_within(model.loss_and_grad(x, eps, y=labels), other.loss_and_grad(x, eps, y=labels), OFF)
        assert_within(model.grads.flat, other.grads.flat, OFF * 10)


def test_colour_images_through_windows_of_any_kind() -> None:
    """Three channels, a stride that leaves a remainder, and a decoder that gives the size back."""
    first = Conv((7, 5, 3), 4, "relu", kernel=3, stride=2, pad=1)
    second = Conv(first.places, 6, "relu", kernel=2, stride=1, pad=0)
    model = tinyvae.VAE(
        encoder=[first, second, Dense(second.width, 8)],
        decoder=[
            Dense(4, second.width, "relu"), ConvTranspose(first.places, 6, "relu", kernel=2, stride=1, pad=0),
            ConvTranspose((7, 5, 3), 4, kernel=3, stride=2, pad=1),
        ],
    )  # fmt: skip
    assert (model.data_dim, model.latent_dim) == (7 * 5 * 3, 4)
    x = np.random.default_rng(0).uniform(0, 1, (5, 105)).astype("float32")
    assert model.decode(model.encode(x)[0]).shape == x.shape
    assert np.isfinite(model.loss_and_grad(x, np.zeros((5, 4), "float32"))).all()


# ------------------------------------------------------------------------------------------------------------- refused

D = Dense


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        ([D(12, 7), D(6, 6)], [D(3, 12)], "encoder.1 takes 6 numbers, but what comes before it makes 7"),
        ([D(12, 6)], [D(4, 12)], "decoder.0 takes 4 numbers, but what comes before it makes 3"),
        ([D(12, 6)], [D(3, 5), D(5, 11)], "decoder.1 makes 11 numbers, but the likelihood needs logits for each of 12"),
        ([D(12, 5)], [D(3, 12)], "encoder.0 makes mu and logvar: its width must be even, not 5"),
        ([D(12, 0)], [D(3, 12)], "encoder.0 must take and make at least 1 number, not 12 and 0"),
        ([], [D(3, 12)], "a model needs at least one layer in its encoder and one in its decoder"),
        ([D(12, 6)], [], "a model needs at least one layer in its encoder and one in its decoder"),
        ([D(12, 6, "swosh")], [D(3, 12)], "activation must be one of linear, relu, .* not 'swosh'"),
        ([D(12, 6)], [Tied(D(12, 3), 3)], "a Tied shares the weights of a layer that is not in the model"),
        ([Labelled(12, 6, count=3)], [Labelled(3, 12, count=4)], r"tell different numbers of labels apart: \[3, 4\]"),
        ([Conv((4, 4, 1), 2, kernel=7)], [D(3, 12)], "images of 4 x 4 pixels are too small for a window of 7 x 7"),
    ],
)  # fmt: skip
def test_layers_that_do_not_fit_are_refused_in_one_line(encoder: Any, decoder: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        tinyvae.VAE(encoder=encoder, decoder=decoder)
    assert "\n" not in str(error.value)


def test_a_layer_cannot_stand_in_two_places() -> None:
    twice = Dense(6, 6, "tanh")
    with pytest.raises(ValueError, match="a layer stands in two places: to share its weights take Tied"):
        tinyvae.VAE(encoder=[Dense(12, 6), twice, twice], decoder=[Dense(3, 12)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a model needs data_dim, or encoder and decoder as layers"),
        ({"encoder": [Dense(12, 6)]}, "give encoder and decoder as layers, or data_dim and the widths: not both"),
        ({"data_dim": 12, "encoder": [Dense(12, 6)], "decoder": [Dense(3, 12)]}, "not both"),
    ],
)
def test_layers_and_widths_do_not_go_together(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tinyvae.VAE(**arguments)


def test_a_likelihood_of_more_outputs_needs_as_many_from_the_decoder() -> None:
    predicted = "gaussian:sigma=predicted"
    with pytest.raises(
        ValueError, match=r"decoder\.0 makes 12 numbers, but the likelihood needs mean and logvar for each of 12"
    ):
        tinyvae.VAE(encoder=[Dense(12, 6)], decoder=[Dense(3, 12)], likelihood=predicted)
    tinyvae.VAE(encoder=[Dense(12, 6)], decoder=[Dense(3, 24)], likelihood=predicted)


# ---------------------------------------------------------------------------------------------------------------- text


def again(described: Composed, *known: type) -> Composed:
    """Through JSON, as a checkpoint holds it."""
    d = json.loads(json.dumps(described.to_dict()))
    return Composed.from_dict(d, likelihoods.likelihood(d["likelihood"]), known)


COMPOSED = [case for case in CASES if "encoder" in case.model]


@pytest.mark.parametrize("case", COMPOSED, ids=lambda case: case.name)
def test_text_and_back_is_the_same_model(case: Any) -> None:
    described = build(case).architecture
    assert isinstance(described, Composed)
    back = again(described)
    assert back.to_dict() == described.to_dict()
    assert back.shapes() == described.shapes()
    assert [type(n.layer) for half in back.halves() for n in half] == [
        type(n.layer) for half in described.halves() for n in half
    ]


@pytest.mark.parametrize("layer", [layer for layer in all_layers() if not layer.shares()], ids=text)
def test_every_option_of_every_layer_comes_back_from_its_text(layer: Layer) -> None:
    found = parts.part(layers, Layer, parts.text_of(layer))
    assert type(found) is type(layer)
    names = [f.name for f in fields(layer)]  # pyright: ignore[reportArgumentType] - every layer is a dataclass
    assert vars(found).keys() >= set(names)
    assert all(getattr(found, name) == getattr(layer, name) for name in names)


def test_a_tied_layers_text_names_the_layer_that_it_shares() -> None:
    first, head = Dense(12, 7, "tanh"), Dense(7, 6)
    model = tinyvae.VAE(encoder=[first, head], decoder=[Tied(head, 3, "tanh"), Tied(first, 7)])
    d = model.architecture.to_dict()
    assert d["decoder"] == ["tied:of=encoder.1,inputs=3,f=tanh", "tied:of=encoder.0,inputs=7"]
    back = again(model.architecture)  # pyright: ignore[reportArgumentType]
    assert back.decoder[1].of is back.encoder[0]  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True, eq=False)
class Mine(Dense):
    """A layer of the user's own."""


def test_a_layer_of_ones_own_needs_its_class_to_come_back() -> None:
    described = tinyvae.VAE(encoder=[Mine(12, 6)], decoder=[Dense(3, 12)]).architecture
    assert described.to_dict()["encoder"] == ["Mine:inputs=12,width=6"]
    with pytest.raises(ValueError, match=r"layer must be one of batch-norm, conv, .* not 'Mine'"):
        again(described)  # pyright: ignore[reportArgumentType]
    assert isinstance(again(described, Mine).encoder[0], Mine)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "dense"}, "encoder must be a list of layers, not 'dense'"),
        ({"encoder": [3]}, "encoder.0 must be text, not 3"),
        ({"encoder": ["lstm:inputs=12"]}, "layer must be one of .* not 'lstm'"),
        ({"encoder": ["dense:inputs=12"]}, "dense needs the option width"),
        ({"encoder": ["dense:inputs=12,width=six"]}, "dense:width must be a whole number, not 'six'"),
        ({"encoder": ["dense:inputs=12,width=6,depth=2"]}, "dense has the options .*, not 'depth=2'"),
        ({"encoder": ["dense:inputs=12,width=6,bias=maybe"]}, "dense:bias must be true or false, not 'maybe'"),
        ({"encoder": ["conv:image=4x3,channels=1"]}, "conv:image must be 3 numbers with x between them, not '4x3'"),
        ({"encoder": ["conv:image=4xax1,channels=1"]}, "conv:image must be a whole number, not 'a'"),
        ({"decoder": ["tied:of=encoder.7,inputs=3"]}, "tied:of must be Layer, not 'encoder.7'"),
        ({"decoder": ["dense:inputs=4,width=12"]}, "decoder.0 takes 4 numbers"),
    ],
)
def test_text_that_says_no_model_is_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    d = tinyvae.VAE(encoder=[Dense(12, 6)], decoder=[Dense(3, 12)]).architecture.to_dict() | change
    with pytest.raises(ValueError, match=message) as error:
        Composed.from_dict(d, likelihoods.likelihood("bernoulli"), ())
    assert "\n" not in str(error.value)


def test_a_planted_bug_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that is left away in the text."""
    true = parts.text_of
    forgetful = lambda thing, names=None: true(thing, names).replace(",bias=false", "")
    layer = next(layer for layer in all_layers() if text(layer).endswith("bias=false"))
    assert_killed(
        monkeypatch, instead(parts, "text_of", forgetful),
        lambda: test_every_option_of_every_layer_comes_back_from_its_text(layer),
    )  # fmt: skip
