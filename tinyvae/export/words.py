"""The words of formulas as ONNX nodes, and a loop's list of operations as these.

ONNX has no expm1 and no log1p. Written as e^x - 1 and log(1 + x) they would lose their digits near 0. So

    expm1(x) = tanh(x / 2) (e^x + 1)                       since tanh(x / 2) = (e^x - 1) / (e^x + 1)
    log1p(x) = log(u) x / (u - 1),  u = 1 + x rounded      (x where u = 1)

The first is a product of two numbers that keep their digits. In the second, log(u) / (u - 1) hardly changes with u, so
that it does not matter that u is not 1 + x (Kahan; Goldberg 1991, "What every computer scientist should know about
floating-point arithmetic", theorem 4). Roundings of each, in units of eps / 2, where tanh, exp and log have ULP: the
first 2 ULP + 2, the second ULP + 5.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.errors import ExportError
from tinyvae.export.shapes import broadcast
from tinyvae.loop import Loop, Number

if TYPE_CHECKING:
    from tinyvae.export.arrays import Tensor
    from tinyvae.export.graph import Graph


def word(graph: "Graph", name: str, *args: Any) -> "Tensor":
    """The word of these tensors, arrays and numbers. Raises ExportError if it is none."""
    if name not in WORDS:
        raise ExportError(f"ONNX is given no word for {name}")
    return WORDS[name](graph, *args)


def precision(graph: "Graph", *args: Any) -> Any:
    """The dtype that these are computed in, as by NumPy; of plain numbers alone, the graph's."""
    if not any(hasattr(a, "dtype") for a in args):
        return graph.dtype
    found = np.result_type(*(getattr(a, "dtype", a) for a in args))
    if found.kind == "b":
        raise ExportError("array code computes with conditions: take where(condition, a, b)")
    return found


def _operator(op: str, result: Any = None) -> Callable[..., "Tensor"]:
    """An operator of ONNX of numbers of one dtype. result: of the dtype, if that is not theirs."""

    def write(graph: "Graph", *args: Any) -> "Tensor":
        dtype = precision(graph, *args)
        numbers = [graph.tensor(a, dtype) for a in args]
        return graph.node(op, *numbers, shape=broadcast(*(n.shape for n in numbers)), dtype=result or dtype)

    return write


def _where(graph: "Graph", condition: Any, a: Any, b: Any) -> "Tensor":
    condition = graph.tensor(condition, bool)
    a, b = (graph.tensor(n, precision(graph, a, b)) for n in (a, b))
    return graph.node("Where", condition, a, b, shape=broadcast(condition.shape, a.shape, b.shape), dtype=a.dtype)


def _expm1(graph: "Graph", x: Any) -> "Tensor":
    above = word(graph, "add", word(graph, "exp", x), 1.0)
    return word(graph, "multiply", word(graph, "tanh", word(graph, "multiply", x, 0.5)), above)


def _log1p(graph: "Graph", x: Any) -> "Tensor":
    u = word(graph, "add", x, 1.0)
    ratio = word(graph, "divide", x, word(graph, "subtract", u, 1.0))  # near 1: how far u is from 1 + x
    return _where(graph, word(graph, "equal", u, 1.0), x, word(graph, "multiply", word(graph, "log", u), ratio))


def _matmul(graph: "Graph", a: Any, b: Any) -> "Tensor":
    dtype = precision(graph, a, b)
    a, b = graph.tensor(a, dtype), graph.tensor(b, dtype)
    if len(b.shape) != 2 or a.shape[-1] != b.shape[0]:
        raise ExportError(f"a product of arrays of the shapes {a.shape} and {b.shape}")
    return graph.node("MatMul", a, b, shape=(*a.shape[:-1], b.shape[1]), dtype=dtype)


def _double(graph: "Graph", x: Any) -> "Tensor":
    return graph.tensor(x, np.float64)


WORDS: dict[str, Callable[..., "Tensor"]] = {
    # of formulas
    "add": _operator("Add"), "subtract": _operator("Sub"), "multiply": _operator("Mul"), "divide": _operator("Div"),
    "negative": _operator("Neg"), "abs": _operator("Abs"), "exp": _operator("Exp"), "log": _operator("Log"),
    "sqrt": _operator("Sqrt"), "tanh": _operator("Tanh"), "maximum": _operator("Max"), "minimum": _operator("Min"),
    "greater": _operator("Greater", bool), "greater_equal": _operator("GreaterOrEqual", bool),
    "less": _operator("Less", bool), "less_equal": _operator("LessOrEqual", bool), "isnan": _operator("IsNaN", bool),
    "where": _where, "expm1": _expm1, "log1p": _log1p, "double": _double,
    # of array code besides
    "equal": _operator("Equal", bool), "floor": _operator("Floor"), "power": _operator("Pow"),
    "matmul": _matmul, "square": lambda graph, x: word(graph, "multiply", x, x),
    "positive": lambda graph, x: graph.tensor(x),
}  # fmt: skip


def write_loop(graph: "Graph", loop: Loop, given: dict[str, Any]) -> tuple[list["Tensor"], list["Tensor"]]:
    """The results of a loop for every number, and those that are summed along the rows, none of them summed yet.

    Raises ExportError for sums over the columns: outside of training no row depends on the others.
    """
    outputs, along, over = loop.results
    if over:
        raise ExportError(f"{loop} sums over all rows")
    made: dict[int, Any] = {}

    def value(n: Number) -> Any:
        if n.op == "constant":
            return n.args[0]
        return given[n.args[0]] if n.op == "input" else made[n.index]

    for n in loop.program:
        made[n.index] = word(graph, n.op, *map(value, n.args))
    return [graph.tensor(value(n)) for n in outputs], [graph.tensor(value(n)) for n in along]
