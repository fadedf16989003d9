"""A layer, run forward and back on any kernels, without a model."""

from typing import Any, NamedTuple

import numpy as np

from tinyvae import kernels as kernel_files
from tinyvae.backend import get_backend
from tinyvae.kernels.contract import Kernels, Rows
from tinyvae.layers.layer import Context, Layer
from tinyvae.ops.activations import LINEAR, Activation

Numbers = dict[str, np.ndarray]


class Ran(NamedTuple):
    """What a pass made: y, the gradient of x, and those of the parameters."""

    y: np.ndarray
    dx: Any
    g: Numbers


def kernels_of(name: str = "reference", dtype: str = "float64") -> Kernels:
    return kernel_files.select(name, get_backend("numpy"), dtype)[1]()


def parameters(layer: Layer, seed: int = 0) -> Numbers:
    """Normal numbers for all that is learned, and for what it shares; running statistics as they start."""
    rng = np.random.default_rng(seed)
    every = list(layer.params())
    found = {p.name: rng.standard_normal(p.shape) if p.trainable else np.full(p.shape, p.start) for p in every}
    for at, other in layer.shares().items():
        found |= {f"{at}.{name}": a for name, a in parameters(other, seed + 1).items()}
    return found


def run(
    layer: Layer, x: np.ndarray, p: Numbers, dy: np.ndarray | None = None, labels: Any = None, training: bool = True,
    below: Activation | None = LINEAR, a: np.ndarray | None = None, kernels: str = "reference",
    g: Numbers | None = None,
) -> Ran:  # fmt: skip
    """x = below(a) is what the layer below made. dy: the gradient of y; without it there is no way back. g: gradients
    so far."""
    k = kernels_of(kernels)
    k.begin("test")
    y, back = layer.forward(k, p, Rows(x, below, a), Context(training, labels))
    whole = y.y.copy()
    g = {name: np.full_like(a, 0.0 if "." in name else np.nan) for name, a in p.items()} if g is None else g
    if dy is None:
        return Ran(whole, None, g)
    dx = back(k.end(dy.copy(), y), g)
    k.finish()
    return Ran(whole, None if dx is None else dx.copy(), g)
