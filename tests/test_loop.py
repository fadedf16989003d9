"""How a loop is traced: each number once, in order; and what no loop can do, refused with the line at fault."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyvae.formula import Formula, FormulaError, double, exp, formula, isnan, lgamma, log, maximum, where
from tinyvae.loop import BOOL, DOUBLE, REAL, Loop, Trace


def ops(loop: Loop) -> list[str]:
    return [n.op for n in loop.program]


# --------------------------------------------------------------------------------------------------------- the program


def test_what_two_formulas_share_is_made_once() -> None:
    value = formula(lambda a: exp(-abs(a)))
    slope = formula(lambda d, a: d * exp(-abs(a)))
    loop = Loop([slope], sums=[value])
    assert loop.inputs == ("d", "a")
    assert ops(loop) == ["abs", "negative", "exp", "multiply"]
    assert loop.counts == (1, 1, 0)


def test_what_nobody_reads_is_left_out_and_an_ignored_input_is_still_one() -> None:
    def wasteful(a, b):
        exp(b)
        return a + 1

    loop = Loop([formula(wasteful)])
    assert ops(loop) == ["add"]
    assert loop.inputs == ("a", "b")


def test_one_name_is_one_input_in_all_formulas_of_a_loop() -> None:
    loop = Loop([formula(lambda a, b: a - b), formula(lambda b, a: b - a)])
    first, second = loop.results[0]
    assert loop.inputs == ("a", "b")
    assert [n.args[0] for n in first.args] == ["a", "b"]
    assert [n.args[0] for n in second.args] == ["b", "a"]
    assert loop.on_arrays({"a": np.array([5.0]), "b": np.array([3.0])})[0] == [2, -2]


def test_results_that_are_inputs_or_constants_and_formulas_without_inputs() -> None:
    loop = Loop([formula(lambda a: (a, 3.0, a, -0.0))], columns=[formula(lambda: 1)])
    assert ops(loop) == []
    assert [n.op for n in loop.results[0]] == ["input", "constant", "input", "constant"]
    assert [n.args for n in loop.results[2]] == [(1.0,)]
    assert Loop([formula(lambda: 2.0)]).inputs == ()


@pytest.mark.parametrize("constant", [math.nan, math.inf, -math.inf, 0.1, -0.0, np.float32(0.5), np.int64(3), 7])
def test_a_constant_is_kept_as_it_is(constant: Any) -> None:
    (found,) = (n for n in Loop([formula(lambda a: a * constant)]).results[0][0].args if n.op == "constant")
    assert np.array_equal(found.args[0], float(constant), equal_nan=True)
    assert math.copysign(1, found.args[0]) == math.copysign(1, constant)


def test_zero_and_minus_zero_are_two_constants_and_nan_is_one() -> None:
    loop = Loop([formula(lambda a: (a * 0.0, a * -0.0, a * math.nan, math.nan * a))])
    plus, minus, first, second = loop.results[0]
    assert plus is not minus
    assert first.args[1] is second.args[0]


def test_kinds_of_numbers() -> None:
    trace = Trace()
    a: Any = trace.input("a")
    assert (a.kind, exp(a).kind, (a > 0).kind, isnan(a).kind) == (REAL, REAL, BOOL, BOOL)
    assert (double(a).kind, (double(a) + a).kind, (double(a) > a).kind, lgamma(a).kind) == (
        DOUBLE,
        DOUBLE,
        BOOL,
        DOUBLE,
    )
    assert where(a > 0, double(a), a).kind == DOUBLE


def test_powers_are_products_and_plus_is_nothing() -> None:
    assert ops(Loop([formula(lambda a: a**2)])) == ["multiply"]
    assert ops(Loop([formula(lambda a: (+a) ** 3)])) == ["multiply", "multiply"]


def test_a_number_says_how_it_is_made_in_a_few_words_however_deep_it_is() -> None:
    a: Any = Trace().input("a")
    assert repr(a * 2) == "multiply(number 0, number 1)"
    for _ in range(200):
        a = a + a
    assert len(repr(a)) < 60


def test_constants_are_those_of_the_first_run() -> None:
    slope = 2.0
    loop = Loop([formula(lambda a: a * slope)])
    before = loop.program
    slope = 3.0
    assert loop.program is before


def test_a_loop_of_no_formula_is_refused_and_so_are_names_that_are_taken() -> None:
    with pytest.raises(FormulaError, match="a loop needs a formula"):
        Loop()
    with pytest.raises(FormulaError, match="no input can be called out, into, sums, columns"):
        Loop([formula(lambda a, sums: a * sums)])


# ------------------------------------------------------------------------------------------------------ what is refused

REFUSED: list[tuple[str, Callable[..., Any], str]] = [  # what, the formula, what is said
    ("if", lambda a: a if a > 0 else -a, "no choice can be made on a number"),
    ("and", lambda a: where(a > 0 and a < 1, a, 0), "no choice can be made"),
    ("not", lambda a: where(not (a > 0), a, 0), "no choice can be made"),
    ("chained", lambda a: where(0 < a < 1, a, 0), "no choice can be made"),
    ("==", lambda a: where(a == 0, a, 1), "== is no word"),
    ("!=", lambda a: where(a != 0, a, 1), "== is no word"),
    ("in", lambda a: a if a in (1, 2) else 0, "== is no word"),
    ("math.exp", lambda a: math.exp(a), "has no value yet: take exp, log, ... from tinyvae.formula"),
    ("numpy.exp", lambda a: np.exp(a), "does not support ufuncs"),
    ("numpy.linalg", lambda a: np.linalg.norm([a, a]), ""),
    ("int", lambda a: int(a), "int()"),
    ("root", lambda a: a**0.5, r"\*\* 0.5 is no word of a formula: write products"),
    ("power", lambda a: a**a, "is no word of a formula: write products"),
    ("remainder", lambda a: a % 2, "unsupported operand"),
    ("a condition", lambda a: a > 0, "the result is a condition: write where(condition, 1, 0)"),
    ("a condition times", lambda a: (a > 0) * a, "multiply of a condition"),
    ("a condition's exp", lambda a: exp(a > 0), "exp of a condition"),
    ("where of a number", lambda a: where(a, 1, 0), "where of no condition"),
    ("where of True", lambda a: where(True, a, 0), "not of bool"),
    ("a string", lambda a: "a", "made of single numbers, not of str"),
    ("a string added", lambda a: a + "1", "made of single numbers, not of str"),
    ("an array", lambda a: a + np.ones(2), "made of single numbers, not of ndarray"),
    ("None", lambda a: None, "made of single numbers, not of NoneType"),
    ("a list", lambda a: [a, a], "made of single numbers, not of list"),
    ("complex", lambda a: a * 1j, "made of single numbers, not of complex"),
    ("too large", lambda a: a * 10**400, "too large"),
    ("a dictionary", lambda a: {a: 1}[a], "unhashable"),
    ("its own error", lambda a: a.shape, "no attribute 'shape'"),
]


@pytest.mark.parametrize(("function", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_has_no_text_is_refused_with_the_line_at_fault(function: Callable[..., Any], said: str) -> None:
    line = function.__code__.co_firstlineno
    text = Path(__file__).read_text(encoding="utf-8").splitlines()[line - 1].strip()
    with pytest.raises(FormulaError, match="formula <lambda>: .*" + re.escape(said).replace(r"\\", "")) as caught:
        Loop([formula(function)]).results  # noqa: B018 - raises
    assert str(caught.value).endswith(f"({__file__}, line {line}: {text})"), caught.value


def test_the_line_at_fault_may_be_in_the_middle_of_a_formula_or_in_one_that_it_uses() -> None:
    def inner(x):
        x = x + 1
        return math.log(x)  # here

    def outer(x):
        return 2 * inner(x)

    for f in (formula(outer), Formula(lambda *n: outer(*n), inputs=("x",), name="outer")):
        with pytest.raises(FormulaError, match=r"formula outer: .*return math.log\(x\)  # here"):
            Loop(sums=[f]).results  # noqa: B018 - raises


def test_a_formula_without_a_source_is_refused_as_well() -> None:
    typed: dict[str, Any] = {}
    exec("def f(a):\n    return a if a > 0 else 0\n", typed)
    with pytest.raises(FormulaError, match=r"formula f: no choice .* \(<string>, line 2\)"):
        Loop([formula(typed["f"])]).results  # noqa: B018 - raises
    with pytest.raises(FormulaError, match=r"formula max: .* \(a function without a text, line 0\)"):
        Loop([Formula(max, inputs=("a", "b"))]).results  # noqa: B018 - raises


def test_formulas_typed_anywhere_are_traced(tmp_path: Path) -> None:
    typed: dict[str, Any] = {"maximum": maximum, "log": log}
    exec("def f(a):\n    return log(maximum(a, 1))\n", typed)
    assert ops(Loop([formula(typed["f"])])) == ["maximum", "log"]
    slopes = [formula(lambda a, slope=slope: a * slope) for slope in (1.0,)]
    assert slopes[0].inputs == ("a", "slope")

    def with_slope(slope: float) -> Formula:
        return formula(lambda a: a * slope)

    assert [Loop([with_slope(s)]).results[0][0].args[1].args for s in (2.0, 3.0)] == [(2.0,), (3.0,)]


def test_a_number_that_a_formula_kept_from_another_loop_is_refused() -> None:
    kept: list[Any] = []

    def hoards(a):
        kept.append(a)
        return a + kept[0]

    assert ops(Loop([formula(hoards)])) == ["add"]
    with pytest.raises(FormulaError, match="a number of another loop"):
        Loop([formula(hoards)]).results  # noqa: B018 - raises


def test_the_wrong_number_of_inputs_is_refused() -> None:
    with pytest.raises(FormulaError, match="missing 1 required positional argument"):
        Loop([Formula(lambda a, b: a + b, inputs=("a",))]).results  # noqa: B018 - raises
