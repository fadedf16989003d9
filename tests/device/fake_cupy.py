"""A small stand-in for CuPy on the host, so that code can be run "on CuPy" without a GPU.

A test module imports the fixture and takes `fake_cupy` as an argument; from then on `get_backend("cupy")` works:

    from fake_cupy import fake_cupy_fixture as fake_cupy_fixture

    def test_step_stays_on_the_device(fake_cupy):
        ...
        assert (fake_cupy.host_copies, fake_cupy.device_copies) == (0, 0)

It has only what the tables below list, and refuses whatever CuPy refuses. On purpose it is stricter than CuPy
where CuPy would copy or wait in silence:

    on a device array                           CuPy                                    here
    float, int, bool, item, tolist, str, ...    waits for the device and copies         refused
    iteration, unpacking                        one small kernel for each element       refused
    a[mask], where(mask)                        waits, to count the hits                refused
    a list or NumPy array as an index           copies it to the device                 refused
    np.exp(a), np.sum(a)                        hands over to cupy.exp, cupy.sum        refused
    cupy.sum(NumPy array)                       computes on the host                    refused

What it does not show: rounding of the GPU's functions and sums, memory, a second device's arrays. Kernels, streams and
graphs are in `fake_cuda.py`.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import fake_cuda
import numpy as np
import pytest
from fake_arrays import DeviceArray as DeviceArray
from fake_arrays import Ufunc, assignable, checked, matmul, stable, supported, undefined, wrap
from fake_cuda import CUDARuntimeError as CUDARuntimeError
from fake_cuda import working
from fake_tables import FUNCTIONS, SAME_AS_NUMPY, UFUNCS


class Philox4x3210:
    """The bit generator. CuPy keeps 32 bits of the seed, whatever it is given."""

    def __init__(self, seed: Any = None) -> None:
        sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        self._seed = int(sequence.generate_state(1, np.uint32)[0])


class Generator:
    """CuPy's Generator has no `permutation`, `shuffle`, `choice` or `normal`, and no state to save."""

    def __init__(self, bit_generator: Philox4x3210) -> None:
        self.bit_generator = bit_generator
        self._rng = np.random.Generator(np.random.Philox(key=bit_generator._seed))

    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return self._draw(self._rng.random, size, dtype, out, scalar_without_size=True)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return self._draw(self._rng.standard_normal, size, dtype, out)

    def integers(
        self, low: Any, high: Any = None, size: Any = None, dtype: Any = np.int64, endpoint: bool = False
    ) -> Any:
        working("a random number generator")
        low, high = (0, int(low)) if high is None else (int(low), int(high))
        return wrap(self._rng.integers(low, high, size=size, dtype=dtype, endpoint=endpoint))

    def _draw(
        self, draw: Callable[..., Any], size: Any, dtype: Any, out: Any, scalar_without_size: bool = False
    ) -> Any:
        """With `scalar_without_size`, as CuPy's `random`: without a size, all of `out` becomes one number."""
        working("a random number generator")
        if out is None:
            return wrap(draw(size=size, dtype=dtype))
        if out.dtype != np.dtype(dtype):
            raise TypeError(f"out has dtype {out.dtype}, but dtype says {np.dtype(dtype)}")
        if not (out.flags.c_contiguous or out.flags.f_contiguous):
            raise ValueError("out is not contiguous")
        if size is not None and (tuple(size) if isinstance(size, list | tuple) else (size,)) != out.shape:
            raise ValueError(f"size {size} is not out's shape {out.shape}")
        out._host[...] = draw(size=size if scalar_without_size else out.shape, dtype=dtype)
        return out


