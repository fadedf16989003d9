"""What the property tests share: sizes that differ, arrays made from a seed, and the rounding bound of a sum.

Every tolerance in these tests is a number of roundings times eps times the sum of the absolute terms. NumPy's eps is
twice the unit round-off, so `n` roundings of a quantity that never exceeds S in between cost at most n eps S / 2; the
factor of two pays for the second-order terms (Higham 2002, lemma 3.1). exp, log1p, expm1 and tanh are correct to 4
units in the last place in NumPy's vectorized loops, so each of them counts as ULP = 4 roundings.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from tinyvae.backend import get_backend
from tinyvae.kernels import FUSED, problem

ULP = 4
KERNELS = ("reference", "fused")
EVERY_FUSED = [name for name in FUSED["numpy"] if problem(name, get_backend("numpy")) is None]  # that is installed
SEEDS = st.integers(0, 2**32 - 1)
DTYPES = st.sampled_from(["float32", "float64"])


def sampled(values: Iterable[Any], every: int, several: bool = False) -> list[Any]:
    """Values to parametrize with: one in `every` of them in each run, the others only in the sweeps.

    several: each value is a tuple, of one for each name.
    """
    rows = [v if several else (v,) for v in values]
    return [pytest.param(*row, marks=pytest.mark.sweeps if i % every else ()) for i, row in enumerate(rows)]


def sizes(count: int, low: int = 1, high: int = 9) -> st.SearchStrategy[tuple[int, ...]]:
    """`count` sizes, all different, so that a transpose shows as a wrong shape."""
    return st.lists(st.integers(low, high), min_size=count, max_size=count, unique=True).map(tuple)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Ordinary numbers between two bounds: subnormal ones are flushed to 0 by GPUs."""
    return st.floats(low, high, allow_nan=False, allow_subnormal=False)


# 0, or large enough that nothing it scales underflows in float32
FACTORS = st.one_of(st.just(0.0), numbers(1e-3, 2.0), numbers(-2.0, -1e-3))


def normals(seed: int, *shapes: tuple[int, ...], dtype: str = "float64", scale: float = 1.0) -> list[np.ndarray]:
    """One array of normal numbers for each shape."""
    rng = np.random.default_rng(seed)
    return [(scale * rng.standard_normal(shape)).astype(dtype) for shape in shapes]


def eps_of(dtype: Any) -> float:
    return float(np.finfo(dtype).eps)


def assert_within(actual: Any, expected: Any, bound: Any) -> None:
    """|actual - expected| <= bound, elementwise, and nothing is NaN."""
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    error = np.abs(actual - expected)
    bound = np.broadcast_to(bound, error.shape)
    if not np.all(error <= bound):
        worst = int(np.nanargmax(np.where(np.isnan(error), np.inf, error - bound)))
        raise AssertionError(
            f"got {actual.flat[worst]!r}, expected {expected.flat[worst]!r}: off by {error.flat[worst]:.3g}, "
            f"where {bound.flat[worst]:.3g} is allowed"
        )
