"""The contract of an activation: y = f(a) and its slope, two formulas of single numbers.

    check_activation(swish_forward, swish_backward)

The derivative is compared with finite differences, and the loops made of the pair, in every precision and on all
kernels, with the formulas on float64 arrays.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tinyvae import kernels as kernel_files
from tinyvae.backend import get_backend
from tinyvae.checking.agreement import assert_right, usable_kernels
from tinyvae.checking.finite_differences import Check, Report, gradcheck
from tinyvae.formula import Formula
from tinyvae.loop import Loop
from tinyvae.ops.activations import ACTIVATIONS

FLOAT32 = 1e-4  # of the number, and absolutely
WIDE = np.concatenate([s * np.logspace(-4, 4, 41) for s in (-1.0, 1.0)])  # a, in float32


def activation_checks(seed: int = 0) -> Iterator[Check]:
    """One Check for each activation of the table, named by it."""
    for name, a in ACTIVATIONS.items():
        for check in gradients(a.forward, a.backward, seed):
            yield replace(check, name=f"{name}: {check.name}")


def gradients(forward: Formula, backward: Formula, seed: int = 0) -> Report:
    """Finite differences at 40 numbers between -20 and 20, most of them near 0."""
    rng = np.random.default_rng(seed)
    a = np.concatenate([rng.standard_normal(30), rng.uniform(-20, 20, 10)])
    dy = rng.standard_normal(a.shape)
    with np.errstate(all="ignore"):
        da = _slope(backward, dy, a, forward(a))
        return gradcheck(lambda: dy * forward(a), {"a": a}, {"a": da}, seed=seed)


def check_activation(forward: Formula, backward: Formula, name: str = "") -> None:
    """Raises ValueError if the pair is none, AssertionError with what is wrong of it."""
    name = name or getattr(forward, "__name__", repr(forward))
    if not isinstance(forward, Formula) or forward.inputs != ("a",):
        raise ValueError(f"{name}: the value must be a @formula of one number, called a")
    if not isinstance(backward, Formula) or backward.of is not forward or backward.wrt != ("a",):
        raise ValueError(f'{name}: the slope must be decorated with @backward_of({forward.__name__}, "a")')
    if not backward.inputs or backward.inputs[0] in ("a", "y") or not set(backward.inputs[1:]) <= {"a", "y"}:
        raise ValueError(f"{name}: the slope may read dy, which comes first, a and y; not {', '.join(backward.inputs)}")
    assert_right(gradients(forward, backward), name)
    for kernels in usable_kernels():
        for dtype, tolerance in (("float32", FLOAT32), ("float64", 1e-13)):
            _check_loops(forward, backward, kernels, dtype, tolerance, f"{name}: in {dtype} on the {kernels} kernels")


def _check_loops(forward: Formula, backward: Formula, kernels: str, dtype: str, tolerance: float, where: str) -> None:
    k = kernel_files.select(kernels, get_backend("numpy"), dtype)[1]()
    a = WIDE.astype(dtype)
    exact = a.astype(np.float64)
    with np.errstate(all="ignore"):
        y = forward(exact)
        da = _slope(backward, np.ones_like(exact), exact, y)
        got_y = np.array(k.map(Loop([forward]), a=a[None]))[0]
        given = {"a": a[None], "y": got_y[None]}
        read = {n: given[n] for n in backward.inputs[1:]}
        got_da = np.array(k.map(Loop([backward]), **{backward.inputs[0]: 1.0}, **read)).ravel()
    for what, got, expected in (("the value", got_y, y), ("the slope", np.broadcast_to(got_da, a.shape), da)):
        off = np.abs(got - expected) / (1 + np.abs(expected))
        worst = int(np.argmax(np.where(np.isnan(off), np.inf, off)))
        assert off[worst] <= tolerance, (
            f"{where} {what} at a = {a[worst]:.4g} is {got[worst]:.6g}, not {expected[worst]:.6g}"
        )


def _slope(backward: Formula, dy: np.ndarray, a: np.ndarray, y: np.ndarray) -> np.ndarray:
    read = {"a": a, "y": y}
    return backward(dy, *(read[name] for name in backward.inputs[1:])) + np.zeros_like(a)
