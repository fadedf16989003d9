"""Which array library: choosing it, what is said when CuPy cannot be used, and the whole model "on CuPy" without a GPU.

The stand-in computes with NumPy, so the numbers of both backends agree to the last bits; what these tests show is that
no formula leans on NumPy, copies in silence, or mixes host and device.
"""

import inspect
import itertools
import pkgutil
import sys
import typing
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from cases import build, inputs, step
from fake_cupy import CUDARuntimeError, FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture

import tinyvae.ops
from tinyvae import VAE, BackendError
from tinyvae.backend import Backend, array_module, cupy_problem, get_backend, to_host
from tinyvae.checking.models import CASES, DATA, LATENT, ROWS
from tinyvae.kernels import cupy_fused, reference, select
from tinyvae.model.iwae import iwae_log_weights, iwae_loss_and_grad
from tinyvae.model.vae import CHUNK, Losses
from tinyvae.ops.activations import ACTIVATIONS

# ------------------------------------------------------------------------------------------------- choosing a backend


def test_numpy_is_the_default():
    assert get_backend() == get_backend("numpy") == Backend("numpy", np)


def test_cupy_where_it_works(fake_cupy):
    assert get_backend("cupy") == Backend("cupy", fake_cupy, 0)
    assert get_backend("auto").name == "cupy"
    assert get_backend("numpy").name == "numpy"


def test_the_device_becomes_the_current_one(monkeypatch):
    fake = FakeCupy(devices=3)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    assert cupy_problem(1) is None
    assert fake.cuda.runtime.getDevice() == 0, "asking changes nothing"
    assert get_backend("cupy", device=2).device == 2
    assert fake.cuda.runtime.getDevice() == 2


@pytest.mark.parametrize("name", ["torch", "", "NumPy", "gpu"])
def test_an_unknown_backend(name):
    with pytest.raises(ValueError, match="'auto', 'numpy' or 'cupy'"):
        get_backend(name)


# ------------------------------------------------------------------------------------------ why CuPy cannot be used

IMPORT_FAILED = """
================================================================
Failed to import CuPy.

If you installed CuPy via wheels (cupy-cudaXXX or cupy-rocm-X-X), make sure that the package matches with the version.

Original error:
  ImportError: libcudart.so.13: cannot open shared object file: No such file or directory
================================================================
"""


