"""The same on NumPy and on the stand-in for CuPy: which computes with NumPy, so the numbers agree to the last bits.

What such tests show is that no formula leans on NumPy, copies in silence, or mixes host and device.
"""

from typing import Any

import numpy as np

from tinyvae.backend import Backend, to_host

BACKENDS = ["numpy", "cupy"]
N, D, K = 5, 4, 3  # rows, wide, narrow: all different


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def uniform(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).uniform(0, 1, shape)


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
