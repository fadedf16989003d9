"""Every formula of the package is the same formula in ONNX Runtime, in both precisions, and NaN and infinity pass as
they do through the reference.

Points, truth and tolerance are those of the kernels' test, `contracts/test_formulas.py`.
"""

from typing import Any

import numpy as np
import pytest
from contracts.test_formulas import COLS, FORMULAS, ROWS, allowed, inputs_of, name_of, results
from strategies import assert_within, eps_of

from tinyvae.export import words
from tinyvae.export.graph import Graph
from tinyvae.export.kernels import Nodes
from tinyvae.export.shapes import ROWS as MANY
from tinyvae.formula import Formula, exp, formula
from tinyvae.kernels.reference import Reference
from tinyvae.loop import Loop

from .onnx_runs import of_graph, run

READ = [f for f in FORMULAS if f.inputs]
SLOPES = pytest.mark.sweeps  # no forward pass has slopes: that they are right, too, is looked at more seldom
EACH = pytest.mark.parametrize("f", [f if f.of is None else pytest.param(f, marks=SLOPES) for f in READ], ids=name_of)


def in_onnx(f: Formula, given: dict[str, np.ndarray], dtype: str) -> list[np.ndarray]:
    """The formula as a loop over all of its inputs."""
    graph = Graph(dtype)
    columns = next(iter(given.values())).shape[1]
    tensors: dict[str, Any] = {name: graph.input(f"in_{name}", (MANY, columns)) for name in f.inputs}
    made = Nodes(graph).map(Loop([f]), **tensors)
    for i, a in enumerate(made if isinstance(made, tuple) else (made,)):
        assert a.dtype == dtype, "a loop's results are in the kernels' own precision"
        graph.output(f"out_{i}", a, (MANY, columns))
    return [*run(of_graph(graph), **{f"in_{name}": given[name].astype(dtype) for name in f.inputs}).values()]


def check(f: Formula, dtype: str) -> None:
    given = inputs_of(f, dtype=dtype)
    truth = results(f, given)
    bounds = allowed(f, given, truth, eps_of(dtype))
    for got, expected, bound in zip(in_onnx(f, given, dtype), truth, bounds, strict=True):
        assert got.dtype == dtype
        assert got.shape == (ROWS, COLS)
        within = np.isfinite(expected) & np.isfinite(bound) & (np.abs(expected) < 1e36)  # of float32
        assert within.mean() > 0.3
        assert_within(got[within], expected[within], bound[within])


@EACH
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_formula_is_the_same_in_onnx(f: Formula, dtype: str) -> None:
    check(f, dtype)


@EACH
def test_nan_and_infinity_are_what_the_formula_makes_of_them(f: Formula) -> None:
    truth: Any = Reference(np, "float32")
    for name in f.inputs:
        given = {n: np.full((2, 3), 0.5, "f4") for n in f.inputs}
        given[name][0] = np.nan, np.inf, -np.inf
        with np.errstate(all="ignore"):
            made = truth.map(Loop([f]), **given)
        for got, expected in zip(
            in_onnx(f, given, "float32"), made if isinstance(made, tuple) else (made,), strict=True
        ):
            for which in (np.isnan, np.isposinf, np.isneginf):
                assert np.array_equal(which(got), which(expected)), f"{which.__name__} from {name}"


def test_a_word_written_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A formula's slope that loses its sign, and a comparison that is another at the point itself."""
    f = formula(lambda a: exp(-a))
    check(f, "float32")
    monkeypatch.setitem(words.WORDS, "negative", words.WORDS["positive"])
    with pytest.raises(AssertionError):
        check(f, "float32")
