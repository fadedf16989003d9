"""The public model: names, shapes, seeds, the straight transcription it must agree with, and errors."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from strategies import EVERY_FUSED, ULP, assert_within, eps_of

import tinyvae
from tinyvae.model.architecture import Architecture
from tinyvae.model.vae import CHUNK

EPS = eps_of("float64")
DATA, LATENT = 6, 2
KINDS: dict[str, dict[str, Any]] = {
    "bernoulli": {},
    "no hidden layer": {"hidden": ()},
    "deep, own decoder": {"hidden": (5, 4), "decoder_hidden": (3,), "activation": "elu"},
    "tied": {"hidden": (5, 4), "tied": True},
    "tied, no hidden layer": {"hidden": (), "tied": True},
    "gaussian, fixed": {"likelihood": "gaussian:sigma=fixed:0.3"},
    "gaussian, learned": {"likelihood": "gaussian", "activation": "softplus"},
    "gaussian, columns": {"likelihood": "gaussian:sigma=columns"},
    "gaussian, predicted": {"likelihood": "gaussian", "sigma": "predicted", "activation": "sigmoid"},
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
EVERY_KERNEL = pytest.mark.parametrize("kernels", ["reference", *EVERY_FUSED])


def make(kind: str = "bernoulli", seed: int = 0, **more: Any) -> tinyvae.VAE:
    """A small model of that kind, with nothing at 0."""
    arguments = {"hidden": (5,), "activation": "tanh", "dtype": "float64"} | KINDS[kind] | more
    model = tinyvae.VAE(DATA, latent_dim=LATENT, seed=seed, **arguments)
    model.params.flat += (0.3 * np.random.default_rng(seed).standard_normal(model.params.flat.shape)).astype(
        model.dtype
    )
    return model


def batch(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, (rows, DATA)), rng.standard_normal((rows, LATENT))


# --------------------------------------------------------------------------------- a second, independent transcription


def plain_activation(name: str, a: np.ndarray) -> np.ndarray:
    return {
        "relu": lambda: np.where(a > 0, a, 0),
        "tanh": lambda: (np.exp(a) - np.exp(-a)) / (np.exp(a) + np.exp(-a)),
        "sigmoid": lambda: 1 / (1 + np.exp(-a)),
        "softplus": lambda: np.log(1 + np.exp(a)),
        "elu": lambda: np.where(a > 0, a, np.exp(a) - 1),
    }[name]()


def plain_layers(model: tinyvae.VAE, part: str, h: np.ndarray) -> np.ndarray:
    p, a = model.params, model.architecture
    assert isinstance(a, Architecture)
    last = len(a.hidden if part == "encoder" else a.decoder_hidden)
    for i in range(last + 1):
        if part == "decoder" and a.tied:
            W = p[f"encoder.{last - i}.weight"].T
            W = W[: a.latent_dim] if i == 0 else W  # the half of the head that makes mu
        else:
            W = p[f"{part}.{i}.weight"]
        h = np.einsum("ni,io->no", h, W) + p[f"{part}.{i}.bias"]
        h = h if i == last else plain_activation(a.activation, h)
    return h


def plain_nll(kind: str, model: tinyvae.VAE, x: np.ndarray, output: np.ndarray) -> np.ndarray:
    """-log p of each number, (rows, data)."""
    if not kind.startswith("gaussian"):
        p = 1 / (1 + np.exp(-output))
        return -(x * np.log(p) + (1 - x) * np.log(1 - p))
    mean, sigma = output[:, :DATA], np.array(0.3)
    if "likelihood.logvar" in model.params:
        sigma = np.exp(model.params["likelihood.logvar"] / 2)
    if kind == "gaussian, predicted":
        sigma = np.exp(output[:, DATA:] / 2)
    return -np.log(np.exp(-(((x - mean) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi)))


# These networks have fewer than 10 terms in a sum, 6 layers, and values below 30; the naive formulas lose up to e^7 in
# exp(-r^2 / 2) or in 1 - p near 1, as none of the rows is further out. So at most this:
PLAIN = 6 * 10 * 2 * ULP * 30 * math.exp(7) * EPS


@EVERY_KERNEL
@EVERY_KIND
@pytest.mark.parametrize("observed", [1.0, 0.6])
def test_everything_agrees_with_a_plain_transcription(kind: str, kernels: str, observed: float) -> None:
    """What was not observed is NaN: the encoder sees 0 there, and it costs nothing."""
    model = make(kind, kernels=kernels)
    x, eps = batch(7)
    seen = np.random.default_rng(1).random(x.shape) < observed
    head = plain_layers(model, "encoder", x * seen)
    mu, sigma = head[:, :LATENT], np.exp(head[:, LATENT:] / 2)
    z = mu + sigma * eps
    output = plain_layers(model, "decoder", z)
    nll = (plain_nll(kind, model, x, output) * seen).sum(axis=1)
    x = np.where(seen, x, np.nan)
    kl = (mu**2 + sigma**2 - 1) / 2 - np.log(sigma)
    mean = 1 / (1 + np.exp(-output)) if not kind.startswith("gaussian") else output[:, :DATA]

    assert_within(np.concatenate(model.encode(x), axis=1), head, PLAIN)
    assert_within(model.decode(z), mean, PLAIN)
    assert_within(model.log_p_x_given_z(x, z), -nll, PLAIN)
    rows_nll, rows_kl = model.rows_loss(x, eps)
    assert_within(rows_nll, nll, PLAIN)
    assert_within(rows_kl, kl, PLAIN)
    expected = (nll.mean() + 2 * kl.sum(axis=1).mean(), nll.mean(), kl.sum(axis=1).mean())
    assert_within(model.loss(x, eps, beta=2.0), expected, PLAIN)
    assert_within(model.loss_and_grad(x, eps, beta=2.0), expected, PLAIN)
    charged = np.maximum(kl.mean(axis=0), 0.5).sum()
    assert_within(model.loss(x, eps, 2.0, free_bits=0.5), (nll.mean() + 2 * charged, *expected[1:]), PLAIN)


# ------------------------------------------------------------------------------------------------ names, shapes, seeds


def test_the_signature_and_its_defaults() -> None:
    defaults = {p.name: p.default for p in inspect.signature(tinyvae.VAE).parameters.values()}
    expected = {"hidden": (400,), "latent_dim": 20, "likelihood": "bernoulli", "activation": "relu", "seed": 0}
    assert {name: defaults[name] for name in expected} == expected
    assert (defaults["backend"], defaults["dtype"], defaults["kernels"]) == ("numpy", "float32", None)
    model = tinyvae.VAE(
        data_dim=784, hidden=(400,), latent_dim=20, likelihood="bernoulli", activation="relu", backend="numpy",
        dtype="float64", seed=0,
    )  # fmt: skip
    assert {name: p.shape for name, p in model.params.items()} == {
        "encoder.0.weight": (784, 400), "encoder.0.bias": (400,), "encoder.1.weight": (400, 40),
        "encoder.1.bias": (40,), "decoder.0.weight": (20, 400), "decoder.0.bias": (400,),
        "decoder.1.weight": (400, 784), "decoder.1.bias": (784,),
    }  # fmt: skip
    losses = model.loss_and_grad(np.full((2, 784), 0.5), np.zeros((2, 20)))
    assert [type(value) for value in losses] == [float] * 3
    assert losses._fields == ("loss", "nll", "kl")


@EVERY_KIND
def test_params_and_grads_are_named_views_on_one_flat_buffer_each(kind: str) -> None:
    model = make(kind)
    for mapping in (model.params, model.grads):
        assert isinstance(mapping, Mapping)
        assert not hasattr(mapping, "__setitem__")
        assert not hasattr(mapping, "__delitem__")
        mapping.flat[...] = np.arange(mapping.flat.size)
        laid_out = np.concatenate([view.ravel() for view in mapping.values()])
        assert np.array_equal(laid_out, np.arange(mapping.flat.size))
        for name, view in mapping.items():
            assert np.shares_memory(view, mapping.flat)
            view[...] = -1
            assert mapping[name].shape == model.params.shapes[name]
        assert np.all(mapping.flat == -1)
    assert list(model.params) == list(model.grads)
    assert f"{model.params.flat.size:,} numbers" in repr(model.params)


@EVERY_KIND
def test_a_seed_gives_the_same_weights_in_both_dtypes_and_another_seed_others(kind: str) -> None:
    def weights(**arguments: Any) -> np.ndarray:
        return tinyvae.VAE(DATA, **({"hidden": (5,), "latent_dim": LATENT} | KINDS[kind] | arguments)).params.flat

    assert np.array_equal(weights(seed=3), weights(seed=3))
    assert not np.array_equal(weights(seed=3), weights(seed=4))
    assert np.array_equal(weights(seed=3, dtype="float32"), weights(seed=3, dtype="float64").astype(np.float32))
    assert np.array_equal(weights(seed=3, kernels="reference"), weights(seed=3, kernels="fused"))


# ------------------------------------------------------------------------------------------- any number of rows, fresh


@EVERY_KIND
def test_results_are_fresh_arrays_that_the_next_call_leaves_alone(kind: str) -> None:
    model = make(kind)
    (x, eps), (other_x, other_eps) = batch(4, seed=1), batch(4, seed=2)
    calls = [
        lambda x, eps: model.encode(x),
        lambda x, eps: (model.decode(eps),),
        lambda x, eps: (model.sample(4, np.random.default_rng(int(1e6 * x[0, 0]))),),
        lambda x, eps: model.rows_loss(x, eps),
        lambda x, eps: (model.log_p_x_given_z(x, eps),),
    ]
    for i, call in enumerate(calls):
        first = call(x, eps)
        kept = [a.copy() for a in first]
        second = call(other_x, other_eps)
        model.loss_and_grad(other_x, other_eps)
        for a, before, after in zip(first, kept, second, strict=True):
            assert np.array_equal(a, before), f"call {i}"
            assert not np.array_equal(a, after), f"call {i}"
            assert not np.shares_memory(a, after), f"call {i}"


def test_more_rows_than_a_chunk_are_the_same_rows() -> None:
    model, rows = make(), 2 * CHUNK + 3
    x, eps = batch(rows)
    order = [0, CHUNK - 1, CHUNK, 2 * CHUNK, rows - 1]
    # matrix products of other heights may add up in another order: sums of fewer than 10 terms below 30, 6 layers deep
    bound = 6 * 20 * 30 * EPS
    for many, few in [
        (np.concatenate(model.encode(x), axis=1), np.concatenate(model.encode(x[order]), axis=1)),
        (model.decode(eps), model.decode(eps[order])),
        (np.column_stack(model.rows_loss(x, eps)), np.column_stack(model.rows_loss(x[order], eps[order]))),
        (model.log_p_x_given_z(x, eps)[:, None], model.log_p_x_given_z(x[order], eps[order])[:, None]),
    ]:
        assert many.shape == (rows, few.shape[1])
        assert_within(many[order], few, bound)


def test_samples_are_decoded_draws_from_the_prior_and_repeat_with_their_generator() -> None:
    model = make()
    z = np.random.default_rng(5).standard_normal((3, LATENT))
    assert np.array_equal(model.sample(3, np.random.default_rng(5)), model.decode(z))


@EVERY_KERNEL
def test_a_smaller_batch_after_a_larger_one_and_back_gives_what_a_new_model_gives(kernels: str) -> None:
    used = make("tied", kernels=kernels)
    for rows in (9, 4, 1, 9, 17, 2):
        x, eps = batch(rows, seed=rows)
        new = make("tied", kernels=kernels)
        assert used.loss_and_grad(x, eps) == new.loss_and_grad(x, eps)
        assert np.array_equal(used.grads.flat, new.grads.flat)


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("method", ["loss_and_grad", "loss", "rows_loss"])
def test_bad_data_is_a_value_error_that_says_what_is_wrong(method: str) -> None:
    x, eps = batch(3)
    call, gaussian_call = getattr(make(), method), getattr(make("gaussian, learned"), method)
    hole = np.where(np.arange(DATA) == 2, np.nan, x)
    for f in (call, gaussian_call):
        for bad, bad_eps, message in [
            (np.where(np.isnan(hole), -np.inf, x), eps, "NaN or infinite"),
            (np.where(np.arange(DATA) == 4, np.inf, hole), eps, "NaN or infinite"),
            (x[:, :-1], eps, r"x must have shape \(rows, 6\), with at least one row, not \(3, 5\)"),
            (x[0], eps, r"x must have shape .* not \(6,\)"),
            (x[:0], eps[:0], r"at least one row, not \(0, 6\)"),
            (x, eps[:, :1], r"eps must have shape \(rows, 2\), .* not \(3, 1\)"),
            (x, eps[:2], "x has 3 rows and eps has 2"),
        ]:
            with pytest.raises(ValueError, match=message):
                f(bad, bad_eps)
    with pytest.raises(ValueError, match=r"\[0, 255\].*divided by 255"):
        call(np.array([[0, 1, 2, 3, 4, 255]] * 3), eps)
    with pytest.raises(ValueError, match=r"needs \[0, 1\].*gaussian") as error:
        call(-x, eps)
    assert "255" not in str(error.value)
    gaussian_call(-x, eps)  # real values are what it is for


@EVERY_KERNEL
@pytest.mark.parametrize(("x_rows", "z_rows"), [(3, 1), (1, 3), (2, 3)])
def test_log_p_x_given_z_needs_a_z_for_each_x(x_rows: int, z_rows: int, kernels: str) -> None:
    with pytest.raises(ValueError, match=f"{x_rows} rows.* {z_rows}"):
        make(kernels=kernels).log_p_x_given_z(batch(x_rows)[0], batch(z_rows)[1])


def test_a_decoders_input_must_be_a_matrix_of_the_latent_width() -> None:
    with pytest.raises(ValueError, match=r"z must have shape \(rows, 2\)"):
        make().decode(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"x must have shape \(rows, 6\)"):
        make().encode(np.zeros((3, 4)))
