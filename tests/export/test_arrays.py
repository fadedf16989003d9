"""Array code on an array without numbers: the nodes give what NumPy gives; what has no text is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from strategies import assert_within, eps_of

from tinyvae.errors import ExportError
from tinyvae.export.blank import Blank
from tinyvae.export.graph import Graph
from tinyvae.export.shapes import ROWS, Many, broadcast, reshaped

from .onnx_runs import of_graph, run

N, COLUMNS = 5, 12
WIDER: Any = (ROWS, 24)
WEIGHTS = np.linspace(-1, 1, COLUMNS).astype("f4")
CODE: dict[str, Callable[[Any], Any]] = {
    "left": lambda a: a[:, :6],
    "a view of a view": lambda a: a[:, 6:][:, 1:3],
    "each third": lambda a: a[:, 1::3],
    "backwards": lambda a: a[:, ::-1],
    "a column": lambda a: a[:, 3],
    "the last but one, kept": lambda a: a[:, -2, None],
    "chosen columns": lambda a: a[:, np.array([5, 0, 5])],
    "a mask of columns": lambda a: a[:, WEIGHTS > 0],
    "all but": lambda a: a[..., 2:],
    "new shape": lambda a: a.reshape(-1, 3, 4),
    "new shape and back": lambda a: a.reshape(-1, 3, 4).transpose(0, 2, 1).reshape(a.shape),
    "groups below each other": lambda a: (2 * a.reshape(-1, 4)).reshape(-1, COLUMNS),
    "as it is": lambda a: np.reshape(a.reshape(-1, 2), a.shape),
    "softmax of groups": lambda a: (
        lambda e: e / e.sum(axis=-1, keepdims=True)
    )(np.exp(a.reshape(-1, 3, 4) - a.reshape(-1, 3, 4).max(axis=2, keepdims=True))).reshape(-1, COLUMNS),
    "means and extremes": lambda a: np.stack([np.mean(a, axis=1), np.min(a, axis=1), np.max(a, 1), a.sum(1)], axis=1),
    "side by side": lambda a: np.concatenate([a[:, :2], 0 * a[:, :1] + 0.5, a], axis=1),
    "with a constant row": lambda a: WEIGHTS * a - a / 2 + WEIGHTS,
    "wider numbers": lambda a: (WEIGHTS.astype("f8") * a).astype("f4"),
    "whole numbers": lambda a: (a * np.arange(COLUMNS)).astype("f4"),
    "chosen": lambda a: np.where(a > 0, a, -1.0) + np.where(np.isnan(a), WEIGHTS, 0.0),
    "a condition as a number": lambda a: (a > 0) * a,
    "clipped": lambda a: np.clip(a, -0.5, 0.5) + np.maximum(a, WEIGHTS),
    "a product": lambda a: a @ np.outer(WEIGHTS, WEIGHTS),
    "filled": lambda a: np.where(a > 0, np.zeros_like(a), np.ones_like(a)) + np.full_like(a, 0.5),
    "broadcast": lambda a: np.broadcast_to(np.exp(a[:, :1]), a.shape),
    "broadcast in groups": lambda a: np.broadcast_to(a.reshape(-1, 4)[:, :1], a.reshape(-1, 4).shape),
    "three ways to lie": lambda a: a.reshape(-1, 2, 2, 3).transpose(0, 2, 3, 1).transpose(0, 2, 1, 3)[:, 1],
    "the last axis": lambda a: a.reshape(-1, 3, 4).sum(axis=-1) + a.reshape(-1, 3, 4).max(-2)[:, :3],
    "kept and not": lambda a: np.concatenate([a.max(axis=1, keepdims=True), a.max(axis=1)[:, None] + 1], axis=1),
    "twice transposed": lambda a: (2 * a.T).T,
    "powers": lambda a: a**2 + np.abs(a) ** 0.5 + 2.0 ** np.floor(a) + np.square(a),
}  # fmt: skip
REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "another function": (lambda a: np.linalg.norm(a, axis=1), r"numpy\.norm has no text in ONNX"),
    "another ufunc": (np.arctan, r"numpy\.arctan has no text in ONNX"),
    "a product that does not fit": (lambda a: a @ np.ones((11, 2)), "a product of arrays of the shapes"),
    "a product along the rows": (lambda a: np.ones((2, 5)) @ a, "a product of arrays of the shapes"),
    "a ufunc's method": (np.maximum.accumulate, r"numpy\.maximum\.accumulate has no text"),
    "a ufunc into an array": (lambda a: np.exp(a, out=np.ones((5, 12))), r"numpy\.exp with options has no text"),
    "numbers": (np.asarray, "array code asks for numbers"),
    "one number": (lambda a: float(a[0, 0]), "some of the rows"),
    "a number of a sum": (lambda a: float(a.sum()), "sums over all rows"),
    "sums over rows": (lambda a: a - a.mean(axis=0), "sums over all rows"),
    "a choice": (lambda a: a if a.max(axis=1)[None, None] > 0 else -a, "a choice is made on a number|fewer axes"),
    "a loop over rows": (list, "through the rows one by one"),
    "one row": (lambda a: a[0], "some of the rows"),
    "rows below rows": (lambda a: np.concatenate([a, a]), "rows below rows"),
    "into an array": (lambda a: a.__setitem__(0, 1.0), "writes into an array"),
    "in place": (lambda a: np.empty(a.shape), "how many rows there are is not known|cannot be interpreted"),
    "a share of the rows": (lambda a: a / a.shape[0], "."),
    "conditions added": (lambda a: (a > 0) + (a < 0), "array code computes with conditions"),
    "shapes that do not fit": (lambda a: a + np.ones(7), "do not fit together"),
    "another size": (lambda a: a.reshape(-1, 5), "has no shape"),
    "a wider row": (lambda a: np.broadcast_to(a, WIDER), "do(es)? not fit"),
    "columns of another length": (lambda a: np.concatenate([a, a[:, None]], axis=1), "."),
}


@pytest.mark.parametrize("name", CODE)
def test_nodes_give_what_numpy_gives(name: str) -> None:
    x = np.random.default_rng(0).standard_normal((N, COLUMNS)).astype("f4")
    expected = CODE[name](x)
    graph = Graph("float32")
    made = CODE[name](graph.input("x", (ROWS, COLUMNS)))
    assert made.shape == (Many(expected.shape[0] // N), *expected.shape[1:])
    assert made.dtype == expected.dtype
    assert (made.ndim, made.size) == (expected.ndim, Many(expected.size // N))
    graph.output("out", made, made.shape)
    got = run(of_graph(graph), x=x)["out"]
    assert_within(got, expected, 16 * eps_of("float32") * (1 + np.abs(expected)))  # words in a row, sums of 12 terms


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_text_is_refused(name: str) -> None:
    code, words = REFUSED[name]
    with pytest.raises((ExportError, TypeError), match=words):
        code(Graph("float32").input("x", (ROWS, COLUMNS)))


def test_shapes_of_rows() -> None:
    assert reshaped((ROWS, 6), (-1, 2)) == (Many(3), 2)
    assert reshaped((Many(3), 2), (ROWS, -1)) == (ROWS, 6)
    assert reshaped((4, 6), (-1, 3)) == (8, 3)
    assert broadcast((ROWS, 1), (6,)) == (ROWS, 6)
    assert broadcast() == ()
    for shape in ((ROWS, 5), (ROWS, 4, -1), (6,), (ROWS, ROWS)):
        with pytest.raises(ExportError, match="an array of shape"):
            reshaped((ROWS, 6), shape)
    with pytest.raises(ExportError, match="do not fit together"):
        broadcast((ROWS, 6), (Many(2), 6))
    assert [str(2 * ROWS), str(ROWS)] == ["2 rows", "rows"]


def test_the_same_node_is_written_once_and_what_is_undone_is_left_out() -> None:
    graph = Graph("float32")
    x = graph.input("x", (ROWS, 6))
    there = x.reshape(-1, 2, 3).transpose(0, 2, 1)
    back = there.transpose(0, 2, 1).reshape(-1, 6)
    assert back is x
    graph.output("out", np.exp(back) + np.exp(x), (ROWS, 6))
    nodes, constants = graph.needed()
    assert [n.op for n in nodes] == ["Exp", "Add", "Identity"]
    assert constants == {}


def test_constants_are_told_apart_by_shape_and_dtype() -> None:
    graph = Graph("float32")
    one = graph.tensor(1.0)
    assert graph.tensor(np.float32(1)) is one
    others = [graph.tensor(np.ones(shape, dtype)) for shape in ((), 1, (1, 1)) for dtype in ("f4", "f8")][1:]
    assert len({t.name for t in (one, *others)}) == 6
    whole: Any = graph.input("y", (ROWS,), "int64")
    assert ((whole * 2).dtype, (whole * 0.5).dtype) == (np.dtype("int64"), np.dtype("float64"))


def test_an_array_that_is_written_by_columns_is_joined_when_it_is_read() -> None:
    graph = Graph("float32")
    x: Any = graph.input("x", (ROWS, 4))
    a: Any = Blank(graph, (ROWS, 4))
    a[:, 3:] = 7.0
    part = a[:, :2]
    part[...] = x[:, 2:]
    a[:, 2:3] = x[:, :1].astype("f8")  # as into any array: in its own precision
    graph.output("part", part * 1.0, (ROWS, 2))
    graph.output("across", a[:, 1:3], (ROWS, 2))
    graph.output("a", a, (ROWS, 4))
    graph.output("some", a[:, 1:3], (ROWS, 2))
    made = run(of_graph(graph), x=np.arange(8, dtype="f4").reshape(2, 4))
    np.testing.assert_array_equal(made["a"], [[2, 3, 0, 7], [6, 7, 4, 7]])
    np.testing.assert_array_equal(made["part"], [[2, 3], [6, 7]])
    for name in ("across", "some"):
        np.testing.assert_array_equal(made[name], [[3, 0], [7, 4]])
    for write in (lambda: a.__setitem__(Ellipsis, x), lambda: part.__setitem__(Ellipsis, x[:, :2])):
        with pytest.raises(ExportError, match=r"into an array that has been read|into an array: a graph"):
            write()


def test_an_array_that_is_read_before_all_of_it_is_written_is_refused() -> None:
    def written(*columns: tuple[int, int]) -> Any:
        graph = Graph("float32")
        a: Any = Blank(graph, (ROWS, 4))
        for start, stop in columns:
            a[:, start:stop] = graph.input("x", (ROWS, stop - start))
        return a

    for columns in ([], [(0, 2)], [(2, 4)], [(0, 3), (2, 4)], [(0, 1), (2, 4)]):
        with pytest.raises(ExportError, match="read before it is written, or its columns are written twice"):
            np.exp(written(*columns))
        with pytest.raises(ExportError, match="read before it is written, or its columns are written twice"):
            np.exp(written(*columns)[:, 1:3])
    with pytest.raises(ExportError, match="do not fit together"):
        written((0, 2))[...] = np.ones(3)
    with pytest.raises(ExportError, match="takes some of the rows"):
        written()[0] = 1.0
