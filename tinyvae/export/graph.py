"""An ONNX graph while it is being written: inputs, constants, nodes and outputs. The same node is written once.

Nothing here needs the package onnx: `file.py` makes a file of it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tinyvae.errors import ExportError
from tinyvae.export.arrays import Tensor
from tinyvae.export.shapes import Many, Shape, broadcast

LABELS = np.dtype("int64")
FEW = 64  # bytes of a constant that is compared with others, so that it is written once


class Node(NamedTuple):
    """An operator of ONNX, the names of what it takes, and of the one thing that it makes."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class Graph:
    """One graph. named: arrays whose names their constants get, and those made of parts of them."""

    def __init__(self, dtype: Any, named: Mapping[str, np.ndarray] | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.scope = ""  # before the names of nodes: of the layer that is being written
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self._named, self._taken = dict(named or {}), set[str]()
        self._known: dict[Any, Tensor] = {}
        self._moved: dict[str, tuple[str, Tensor, Any]] = {}  # by what operator, from what, and how

    def input(self, name: str, shape: Shape, dtype: Any = None) -> Tensor:
        """An input of the graph."""
        self.inputs.append(Tensor(self, self._free(name), shape, np.dtype(dtype or self.dtype)))
        return self.inputs[-1]

    def output(self, name: str, a: Any, shape: Shape, dtype: Any = None) -> None:
        """`a` is an output of the graph, in its dtype or that one. Raises ExportError if its shape is another."""
        a = self.cast(self.tensor(a), np.dtype(dtype or self.dtype))
        if a.shape != shape:
            raise ExportError(f"{name} has the shape {a.shape}, where {shape} is expected")
        named = Tensor(self, self._free(name), shape, a.dtype)
        self.nodes.append(Node("Identity", (a.name,), named.name, {}))
        self.outputs.append(named)

    def tensor(self, a: Any, dtype: Any = None, like: np.ndarray | None = None) -> Tensor:
        """`a` itself, or a constant: an array in its own dtype, a number in the graph's, both in `dtype` if that is
        given. like: the array that it was made of, whose name it gets.
        """
        if isinstance(a, Tensor):
            return a if dtype is None else self.cast(a, dtype)
        value = np.asarray(a, dtype=dtype or getattr(a, "dtype", self.dtype))
        key = (value.dtype.str, value.shape, value.tobytes()) if value.nbytes <= FEW and like is None else None
        if key in self._known:
            return self._known[key]
        made = Tensor(self, self._free(self._name_of(a if like is None else like)), value.shape, value.dtype)
        self.constants[made.name] = value
        if key is not None:
            self._known[key] = made
        return made

    def node(self, op: str, *inputs: Any, shape: Shape, dtype: Any = None, **attributes: Any) -> Tensor:
        """What the operator makes of these, whose shape and dtype (default: the graph's) the caller knows."""
        given = tuple(self.tensor(a).name for a in inputs)
        key = (op, given, tuple(sorted((name, repr(value)) for name, value in attributes.items())))
        if key not in self._known:
            name = self._free(f"{self.scope}{op}")
            self._known[key] = Tensor(self, name, shape, np.dtype(dtype or self.dtype))
            self.nodes.append(Node(op, given, name, attributes))
        return self._known[key]

    def needed(self) -> tuple[list[Node], dict[str, np.ndarray]]:
        """The nodes and constants that an output is made of: a way that another undid leaves some that are not."""
        wanted = {a.name for a in self.outputs}
        for node in reversed(self.nodes):
            wanted |= set(node.inputs) if node.output in wanted else set()
        nodes = [node for node in self.nodes if node.output in wanted]
        return nodes, {name: a for name, a in self.constants.items() if name in wanted}

    # ---------------------------------------------------------------------------------------------------- the same anew

    def cast(self, a: Tensor, dtype: Any) -> Tensor:
        """The same numbers in another dtype."""
        return a if a.dtype == dtype else self.node("Cast", a, shape=a.shape, dtype=dtype, to=np.dtype(dtype))

    def reshape(self, a: Tensor, shape: Shape) -> Tensor:
        """The same numbers in another shape. What was reshaped before is taken as it was: two ways undo each other."""
        a = self._before(a, "Reshape")[0]
        if a.shape == shape:
            return a
        sizes = np.array([-1 if isinstance(n, Many) else n for n in shape], dtype="int64")
        made = self.node("Reshape", a, sizes, shape=shape, dtype=a.dtype)
        self._moved[made.name] = ("Reshape", a, None)
        return made

    def transpose(self, a: Tensor, order: tuple[int, ...]) -> Tensor:
        """The axes in another order: as `reshape`."""
        a, before = self._before(a, "Transpose")
        order = order if before is None else tuple(before[i] for i in order)
        if order == tuple(range(len(order))):
            return a
        shape = tuple(a.shape[i] for i in order)
        made = self.node("Transpose", a, shape=shape, dtype=a.dtype, perm=list(order))
        self._moved[made.name] = ("Transpose", a, order)
        return made

    def _before(self, a: Tensor, op: str) -> tuple[Tensor, Any]:
        made_by, below, how = self._moved.get(a.name, (None, a, None))
        return (below, how) if made_by == op else (a, None)

    def broadcast_to(self, a: Any, shape: Shape) -> Tensor:
        """Rows, columns and single numbers, as often as it takes. Raises ExportError where that does not go."""
        a = self.tensor(a)
        if a.shape == shape:
            return a
        if broadcast(a.shape, shape) != shape:
            raise ExportError(f"an array of shape {a.shape} does not fit {shape}")
        sizes = [self._size(n) for n in shape]
        whole = self.node("Concat", *sizes, shape=(len(sizes),), dtype="int64", axis=0)
        return self.node("Expand", a, whole, shape=shape, dtype=a.dtype)

    def _size(self, n: Any) -> Any:
        """A dimension as an array of one number: what is not known before is asked of the first input."""
        if not isinstance(n, Many):
            return np.array([n], dtype="int64")
        rows = self.node("Shape", self.inputs[0], shape=(1,), dtype="int64", start=0, end=1)
        return self.node("Mul", rows, np.array([n.each], dtype="int64"), shape=(1,), dtype="int64")

    # ------------------------------------------------------------------------------------------------------------ names

    def _free(self, name: str) -> str:
        """The name, or with a number behind it where it is taken."""
        found, i = name, 1
        while found in self._taken:
            found, i = f"{name}.{i}", i + 1
        self._taken.add(found)
        return found

    def _name_of(self, a: Any) -> str:
        """Of the array whose memory it is a view on."""
        if isinstance(a, np.ndarray):
            for name, whole in self._named.items():
                if np.may_share_memory(a, whole):
                    return name
        return "constant"
