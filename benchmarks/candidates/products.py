"""The matrix products of a step and nothing else, with tinyvae's BLAS, into buffers: the floor of a step."""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import numpy as np

from benchmarks.candidates import timing
from benchmarks.shapes import Given, Shape
from tinyvae.backend import get_backend


class Products:
    """y = x W, dW = x^T dy and, but for the first layer, dx = dy W^T: for every layer of the shape."""

    def __init__(self, shape: Shape, backend: str) -> None:
        b = get_backend(backend)
        self.xp, rng = b.xp, np.random.default_rng(0)

        def array(*size: int) -> Any:
            return b.asarray(rng.standard_normal(size, dtype=np.float32))

        self.calls = []
        for i, (rows, n, m) in enumerate(shape.products()):
            x, W, dy = array(rows, n), array(n, m), array(rows, m)
            self.calls += [(x, W, array(rows, m)), (x.T, dy, array(n, m))]
            if i > 0:
                self.calls.append((dy, W.T, array(rows, n)))

    def step(self, _: None) -> None:
        for a, b, out in self.calls:
            self.xp.matmul(a, b, out=out)

    def wait(self, _: None) -> None:
        if self.xp is not np:
            self.xp.cuda.Device().synchronize()

    def given_losses(self, batches: list[Given]) -> list[float]:
        raise NotImplementedError("products have no loss")

    def step_times(self, warmup: int, steps: int) -> list[float]:
        return timing.step_times(self.step, _nothing(), self.wait, warmup, steps)

    def throughput(self, steps: int) -> float:
        return timing.throughput(self.step, _nothing(), self.wait, steps)


def _nothing() -> Iterator[None]:
    return repeat(None)


def build(shape: Shape, kind: str, backend: str, tf32: bool) -> Products:
    """TF32 is an environment variable of CuPy's; the parent has set it."""
    return Products(shape, backend)
