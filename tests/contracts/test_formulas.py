"""Every formula of the package, whoever wrote it: slopes are SymPy's derivatives, and kernels compute what it says.

Formulas are found by walking the modules. An input's name says where it lies: a name means the same everywhere.

Tolerance: ROUNDINGS roundings of the result and of 1 (what is near 0 has been a difference), what it moves when any
input is off by two roundings, which no formula can avoid, and as many of float64's roundings of the largest number on
the way that is in float64. In float32 that is 1.5e-5: a sixth of what the house allows.
"""

import importlib
import math
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy
from strategies import EVERY_FUSED, assert_within, eps_of

import tinyvae
from tinyvae.backend import get_backend
from tinyvae.formula import Formula, backward_of, double, exp, expm1, formula, log, maximum
from tinyvae.kernels import select
from tinyvae.kernels.reference import Reference
from tinyvae.loop import DOUBLE, REAL, Loop

ROUNDINGS = 128
ROWS, COLS = 16, 24
OPTIONAL = {"cupy", "sklearn", "torch", "jax", "onnx"}  # packages that a module may need
NO_FORMULAS = {"checking", "exercises", "commands"}  # what stands there may be wrong on purpose

# Names of inputs with a range; all others are any real number. "+": above 0, on a log scale.
RANGES: dict[str, Any] = {
    "logvar": (-50, 50), "log_scale": (-20, 20), "log_rate": (-20, 16), "log_mean": (-20, 16),
    "log_dispersion": (-25, 25), "x": "data", "u": (0, 1), "v": "+", "r": "+", "w": "+", "squares": "+", "total": "+",
    "share": (0, 1), "each": (0, 1), "nll_share": (0, 1), "norm2": "+", "max_norm": "+", "epsilon": "+", "step": "+",
}  # fmt: skip


def of_the_package() -> list[Formula]:
    """All that stand in a module by a name, or in a loop that does."""
    found: dict[Formula, None] = {}
    for info in pkgutil.walk_packages(tinyvae.__path__, "tinyvae."):
        if info.name.split(".")[1] in NO_FORMULAS or info.name.endswith("__main__"):
            continue
        try:
            module = importlib.import_module(info.name)
        except ModuleNotFoundError as error:
            if error.name in OPTIONAL:
                continue
            raise
        for value in vars(module).values():
            in_loops = [f for part in value.formulas for f in part] if isinstance(value, Loop) else []
            found.update(dict.fromkeys([value] if isinstance(value, Formula) else in_loops))
    return list(found)


FORMULAS = of_the_package()
BACKWARDS = [f for f in FORMULAS if f.of is not None]


def name_of(f: Formula) -> str:
    return f"{f.__module__.removeprefix('tinyvae.')}.{f.__name__}"


EACH = pytest.mark.parametrize("f", FORMULAS, ids=name_of)
EACH_BACKWARD = pytest.mark.parametrize("f", BACKWARDS, ids=name_of)


def test_they_are_found() -> None:
    folders = {name_of(f).split(".")[0] for f in FORMULAS}
    assert {"ops", "likelihoods", "objectives", "layers", "model", "kernels"} <= folders
    assert len(FORMULAS) >= 60
    assert len(BACKWARDS) >= 15


# -------------------------------------------------------------------------------------------------------------- points


def numbers_of(name: str, rng: np.random.Generator) -> np.ndarray:
    """Numbers that an input of this name may be, ordinary ones and extreme ones: (ROWS, COLS), float32's."""
    size, of = (ROWS, COLS), RANGES.get(name, "any")
    if of == "data":  # grey values, counts, real numbers
        counts = np.floor(10 ** rng.uniform(0, 7, size)) - 1
        some = rng.integers(3, size=size)
        x = np.choose(some, [rng.choice([0, 1, rng.random()], size), counts, 3 * rng.standard_normal(size)])
    elif of == "+":
        x = 10 ** rng.uniform(-6, 6, size)
    elif of == "any":
        large = rng.choice([-1, 1], size) * 10 ** rng.uniform(-6, 4, size)
        x = np.where(rng.random(size) < 0.6, rng.standard_normal(size), large)
        x[0, :4] = 0, 1e4, -1e4, 1
    else:
        low, high = of
        x = rng.uniform(low, high, size)
        x[0, :2] = low, high
    return x.astype(np.float32)


