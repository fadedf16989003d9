"""The arrays, functions and ufuncs of the stand-in for CuPy: see `fake_cupy`."""

import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_cuda import working
from fake_tables import BINARY, COMPARISONS, METHODS, UNARY


class HostTransferError(TypeError):
    """Something would have moved data between host and device, or waited for the device, without saying so."""


class DeviceArray:
    """What the stand-in calls `cupy.ndarray`: a NumPy array that only this file can reach.

    A wrapper and not a subclass of numpy.ndarray: a subclass IS a NumPy array, so NumPy's functions, `isinstance`,
    and everything written in C take it without asking, and `__array_ufunc__` cannot tell `a + b` from `np.add(a, b)`.
    Here Python's operators come in through the class's own methods, NumPy's functions through the NumPy protocols, and
    what nobody has thought of fails because it is not there.
    """

    __slots__ = ("_host",)
    __hash__ = None  # type: ignore[assignment]  # not hashable, as CuPy's arrays are not

    def __init__(self, host: np.ndarray) -> None:
        self._host = host

    # What works

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    size = property(lambda self: self._host.size)
    ndim = property(lambda self: self._host.ndim)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    data = property(lambda self: SimpleNamespace(ptr=self._host.ctypes.data))
    T = property(lambda self: DeviceArray(self._host.T))

    @property
    def flags(self) -> SimpleNamespace:
        """CuPy has these three flags only; in particular no `writeable`."""
        flags = self._host.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata)

    def __len__(self) -> int:
        return len(self._host)

    def __repr__(self) -> str:
        return f"<device array {self.shape} {self.dtype}>"

    def __copy__(self) -> "DeviceArray":
        working("copy")
        return DeviceArray(self._host.copy())

    def __deepcopy__(self, memo: Any) -> "DeviceArray":
        working("copy")
        return DeviceArray(self._host.copy())

    def __getitem__(self, key: Any) -> "DeviceArray":
        if any(isinstance(part, DeviceArray) for part in (key if isinstance(key, tuple) else (key,))):
            working("a device index")
        return DeviceArray(self._host[_index(key, reading=True)])

    def __setitem__(self, key: Any, value: Any) -> None:
        index = _index(key, reading=False)
        working("item assignment")
        with np.errstate(all="ignore"):
            self._host[index] = assignable(value, "item assignment")

    def fill(self, value: Any) -> None:
        """As CuPy: a scalar, or a NumPy array of no dimensions; not a device array."""
        if isinstance(value, DeviceArray):
            raise HostTransferError("fill with a device array compares it with 0 first, which waits: use a[...] = b")
        working("fill")
        self._host.fill(assignable(value, "fill"))

    def __matmul__(self, other: Any) -> "DeviceArray":
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> "DeviceArray":
        return matmul(other, self)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """NumPy asks here before it works on a device array: only `np.float32(2) * a` may pass, as in CuPy."""
        first = inputs[0]
        if ufunc in COMPARISONS.values() and isinstance(first, np.ndarray) and first.shape == ():
            first = first.item()  # what NumPy makes of `np.float32(2) > a`; CuPy undoes it in the same way
        if method == "__call__" and not kwargs and isinstance(first, int | float | np.generic):
            return _elementwise(ufunc, first, *inputs[1:])
        if any(isinstance(a, np.ndarray) for a in (*inputs, *kwargs.get("out", ()))):
            raise HostTransferError(f"NumPy and device arrays are mixed in numpy.{ufunc.__name__}")
        raise HostTransferError(f"numpy.{ufunc.__name__} was called on a device array: use cupy.{ufunc.__name__}")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise HostTransferError(f"numpy.{function.__name__} was called on a device array")

    # What is refused

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise HostTransferError("a device array was turned into a NumPy array in silence: use to_host or asnumpy")

    def __iter__(self) -> Any:
        raise HostTransferError(
            "a device array was iterated over or unpacked: every element would be a kernel of its own"
        )


