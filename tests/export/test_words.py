"""Each word of a formula keeps its digits in ONNX Runtime, where ONNX has no such word too: sharper than any formula.

Bounds are relative, in roundings of eps, each of which costs at most eps / 2; the factor of two pays for higher orders.
exp, log and tanh of the runtime count as ULP = 4, as NumPy's do (`strategies.py`). With these, `export/words.py` says

    expm1    2 ULP + 2 = 10        log1p    ULP + 5 = 9

and one rounding more is the oracle's own. Oracles compute in a wider type: float64, or NumPy's longdouble, which is no
wider on some machines, where it counts as ULP.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from strategies import ULP, assert_within, eps_of

from tinyvae import formula as words_of_formulas
from tinyvae.errors import ExportError
from tinyvae.export import words
from tinyvae.export.graph import Graph
from tinyvae.export.shapes import ROWS

from .onnx_runs import of_graph, run

WIDER = {"float32": np.float64, "float64": np.longdouble}
TINY = 1e-30  # below it float32 is near its subnormal numbers, which a runtime may flush to 0


def grid(dtype: str) -> np.ndarray:
    """0, and numbers of either sign from 1e-30 to 80, where e^x is still a float32: (points, 1)."""
    x = np.concatenate([10 ** np.linspace(-30, np.log10(80), 400), [0.5, 1.0, 2.0]])
    return np.concatenate([x, -x, [0.0]]).astype(dtype)[:, None]


def unit(dtype: str) -> np.ndarray:
    """From 0 to 1."""
    x = np.concatenate([10 ** np.linspace(-30, 0, 400), np.linspace(0, 1, 101)])
    return x.astype(dtype)[:, None]


def above(dtype: str) -> np.ndarray:
    """Above 0, and close to 1, where log is small."""
    x = np.concatenate([10 ** np.linspace(-30, 30, 400), 1 + np.linspace(-0.1, 0.1, 100)])
    return x.astype(dtype)[:, None]


OF_ONE: dict[str, tuple[Callable[[str], np.ndarray], int]] = {
    "exp": (grid, ULP), "log": (above, ULP), "tanh": (grid, ULP), "sqrt": (above, 1), "expm1": (grid, 2 * ULP + 2),
    "log1p": (unit, ULP + 5), "negative": (grid, 0), "abs": (grid, 0), "square": (grid, 1), "floor": (grid, 0),
    "positive": (grid, 0),
}  # fmt: skip
OF_TWO = {"add": 1, "subtract": 1, "multiply": 1, "divide": 1, "maximum": 0, "minimum": 0, "greater": 0, "less": 0,
          "greater_equal": 0, "less_equal": 0, "equal": 0}  # fmt: skip
OTHERS = {"where", "isnan", "double", "power", "matmul"}  # below, and in the tests of arrays


def in_onnx(name: str, *numbers: np.ndarray) -> np.ndarray:
    graph = Graph(numbers[0].dtype)
    made = words.word(graph, name, *(graph.input(f"in_{i}", (ROWS, 1)) for i in range(len(numbers))))
    graph.output("out", made, (ROWS, 1))
    return run(of_graph(graph), **{f"in_{i}": x for i, x in enumerate(numbers)})["out"]


def check(name: str, dtype: str) -> None:
    points, roundings = OF_ONE[name]
    x = points(dtype)
    with np.errstate(all="ignore"):
        truth = getattr(np, name)(x.astype(WIDER[dtype]))
    oracle = 1 if np.finfo(WIDER[dtype]).eps < eps_of(dtype) else ULP
    bound = (roundings + oracle) * eps_of(dtype) * np.abs(truth) + (TINY * eps_of(dtype) if roundings else 0)
    assert_within(in_onnx(name, x), truth, bound)


def test_each_word_is_looked_at() -> None:
    assert set(words.WORDS) == {*OF_ONE, *OF_TWO, *OTHERS}


@pytest.mark.parametrize("dtype", WIDER)
@pytest.mark.parametrize("name", OF_ONE)
def test_a_word_of_one_number_keeps_its_digits(name: str, dtype: str) -> None:
    check(name, dtype)


@pytest.mark.parametrize("dtype", WIDER)
@pytest.mark.parametrize("name", OF_TWO)
def test_a_word_of_two_numbers_is_what_numpy_makes_of_them(name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((200, 1)).astype(dtype) for _ in range(2))
    b[:50] = a[:50]  # where a comparison is decided
    a[0], b[1] = np.nan, np.nan
    expected = getattr(np, name)(a, b)
    got = in_onnx(name, a, b)
    assert np.array_equal(np.isnan(got), np.isnan(expected.astype(dtype)))
    known = ~np.isnan(got)
    assert_within(got[known], expected[known], OF_TWO[name] * eps_of(dtype) * np.abs(expected[known].astype(dtype)))


@pytest.mark.parametrize("dtype", WIDER)
def test_choices_and_powers(dtype: str) -> None:
    graph = Graph(dtype)
    x: Any = graph.input("x", (ROWS, 1))
    graph.output("seen", words.word(graph, "where", words.word(graph, "isnan", x), -1.0, x), (ROWS, 1))
    graph.output("square", x**2, (ROWS, 1))
    made = run(of_graph(graph), x=np.array([[np.nan], [np.inf], [3.0]], dtype))
    np.testing.assert_array_equal(made["seen"], [[-1], [np.inf], [3]])
    np.testing.assert_array_equal(made["square"], [[np.nan], [np.inf], [9]])


def test_double_goes_on_in_float64_and_comes_back() -> None:
    """1 + 1e-12 - 1 is 0 in float32."""
    graph = Graph("float32")
    x: Any = graph.input("x", (ROWS, 1))
    graph.output("narrow", (x + 1e-12) - 1.0, (ROWS, 1))
    graph.output("wide", (words_of_formulas.double(x) + 1e-12) - 1.0, (ROWS, 1))
    made = run(of_graph(graph), x=np.ones((1, 1), "f4"))
    assert made["narrow"] == 0
    assert made["wide"].dtype == np.float32
    assert abs(made["wide"] - 1e-12) < 1e-15  # four roundings of float64 beside 1


class Recorder:
    """A number that notes which words it meets."""

    def __init__(self) -> None:
        self.met: set[str] = set()

    def note(self, name: str, *args: Any) -> "Recorder":
        self.met.add(name)
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = lambda self, other: self
    __gt__ = __ge__ = __lt__ = __le__ = lambda self, other: self
    __neg__ = __abs__ = lambda self: self


def test_every_word_of_formulas_has_a_text() -> None:
    recorder, number = Recorder(), 1.0
    arguments = {"maximum": (recorder, number), "minimum": (recorder, number), "where": (recorder, recorder, number)}
    for name, value in vars(words_of_formulas).items():
        if getattr(value, "__module__", "") == words_of_formulas.__name__ and name.islower() and name[0] != "_":
            if name in ("formula", "backward_of"):
                continue
            value(*arguments.get(name, (recorder,)))
    assert {"exp", "expm1", "log", "log1p", "sqrt", "tanh", "where", "isnan", "double"} <= recorder.met
    assert recorder.met <= set(words.WORDS)


def test_a_word_that_there_is_not_is_refused() -> None:
    graph = Graph("float32")
    with pytest.raises(ExportError, match="ONNX is given no word for arctan"):
        graph.input("x", (ROWS, 1)).note("arctan", 1.0)


# -------------------------------------------------------------------------------------------------------- planted bugs


WRONG: dict[str, Callable[..., Any]] = {
    "expm1": lambda right, x: words_of_formulas.exp(x) - 1.0,
    "log1p": lambda right, x: words_of_formulas.log(1.0 + x),
    "tanh": lambda right, x: right(x) * (1.0 + 1e-6),
    "square": lambda right, x: x * abs(x),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_word_that_loses_digits_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = words.WORDS[name]
    check(name, "float32")
    monkeypatch.setitem(words.WORDS, name, lambda graph, x: WRONG[name](lambda x: right(graph, x), x))
    with pytest.raises(AssertionError):
        check(name, "float32")
