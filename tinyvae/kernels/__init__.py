"""The same mathematics, fused: the few operations that a training step calls, each writing into buffers it is given.

One contract, several implementations. `reference.py` composes `tinyvae.ops` and is the oracle; every other file has the
same functions with the same signatures (a test compares them) and must give the same numbers (property tests do).

The contract:
- Results go into the keyword arguments after the star. A result that may be `None` is then not computed.
- `work` is a flat scratch array of the same dtype, at least `work_size(...)` long. Its contents mean nothing.
- `dense_backward` may destroy `dy` and `y`: nobody needs them after it.
"""

from types import ModuleType

from tinyvae.backend import Backend
from tinyvae.kernels import numpy_fused, reference

FUSED = {"numpy": numpy_fused}  # backend -> its fused kernels


def select(kernels: str | None, backend: Backend) -> tuple[str, ModuleType]:
    """The kernels called "fused" or "reference" for a backend; None means fused where there are some.

    Raises ValueError for a name that does not exist, or if the backend has no fused kernels.
    """
    if kernels is None:
        kernels = "fused" if backend.name in FUSED else "reference"
    if kernels == "reference":
        return kernels, reference
    if kernels != "fused":
        raise ValueError(f"kernels must be 'fused' or 'reference', not {kernels!r}")
    if backend.name not in FUSED:
        raise ValueError(f"there are no fused kernels for the {backend.name} backend: choose 'reference'")
    return kernels, FUSED[backend.name]


def work_size(rows: int, widest: int) -> int:
    """How long `work` must be for batches of up to `rows` rows and layers of up to `widest` outputs."""
    return max(2 * rows * widest + widest, numpy_fused.ADAM_BLOCK)  # two arrays of a layer's output, and a row