class Importing:
    """A finder that meets `import cupy` with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "cupy":
            raise self.error


def plant_import_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Importing(error), *sys.meta_path])


def plant_no_device(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def get_device_count() -> int:
        raise error

    fake = FakeCupy()
    fake.cuda.runtime.getDeviceCount = get_device_count
    monkeypatch.setitem(sys.modules, "cupy", fake)


def plant_failing_kernel(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def exp(a: Any) -> Any:
        raise error

    fake = FakeCupy()
    monkeypatch.setattr(fake, "exp", exp)
    monkeypatch.setitem(sys.modules, "cupy", fake)


def plant_two_devices(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(devices=2))


# name -> how it comes about, the error CuPy raises, the device asked for, what the message must say
PROBLEMS: dict[str, tuple[Callable[..., None], Exception, int, tuple[str, ...]]] = {
    "not installed": (
        plant_import_error,
        ModuleNotFoundError("No module named 'cupy'", name="cupy"),
        0,
        ("not installed", "pip install", "tinyvae[cuda13]", "[cuda12]", "--backend numpy"),
    ),
    "a module that it needs is not installed": (
        plant_import_error,
        ModuleNotFoundError("No module named 'cuda.pathfinder'", name="cuda.pathfinder"),
        0,
        ("CuPy is installed", "cuda.pathfinder", "pip install", "--backend numpy"),
    ),
    "toolkit, at import": (
        plant_import_error,
        ImportError(IMPORT_FAILED),
        0,
        (
            "toolkit library",
            "ImportError: libcudart.so.13: cannot open shared object file",
            "pip install",
            "--backend numpy",
        ),
    ),
    "toolkit, at the first kernel": (
        plant_failing_kernel,
        ImportError('Failure finding "libnvrtc.so.13": No such file\nsearched in\n  /usr/lib'),
        0,
        ("toolkit library", "libnvrtc.so.13", "pip install", "--backend numpy"),
    ),
    "toolkit headers": (
        plant_failing_kernel,
        RuntimeError("Failed to find CUDA headers.\nPlease install them."),
        0,
        ("toolkit", "RuntimeError: Failed to find CUDA headers.", "pip install"),
    ),
    "no driver": (
        plant_no_device,
        CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"),
        0,
        ("no NVIDIA driver or GPU", "cudaErrorInsufficientDriver", "install or update the driver", "--backend numpy"),
    ),
    "no GPU": (
        plant_no_device,
        CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected"),
        0,
        ("no NVIDIA driver or GPU", "cudaErrorNoDevice", "nvidia-smi", "--backend numpy"),
    ),
    "wrong device number": (plant_two_devices, Exception(), 2, ("no GPU number 2", "only 0 to 1", "--device")),
    "negative device number": (plant_two_devices, Exception(), -1, ("no GPU number -1", "only 0 to 1", "--device")),
}


@pytest.mark.parametrize(("plant", "error", "device", "phrases"), PROBLEMS.values(), ids=PROBLEMS)
def test_each_cause_has_its_message_and_remedy_on_one_line(monkeypatch, plant, error, device, phrases):
    plant(monkeypatch, error)
    with pytest.raises(BackendError) as caught:
        get_backend("cupy", device)
    message = str(caught.value)
    for phrase in phrases:
        assert phrase in message
    assert len(message.splitlines()) == 1
    assert cupy_problem(device) == message
    with pytest.raises(BackendError):
        VAE(4, backend="cupy", device=device)


@pytest.mark.parametrize(("plant", "error", "device", "phrases"), PROBLEMS.values(), ids=PROBLEMS)
def test_auto_falls_back_to_numpy(monkeypatch, plant, error, device, phrases):
    plant(monkeypatch, error)
    assert get_backend("auto", device) == Backend("numpy", np)
    assert VAE(4, backend="auto", device=device).backend.name == "numpy"


def test_the_messages_differ(monkeypatch):
    messages = []
    for plant, error, device, _ in PROBLEMS.values():
        with monkeypatch.context() as patch:
            plant(patch, error)
            messages.append(cupy_problem(device))
    assert len(set(messages)) == len(PROBLEMS)


def test_a_library_missing_at_import_is_named(monkeypatch):
    plant_import_error(monkeypatch, ImportError(IMPORT_FAILED))
    assert "libcudart.so.13" in str(cupy_problem())


def test_an_error_without_a_message(monkeypatch):
    plant_import_error(monkeypatch, ImportError())
    assert "does not load (ImportError)" in str(cupy_problem())


# ------------------------------------------------------------------------------------------- the module of an array


def test_array_module(fake_cupy):
    host, device = np.ones(2), fake_cupy.ones(2)
    assert array_module() is array_module(host) is array_module(host, 1.0, host[0]) is np
    assert array_module(device) is array_module(device, device) is fake_cupy
    for mixed in [(host, device), (device, host), (device, device, host)]:
        with pytest.raises(TypeError, match="to_host"):
            array_module(*mixed)


def test_array_module_does_not_import_cupy(monkeypatch):
    plant_import_error(monkeypatch, AssertionError("imported"))
    assert array_module(np.ones(2)) is np
    np.testing.assert_array_equal(to_host([1, 2]), [1, 2])


def test_to_host(fake_cupy):
    host = np.ones(2)
    assert to_host(host) is host
    assert fake_cupy.host_copies == 0
    copied = to_host(fake_cupy.asarray([1.0, 2.0]))
    assert type(copied) is np.ndarray
    np.testing.assert_array_equal(copied, [1.0, 2.0])
    assert fake_cupy.host_copies == 1


def test_asarray_copies_only_where_it_must(fake_cupy):
    on_numpy, on_cupy = get_backend("numpy"), get_backend("cupy")
    fake_cupy.reset_copies()
    host = np.ones(2)
    device = on_cupy.asarray(host, "float32")
    assert (fake_cupy.host_copies, fake_cupy.device_copies) == (0, 1)
    assert isinstance(device, fake_cupy.ndarray)
    assert device.dtype == np.float32
    assert on_cupy.asarray(device) is device
    assert on_numpy.asarray(host) is host
    assert (fake_cupy.host_copies, fake_cupy.device_copies) == (0, 1)
    assert type(on_numpy.asarray(device)) is np.ndarray
    assert (fake_cupy.host_copies, fake_cupy.device_copies) == (1, 1)


# ----------------------------------------------------------------------------------------------------- random numbers

BACKENDS = ["numpy", "cupy"]


@pytest.mark.parametrize("name", BACKENDS)
def test_the_same_key_gives_the_same_stream(fake_cupy, name):
    backend = get_backend(name)
    first, again = backend.generator(3, 1, 4), backend.generator(3, 1, 4)
    backend.generator(3, 1, 4).standard_normal(7)  # what one generator draws is nothing to another
    for size in (5, (2, 3)):
        a, b = (to_host(rng.standard_normal(size, dtype="float32")) for rng in (first, again))
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", BACKENDS)
def test_different_keys_give_different_streams(fake_cupy, name):
    backend = get_backend(name)
    keys = [*itertools.product(range(3), range(3), range(1, 4)), (2**40, 1, 1), (2**63, 1, 1), (2**64 - 1, 1, 1)]
    streams = {tuple(to_host(backend.generator(*key).random(4)).tolist()) for key in keys}
    assert len(streams) == len(keys)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_negative_key_is_refused(fake_cupy, name):
    with pytest.raises(ValueError, match="non-negative"):
        get_backend(name).generator(-1)


# -------------------------------------------------------------------------------------------------------- operations

N, D, K = 5, 4, 3  # batch, wide, narrow: all different


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def uniform(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).uniform(0, 1, shape)


OPERATIONS: dict[str, tuple[Any, ...]] = {
    **{forward.__name__: (normal(N, D),) for forward, _ in ACTIVATIONS.values()},
    **{backward.__name__: (normal(N, D), uniform(N, D)) for _, backward in ACTIVATIONS.values()},
    "dense_forward": (normal(N, D), normal(D, K), normal(K)),
    "dense_backward": (normal(N, K), normal(N, D), normal(D, K)),
    "reparameterize_forward": (normal(N, K), normal(N, K), normal(N, K)),
    "reparameterize_backward": (normal(N, K), normal(N, K), normal(N, K)),
    "kl_forward": (normal(N, K), normal(N, K)),
    "kl_backward": (normal(K), normal(N, K), normal(N, K)),
    "free_bits_forward": (uniform(N, K), 0.5),
    "free_bits_backward": (normal(K), uniform(N, K), 0.5),
    "bernoulli_nll_forward": (normal(N, D), uniform(N, D)),
    "bernoulli_nll_backward": (normal(N, 1), normal(N, D), uniform(N, D)),
    "gaussian_nll_forward": (normal(N, D), normal(1), normal(N, D)),
    "gaussian_nll_backward": (normal(N, 1), normal(N, D), normal(N, D), normal(N, D)),
    "adam_step": (normal(D), normal(D), normal(D), uniform(D), 3, 1e-3),
    "squared_norm": (normal(D),),
    "clip_scale": (uniform(), 0.1),
    "batch_norm_forward": (normal(N, D), normal(D), normal(D)),
    "batch_norm_backward": (normal(N, D), normal(N, D), uniform(D), normal(D)),
    "batch_norm_evaluate": (normal(N, D), normal(D), normal(D), normal(D), uniform(D)),
    "running_average": (normal(D), normal(D)),
    "log_prior_over_q_forward": (normal(N, K), normal(N, K), normal(N, K)),
    "log_prior_over_q_backward": (normal(N, 1), normal(N, K)),
    "bound_forward": (normal(N, K),),
    "bound_backward": (normal(N, 1), normal(N, K)),
    "patches": (normal(2, 7, 6, 2), 3, 2, 1),
    "fold": (normal(2, 4, 3, 3, 3, 2), (7, 6), 2, 1),
    "conv2d_forward": (normal(2, 7, 6, 2), normal(3, 3, 2, 4), normal(4), 2, 1),
    "conv2d_backward": (normal(2, 4, 3, 4), normal(2, 7, 6, 2), normal(3, 3, 2, 4), 2, 1),
    "conv_transpose2d_forward": (normal(2, 4, 3, 4), normal(3, 3, 2, 4), normal(2), (7, 6), 2, 1),
    "conv_transpose2d_backward": (normal(2, 7, 6, 2), normal(2, 4, 3, 4), normal(3, 3, 2, 4), 2, 1),
}


def takes_arrays(function: Callable[..., Any]) -> bool:
    annotations = [p.annotation for p in inspect.signature(function).parameters.values()]
    return any(a is Any or Any in typing.get_args(a) for a in annotations)  # `Array` is Any


def functions_of(module: Any) -> dict[str, Callable[..., Any]]:
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


OP_FUNCTIONS = {
    name: function
    for info in pkgutil.iter_modules(tinyvae.ops.__path__)
    for name, function in functions_of(import_module(f"tinyvae.ops.{info.name}")).items()
    if takes_arrays(function)
}


def test_every_operation_is_tested_here():
    assert set(OPERATIONS) == set(OP_FUNCTIONS)


def moved(backend: Backend, arguments: Any, dtype: str = "float64") -> list[Any]:
    """The arguments with fresh copies of the arrays on the backend, floats in `dtype`; numbers and None stay."""
    return [
        backend.asarray(a.astype(dtype if a.dtype.kind == "f" else a.dtype)) if isinstance(a, np.ndarray) else a
        for a in arguments
    ]


def assert_close(actual: Any, expected: Any) -> None:
    """The same arithmetic in the same library: where memory lies may move the last bits of a sum, and nothing else."""
    expected = np.asarray(expected)
    host = to_host(actual)
    assert host.shape == expected.shape
    assert host.dtype == expected.dtype
    scale = float(np.max(np.abs(expected), initial=0))
    tolerance = 16 * float(np.finfo(expected.dtype).eps) * scale if expected.dtype.kind == "f" else 0
    np.testing.assert_allclose(host, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_on_cupy(fake_cupy, name, dtype):
    on_numpy, on_cupy = (moved(get_backend(b), OPERATIONS[name], dtype) for b in BACKENDS)
    expected = OP_FUNCTIONS[name](*on_numpy)
    fake_cupy.reset_copies()
    actual = OP_FUNCTIONS[name](*on_cupy)
    assert (fake_cupy.host_copies, fake_cupy.device_copies) == (0, 0)
    if not isinstance(expected, tuple):
        expected, actual = (expected,), (actual,)
    for a, e in zip(actual, expected, strict=True):
        assert isinstance(a, fake_cupy.ndarray)
        assert_close(a, e)


@pytest.mark.parametrize(
    "name", [n for n, arguments in OPERATIONS.items() if sum(isinstance(a, np.ndarray) for a in arguments) > 1]
)
def test_every_operation_refuses_a_mixture(fake_cupy, name):
    host, device = (moved(get_backend(b), OPERATIONS[name]) for b in BACKENDS)
    fake_cupy.reset_copies()
    for i in (i for i, a in enumerate(OPERATIONS[name]) if isinstance(a, np.ndarray)):
        for one, rest in [(host, device), (device, host)]:
            with pytest.raises(TypeError, match="mixed"):
                OP_FUNCTIONS[name](*rest[:i], one[i], *rest[i + 1 :])
    assert (fake_cupy.host_copies, fake_cupy.device_copies) == (0, 0)


# ----------------------------------------------------------------------------------------------------------- kernels

# kernel -> its arguments in order, in several variants; NaN where only the result counts
KERNELS: dict[str, list[dict[str, Any]]] = {
    "gather": [
        {
            "data": np.arange(7 * D, dtype=np.uint8).reshape(7, D),
            "rows": np.array([6, 0, 3, 3, 1]),
            "scale": 1 / 255,
            "x": np.full((N, D), np.nan),
            "raw": np.zeros((N, D), np.uint8),
        }
    ],
    "binarize": [{"x": uniform(N, D), "u": uniform(D, N).T.copy()}],
    "dense_forward": [
        {"x": normal(N, D), "W": normal(D, K), "b": normal(K), "activation": name, "y": np.full((N, K), np.nan)}
        for name in ACTIVATIONS
    ],
    "dense_backward": [
        {
            "dy": normal(N, K),
            "x": normal(N, D),
            "W": normal(D, K),
            "y": uniform(N, K),
            "activation": name,
            "dx": dx,
            "dW": np.full((D, K), np.nan),
            "db": np.full(K, np.nan),
        }
        for name in ACTIVATIONS
        for dx in (None, np.full((N, D), np.nan))
    ],
    "latent_forward": [
        {"head": normal(N, 2 * K), "eps": normal(N, K), "z": np.full((N, K), np.nan), "kl": np.full((N, K), np.nan)}
    ],
    "latent_backward": [
        {
            "dz": normal(N, K),
            "head": normal(N, 2 * K),
            "eps": normal(N, K),
            "dkl": normal(K),
            "dhead": np.full((N, 2 * K), np.nan),
        }
    ],
    "bernoulli_loss": [
        {"logits": normal(N, D), "x": uniform(N, D), "dnll": 0.2, "nll": np.full(N, np.nan), "dlogits": dlogits}
        for dlogits in (None, np.full((N, D), np.nan))
    ],
    "gaussian_loss": [
        {
            "mean": normal(N, D),
            "logvar": normal(*shape),
            "x": normal(D, N).T.copy(),
            "dnll": 0.2,
            "nll": np.full(N, np.nan),
            "dmean": np.full((N, D), np.nan) if wants_mean else None,
            "dlogvar": np.full(shape, np.nan) if wants_logvar else None,
        }
        for shape in [(1,), (N, D)]
        for wants_mean, wants_logvar in itertools.product((False, True), repeat=2)
    ],
    "squared_norm": [{"g": normal(D), "out": np.full((), np.nan)}],
    "clip": [{"g": normal(D), "norm2": np.array(n), "max_norm": 0.5} for n in (0.01, 4.0)],
    "adam_step": [{"p": normal(D), "g": normal(D), "m": normal(D), "v": uniform(D), "t": 3, "lr": 1e-3}],
}
SCRATCH = ("work", "raw")


def test_every_kernel_is_tested_here():
    assert set(KERNELS) == set(functions_of(reference))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "variant"), [(name, i) for name, cases in KERNELS.items() for i in range(len(cases))])
def test_every_reference_kernel_on_cupy(fake_cupy, name, variant, dtype):
    kernel, case = getattr(reference, name), dict(KERNELS[name][variant])
    parameters = inspect.signature(kernel).parameters
    if "work" in parameters:
        case["work"] = np.zeros(2 * N * 2 * D)
    assert set(case) == set(parameters)
    runs = []
    for backend in BACKENDS:
        arguments = dict(zip(case, moved(get_backend(backend), case.values(), dtype), strict=True))
        positional = [arguments[p] for p in parameters if parameters[p].kind is not inspect.Parameter.KEYWORD_ONLY]
        fake_cupy.reset_copies()
        kernel(*positional, **{p: arguments[p] for p in list(parameters)[len(positional) :]})
        assert (fake_cupy.host_copies, fake_cupy.device_copies) == (0, 0)
        runs.append(arguments)
    for argument, expected in runs[0].items():
        if isinstance(expected, np.ndarray) and argument not in SCRATCH:
            assert np.isfinite(expected).all()
            assert_close(runs[1][argument], expected)


# --------------------------------------------------------------------------------------------------- the whole model


def pair(**options: Any) -> tuple[VAE, VAE]:
    """The same model on NumPy and on the stand-in, in float64, with random biases too."""
    options = {"latent_dim": LATENT, "dtype": "float64", "kernels": "reference", "seed": 1, **options}
    models = tuple(VAE(**{"data_dim": DATA, **options, "backend": name}) for name in BACKENDS)
    for model in models:
        noise = 0.2 * np.random.default_rng(0).standard_normal(model.params.flat.shape)
        model.params.flat += model.backend.asarray(noise, model.dtype)
    return models[0], models[1]


def batch(rows: int = ROWS, data: int = DATA) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.uniform(0, 1, (rows, data)), rng.standard_normal((rows, LATENT))


def assert_same_losses(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_losses_and_gradients_of_a_whole_model(fake_cupy, case):
    on_numpy, on_cupy = pair(**case.model)
    x, eps, y = inputs(case, ROWS)

    def losses(model: VAE) -> Losses:
        if case.importance:
            return iwae_loss_and_grad(model, x, eps, y)
        return model.loss_and_grad(x, eps, case.beta, case.free_bits, y)

    expected, actual = losses(on_numpy), losses(on_cupy)
    assert all(type(value) is float for value in actual)
    assert_same_losses(actual, expected)
    if case.importance:
        assert_close(iwae_log_weights(on_cupy, x, eps, y), iwae_log_weights(on_numpy, x, eps, y))
    else:
        again = on_cupy.loss(x, eps, case.beta, case.free_bits, y, training=True)
        assert_same_losses(again, expected)
    assert list(on_cupy.grads) == list(on_numpy.grads)
    for name, grad in on_numpy.grads.items():
        assert grad.any() or ".running_" in name
        assert_close(on_cupy.grads[name], grad)
        assert_close(on_cupy.params[name], on_numpy.params[name])  # the running averages have moved on alike


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_step_stays_on_the_device(fake_cupy, case, dtype):
    model = build(case, dtype=dtype, backend="cupy", kernels="reference")
    x, eps, y = inputs(case, ROWS)
    x, eps = (model.backend.asarray(a, model.dtype) for a in (x, eps))
    y = None if y is None else model.backend.asarray(y)
    moments = [fake_cupy.zeros_like(model.grads.flat) for _ in range(2)]
    norm2 = fake_cupy.zeros((), dtype=dtype)
    fake_cupy.reset_copies()
    for t, rows in enumerate([5, ROWS, 3], start=1):  # the buffers are made, made larger, and used again
        losses = step(model, case, x[:rows], eps[:rows], None if y is None else y[:rows])
        model.kernels.squared_norm(model.grads.flat, out=norm2)
        model.kernels.clip(model.grads.flat, norm2, 0.5)
        model.kernels.adam_step(model.params.flat, model.grads.flat, *moments, t, 1e-2, work=model.work)
        assert isinstance(losses, fake_cupy.ndarray)
        assert losses.dtype == model.params.flat.dtype == np.dtype(dtype)
    assert (fake_cupy.host_copies, fake_cupy.device_copies) == (0, 0)
    assert np.isfinite(to_host(model.params.flat)).all()


def test_the_copies_of_a_call_for_notebooks_are_few(fake_cupy):
    model = VAE(DATA, latent_dim=LATENT, backend="cupy")
    x, eps = batch()
    on_device = [model.backend.asarray(a, model.dtype) for a in (x, eps)]
    for call in (model.loss_and_grad, model.loss):
        fake_cupy.reset_copies()
        call(x, eps)
        assert fake_cupy.device_copies == 2  # x, eps
        assert fake_cupy.host_copies == 3  # the smallest and largest x, to check them; the losses
        fake_cupy.reset_copies()
        call(*on_device)
        assert (fake_cupy.host_copies, fake_cupy.device_copies) == (3, 0)


USED = [
    {"hidden": (5,)},
    {"hidden": (6, 5), "tied": True},
    {"hidden": (5,), "likelihood": "gaussian", "sigma": "predicted"},
    {"hidden": (5,), "likelihood": "gaussian", "sigma": "learned"},
    {"hidden": (5,), "likelihood": "gaussian", "sigma": "fixed:0.5"},
    {"hidden": (5,), "classes": 3},
    {"hidden": (5,), "conv": (2, 3), "data_dim": 35, "image_shape": (7, 5), "batch_norm": True, "classes": 3},
]


@pytest.mark.parametrize(
    "options", USED, ids=["bernoulli", "tied", "predicted", "learned", "fixed", "conditional", "conv"]
)
@pytest.mark.parametrize("rows", [3, CHUNK + 2])
def test_using_a_model_takes_host_arrays_and_gives_device_arrays(fake_cupy, options, rows):
    on_numpy, on_cupy = pair(**options)
    x, z = batch(rows, options.get("data_dim", DATA))
    y = np.arange(rows) % options["classes"] if "classes" in options else None
    calls: dict[str, tuple[int, Callable[[VAE], Any]]] = {  # copies to the device, labels aside, and call
        "encode": (1, lambda model: model.encode(x, y)),
        "decode": (1, lambda model: model.decode(z, y)),
        "sample": (1, lambda model: model.sample(rows, np.random.default_rng(0), y=y)),
        "sample, drawn": (2, lambda model: model.sample(rows, np.random.default_rng(0), mean=False, y=y)),
        "log_p_x_given_z": (2, lambda model: model.log_p_x_given_z(x, z, y)),
        "rows_loss": (2, lambda model: model.rows_loss(x, z, y)),
    }
    for name, (copies, call) in calls.items():
        fake_cupy.reset_copies()
        actual, expected = call(on_cupy), call(on_numpy)
        assert fake_cupy.device_copies == copies + (y is not None), name
        assert fake_cupy.host_copies == (2 if name == "rows_loss" else 0), name  # the smallest and largest x
        if not isinstance(actual, tuple):
            actual, expected = (actual,), (expected,)
        for a, e in zip(actual, expected, strict=True):
            assert isinstance(a, fake_cupy.ndarray)
            assert_close(a, e)


def test_the_checks_of_data_work_on_the_device(fake_cupy):
    model = VAE(DATA, latent_dim=LATENT, backend="cupy")
    x, eps = batch()
    with pytest.raises(ValueError, match="Bernoulli"):
        model.loss(fake_cupy.asarray(x) - 0.5, eps)
    with pytest.raises(ValueError, match="NaN"):
        model.loss(fake_cupy.full((ROWS, DATA), np.nan), eps)
    with pytest.raises(ValueError, match="shape"):
        model.loss(fake_cupy.asarray(x[:, 1:]), eps)


def test_both_backends_start_from_the_same_weights(fake_cupy):
    models = [VAE(DATA, backend=name, seed=7) for name in BACKENDS]
    np.testing.assert_array_equal(to_host(models[1].params.flat), models[0].params.flat)


def test_parameters_are_views_on_the_device(fake_cupy):
    model = VAE(DATA, latent_dim=LATENT, backend="cupy")
    model.params["encoder.0.bias"][...] = 3
    assert (to_host(model.params.flat) == 3).sum() == model.params["encoder.0.bias"].size
    assert "encoder.0.weight" in repr(model.params)


def test_the_fused_kernels_for_cupy_are_in_float32_alone(fake_cupy):
    backend = get_backend("cupy")
    assert select(None, backend) == select("fused", backend) == ("cuda", cupy_fused)
    assert select(None, backend, "float64") == ("reference", reference)
    with pytest.raises(ValueError, match="no fused kernels here: they compute in float32, not float64"):
        VAE(DATA, backend="cupy", kernels="fused", dtype="float64")
    with pytest.raises(ValueError, match="numba kernels cannot be used here: they need the numpy backend, not cupy"):
        VAE(DATA, backend="cupy", kernels="numba")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_flat_buffers_begin_on_a_cache_line(dtype):
    for size in (1, 7, 64, 1000):
        a = get_backend("numpy").zeros(size, dtype)
        assert a.shape == (size,)
        assert a.dtype == dtype
        assert a.ctypes.data % 64 == 0
        assert not a.any()
