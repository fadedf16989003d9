"""Copies of a model, by copy and by pickle: the same to the last bit, and of their own; and what a model says it is."""

import copy
import io
import pickle
import pickletools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import build, inputs
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture
from strategies import sampled

import tinyvae
from tinyvae.backend import to_host
from tinyvae.checking.models import ARCHITECTURES, CASES, ModelCase

WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {n}": lambda m, n=n: pickle.loads(pickle.dumps(m, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
}
EACH_WAY = pytest.mark.parametrize("way", sampled(WAYS.values(), 2), ids=WAYS)
COMPOSED = [case for case in CASES if "encoder" in case.model]
KINDS = [*(case for case in ARCHITECTURES if case.draws == 1), *COMPOSED]


def trained(case: ModelCase, dtype: str = "float64", **options: Any) -> tuple[tinyvae.VAE, tuple[Any, Any, Any]]:
    """A model that has seen a batch: parameters, gradients and running averages are nowhere at their first values."""
    model = build(case, dtype=dtype, seed=3, **options)
    noise = 0.1 * np.random.default_rng(1).random(model.params.flat.shape)
    model.params.flat[...] += model.backend.asarray(noise, model.dtype)
    batch = inputs(case, 6)
    model.loss_and_grad(batch[0], batch[1], y=batch[2])
    return model, batch


def said(model: tinyvae.VAE) -> tuple[Any, ...]:
    """Layers of their own are no equals: what is compared is their text."""
    a = model.architecture
    return type(a), a.to_dict(), a.shapes(), model.dtype, model.kernels_name


def numbers(model: tinyvae.VAE) -> list[bytes]:
    return [to_host(p.flat).tobytes() for p in (model.params, model.grads)]