def inputs_of(f: Formula, seed: int = 0, dtype: Any = np.float64) -> dict[str, np.ndarray]:
    """Numbers for all inputs; y of a backward is what its forward makes of them."""
    rng = np.random.default_rng(seed)
    wanted = dict.fromkeys((*f.inputs, *(f.of.inputs if f.of else ())))
    given = {name: numbers_of(name, rng).astype(dtype) for name in wanted}
    if f.of is not None and "y" in f.inputs:
        given["y"] = f.of(*(given[name].astype(np.float64) for name in f.of.inputs)).astype(np.float32).astype(dtype)
    return {name: given[name] for name in given if name in f.inputs or f.of is not None}


def results(f: Formula, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    """In float64, each (ROWS, COLS)."""
    with np.errstate(all="ignore"):
        value = f(*(given[name].astype(np.float64) for name in f.inputs))
    values = value if isinstance(value, tuple) else (value,)
    return [np.broadcast_to(np.asarray(v, np.float64), (ROWS, COLS)) for v in values]


def allowed(f: Formula, given: dict[str, np.ndarray], truth: list[np.ndarray], eps: float) -> list[np.ndarray]:
    """See the top of this file."""
    bounds = [ROUNDINGS * eps * (np.abs(t) + 1) for t in truth]
    with np.errstate(all="ignore"):
        for name in f.inputs:
            for shift in (1 + 2 * eps, 1 - 2 * eps):
                moved = results(f, {**given, name: given[name] * shift})
                bounds = [b + np.abs(m - t) for b, m, t in zip(bounds, moved, truth, strict=True)]
        on_the_way = ROUNDINGS * eps_of("float64") * largest(f, given, eps == eps_of("float64"))
    return [b + on_the_way for b in bounds]


def largest(f: Formula, given: dict[str, np.ndarray], every: bool) -> Any:
    """The largest number on the way to the results, of those that a float32 loop makes in float64 or of all."""
    made: dict[int, Any] = {}
    value_of = lambda n: {"input": lambda: given[n.args[0]].astype(np.float64), "constant": lambda: n.args[0]}.get(
        n.op, lambda: made[n.index]
    )()
    found: Any = 0.0
    for n in Loop([f]).program:
        args = [value_of(a) for a in n.args]
        made[n.index] = args[0] if n.op == "double" else getattr(np, n.op)(*args)
        if n.kind == DOUBLE or (every and n.kind == REAL):
            found = np.maximum(found, np.abs(made[n.index]))
    return found


# ------------------------------------------------------------------------------------------------------------- kernels


def run(k: Any, f: Formula, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    k.begin("formula")
    with np.errstate(all="ignore"):
        made = k.map(Loop([f]), **{name: given[name].astype(k.dtype) for name in f.inputs}) if f.inputs else k.map(
            Loop([f]), out=[k.new(ROWS, COLS) for _ in range(Loop([f]).counts[0])]
        )  # fmt: skip
    return [np.array(a) for a in (made if isinstance(made, tuple) else (made,))]


def check(f: Formula, kernels: str, dtype: str) -> None:
    k = select(kernels, get_backend("numpy"), dtype)[1]()
    eps = eps_of(dtype)
    given = inputs_of(f, dtype=dtype)
    truth = results(f, given)
    bounds = allowed(f, given, truth, eps)
    for got, expected, bound in zip(run(k, f, given), truth, bounds, strict=True):
        within = (
            np.isfinite(expected) & np.isfinite(bound) & (np.abs(expected) < 1e36)
        )  # of float32, and of the formula
        assert within.mean() > 0.3, "hardly any of the points lie where the formula is defined"
        assert_within(got[within], expected[within], bound[within])


@EACH
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernels", EVERY_FUSED)
def test_kernels_compute_what_the_formula_says(f: Formula, kernels: str, dtype: str) -> None:
    check(f, kernels, dtype)


@EACH
@pytest.mark.parametrize("kernels", EVERY_FUSED)
def test_nan_and_infinity_are_what_the_formula_makes_of_them_so_that_a_diverging_run_is_seen(
    f: Formula, kernels: str
) -> None:
    k, truth = select(kernels, get_backend("numpy"), "float32")[1](), Reference(np, "float32")
    for name in f.inputs:
        given = {n: np.full((2, 3), 0.5, "f4") for n in f.inputs}
        given[name][0] = np.nan, np.inf, -np.inf
        for got, expected in zip(run(k, f, given), run(truth, f, given), strict=True):
            for which in (np.isnan, np.isposinf, np.isneginf):
                assert np.array_equal(which(got), which(expected)), f"{which.__name__} from {name}"


# -------------------------------------------------------------------------------------------------------------- slopes


def check_slope(f: Formula, points: int = 24) -> None:
    """`f` is dy times the derivative of its forward, in float64."""
    forward = f.of
    assert forward is not None
    symbols = {name: sympy.Symbol(name, real=True) for name in forward.inputs}
    value: Any = forward(*symbols.values())
    slopes = [sympy.diff(value, symbols[name]) for name in f.wrt]
    dy = f.inputs[0]
    assert dy not in symbols, "the first input of a backward is the gradient of the result"
    given = inputs_of(f)
    truth = results(f, given)
    bounds = allowed(f, given, truth, eps_of("float32") if "y" in f.inputs else eps_of("float64"))
    assert len(truth) == len(slopes), "a result for each input that it is the gradient by"
    compared = 0
    for at in np.random.default_rng(1).permutation(ROWS * COLS)[:points]:
        at = np.unravel_index(at, (ROWS, COLS))
        where = {symbols[name]: sympy.Float(float(given[name][at]), 40) for name in forward.inputs}
        for slope, got, bound in zip(slopes, truth, bounds, strict=True):
            if not (math.isfinite(got[at]) and math.isfinite(bound[at])):
                continue
            expected = slope.subs(list(where.items())).evalf(30) * float(given[dy][at])
            if not expected.is_real or not abs(expected) < 1e300:
                continue
            compared += 1
            assert abs(float(expected) - got[at]) <= bound[at], f"{f} at {where}: {got[at]}, not {float(expected)}"
    assert compared >= points / 3


@EACH_BACKWARD
def test_a_slope_is_the_derivative_of_its_forward(f: Formula) -> None:
    check_slope(f)


# -------------------------------------------------------------------------------------------------------- planted bugs


@formula
def value(a, b):
    return maximum(a, 0) * b + exp(-abs(b))


def planted(slopes: Callable[..., Any]) -> Formula:
    return backward_of(value, "a", "b")(slopes)


def test_a_right_slope_passes_and_wrong_ones_are_found() -> None:
    step = lambda a: maximum(a, 0) / a
    sign = lambda b: b / abs(b)
    check_slope(planted(lambda dy, a, b: (dy * step(a) * b, dy * (maximum(a, 0) - sign(b) * exp(-abs(b))))))
    wrong = {
        "the sign": lambda dy, a, b: (dy * step(a) * b, dy * (maximum(a, 0) + sign(b) * exp(-abs(b)))),
        "the order": lambda dy, a, b: (dy * (maximum(a, 0) - sign(b) * exp(-abs(b))), dy * step(a) * b),
        "dy forgotten": lambda dy, a, b: (step(a) * b, maximum(a, 0) - sign(b) * exp(-abs(b))),
        "a digit": lambda dy, a, b: (dy * step(a) * b, dy * (maximum(a, 0) - 1.00001 * sign(b) * exp(-abs(b)))),
        "one short": lambda dy, a, b: dy * step(a) * b,
    }
    for slopes in wrong.values():
        with pytest.raises(AssertionError):
            check_slope(planted(slopes))


@pytest.mark.parametrize("kernels", EVERY_FUSED)
def test_a_formula_that_float32_does_not_hold_is_found(kernels: str) -> None:
    bad = formula(lambda x: log(exp(x) + 1e-3) - x * 0)  # overflows
    cancels = formula(lambda logvar: exp(0.1 * logvar) - 1 - (expm1(0.1 * logvar) - 1e3 + 1e3))
    check(formula(lambda logvar: double(logvar) + 1e3 - 1e3), kernels, "float32")
    for f in (bad, cancels):
        with pytest.raises(AssertionError):
            check(f, kernels, "float32")
