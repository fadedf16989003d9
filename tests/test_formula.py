"""The words of formulas on arrays, numbers and symbols, and how a formula is made."""

import functools
import math
from typing import Any

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from strategies import assert_within

from tinyvae import formula as words
from tinyvae.formula import Formula, FormulaError, backward_of, digamma, exp, formula, lgamma, maximum, sigmoid, where
from tinyvae.ops.activations import ACTIVATIONS, Activation

# word -> what it is by NumPy on float64, and where
ARRAYS = {
    "exp": (np.exp, -5, 5), "expm1": (np.expm1, -5, 5), "log": (np.log, 0.01, 5), "log1p": (np.log1p, 0, 5),
    "sqrt": (np.sqrt, 0, 5), "tanh": (np.tanh, -5, 5), "double": (np.float64, -5, 5),
}  # fmt: skip
SYMBOLS = {
    "exp": sympy.exp, "expm1": lambda x: sympy.exp(x) - 1, "log": sympy.log, "log1p": lambda x: sympy.log(1 + x),
    "sqrt": sympy.sqrt, "tanh": sympy.tanh, "double": lambda x: x,
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize("name", ARRAYS)
def test_a_word_on_arrays_is_numpys(name: str) -> None:
    truth, low, high = ARRAYS[name]
    x = np.linspace(low, high, 101)
    word = getattr(words, name)
    assert np.array_equal(word(x), truth(x))
    assert word(x.astype("f4")).dtype == ("f8" if name == "double" else "f4")
    assert np.array_equal(word(np.arange(1, 4)), truth(np.arange(1, 4)))  # whole numbers become real ones


@pytest.mark.parametrize("name", ARRAYS)
def test_a_word_on_one_number_is_a_python_float_so_that_it_leaves_a_float32_array_float32(name: str) -> None:
    value = getattr(words, name)(0.5)
    assert type(value) is float
    assert value == pytest.approx(float(ARRAYS[name][0](0.5)), rel=1e-15)
    assert (value * np.ones(2, "f4")).dtype == np.float32


def test_the_words_of_two_and_three_numbers() -> None:
    a, b = np.array([1.0, np.nan, -2.0]), np.array([0.0, 1.0, np.nan])
    assert np.array_equal(maximum(a, b), [1, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(words.minimum(a, b), [0, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(words.isnan(a), [False, True, False])
    assert np.array_equal(where(a > 0, a, 7.0), [1, 7, 7])
    assert (maximum(2, 3), words.minimum(2, 3), where(True, 1, 2), words.isnan(1.0)) == (3, 2, 1, False)
    assert maximum(np.ones(2, "f4"), 0).dtype == np.float32


@pytest.mark.parametrize("name", SYMBOLS)
def test_a_word_on_symbols_is_an_expression(name: str) -> None:
    x = sympy.Symbol("x", positive=True)
    assert getattr(words, name)(x) == SYMBOLS[name](x)


def test_choices_and_the_gamma_functions_on_symbols() -> None:
    x, y = sympy.symbols("x y", real=True)
    assert maximum(x, 0) == sympy.Max(x, 0)
    assert words.minimum(x, y) == sympy.Min(x, y)
    assert where(x > 0, x, y) == sympy.Piecewise((x, x > 0), (y, True))
    assert words.isnan(x) == sympy.false
    assert lgamma(x) == sympy.loggamma(x)
    assert sympy.diff(lgamma(x), x) == digamma(x)
    assert sympy.simplify(sigmoid(x).subs(x, -3) - 1 / (1 + sympy.exp(3))) == 0


# Ten roundings of the largest term: lgamma's is y log y (and log of eight numbers near 0), digamma's the sums of 1 / x.
@pytest.mark.parametrize("x", [1e-6, 0.01, 0.5, 1.0, 1.4616321449683623, 2.0, 7.99, 100.5, 1e7, 1e15])
def test_the_gamma_functions_are_right_to_the_last_digits(x: float) -> None:
    eps, y = np.finfo(float).eps, x + 8
    terms = y * math.log(y) + y + 2 * abs(math.log(x)) + 20
    with mp.workdps(40):
        assert_within(lgamma(np.array(x)), float(mp.loggamma(x)), 10 * eps * terms)
        assert_within(digamma(np.array(x)), float(mp.digamma(x)), 10 * eps * (math.log(y) + 8 / x + 8))


@given(st.floats(-1e4, 1e4), st.sampled_from(["f4", "f8"]))
def test_sigmoid_overflows_nowhere_and_is_symmetric(x: float, dtype: str) -> None:
    a = np.array([x, -x], dtype)
    s = sigmoid(a)  # warnings are errors
    assert_within(s.sum(), 1, 4 * np.finfo(dtype).eps)
    assert_within(s[0], 1 / (1 + mp.exp(-float(a[0]))), 8 * np.finfo(dtype).eps)


# ------------------------------------------------------------------------------------------------------------ formulas


def test_a_formula_has_the_inputs_of_its_function() -> None:
    @formula
    def line(slope, x, offset):
        """A line."""
        return slope * x + offset

    assert line.inputs == ("slope", "x", "offset")
    assert line(2, 3, 4) == 10
    assert repr(line) == "formula line(slope, x, offset)"
    assert line.__doc__ == "A line."
    assert formula(lambda: 3.0).inputs == ()
    assert Formula(lambda *n: sum(n), inputs=(), name="nothing").inputs == ()
    assert formula(functools.partial(lambda x, c: c * x, c=2.0)).inputs == ("x",)
    assert formula(lambda x, *, c=2.0: c * x)(3) == 6


@pytest.mark.parametrize(
    "function", [lambda *numbers: 1.0, lambda **numbers: 1.0, lambda a, *, slope: a * slope], ids=["*", "**", "keyword"]
)
def test_inputs_that_cannot_be_given_one_by_one_are_refused(function: Any) -> None:
    with pytest.raises(FormulaError, match="names its inputs one by one"):
        formula(function)


def test_a_backward_knows_its_forward_and_by_what_it_is_the_gradient() -> None:
    @formula
    def product(a, b):
        return a * b

    @backward_of(product, "a", "b")
    def slopes(dy, a, b):
        return dy * b, dy * a

    assert (slopes.of, slopes.wrt, slopes.inputs) == (product, ("a", "b"), ("dy", "a", "b"))
    assert product.of is None


def test_a_formula_may_use_another_and_a_loop_of_python() -> None:
    @formula
    def power_series(x):
        total, term = 0.0, 1.0
        for n in range(1, 20):
            total, term = total + term, term * x / n
        return total

    twice = formula(lambda x: power_series(x) + power_series(x))
    x = np.linspace(-1, 1, 9)
    assert_within(twice(x), 2 * exp(x), 1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("f", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_a_formula_on_arrays_keeps_their_precision(f: Activation, dtype: str) -> None:
    a = np.linspace(-2, 2, 5).astype(dtype)
    passed = {"dy": a, "a": a, "y": f.forward(a)}
    assert passed["y"].dtype == dtype
    assert f.backward(*(passed[name] for name in f.backward.inputs)).dtype == dtype
