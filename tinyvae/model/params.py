"""All parameters in ONE flat buffer, with a named view on each tensor.

Gradients and Adam's moments are flat buffers of the same layout. So Adam is one call, a checkpoint is one table, and a
gradient check perturbs one vector.
"""

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from tinyvae.backend import Array, Backend, backend_or_numpy, to_host

Shapes = dict[str, tuple[int, ...]]


class FlatParams(Mapping[str, Array]):
    """A read-only mapping from name to a view on `flat`. To change a tensor, assign into it: params[name][...] = w.

    A copy (copy.copy, copy.deepcopy, pickle) has a buffer of its own, and views on that.
    """

    def __init__(self, shapes: Shapes, backend: Backend, dtype: Any) -> None:
        self.shapes, self.backend = shapes, backend
        self.flat = backend.zeros(sum(math.prod(shape) for shape in shapes.values()), dtype)
        self._views: dict[str, Array] = {}
        offset = 0
        for name, shape in shapes.items():
            size = math.prod(shape)
            self._views[name] = self.flat[offset : offset + size].reshape(shape)
            offset += size

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def part(self, prefix: str) -> Mapping[str, Array]:
        """The tensors "prefix.name", by name: read-only, as this is."""
        start = f"{prefix}."
        return MappingProxyType({name.removeprefix(start): a for name, a in self.items() if name.startswith(start)})

    def __getstate__(self) -> dict[str, Any]:
        return {
            "shapes": dict(self.shapes),
            "flat": to_host(self.flat).copy(),
            "backend": self.backend.name,
            "device": self.backend.device,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        backend = backend_or_numpy(state["backend"], state["device"])
        FlatParams.__init__(self, state["shapes"], backend, state["flat"].dtype)
        self.flat[...] = backend.asarray(state["flat"])

    def __repr__(self) -> str:
        rows = "\n".join(f"  {name}: {shape}" for name, shape in self.shapes.items())
        return f"FlatParams, {self.flat.size:,} numbers ({self.flat.dtype}):\n{rows}"