@EACH_WAY
@pytest.mark.parametrize("case", sampled(KINDS, 2), ids=lambda case: case.name)
def test_a_copy_is_the_same_to_the_last_bit_and_of_its_own(case: ModelCase, way: Callable[[Any], Any]) -> None:
    model, (x, eps, y) = trained(case)
    twin = way(model)
    assert said(twin) == said(model)
    assert numbers(twin) == numbers(model)
    before, expected = numbers(model), model.rows_loss(x, eps, y)
    for a, b in zip(twin.rows_loss(x, eps, y), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert twin.loss_and_grad(x, eps, y=y) == copy.deepcopy(model).loss_and_grad(x, eps, y=y)
    # views still lie on the one flat buffer, and the layers see it
    twin.params.flat[...] = 0.0
    twin.grads.flat[...] = 7.0
    assert all(not p.any() for p in twin.params.values())
    assert all((g == 7.0).all() for g in twin.grads.values())
    assert not twin.encode(x, y)[0].any()
    twin.params["encoder.0.bias" if "encoder.0.bias" in twin.params else "encoder.conv0.bias"][...] = 3.0
    assert twin.params.flat.any()
    assert numbers(model) == before
    np.testing.assert_array_equal(model.rows_loss(x, eps, y)[0], expected[0])


@EACH_WAY
def test_parameters_alone_can_be_copied_too(way: Callable[[Any], Any]) -> None:
    model, _ = trained(KINDS[0])
    kept = way(model.params)
    assert {name: p.shape for name, p in kept.items()} == {name: p.shape for name, p in model.params.items()}
    before = model.params.flat.copy()
    model.params.flat[...] = 0.0
    np.testing.assert_array_equal(kept.flat, before)
    kept.flat[...] = 2.0
    assert all((p == 2.0).all() for p in kept.values())
    assert not model.params.flat.any()


@pytest.mark.parametrize("kernels", ["reference", "numpy"])
def test_the_kernels_and_float32_are_kept(kernels: str) -> None:
    model, _ = trained(KINDS[0], "float32", kernels=kernels)
    twin = copy.deepcopy(model)
    assert (twin.kernels_name, twin.params.flat.dtype) == (kernels, np.float32)
    assert numbers(twin) == numbers(model)


def test_a_copy_of_a_model_that_has_seen_nothing() -> None:
    model = tinyvae.VAE(6, (4,), 2, kernels="numpy")
    twin = copy.copy(model)
    assert numbers(twin) == numbers(model)
    assert twin.encode(np.zeros((1, 6)))[0].shape == (1, 2)


@EACH_WAY
def test_what_was_added_to_a_model_comes_along(way: Callable[[Any], Any]) -> None:
    model: Any = Named(6, (4,), 2)
    model.history = [3.0, 2.0]
    model.loss(np.zeros((2, 6)), np.zeros((2, 2)))
    twin: Any = way(model)
    assert type(twin) is Named
    assert twin.history == [3.0, 2.0]
    assert set(vars(twin)) == set(vars(model))
    state = model.__getstate__()
    assert state["added"] == {"history": [3.0, 2.0]}  # and none of the buffers


class Named(tinyvae.VAE):
    history: list[float]


def test_nan_and_infinity_are_copied_as_they_are() -> None:
    model, _ = trained(KINDS[0])
    model.params.flat[:2] = np.nan, -np.inf
    assert numbers(copy.deepcopy(model)) == numbers(model)


@pytest.mark.parametrize("protocol", sampled(range(pickle.HIGHEST_PROTOCOL, -1, -1), 3))
@pytest.mark.parametrize("case", [KINDS[0], *COMPOSED], ids=lambda case: case.name)
def test_a_pickle_calls_nothing_but_our_classes_and_numpys_arrays(case: ModelCase, protocol: int) -> None:
    called, dump = set(), pickle.dumps(trained(case)[0], protocol)

    class Watched(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            found = super().find_class(module, name)
            if not (module.startswith("tinyvae.") and isinstance(found, type)):
                called.add(f"{module}.{name}")
            return found

    Watched(io.BytesIO(dump)).load()
    pickletools.dis(dump, io.StringIO())
    allowed = {
        "numpy.dtype", "numpy.ndarray", "numpy._core.multiarray._reconstruct",
        "numpy._core.numeric._frombuffer", "copyreg._reconstructor", "builtins.object", "__builtin__.object",
        "copy_reg._reconstructor", "_codecs.encode", "__builtin__.bytes", "builtins.bytes", "__builtin__.tuple",
    }  # fmt: skip
    assert called <= allowed
    assert len(dump) < 3 * sum(map(len, numbers(trained(case)[0]))) + 2000  # no buffers


def test_a_model_on_a_gpu_is_pickled_on_the_host_and_comes_back_to_it(
    fake_cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (x, eps, _) = trained(KINDS[0], backend="cupy", kernels="reference")
    expected = [to_host(a) for a in model.rows_loss(x, eps)]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.backend.name == "cupy"
        assert isinstance(twin.params.flat, fake_cupy.ndarray)
        assert numbers(twin) == numbers(model)
        twin.params.flat[...] = 0.0
        assert to_host(model.params.flat).any()
    kept = copy.deepcopy(model.params)
    assert isinstance(kept.flat, fake_cupy.ndarray)
    dump, of_params = pickle.dumps(model), pickle.dumps(model.params)
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(tinyvae.backend, "cupy_problem", lambda device=0: "CuPy is not installed: install it")
    with pytest.warns(UserWarning, match="loaded with NumPy instead: CuPy is not installed"):
        here = pickle.loads(dump)
    assert (here.backend.name, here.kernels_name) == ("numpy", "reference")
    for a, b in zip(here.rows_loss(x, eps), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)  # the stand-in computes with NumPy, in another order at most
    with pytest.warns(UserWarning, match="loaded with NumPy instead"):
        np.testing.assert_array_equal(pickle.loads(of_params).flat, here.params.flat)


def test_kernels_that_a_machine_lacks_are_replaced_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    state = tinyvae.VAE(6, (4,), 2, kernels="numpy").__getstate__() | {"kernels": "cuda"}
    model = tinyvae.VAE(6, (4,), 2, seed=1)
    with pytest.warns(UserWarning, match="other kernels than cuda: they need the cupy backend"):
        model.__setstate__(state)
    assert model.kernels_name in ("numba", "numpy")
    np.testing.assert_array_equal(model.params.flat, state["params"])


# ---------------------------------------------------------------------------------------------------------------- repr


def test_a_model_says_what_it_is_in_a_line() -> None:
    said = repr(tinyvae.VAE(784, latent_dim=20, kernels="numpy"))
    assert said == (
        "VAE(784, hidden=(400,), latent_dim=20, likelihood='bernoulli'), 652,824 parameters, "
        "float32 on numpy with numpy kernels"
    )
    assert repr(Named(6, (), 2)).startswith("Named(6, hidden=(), ")


@pytest.mark.parametrize("case", ARCHITECTURES, ids=lambda case: case.name)
def test_the_line_is_a_call_that_makes_such_a_model(case: ModelCase) -> None:
    model = build(case, dtype="float64")
    said = repr(model)
    assert "\n" not in said
    call, _, rest = said.rpartition("), ")
    again = eval(call + ")", {"VAE": tinyvae.VAE})
    assert again.architecture == model.architecture
    assert rest.startswith(f"{model.params.flat.size:,} parameters, float64 on numpy with ")
    assert ("activation" in call) == (model.architecture.to_dict()["activation"] != "relu")
