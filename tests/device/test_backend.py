"""Which array library: choosing it, what is said when CuPy cannot be used, copies, and random generators."""

import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_cupy import CUDARuntimeError, FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture

from tinyvae import VAE, BackendError
from tinyvae.backend import Backend, array_module, cupy_problem, get_backend, to_host

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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_flat_buffers_begin_on_a_cache_line(dtype):
    for size in (1, 7, 64, 1000):
        a = get_backend("numpy").zeros(size, dtype)
        assert a.shape == (size,)
        assert a.dtype == dtype
        assert a.ctypes.data % 64 == 0
        assert not a.any()
