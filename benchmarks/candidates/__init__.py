"""Who takes part: tinyvae, its peers, and the matrix products alone. All do the work of one training step.

The work: gather the rows of a shuffled batch from pixels in memory, scale them, (binarize), draw noise, forward,
backward, Adam (epsilon outside the root), read the loss. The same initial weights, in float32.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.shapes import Given, Shape

INSTALL = "python -m pip install -e '.[bench]'"


class Candidate(Protocol):
    """One implementation of the training step, built for a shape."""

    def given_losses(self, batches: list[Given]) -> list[float]:
        """The loss of each step, from the initial weights, with these rows, this noise and these uniforms."""
        ...

    def step_times(self, warmup: int, steps: int) -> list[float]:
        """Seconds of each step after the warm-up. Each is waited for; on a CPU its loss is read."""
        ...

    def throughput(self, steps: int) -> float:
        """Seconds per step of a long row of steps on a GPU, where only the last is waited for."""
        ...


@dataclass(frozen=True)
class Entry:
    """A line in the list of candidates."""

    name: str
    module: str  # of this package; it has a function `build(shape, kind, backend, tf32)`
    kind: str
    library: str | None = None  # that must be installed
    backends: tuple[str, ...] = ("numpy", "cupy")
    ours: bool = False  # runs with the OpenBLAS settings that the training command chooses
    agrees: bool = True  # must compute the same losses

    def missing(self) -> bool:
        """Its library is not installed."""
        return self.library is not None and importlib.util.find_spec(self.library) is None

    def takes(self, shape: Shape) -> bool:
        """The peers train dense layers by the ELBO alone."""
        return self.ours or shape.is_plain

    def build(self, shape: Shape, backend: str, tf32: bool) -> Candidate:
        """Import it and build the step. Only the process that measures it does."""
        module: Any = importlib.import_module(f"benchmarks.candidates.{self.module}")
        return module.build(shape, self.kind, backend, tf32)


OURS, AGAIN, PRODUCTS = "tinyvae", "tinyvae again", "matrix products alone"
CANDIDATES = {
    entry.name: entry
    for entry in (
        Entry(OURS, "ours", "fused", ours=True),
        Entry("tinyvae numpy", "ours", "numpy", backends=("numpy",), ours=True),
        Entry("torch eager", "torch_peer", "eager", library="torch"),
        Entry("torch compile", "torch_peer", "compile", library="torch"),
        Entry("torch cuda graph", "torch_peer", "graph", library="torch", backends=("cupy",)),
        Entry("jax jit", "jax_peer", "jit", library="jax"),
        Entry("jax scan", "jax_peer", "scan", library="jax"),  # many steps in one call: no loss is read in between
        Entry(AGAIN, "ours", "fused", ours=True, agrees=False),  # it is the first once more: the noise
        Entry(PRODUCTS, "products", "", ours=True, agrees=False),
    )
}
