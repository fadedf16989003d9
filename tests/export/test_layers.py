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
