"""Activations by their formulas with 40 digits, by SciPy, and what a certain activation promises at 0 and far out.

That each pair is one of value and slope is the contract's (tests/contracts/test_activations.py); so are its loops.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mpmath import mp, mpf
from planted import Plant, assert_killed, both, instead
from scipy import stats
from strategies import DTYPES, EVERY_FUSED, SEEDS, ULP, assert_within, eps_of, normals, sampled

from tinyvae.backend import get_backend
from tinyvae.formula import exp, log, tanh, where
from tinyvae.kernels import select
from tinyvae.kernels.contract import Rows
from tinyvae.ops import activations
from tinyvae.ops.activations import ACTIVATIONS

EPS = eps_of("float64")
NAME = st.sampled_from(list(ACTIVATIONS))


def gelu(a: Any) -> Any:
    return a / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (a + mpf("0.044715") * a**3)))


# As in the papers, without a thought for rounding
FORMULAS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda a: a,
    "relu": lambda a: a if a > 0 else mpf(0),
    "leaky-relu": lambda a: a if a > 0 else a / 100,
    "elu": lambda a: a if a > 0 else mp.exp(a) - 1,
    "tanh": lambda a: (mp.exp(2 * a) - 1) / (mp.exp(2 * a) + 1),
    "sigmoid": lambda a: 1 / (1 + mp.exp(-a)),
    "softplus": lambda a: mp.log(1 + mp.exp(a)),
    "swish": lambda a: a / (1 + mp.exp(-a)),
    "gelu": gelu,
}


def exact(f: Callable[[Any], Any], a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f(a) and f'(a)."""
    with mp.workdps(40):
        return tuple(np.array([float(g(mpf(float(x)))) for x in a]) for g in (f, lambda x: mp.diff(f, x)))  # pyright: ignore


def slope_of(name: str, dy: Any, a: Any, y: Any) -> Any:
    backward = ACTIVATIONS[name].backward
    read = {"a": a, "y": y}
    return backward(dy, *(read[n] for n in backward.inputs[1:]))


def is_the_formula(name: str) -> None:
    rng = np.random.default_rng(1)
    a, dy = np.concatenate([2 * rng.standard_normal(40), [-9.0, -30.0, 9.0, 30.0]]), rng.standard_normal(44)
    y, slope = exact(FORMULAS[name], a)
    # at most two terms of 1 + |a|, made with one transcendental each, and 6 more roundings; gelu's u has 4 of its own
    # size, below 0.04 |a|^3 + |a|, which its slope 1 - t^2 takes away beyond |a| = 3: it is below 3
    bound = (2 * ULP + 12 + (name == "gelu") * 12) * EPS * (1 + np.abs(a))
    got = ACTIVATIONS[name].forward(a)
    assert_within(got, y, bound)
    assert_within(slope_of(name, dy, a, got), dy * slope, 2 * bound * np.abs(dy))


@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_slope_are_the_formula_and_its_derivative(name: str) -> None:
    is_the_formula(name)


def test_every_activation_has_a_formula_here_and_a_line_in_the_table_of_the_file() -> None:
    assert set(FORMULAS) == set(ACTIVATIONS)
    lines = {line.split()[0] for line in str(activations.__doc__).splitlines() if line.startswith("    ")}
    assert set(ACTIVATIONS) <= lines


def test_sigmoid_and_softplus_are_the_logistic_distributions() -> None:
    (a,) = normals(10, (99,), scale=5)
    bound = 2 * (ULP + 4) * EPS * (1 + np.abs(a))
    assert_within(ACTIVATIONS["sigmoid"].forward(a), stats.logistic.cdf(a), bound)
    assert_within(ACTIVATIONS["softplus"].forward(a), -stats.logistic.logsf(a), bound)


def test_gelu_is_near_what_it_stands_for() -> None:
    """a times the normal distribution's CDF; Hendrycks & Gimpel 2016 give the tanh form as an approximation of it."""
    a = np.linspace(-6, 6, 241)
    assert np.abs(ACTIVATIONS["gelu"].forward(a) - a * stats.norm.cdf(a)).max() < 5e-4


# name -> the value and the slope at exactly 0, where some are a convention
AT_ZERO = {
    "linear": (0, 1), "relu": (0, 0), "leaky-relu": (0, 0.01), "elu": (0, 1), "tanh": (0, 1), "sigmoid": (0.5, 0.25),
    "softplus": (math.log(2), 0.5), "swish": (0, 0.5), "gelu": (0, 0.5),
}  # fmt: skip


def keeps_its_conventions(name: str, zero: float = 0.0, dtype: str = "float64", kernels: str = "reference") -> None:
    k, f = select(kernels, get_backend("numpy"), dtype)[1](), ACTIVATIONS[name]
    k.begin("test")
    zeros = np.full((1, 1), zero, dtype)
    rows = k.product(np.ones((1, 1), dtype), zeros, np.full(1, zero, dtype), f)
    value, slope = AT_ZERO[name]
    assert_within(rows.y, [[value]], 2 * ULP * eps_of(dtype) * value)
    assert_within(k.end(np.ones((1, 1), dtype), Rows(rows.y.copy(), f, zeros)), [[slope]], 4 * ULP * eps_of(dtype))
    y = f.forward(zeros)  # and as plain array code
    assert_within(slope_of(name, np.ones_like(zeros), zeros, y), [[slope]], 4 * ULP * eps_of(dtype))