class FakeCupy(ModuleType):
    """The module. `host_copies` and `device_copies` count the arrays moved each way since `reset_copies`."""

    def __init__(self, devices: int = 1) -> None:
        super().__init__("cupy", "A stand-in for CuPy on the host.")
        self.__version__ = "14.2.0"
        self.ndarray = DeviceArray
        self.host_copies = self.device_copies = 0
        for name in SAME_AS_NUMPY:
            setattr(self, name, getattr(np, name))
        for name in UFUNCS:
            setattr(self, name, Ufunc(getattr(np, name)))
        special = {
            "argsort": stable(np.argsort),
            "sort": stable(np.sort),
            "empty_like": lambda *args, **kwargs: undefined(np.empty_like(*args, **kwargs)),
        }
        for name, parameters in FUNCTIONS.items():
            function = special.get(name, getattr(np, name))
            setattr(self, name, checked(name, parameters, function, is_method=False))
        self.matmul = matmul
        self.cuda = fake_cuda.cuda(devices)
        self.RawModule: Any = fake_cuda.RawModule
        self.random = SimpleNamespace(Generator=Generator, Philox4x3210=Philox4x3210)

    def reset_copies(self) -> None:
        self.host_copies = self.device_copies = 0

    def asnumpy(self, a: Any, *, out: np.ndarray | None = None) -> np.ndarray:
        if not isinstance(a, DeviceArray):
            return np.asarray(a)
        working("a copy to the host", waits=True)
        self.host_copies += 1
        if out is None:
            return a._host.copy()
        np.copyto(out, a._host, casting="unsafe")
        return out

    def asarray(self, a: Any, dtype: Any = None) -> DeviceArray:
        if isinstance(a, DeviceArray):
            return a if dtype is None or a.dtype == np.dtype(dtype) else DeviceArray(supported(a._host.astype(dtype)))
        self.device_copies += 1
        return DeviceArray(supported(np.array(a, dtype=dtype)))

    def array(self, obj: Any, dtype: Any = None) -> DeviceArray:
        if isinstance(obj, DeviceArray):
            return DeviceArray(supported(np.array(obj._host, dtype=dtype)))
        return self.asarray(obj, dtype)

    def empty(self, shape: Any, dtype: Any = float) -> DeviceArray:
        return DeviceArray(undefined(supported(np.empty(shape, dtype))))

    def zeros(self, shape: Any, dtype: Any = float) -> DeviceArray:
        return DeviceArray(supported(np.zeros(shape, dtype)))

    def ones(self, shape: Any, dtype: Any = float) -> DeviceArray:
        return DeviceArray(supported(np.ones(shape, dtype)))

    def full(self, shape: Any, fill_value: Any, dtype: Any = None) -> DeviceArray:
        return DeviceArray(supported(np.full(shape, assignable(fill_value, "cupy.full"), dtype)))

    def arange(self, start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> DeviceArray:
        start, stop = (0, start) if stop is None else (start, stop)
        return DeviceArray(supported(np.arange(start, stop, step, dtype=dtype)))

    def eye(self, N: int, M: int | None = None, k: int = 0, dtype: Any = float) -> DeviceArray:
        return DeviceArray(supported(np.eye(N, M, k, dtype=dtype)))

    def linspace(
        self, start: Any, stop: Any, num: int = 50, endpoint: bool = True, *, dtype: Any = None
    ) -> DeviceArray:
        return DeviceArray(supported(np.linspace(start, stop, num, endpoint, dtype=dtype)))


@contextmanager
def installed() -> Iterator[FakeCupy]:
    """The stand-in, in place of CuPy."""
    fake_cuda.clock.reset()
    with pytest.MonkeyPatch.context() as patch:
        fake = FakeCupy()
        patch.setitem(sys.modules, "cupy", fake)
        yield fake


@pytest.fixture(name="fake_cupy")
def fake_cupy_fixture() -> Iterator[FakeCupy]:
    """The stand-in, in place of CuPy for the length of a test."""
    with installed() as fake:
        yield fake


@pytest.fixture(name="fake", scope="module")
def fake_for_a_module() -> Iterator[FakeCupy]:
    """One for a module: Hypothesis runs a test many times in one."""
    with installed() as fake:
        yield fake
