"""An array that has no numbers yet: what formulas and NumPy do to it becomes nodes of an ONNX graph.

It keeps NumPy's protocols, so that array code (a likelihood's `mean`) meets it as it meets an array. What cannot be
written down raises ExportError: it never turns into numbers.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tinyvae.errors import ExportError
from tinyvae.export.shapes import Many, Shape, broadcast, reshaped, size
from tinyvae.export.words import WORDS, precision, word

if TYPE_CHECKING:
    from tinyvae.export.graph import Graph


class Tensor:
    """What a node makes: its name, its shape and its dtype. It is not changed: it is no array to write into."""

    __slots__ = ("dtype", "graph", "name", "shape")

    def __init__(self, graph: "Graph", name: str, shape: Shape, dtype: Any) -> None:
        self.graph, self.name, self.shape, self.dtype = graph, name, shape, np.dtype(dtype)

    def __repr__(self) -> str:
        return f"{self.name} {self.shape}"

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self.shape)

    @property
    def size(self) -> Any:
        """How many numbers."""
        many, total = size(self.shape)
        return Many(total) if many else total

    # --------------------------------------------------------------------------------------------------- as in formulas

    def note(self, name: str, *args: Any) -> "Tensor":
        """The word `name` of `args`, one of which is this: see `tinyvae.formula`."""
        return word(self.graph, name, *args)

    def __neg__(self) -> "Tensor":
        return self.note("negative", self)

    def __pos__(self) -> "Tensor":
        return self

    def __abs__(self) -> "Tensor":
        return self.note("abs", self)

    # ------------------------------------------------------------------------------------------------ as NumPy asks for

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **options: Any) -> Any:
        name = {"absolute": "abs"}.get(ufunc.__name__, ufunc.__name__)
        if method != "__call__" or options or name not in WORDS:
            what = f"numpy.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
            raise ExportError(f"{what}{' with options' if options else ''} has no text in ONNX")
        return self.note(name, *args)

    def __array_function__(self, function: Any, types: Any, args: Any, options: dict[str, Any]) -> Any:
        if function not in FUNCTIONS:
            raise ExportError(f"numpy.{getattr(function, '__name__', function)} has no text in ONNX")
        return FUNCTIONS[function](self.graph, *args, **options)

    def __array__(self, *args: Any, **options: Any) -> NoReturn:
        raise ExportError("array code asks for numbers, and a graph that is being written has none")

    __float__ = __int__ = __index__ = __array__

    def __bool__(self) -> NoReturn:
        raise ExportError("a choice is made on a number: a graph has none, take where(condition, a, b)")

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise ExportError("array code writes into an array: a graph has results of nodes, which stay as they are")

    def __iter__(self) -> Iterator["Tensor"]:
        if isinstance(self.shape[0], Many):
            raise ExportError("array code goes through the rows one by one")
        return (self[i] for i in range(self.shape[0]))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    # ------------------------------------------------------------------------------------------------- in new shapes

    def reshape(self, *shape: Any) -> "Tensor":
        """The same numbers in another shape."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return self.graph.reshape(self, reshaped(self.shape, wanted))

    def transpose(self, *order: Any) -> "Tensor":
        """The axes in another order; without one, reversed."""
        wanted = order[0] if len(order) == 1 and isinstance(order[0], (tuple, list)) else order
        return self.graph.transpose(self, tuple(wanted) or tuple(reversed(range(self.ndim))))

    @property
    def T(self) -> "Tensor":  # noqa: N802 - NumPy's name
        """The axes reversed."""
        return self.transpose()

    def astype(self, dtype: Any, copy: bool = True) -> "Tensor":
        """The same numbers in another dtype."""
        return self.graph.cast(self, np.dtype(dtype))

    def copy(self) -> "Tensor":
        """Itself, as nobody writes into it."""
        return self

    def __getitem__(self, key: Any) -> "Tensor":
        """Slices, whole numbers, one array of whole numbers, None and ...: along axes of known length."""
        keys = list(key) if isinstance(key, tuple) else [key]
        if not any(k is Ellipsis for k in keys):
            keys.append(Ellipsis)
        at = next(i for i, k in enumerate(keys) if k is Ellipsis)
        named = sum(k is not None and k is not Ellipsis for k in keys)
        keys[at : at + 1] = [slice(None)] * (self.ndim - named)
        if len([k for k in keys if k is not None]) != self.ndim:
            raise ExportError(f"an array of shape {self.shape} has fewer axes than are asked for")
        found, axis, shape = self, 0, []
        for k in keys:
            if k is None:
                shape.append(1)
                continue
            found = found if isinstance(k, slice) and k == slice(None) else _along(found, axis, k)
            shape += [found.shape[axis]] if isinstance(k, slice) or np.ndim(k) else []
            axis += 1
        return found.reshape(*shape)

    # --------------------------------------------------------------------------------------------------- along an axis

    def sum(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        """The sums along an axis."""
        return _reduced("ReduceSum", self, axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        """The means along an axis."""
        return _reduced("ReduceMean", self, axis, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        """The largest along an axis."""
        return _reduced("ReduceMax", self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        """The smallest along an axis."""
        return _reduced("ReduceMin", self, axis, keepdims)


def _operators(name: str, swapped: bool = False) -> Callable[[Tensor, Any], Any]:
    def method(self: Tensor, other: Any) -> Any:
        return self.note(name, *((other, self) if swapped else (self, other)))

    return method


for _symbol, _name in {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "pow": "power",
    "matmul": "matmul",
}.items():
    setattr(Tensor, f"__{_symbol}__", _operators(_name))
    setattr(Tensor, f"__r{_symbol}__", _operators(_name, swapped=True))
for _symbol, _name in {
    "gt": "greater", "ge": "greater_equal", "lt": "less", "le": "less_equal", "eq": "equal",
}.items():  # fmt: skip
    setattr(Tensor, f"__{_symbol}__", _operators(_name))


def _along(a: Tensor, axis: int, key: Any) -> Tensor:
    """Some of the numbers along an axis, which stays, with length 1 where one number is asked for."""
    length = a.shape[axis]
    if isinstance(length, Many):
        raise ExportError("array code takes some of the rows")
    places = np.atleast_1d(np.arange(length)[key])
    shape = (*a.shape[:axis], len(places), *a.shape[axis + 1 :])
    if isinstance(key, slice) and key.step in (None, 1):
        start, stop, _ = key.indices(length)
        bounds = (np.array([n], dtype="int64") for n in (start, stop, axis))
        return a.graph.node("Slice", a, *bounds, shape=shape, dtype=a.dtype)
    return a.graph.node("Gather", a, places, shape=shape, dtype=a.dtype, axis=axis)


def _reduced(op: str, a: Tensor, axis: Any, keepdims: bool) -> Tensor:
    axes = [] if axis is None else sorted(n % a.ndim for n in np.atleast_1d(axis).tolist())
    if not axes or any(isinstance(a.shape[n], Many) for n in axes):
        raise ExportError("array code sums over all rows, or takes their largest number")
    shape = tuple(1 if i in axes else n for i, n in enumerate(a.shape) if keepdims or i not in axes)
    along = np.array(axes, dtype="int64")
    return a.graph.node(op, a, along, shape=shape, dtype=a.dtype, keepdims=int(keepdims))


def _joined(graph: "Graph", arrays: Any, axis: int = 0) -> Tensor:
    """Side by side, along an axis that is not the rows'."""
    dtype = precision(graph, *arrays)
    tensors = [graph.tensor(a, dtype) for a in arrays]
    first = tensors[0].shape
    axis %= len(first)
    if any(isinstance(t.shape[axis], Many) for t in tensors):
        raise ExportError("array code puts rows below rows")
    shape = (*first[:axis], sum(t.shape[axis] for t in tensors), *first[axis + 1 :])
    if any((*t.shape[:axis], *t.shape[axis + 1 :]) != (*shape[:axis], *shape[axis + 1 :]) for t in tensors):
        raise ExportError(f"arrays of the shapes {', '.join(str(t.shape) for t in tensors)} do not fit together")
    return graph.node("Concat", *tensors, shape=shape, dtype=dtype, axis=axis)


def _stacked(graph: "Graph", arrays: Any, axis: int = 0) -> Tensor:
    shape = broadcast(*(a.shape for a in arrays))
    place = axis % (len(shape) + 1)
    new = (*shape[:place], 1, *shape[place:])
    return _joined(graph, [graph.reshape(graph.tensor(a), new) for a in arrays], place)


def _clipped(graph: "Graph", a: Any, low: Any = None, high: Any = None) -> Tensor:
    a = a if low is None else word(graph, "maximum", a, low)
    return a if high is None else word(graph, "minimum", a, high)


def _filled(graph: "Graph", like: Any, value: float) -> Tensor:
    return graph.broadcast_to(np.asarray(value, dtype=like.dtype), like.shape)


def _method(name: str) -> Callable[..., Any]:
    return lambda graph, a, *args, **options: getattr(a, name)(*args, **options)


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.where: lambda graph, *args: word(graph, "where", *args),
    np.concatenate: _joined,
    np.stack: _stacked,
    np.clip: _clipped,
    np.zeros_like: lambda graph, a: _filled(graph, a, 0),
    np.ones_like: lambda graph, a: _filled(graph, a, 1),
    np.full_like: _filled,
    np.broadcast_to: lambda graph, a, shape: graph.broadcast_to(a, tuple(shape)),
    np.reshape: _method("reshape"),
    np.transpose: _method("transpose"),
    np.sum: _method("sum"),
    np.mean: _method("mean"),
    np.max: _method("max"),
    np.min: _method("min"),
}