@pytest.mark.parametrize("kernels", ["reference", *EVERY_FUSED])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("name", AT_ZERO)
def test_the_conventions_at_exactly_0_are_kept(name: str, zero: float, dtype: str, kernels: str) -> None:
    keeps_its_conventions(name, zero, dtype, kernels)


@given(SEEDS, NAME, DTYPES)
@example(0, "softplus", "float32")
def test_none_overflows_and_all_but_swish_and_gelu_grow(seed: int, name: str, dtype: str) -> None:
    a = np.sort(normals(seed, (50,), dtype=dtype, scale=1e4)[0])
    y = ACTIVATIONS[name].forward(a)
    slope = slope_of(name, np.ones_like(a), a, y)
    assert y.dtype == dtype
    assert np.all(np.isfinite(y))
    assert np.all((slope >= -0.13) & (slope <= 1.13))  # gelu's and swish's largest is 1.13 and 1.10
    if not ACTIVATIONS[name].reads_a:
        assert np.all(np.diff(y) >= 0)
        assert np.all((slope >= 0) & (slope <= 1))


def test_what_is_said_of_them_is_true() -> None:
    a = np.linspace(-4, 4, 801)
    for name, f in ACTIVATIONS.items():
        y = f.forward(a)
        (left, right) = (float((f.forward(np.array([x]))[0] - f.forward(np.zeros(1))[0]) / x) for x in (-1e-7, 1e-7))
        assert f.kinked == (abs(right - left) > 0.5), name
        assert f.identity == np.array_equal(y, a), name
        falls = bool((np.diff(y) < 0).any())
        assert f.reads_a == falls, name  # where it falls and rises, y does not tell a
        grows = bool(y[-1] > 3.9) and bool(y[0] > -1.1)
        assert f.rectifier == grows, name
    numbers = [f.captured for f in ACTIVATIONS.values() if f.captured is not None]
    assert sorted(numbers) == list(range(len(numbers)))


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"activation must be one of linear, relu, tanh, .*, gelu, not 'sine'"):
        activations.activation("sine")
    assert activations.activation(ACTIVATIONS["elu"]) is activations.activation("elu")


# -------------------------------------------------------------------------------------------------------- planted bugs


def value(name: str, wrong: Any) -> Plant:
    return instead(ACTIVATIONS[name].forward, "function", wrong)


def slope(name: str, wrong: Any) -> Plant:
    return instead(ACTIVATIONS[name].backward, "function", wrong)


BUGS: dict[str, tuple[str, Plant]] = {
    "relu: no mask": ("relu", slope("relu", lambda dy, y: dy)),
    "leaky relu: slope 0.1": ("leaky-relu", slope("leaky-relu", lambda dy, y: dy * where(y > 0, 1, 0.1))),
    "leaky relu: 0.2 both ways": ("leaky-relu", both(
        value("leaky-relu", lambda a: where(a > 0, a, 0.2 * a)),
        slope("leaky-relu", lambda dy, y: dy * where(y > 0, 1, 0.2)))),
    "elu: slope y": ("elu", slope("elu", lambda dy, y: dy * where(y > 0, 1, y))),
    "tanh: slope 1 - y": ("tanh", slope("tanh", lambda dy, y: dy * (1 - y))),
    "sigmoid: slope e^-y": ("sigmoid", slope("sigmoid", lambda dy, y: dy * exp(-y))),
    "softplus: slope e^-y": ("softplus", slope("softplus", lambda dy, y: dy * exp(-y))),
    "swish: the sigmoid's slope alone": ("swish", slope("swish", lambda dy, a, y: dy / (1 + exp(-a)))),
    "gelu: the sigmoid form, both ways": ("gelu", both(
        value("gelu", lambda a: a / (1 + exp(-1.702 * a))),
        slope("gelu", lambda dy, a: dy / (1 + exp(-1.702 * a)) * (1 + 1.702 * a / (1 + exp(1.702 * a)))))),
    "gelu: the inner slope forgotten": ("gelu", slope("gelu", lambda dy, a: dy * 0.5 * (1 + tanh(0.7978845608 * a)))),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
@pytest.mark.filterwarnings("ignore:overflow")  # of the bugs
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, plant = BUGS[bug]
    assert_killed(monkeypatch, plant, lambda: is_the_formula(name))


def test_a_slope_of_1_at_0_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plant = slope("relu", lambda dy, y: dy * where(y >= 0, 1.0, 0.0))
    assert_killed(monkeypatch, plant, lambda: keeps_its_conventions("relu"))


@pytest.mark.filterwarnings("ignore:overflow")  # which is the bug
def test_a_naive_softplus_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plant = value("softplus", lambda a: log(1 + exp(a)))
    assert_killed(monkeypatch, plant, test_none_overflows_and_all_but_swish_and_gelu_grow)
