"""How one operation of the kernels' contract is compared with the reference in float64, again and again.

What is remembered from one call to the next must never show. So each operation is done in four passes on the same
kernels: prepared, remembered, with other numbers in the same memory, and with the same numbers in other memory. Between
passes the kernels' memory is poisoned: what is read before it is written, or left unwritten, shows as NaN. Matrices may
be halves of wider ones, whose other halves must stay what they are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from strategies import EVERY_FUSED, assert_within, eps_of

from tinyvae.backend import get_backend
from tinyvae.kernels import select
from tinyvae.kernels.contract import Kernels
from tinyvae.kernels.reference import Reference

BACKEND = get_backend("numpy")
KINDS = [(name, dtype) for name in (*EVERY_FUSED, "reference") for dtype in ("float32", "float64")]
MADE: dict[tuple[str, str], Kernels] = {}  # the same kernels for every example: shapes change from call to call
LAYOUTS = ("whole", "left half", "right half")
Calls = Callable[[Kernels, dict[str, Any]], Sequence[Any]]


def kernels_of(kind: tuple[str, str]) -> Kernels:
    """The kernels of that name and dtype, made once."""
    if kind not in MADE:
        MADE[kind] = select(kind[0], BACKEND, kind[1])[1]()
    return MADE[kind]


def poison(k: Any) -> None:
    """NaN in all memory that the kernels hand out (and 255 where that holds bytes)."""
    for flat in (*getattr(k, "scratch", ()), *(flat for call in getattr(k, "arena", ()) for flat in call)):
        flat[...] = 255


def laid(a: np.ndarray, layout: str, dtype: str) -> np.ndarray:
    """A copy in that dtype; a matrix as a half of one that is NaN otherwise."""
    dtype = dtype if a.dtype.kind == "f" else a.dtype.name
    if layout == "whole" or a.ndim != 2 or a.dtype.kind != "f":
        return a.astype(dtype)
    wide = np.full((a.shape[0], 2 * a.shape[1]), np.nan, dtype)
    half = wide[:, : a.shape[1]] if layout == "left half" else wide[:, a.shape[1] :]
    half[...] = a
    return half


def others(given: dict[str, Any]) -> dict[str, Any]:
    """Other numbers of the same shapes: real ones smaller and of the other sign, labels in another order."""
    change = lambda a: np.roll(a, 1) if isinstance(a, np.ndarray) and a.dtype.kind != "f" else -0.75 * a
    return {name: change(a) for name, a in given.items()}


def check(
    kind: tuple[str, str], calls: Calls, given: dict[str, Any], bounds: Callable[..., Sequence[Any]],
    layout: str = "whole", written: Sequence[str] = (), key: Any = "contract",
) -> None:  # fmt: skip
    """Compare `calls(kernels, operands)` with the reference's. given: name -> float64 or whole numbers, or one number.

    bounds(operands) -> what each result may be off by, in units of eps. written: operands that the calls write to.
    """
    k, truth = kernels_of(kind), Reference(np, "float64")
    rounded = lambda a: np.asarray(a, kind[1]).astype(float) if np.asarray(a).dtype.kind == "f" else a
    given = {name: rounded(a) if isinstance(a, np.ndarray) else a for name, a in given.items()}
    arrays = {name: laid(a, layout, kind[1]) for name, a in given.items() if isinstance(a, np.ndarray)}
    halves = {name: np.isnan(_wide(a)) for name, a in arrays.items() if a.base is not None}
    for turn in range(4):
        given = others(given) if turn == 2 else given
        given = {name: rounded(a) if isinstance(a, np.ndarray) else a for name, a in given.items()}
        if turn == 3:
            arrays = {name: laid(a, layout, kind[1]) for name, a in given.items() if isinstance(a, np.ndarray)}
        for name, a in arrays.items():
            a[...] = given[name]
        poison(k)
        k.begin(key)
        results = [np.array(r) for r in calls(k, {**given, **arrays})]
        truth.begin()
        copies = {name: a.copy() if isinstance(a, np.ndarray) else a for name, a in given.items()}
        expected = calls(truth, copies)
        assert len(results) == len(expected)
        for got, right, bound in zip(results, expected, bounds(given), strict=True):
            assert_within(got, right, bound * eps_of(kind[1]))
        for name, a in arrays.items():
            if name not in written:
                assert np.array_equal(a, given[name].astype(a.dtype)), f"{name} was written to"
        for name, nan in halves.items():
            assert np.array_equal(np.isnan(_wide(arrays[name])), nan), f"{name} was written beside"


def _wide(a: np.ndarray) -> np.ndarray:
    assert a.base is not None
    return a.base
