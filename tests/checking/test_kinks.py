"""Every unit of a kinked activation is watched, wherever it stands, and the objective's kinks as well."""

import numpy as np
import pytest

import tinyvae
from tinyvae.checking.kinks import Watching, sides_of_model
from tinyvae.kernels.contract import Rows
from tinyvae.layers import BatchNorm, Conv, ConvTranspose, Dense, Labelled, Layer, Residual, Tied
from tinyvae.layers.layer import Bound, Context
from tinyvae.objectives.elbo import ELBO
from tinyvae.objectives.iwae import IWAE
from tinyvae.ops.activations import LINEAR
from tinyvae.ops.normalization import batch_norm_forward

ROWS = 4
LAYERS: list[Layer] = [
    Dense(3, 5, "relu"), Dense(3, 5, "leaky-relu"), Labelled(3, 5, "relu", count=2), Tied(Dense(5, 3), 3, "relu"),
    Conv((3, 4, 2), 2, "relu"), ConvTranspose((3, 4, 2), 2, "relu"), BatchNorm(6, 3, "relu"),
]  # fmt: skip


def watched(layer: Layer) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """x, y, the parameters and what was seen."""
    rng, k = np.random.default_rng(0), Watching()
    every = {p.name: p.shape for p in layer.params()}
    for at, other in layer.shares().items():
        every |= {f"{at}.{p.name}": p.shape for p in other.params()}
    p = {name: rng.standard_normal(shape) for name, shape in every.items()}
    x = rng.standard_normal((ROWS, layer.inputs))
    y = k.run([Bound(layer, p, {})], Rows(x, LINEAR), Context(True, np.arange(ROWS) % 2 if layer.classes() else None))
    return x, y, p, k.found()


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_the_side_of_every_unit_is_seen(layer: Layer) -> None:
    _, y, _, seen = watched(layer)
    assert (y > 0).any()
    assert not (y > 0).all()
    assert len(seen) % y.size == 0
    assert len(seen) >= y.size
    for again in seen.reshape(-1, y.size):
        np.testing.assert_array_equal(again, (y > 0).ravel())


def test_units_inside_of_a_layer_are_seen_too() -> None:
    x, _, p, seen = watched(Residual(3, 5, "relu"))
    np.testing.assert_array_equal(seen, (x @ p["weight"] + p["bias"] > 0).ravel())


@pytest.mark.parametrize("layer", [Dense(3, 5, "elu"), Residual(3, 5, "swish"), Dense(3, 5)], ids=repr)
def test_where_nothing_is_kinked_nothing_is_seen(layer: Layer) -> None:
    assert not watched(layer)[3].size


def test_of_a_model_units_of_both_halves_and_the_allowance_are_seen() -> None:
    model = tinyvae.VAE(5, (4,), 2, batch_norm=True, dtype="float64", classes=3)
    rng = np.random.default_rng(1)
    model.params.flat += 0.3 * rng.standard_normal(model.params.flat.shape)
    x, eps, y = rng.uniform(0, 1, (6, 5)), rng.standard_normal((12, 2)), np.arange(6) % 3
    x[0, 0] = np.nan
    plain = sides_of_model(model, IWAE(2), x, eps, y)
    with_allowance = sides_of_model(model, ELBO(free_bits=0.1, draws=2), x, eps, y)
    np.testing.assert_array_equal(with_allowance[: plain.size], plain)
    look = model.look(x, eps.reshape(6, 2, 2), y, training=True)
    np.testing.assert_array_equal(with_allowance[plain.size :], look.kl.mean(axis=0) > 0.1)
    p = model.params
    a = np.where(np.isnan(x), 0, x) @ p["encoder.0.weight"][:5] + p["encoder.0.weight"][5:][y]
    h = batch_norm_forward(a, p["encoder.0.scale"], p["encoder.0.bias"])[0]
    np.testing.assert_array_equal(plain[: h.size], (h > 0).ravel())
    assert plain.size == (6 + 12) * 4
