"""Every layer of the folder, written down by its own forward pass, gives its numbers in ONNX Runtime.

The oracle is the reference kernels in float64, and the tolerance is that of all kernels: these are some, too.
"""

from typing import Any

import numpy as np
import pytest

from tinyvae.checking.agreement import TOLERANCE, compare
from tinyvae.checking.examples import all_layers, text
from tinyvae.export.graph import LABELS, Graph
from tinyvae.export.kernels import Nodes
from tinyvae.export.shapes import ROWS
from tinyvae.kernels.contract import Rows
from tinyvae.kernels.reference import Reference
from tinyvae.layers import ConvTranspose
from tinyvae.layers.layer import Context, Layer
from tinyvae.ops.activations import LINEAR

from .onnx_runs import of_graph, run

EXAMPLES = list(all_layers())
N = 7  # rows


def numbers_of(layer: Layer, dtype: str, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Parameters none of which is 0, x (rows, inputs) and labels (rows,)."""
    rng = np.random.default_rng(seed)
    every = {p.name: p for p in layer.params()}
    every |= {f"{at}.{p.name}": p for at, other in layer.shares().items() for p in other.params()}
    p = {}
    for name, param in every.items():
        start = param.start(rng) if callable(param.start) else param.start
        p[name] = (start + 0.3 * rng.uniform(0.1, 1, param.shape)).astype(dtype)
    x = rng.standard_normal((N, layer.inputs)).astype(dtype)
    return p, x, rng.integers(0, max(1, layer.classes()), N)


def written(layer: Layer, p: dict[str, np.ndarray]) -> Graph:
    """The layer's graph: x [, y] -> out."""
    graph = Graph(next(iter(p.values())).dtype, p)
    k: Any = Nodes(graph)
    x = graph.input("x", (ROWS, layer.inputs))
    y = graph.input("y", (ROWS,), LABELS) if layer.classes() else None
    out, _ = layer.forward(k, p, Rows(x, LINEAR), Context(labels=y))
    graph.output("out", out.y, (ROWS, layer.width))
    return graph


def check(layer: Layer, dtype: str) -> None:
    p, x, labels = numbers_of(layer, dtype)
    wide = {name: a.astype("float64") for name, a in p.items()}
    context = Context(labels=labels if layer.classes() else None)
    expected, _ = layer.forward(Reference(np, "float64"), wide, Rows(x.astype("float64"), LINEAR), context)
    found = run(of_graph(written(layer, p)), x=x, **({"y": labels} if layer.classes() else {}))
    assert found["out"].dtype == dtype
    compare(found, {"out": expected.y}, TOLERANCE[dtype], f"{text(layer)} in {dtype}")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layer", EXAMPLES, ids=text)
def test_the_layer_gives_its_numbers(layer: Layer, dtype: str) -> None:
    check(layer, dtype)


@pytest.mark.sweeps
@pytest.mark.parametrize("seed", range(1, 5))
def test_other_examples(seed: int) -> None:
    for layer in all_layers(seed):
        for dtype in TOLERANCE:
            check(layer, dtype)


# --------------------------------------------------------------------------------------------------------- planted bugs


def flipped(right: Any) -> Any:
    """The window the other way round, as mathematics has a convolution."""
    return lambda self, op, x, W, *more, **rest: right(self, op, x, W[::-1], *more, **rest)


def unbiased(right: Any) -> Any:
    return lambda self, op, x, W, order, b, *more, **rest: right(self, op, x, W, order, None, *more, **rest)


def ends_at_the_start(right: Any) -> Any:
    """What is left over of a stride stands at the other end."""

    def wrong(self: Any, op: Any, x: Any, W: Any, order: Any, b: Any, f: Any, size: Any, w: Any, **more: Any) -> Any:
        rows = right(self, op, x, W, order, b, f, size, w, **more)
        images = rows.y.reshape(ROWS, *size, -1)
        return rows._replace(y=images[:, ::-1][:, ::-1, ::-1].reshape(rows.y.shape) if more else rows.y)

    return wrong


@pytest.mark.parametrize("bug", [flipped, unbiased, ends_at_the_start], ids=lambda b: b.__name__)
def test_a_wrong_convolution_is_found(bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = ConvTranspose((6, 7, 2), 3, "tanh", kernel=3, stride=2, pad=1)
    check(layer, "float32")
    monkeypatch.setattr(Nodes, "_convolution", bug(Nodes._convolution))
    with pytest.raises(AssertionError):
        check(layer, "float32")