def _refuse(name: str, what: str) -> None:
    def refused(self: DeviceArray, *args: Any, **kwargs: Any) -> Any:
        raise HostTransferError(f"{what} of a device array waits for the device and copies: use to_host or asnumpy")

    setattr(DeviceArray, name, refused)


for _name in ("float", "int", "bool", "index", "complex", "str", "format"):
    _refuse(f"__{_name}__", f"{_name}()")
_refuse("__reduce_ex__", "pickling")
_refuse("__contains__", "'in'")
for _name in ("item", "tolist", "tobytes", "tofile", "dump", "dumps", "get", "nonzero"):
    _refuse(_name, f".{_name}()")


def _operand(a: Any, name: str) -> Any:
    """`a` as NumPy sees it: a device array's own memory, or a scalar. CuPy takes nothing else in its operators."""
    if isinstance(a, DeviceArray):
        return a._host
    if isinstance(a, np.ndarray):  # CuPy refuses those of no dimensions too
        raise HostTransferError(f"NumPy and device arrays are mixed in {name}: move one of them first")
    if isinstance(a, bool | int | float | complex | np.generic):
        return a
    raise TypeError(f"{name} does not take a {type(a).__name__}")


def assignable(value: Any, name: str) -> Any:
    """CuPy fills with a scalar or with a NumPy array of no dimensions, and copies from device arrays."""
    if isinstance(value, np.ndarray) and value.shape == ():
        return value
    return _operand(value, name)


def _argument(a: Any, name: str) -> Any:
    """As `_operand`, for functions that also take shapes, axes, types, and tuples of arrays."""
    if isinstance(a, DeviceArray | np.ndarray):
        return _operand(a, name)
    if isinstance(a, list | tuple):
        return type(a)(_argument(part, name) for part in a)
    return a


def _index(key: Any, reading: bool) -> tuple[Any, ...]:
    """The index for NumPy, with an ellipsis, so that a single element comes out as a view of no dimensions."""
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        if isinstance(part, list | np.ndarray):
            raise HostTransferError("a list or NumPy array as an index is copied to the device: move it there first")
        if reading and isinstance(part, DeviceArray) and part.dtype == bool:
            raise HostTransferError("reading with a mask waits for the device, to count the hits")
    if not any(part is Ellipsis for part in parts):
        parts = (*parts, Ellipsis)
    return tuple(part._host if isinstance(part, DeviceArray) else part for part in parts)


def wrap(result: Any, out: Any = None) -> Any:
    return out if out is not None or result is None else DeviceArray(np.asarray(result))


