"""Whole models "on CuPy" without a GPU: every kind of them, as on NumPy, and nothing copied that was not asked for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from both_backends import BACKENDS, assert_close
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture
from kinds import BY_NAME, DATA, EVERY, LATENT, ROWS, Kind, step

from tinyvae import VAE
from tinyvae.backend import get_backend, to_host
from tinyvae.kernels import select
from tinyvae.model.vae import CHUNK
from tinyvae.training.adam import Adam

each_kind = pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.name)


def pair(kind: Kind) -> tuple[VAE, VAE]:
    """The same model on NumPy and on the stand-in."""
    on_numpy, on_cupy = (kind.build(backend=name, dtype="float64", kernels="reference") for name in BACKENDS)
    return on_numpy, on_cupy


def assert_same_losses(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-13)


@each_kind
def test_losses_and_gradients_of_a_whole_model(fake_cupy: Any, kind: Kind) -> None:
    on_numpy, on_cupy = pair(kind)
    x, eps, y = kind.inputs()
    if kind.loss.samples > 1:
        eps = eps.reshape(ROWS, -1, LATENT)
    expected, actual = (model.loss_and_grad(x, eps, y=y, objective=kind.loss) for model in (on_numpy, on_cupy))
    assert all(type(value) is float for value in actual)
    assert_same_losses(actual, expected)
    assert_same_losses(on_cupy.loss(x, eps, y=y, training=True, objective=kind.loss), expected)
    assert list(on_cupy.grads) == list(on_numpy.grads)
    for name, grad in on_numpy.grads.items():
        assert grad.any() or ".running_" in name
        assert_close(on_cupy.grads[name], grad)
        assert_close(on_cupy.params[name], on_numpy.params[name])  # the running averages have moved on alike
    for a, e in zip(on_cupy.look(x, eps, y), on_numpy.look(x, eps, y), strict=True):
        assert_close(a, e)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_kind
def test_a_step_stays_on_the_device(fake_cupy: Any, kind: Kind, dtype: str) -> None:
    model = kind.build(dtype=dtype, backend="cupy", kernels="reference")
    x, eps, y = kind.inputs()
    x, eps = (model.backend.asarray(a, model.dtype) for a in (x, eps))
    y = None if y is None else model.backend.asarray(y)
    adam, draws = Adam(model), kind.loss.samples
    fake_cupy.reset_copies()
    for rows in (5, ROWS, 3):  # the buffers are made, made larger, and used again
        terms = step(model, kind, x[:rows], eps[: rows * draws], None if y is None else y[:rows])
        adam.step(lr=1e-2, clip_norm=0.5)
        for term in terms:
            assert isinstance(term, fake_cupy.ndarray)
            assert (term.shape, term.dtype) == ((1,), np.dtype(dtype))
        assert model.params.flat.dtype == np.dtype(dtype)
    assert (fake_cupy.host_copies, fake_cupy.device_copies) == (0, 0)
    assert np.isfinite(to_host(model.params.flat)).all()
    assert adam.t == 3


def test_the_copies_of_a_call_for_notebooks_are_few(fake_cupy: Any) -> None:
    kind = BY_NAME["bernoulli"]
    model = kind.build(backend="cupy")
    x, eps, _ = kind.inputs()
    on_device = [model.backend.asarray(a, model.dtype) for a in (x, eps)]
    for call in (model.loss_and_grad, model.loss):
        fake_cupy.reset_copies()
        call(x, eps)
        assert fake_cupy.device_copies == 2  # x, eps
        assert fake_cupy.host_copies == 2  # where x lies, to check it; the losses
        fake_cupy.reset_copies()
        call(*on_device)
        assert (fake_cupy.host_copies, fake_cupy.device_copies) == (2, 0)


USED = {
    "bernoulli": {},
    "tied": {"hidden": (6, 5), "tied": True},
    "predicted": {"likelihood": "gaussian:sigma=predicted"},
    "learned": {"likelihood": "gaussian"},
    "columns": {"likelihood": "gaussian:sigma=columns"},
    "fixed": {"likelihood": "gaussian:sigma=fixed:0.5"},
    "conditional": {"classes": 3},
    "conv": {"conv": (2, 3), "data_dim": 35, "image_shape": (7, 5), "batch_norm": True, "classes": 3},
}


@pytest.mark.parametrize("name", USED)
@pytest.mark.parametrize("rows", [3, CHUNK + 2])
def test_using_a_model_takes_host_arrays_and_gives_device_arrays(fake_cupy: Any, name: str, rows: int) -> None:
    """Where data comes in, the host asks whether any of it is missing: another pass is made for that."""
    kind = Kind(name, USED[name])
    on_numpy, on_cupy = pair(kind)
    x, z, y = kind.inputs(rows)
    calls: dict[str, tuple[int, int, Callable[[VAE], Any]]] = {  # copies to the device (labels aside), to the host
        "encode": (1, 1, lambda model: model.encode(x, y)),
        "decode": (1, 0, lambda model: model.decode(z, y)),
        "sample": (1, 0, lambda model: model.sample(rows, np.random.default_rng(0), y=y)),
        "log_p_x_given_z": (2, 1, lambda model: model.log_p_x_given_z(x, z, y)),
        "rows_loss": (2, 1, lambda model: model.rows_loss(x, z, y)),
        "look": (2, 1, lambda model: model.look(x, z, y)),
    }
    for what, (to_device, back, call) in calls.items():
        fake_cupy.reset_copies()
        actual, expected = call(on_cupy), call(on_numpy)
        assert (fake_cupy.device_copies, fake_cupy.host_copies) == (to_device + (y is not None), back), what
        if not isinstance(actual, tuple):
            actual, expected = (actual,), (expected,)
        for a, e in zip(actual, expected, strict=True):
            assert isinstance(a, fake_cupy.ndarray)
            assert_close(a, e)


@pytest.mark.parametrize("name", USED)
def test_a_draw_is_made_on_the_host_and_given_on_the_device(fake_cupy: Any, name: str) -> None:
    """NumPy draws it, whatever the backend: so the same seed gives the same x."""
    kind = Kind(name, USED[name])
    on_numpy, on_cupy = pair(kind)
    y = kind.inputs(5)[2]
    drawn, expected = (model.sample(5, np.random.default_rng(0), mean=False, y=y) for model in (on_cupy, on_numpy))
    assert isinstance(drawn, fake_cupy.ndarray)
    assert_close(drawn, expected)


def test_the_checks_of_data_work_on_the_device(fake_cupy: Any) -> None:
    kind = BY_NAME["bernoulli"]
    model = kind.build(backend="cupy")
    x, eps, _ = kind.inputs()
    for wrong in (x - 0.5, x * np.where(np.arange(DATA) == 3, np.inf, 1.0)):
        for missing in (False, True):
            given = wrong.copy()
            given[0, :2] = np.nan if missing else given[0, :2]
            with pytest.raises(ValueError, match=r"Bernoulli|infinite"):
                model.loss(fake_cupy.asarray(given), eps)
    with pytest.raises(ValueError, match="shape"):
        model.loss(fake_cupy.asarray(x[:, 1:]), eps)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian, sigma learned", "gaussian, sigma predicted"])
def test_numbers_that_were_not_observed_on_the_device(fake_cupy: Any, name: str) -> None:
    kind = BY_NAME[name]
    on_numpy, on_cupy = pair(kind)
    x, eps, _ = kind.inputs()
    x[1, 2:5], x[4] = np.nan, np.nan
    expected = on_numpy.loss_and_grad(x, eps)
    assert np.isfinite(expected).all()
    assert_same_losses(on_cupy.loss_and_grad(x, eps), expected)
    assert_close(on_cupy.grads.flat, on_numpy.grads.flat)
    for a, e in zip(on_cupy.encode(x), on_numpy.encode(x), strict=True):
        assert_close(a, e)
    assert_close(on_cupy.log_p_x_given_z(x, eps), on_numpy.log_p_x_given_z(x, eps))


def test_both_backends_start_from_the_same_weights(fake_cupy: Any) -> None:
    models = [VAE(DATA, backend=name, seed=7) for name in BACKENDS]
    np.testing.assert_array_equal(to_host(models[1].params.flat), models[0].params.flat)


def test_parameters_are_views_on_the_device(fake_cupy: Any) -> None:
    model = VAE(DATA, latent_dim=LATENT, backend="cupy")
    model.params["encoder.0.bias"][...] = 3
    assert (to_host(model.params.flat) == 3).sum() == model.params["encoder.0.bias"].size
    assert "encoder.0.weight" in repr(model.params)


def test_the_fused_kernels_for_cupy_are_in_float32_alone(fake_cupy: Any) -> None:
    backend = get_backend("cupy")
    for asked in (None, "fused", "cuda"):
        name, make = select(asked, backend)
        assert name == "cuda"
        assert (make().name, make().dtype) == ("cuda", np.float32)
    assert select(None, backend, "float64")[0] == "reference"
    with pytest.raises(ValueError, match="no fused kernels here: they compute in float32, not float64"):
        VAE(DATA, backend="cupy", kernels="fused", dtype="float64")
    with pytest.raises(ValueError, match="numba kernels cannot be used here: they need the numpy backend, not cupy"):
        VAE(DATA, backend="cupy", kernels="numba")
