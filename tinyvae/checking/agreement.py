"""What all parts must keep on all kernels: their numbers are the reference's, now and when the memory is used again.

A part's numbers may depend on nothing but what it was given: not on what it was given before (a result that it kept,
an array or number that froze when a call was prepared), and not on whose memory it is.
"""

import dataclasses
import itertools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from tinyvae import kernels as kernel_files
from tinyvae import parts
from tinyvae.backend import get_backend
from tinyvae.checking import examples
from tinyvae.checking.finite_differences import Report
from tinyvae.kernels.contract import Kernels
from tinyvae.kernels.reference import Reference

Numbers = dict[str, np.ndarray]
Run = Callable[[Kernels, Numbers], Numbers]  # what a part makes of what it is given
# Of the largest number. The sums here have less than 100 terms: in float32 they lose 100 roundings of 6e-8, and the
# compiled exponential 1e-7; in float64 as little of it
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}


def usable_kernels() -> list[str]:
    """The kernels that NumPy's arrays go through on this machine, the reference first."""
    every = ("reference", *kernel_files.FUSED["numpy"])
    return [name for name in every if kernel_files.problem(name, get_backend("numpy")) is None]


def checked_name(part: Any, base: type, folder: ModuleType) -> str:
    """The part in a few words. Raises ValueError if it is no part, or does not come back from the text that says it."""
    if not isinstance(part, base) or not dataclasses.is_dataclass(part):
        raise ValueError(
            f"{type(part).__name__} must be a dataclass and a subclass of {base.__module__}.{base.__name__}"
        )
    said, others = examples.text(part), examples.inside(part)
    again = parts.part(folder, base, said, (type(part),), others)
    if examples.text(again) != said:
        raise ValueError(f"{said}: its options do not come back from this text, but as {examples.text(again)}")
    return said


def check_agreement(run: Run, first: Numbers, second: Numbers, name: str) -> None:
    """Raises AssertionError where the numbers are not those of the reference kernels in float64, which are run anew.

    first, second: two sets of what the part is given, of the same shapes, float64.
    """
    expected = [run(Reference(np, "float64"), _copies(given, "float64")) for given in (first, second)]
    for kernels, dtype in itertools.product(usable_kernels(), TOLERANCE):
        make = kernel_files.select(kernels, get_backend("numpy"), dtype)[1]
        k, given = make(), _copies(first, dtype)
        for i, what in enumerate(("", ", at the second pass with other numbers in the same arrays", ", called again")):
            for key, a in given.items():
                a[...] = (first, second, first)[i][key]
            got = _one_pass(run, k, given)
            compare(got, expected[i % 2], TOLERANCE[dtype], f"{name}: on the {kernels} kernels in {dtype}{what}")
        got = _one_pass(run, k, _copies(second, dtype))
        where = f"{name}: on the {kernels} kernels in {dtype}, with other arrays of other numbers"
        compare(got, expected[1], TOLERANCE[dtype], where)


def check_left_alone(given: Numbers, run: Callable[[], Any], name: str) -> None:
    """Raises AssertionError if what is given is changed by `run`."""
    before = _copies(given, "float64")
    run()
    for key, a in given.items():
        assert np.array_equal(a, before[key], equal_nan=True), f"{name}: changes {key}, which it is given"


def compare(got: Numbers, expected: Numbers, tolerance: float, where: str) -> None:
    """Raises AssertionError with the worst difference, beside the largest number."""
    for key, a in expected.items():
        assert got[key].shape == a.shape, f"{where} {key} has shape {got[key].shape}, not {a.shape}"
        size = 1 + float(np.abs(a).max(initial=0))
        worst = float(np.abs(got[key] - a).max(initial=0))
        assert worst <= tolerance * size, (
            f"{where} {key} is off by {worst:.1e}, where {tolerance * size:.1e} is allowed"
        )


def assert_right(report: Report, name: str) -> None:
    """Raises AssertionError with the first gradient that is not right, and by how much."""
    for check in report:
        if not check.passed:
            wrong = "is wrong" if not check.blind else "cannot be told"
            note = f" ({check.note})" if check.note else ""
            raise AssertionError(
                f"{name}: the gradient by {check.name} {wrong}: off by {check.error:.2e}, where {check.tolerance:.1e} "
                f"is allowed{note}"
            )


def _one_pass(run: Run, k: Kernels, given: Numbers) -> Numbers:
    k.begin("check")
    return {key: np.array(a, dtype=np.float64) for key, a in run(k, given).items()}


def _copies(given: Numbers, dtype: str) -> Numbers:
    return {key: np.array(a, dtype=dtype if a.dtype.kind == "f" else a.dtype) for key, a in given.items()}