def _output(out: Any, shape: tuple[int, ...], name: str) -> np.ndarray | None:
    """The memory of `out`; CuPy never broadcasts the inputs to it."""
    if out is None:
        return None
    if not isinstance(out, DeviceArray):
        raise TypeError(f"{name}: out must be a device array, not a {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"{name}: out has shape {out.shape}, the result {shape}")
    return out._host


def _elementwise(ufunc: np.ufunc, *args: Any, out: Any = None, dtype: Any = None, casting: Any = "same_kind") -> Any:
    name = f"cupy.{ufunc.__name__}"
    working(name)
    hosts = [_operand(a, name) for a in args]
    host_out = _output(out, np.broadcast_shapes(*(np.shape(h) for h in hosts)), name)
    with np.errstate(all="ignore"):  # a GPU does not warn
        return wrap(ufunc(*hosts, out=host_out, dtype=dtype, casting=casting), out)


def matmul(x1: Any, x2: Any, out: Any = None) -> Any:
    if not (isinstance(x1, DeviceArray) and isinstance(x2, DeviceArray)):
        raise HostTransferError(
            f"matmul of a {type(x1).__name__} and a {type(x2).__name__}: both must be device arrays"
        )
    working("calling cuBLAS API")
    with np.errstate(all="ignore"):
        result = np.matmul(x1._host, x2._host)
    if out is None:
        return wrap(result)
    host_out = _output(out, np.shape(result), "cupy.matmul")
    np.copyto(host_out, result)  # type: ignore[arg-type]  # same_kind, as CuPy's
    return out


def _operators() -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, ufunc in BINARY.items():
        yield f"__{name}__", lambda self, other, ufunc=ufunc: _elementwise(ufunc, self, other)
        yield f"__r{name}__", lambda self, other, ufunc=ufunc: _elementwise(ufunc, other, self)
        yield f"__i{name}__", lambda self, other, ufunc=ufunc: _elementwise(ufunc, self, other, out=self)
    for name, ufunc in COMPARISONS.items():
        yield f"__{name}__", lambda self, other, ufunc=ufunc: _elementwise(ufunc, self, other)
    for name, ufunc in UNARY.items():
        yield f"__{name}__", lambda self, ufunc=ufunc: _elementwise(ufunc, self)


def signature(parameters: str) -> inspect.Signature:
    """The signature that a table entry writes out."""
    return inspect.signature(eval(f"lambda {parameters}: None"))


def checked(name: str, parameters: str, function: Callable[..., Any], is_method: bool) -> Callable[..., Any]:
    """`function` of NumPy on the memory of device arrays, for the arguments in the table only."""
    allowed = signature(f"self, {parameters}" if is_method else parameters)
    title = f"the method {name}" if is_method else f"cupy.{name}"

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = allowed.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{title}: {error}") from None
        hosts = [_argument(a, title) for a in args]
        host_kwargs = {key: _argument(a, title) for key, a in kwargs.items()}
        if not any(isinstance(a, DeviceArray) for a in _flat((*args, *kwargs.values()))):
            raise TypeError(f"{title} was given no device array")
        out = bound.arguments.get("out")
        if out is not None and not isinstance(out, DeviceArray):
            raise TypeError(f"{title}: out must be a device array, not a {type(out).__name__}")
        working(title)
        with np.errstate(all="ignore"):
            return wrap(function(*hosts, **host_kwargs), out)

    call.__name__ = name
    return call


def _flat(args: Any) -> Iterator[Any]:
    for a in args:
        if isinstance(a, list | tuple):
            yield from _flat(a)
        else:
            yield a


def stable(function: Callable[..., Any]) -> Callable[..., Any]:
    """CuPy's sorts are stable; NumPy's are if asked."""
    return lambda *args, **kwargs: function(*args, kind="stable", **kwargs)


def undefined(host: np.ndarray) -> np.ndarray:
    """New memory holds NaN, or the largest whole number, so that it shows if it is read before it is written."""
    if host.dtype.kind in "fc":
        host.fill(np.nan)
    elif host.dtype.kind in "iu":
        host.fill(np.iinfo(host.dtype).max)
    else:
        host.fill(True)
    return host


def supported(host: np.ndarray) -> np.ndarray:
    if host.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    working("allocation")
    return host


for _name, _method in _operators():
    setattr(DeviceArray, _name, _method)
for _name, _parameters in METHODS.items():
    _function = getattr(np.ndarray, _name)
    _function = stable(_function) if _name in ("sort", "argsort") else _function
    setattr(DeviceArray, _name, checked(_name, _parameters, _function, is_method=True))


class Ufunc:
    """A ufunc of CuPy: `out` by name or by position, and `reduce` for sums and products only."""

    def __init__(self, ufunc: np.ufunc) -> None:
        self._ufunc = ufunc
        self.nin = ufunc.nin

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, casting: str = "same_kind") -> Any:
        if len(args) == self.nin + 1 and out is None:
            args, out = args[:-1], args[-1]
        if len(args) != self.nin:
            raise TypeError(f"cupy.{self._ufunc.__name__} takes {self.nin} arguments, not {len(args)}")
        return _elementwise(self._ufunc, *args, out=out, dtype=dtype, casting=casting)

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        if self._ufunc not in (np.add, np.multiply):
            raise NotImplementedError(f"cupy.{self._ufunc.__name__}.reduce is not supported")
        method = DeviceArray.sum if self._ufunc is np.add else DeviceArray.prod  # type: ignore[attr-defined]  # methods set in a loop
        return method(array, axis=axis, dtype=dtype, out=out, keepdims=keepdims)
