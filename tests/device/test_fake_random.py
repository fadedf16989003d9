"""Random numbers and devices of the stand-in for CuPy: seeds, streams, and what CuPy's generator lacks."""

from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (1.5, TypeError), ("a", TypeError)], ids=["negative", "float", "str"]
)
def test_seeds_are_checked(fake_cupy, seed, error):
    with pytest.raises(error):
        fake_cupy.random.Philox4x3210(seed)


def generator(fake: FakeCupy, seed: Any = 0) -> Any:
    return fake.random.Generator(fake.random.Philox4x3210(seed))


def test_random_numbers(fake_cupy):
    rng = generator(fake_cupy)
    z, u = rng.standard_normal((100, 50), dtype="float32"), rng.random(5000)
    assert (z.shape, z.dtype, u.shape, u.dtype) == ((100, 50), np.float32, (5000,), np.float64)
    assert abs(fake_cupy.asnumpy(z).mean()) < 0.1
    assert 0 <= fake_cupy.asnumpy(u).min() < 0.01
    assert 0.99 < fake_cupy.asnumpy(u).max() < 1
    k = fake_cupy.asnumpy(rng.integers(2, 5, size=1000, dtype="int32"))
    assert (k.dtype, set(k.tolist())) == (np.int32, {2, 3, 4})
    assert rng.standard_normal().shape == rng.integers(3).shape == ()


def test_the_seed_names_the_stream(fake_cupy):
    def numbers(seed: Any) -> list[float]:
        return fake_cupy.asnumpy(generator(fake_cupy, seed).random(4)).tolist()

    assert numbers(1) == numbers(1) == numbers(np.random.SeedSequence(1))
    assert numbers(1) != numbers(2)
    assert numbers((1, 2)) != numbers((2, 1))


def test_random_numbers_into_out(fake_cupy):
    rng, out = generator(fake_cupy), fake_cupy.empty((4, 3), "float32")
    assert rng.standard_normal(out=out, dtype="float32") is out
    assert np.isfinite(fake_cupy.asnumpy(out)).all()
    assert rng.random((4, 3), "float32", out) is out
    with pytest.raises(TypeError, match="dtype"):
        rng.standard_normal(out=out)  # as in NumPy: the default of float64 must be overridden
    with pytest.raises(ValueError, match="shape"):
        rng.random((3, 4), dtype="float32", out=out)
    with pytest.raises(ValueError, match="contiguous"):
        rng.random(dtype="float32", out=out[:, :2])


@pytest.mark.parametrize("name", ["permutation", "shuffle", "choice", "normal", "spawn"])
def test_the_generator_lacks_what_cupy_lacks(fake_cupy, name):
    assert hasattr(np.random.Generator, name)
    assert not hasattr(generator(fake_cupy), name)


def test_devices():
    cuda = FakeCupy(devices=2).cuda
    assert cuda.runtime.getDeviceCount() == 2
    cuda.Device(1).use()
    assert cuda.runtime.getDevice() == cuda.Device().id == 1
    with cuda.Device(0):
        assert cuda.runtime.getDevice() == 0
    assert cuda.runtime.getDevice() == 1
    with pytest.raises(cuda.runtime.CUDARuntimeError, match="cudaErrorInvalidDevice"):
        cuda.Device(2).use()
    with pytest.raises(RuntimeError, match="cudaErrorNoDevice"):
        FakeCupy(devices=0).cuda.runtime.getDeviceCount()
