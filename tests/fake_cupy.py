"""A small stand-in for CuPy on the host, so that code can be run "on CuPy" without a GPU.

A test module imports the fixture and takes `fake_cupy` as an argument; from then on `get_backend("cupy")` works:

    from fake_cupy import fake_cupy_fixture as fake_cupy_fixture

    def test_step_stays_on_the_device(fake_cupy):
        ...
        assert (fake_cupy.host_copies, fake_cupy.device_copies) == (0, 0)

It has only what the tables below list, and refuses whatever CuPy refuses. On purpose it is stricter than CuPy
where CuPy would copy or wait in silence:

    on a device array                           CuPy                                    here
    float, int, bool, item, tolist, str, ...    waits for the device and copies         refused
    iteration, unpacking                        one small kernel for each element       refused
    a[mask], where(mask)                        waits, to count the hits                refused
    a list or NumPy array as an index           copies it to the device                 refused
    np.exp(a), np.sum(a)                        hands over to cupy.exp, cupy.sum        refused
    cupy.sum(NumPy array)                       computes on the host                    refused

What it does not show: rounding of the GPU's functions and sums, memory, a second device's arrays. Kernels, streams and
graphs are in `fake_cuda.py`.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import fake_cuda
import numpy as np
import pytest
from fake_cuda import CUDARuntimeError as CUDARuntimeError
from fake_cuda import working

# Each table says which arguments may be given. A test compares them with the real CuPy where it is installed.

UFUNCS = (
    "abs", "absolute", "add", "bitwise_and", "bitwise_or", "bitwise_xor", "cos", "divide", "equal", "exp", "expm1",
    "floor", "floor_divide", "greater", "greater_equal", "invert", "isfinite", "isinf", "isnan", "less", "less_equal",
    "log", "log1p", "logical_and", "logical_not", "logical_or", "maximum", "minimum", "multiply", "negative",
    "not_equal", "positive", "power", "reciprocal", "remainder", "rint", "sign", "sin", "sqrt", "square", "subtract",
    "tanh", "true_divide",
)  # fmt: skip

FUNCTIONS = {
    "all": "a, axis=None, out=None, keepdims=False",
    "allclose": "a, b, rtol=1e-05, atol=1e-08, equal_nan=False",
    "amax": "a, axis=None, out=None, keepdims=False",
    "amin": "a, axis=None, out=None, keepdims=False",
    "any": "a, axis=None, out=None, keepdims=False",
    "argmax": "a, axis=None",
    "argmin": "a, axis=None",
    "argsort": "a, axis=-1",
    "array_equal": "a1, a2, equal_nan=False",
    "ascontiguousarray": "a, dtype=None",
    "broadcast_to": "array, shape",
    "clip": "a, a_min, a_max, out=None",
    "concatenate": "tup, /, axis=0, out=None",
    "copyto": "dst, src",
    "count_nonzero": "a, axis=None",
    "cumsum": "a, axis=None, dtype=None, out=None",
    "dot": "a, b, out=None",
    "empty_like": "a, /, dtype=None",
    "expand_dims": "a, axis",
    "flip": "a, axis=None",
    "full_like": "a, fill_value, dtype=None",
    "isclose": "a, b, rtol=1e-05, atol=1e-08, equal_nan=False",
    "matmul": "x1, x2, /, out=None",
    "max": "a, axis=None, out=None, keepdims=False",
    "mean": "a, axis=None, dtype=None, out=None, keepdims=False",
    "min": "a, axis=None, out=None, keepdims=False",
    "moveaxis": "a, source, destination",
    "ones_like": "a, dtype=None",
    "outer": "a, b, out=None",
    "prod": "a, axis=None, dtype=None, out=None, keepdims=False",
    "ravel": "a, order='C'",
    "repeat": "a, repeats, axis=None",
    "reshape": "a, shape, /, order='C'",
    "sort": "a, axis=-1",
    "squeeze": "a, axis=None",
    "stack": "tup, /, axis=0, out=None",
    "std": "a, axis=None, dtype=None, out=None, ddof=0, keepdims=False",
    "sum": "a, axis=None, dtype=None, out=None, keepdims=False",
    "swapaxes": "a, axis1, axis2",
    "take": "a, indices, axis=None, out=None",
    "tensordot": "a, b, axes=2",
    "tile": "a, reps, /",
    "transpose": "a, axes=None",
    "var": "a, axis=None, dtype=None, out=None, ddof=0, keepdims=False",
    "where": "condition, x, y, /",
    "zeros_like": "a, dtype=None",
}

METHODS = {
    "all": "axis=None, out=None, keepdims=False",
    "any": "axis=None, out=None, keepdims=False",
    "argmax": "axis=None",
    "argmin": "axis=None",
    "argsort": "axis=-1",
    "astype": "dtype, *, copy=True",
    "clip": "min=None, max=None, out=None",
    "copy": "order='C'",
    "cumsum": "axis=None, dtype=None, out=None",
    "dot": "b, /, out=None",
    "flatten": "order='C'",
    "max": "axis=None, out=None, keepdims=False",
    "mean": "axis=None, dtype=None, out=None, keepdims=False",
    "min": "axis=None, out=None, keepdims=False",
    "prod": "axis=None, dtype=None, out=None, keepdims=False",
    "ravel": "order='C'",
    "repeat": "repeats, axis=None",
    "reshape": "*shape, order='C'",
    "round": "decimals=0, out=None",
    "sort": "axis=-1",
    "squeeze": "axis=None",
    "std": "axis=None, dtype=None, out=None, ddof=0, keepdims=False",
    "sum": "axis=None, dtype=None, out=None, keepdims=False",
    "swapaxes": "axis1, axis2, /",
    "take": "indices, axis=None, out=None",
    "transpose": "*axes",
    "var": "axis=None, dtype=None, out=None, ddof=0, keepdims=False",
    "view": "dtype=None",
}

CREATION = (  # methods of FakeCupy, which say themselves what they take
    "arange", "array", "asarray", "asnumpy", "empty", "eye", "full", "linspace", "ones", "zeros",
)  # fmt: skip

SAME_AS_NUMPY = (
    "bool_", "dtype", "finfo", "float16", "float32", "float64", "iinfo", "inf", "int8", "int16", "int32", "int64",
    "nan", "newaxis", "pi", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip

BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "floordiv": np.floor_divide,
    "mod": np.remainder, "pow": np.power, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip
COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip
UNARY = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}


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
            self._host[index] = _assignable(value, "item assignment")

    def fill(self, value: Any) -> None:
        """As CuPy: a scalar, or a NumPy array of no dimensions; not a device array."""
        if isinstance(value, DeviceArray):
            raise HostTransferError("fill with a device array compares it with 0 first, which waits: use a[...] = b")
        working("fill")
        self._host.fill(_assignable(value, "fill"))

    def __matmul__(self, other: Any) -> "DeviceArray":
        return _matmul(self, other)

    def __rmatmul__(self, other: Any) -> "DeviceArray":
        return _matmul(other, self)

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


def _assignable(value: Any, name: str) -> Any:
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


def _wrap(result: Any, out: Any = None) -> Any:
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
        return _wrap(ufunc(*hosts, out=host_out, dtype=dtype, casting=casting), out)


def _matmul(x1: Any, x2: Any, out: Any = None) -> Any:
    if not (isinstance(x1, DeviceArray) and isinstance(x2, DeviceArray)):
        raise HostTransferError(
            f"matmul of a {type(x1).__name__} and a {type(x2).__name__}: both must be device arrays"
        )
    working("calling cuBLAS API")
    with np.errstate(all="ignore"):
        result = np.matmul(x1._host, x2._host)
    if out is None:
        return _wrap(result)
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


def _checked(name: str, parameters: str, function: Callable[..., Any], is_method: bool) -> Callable[..., Any]:
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
            return _wrap(function(*hosts, **host_kwargs), out)

    call.__name__ = name
    return call


def _flat(args: Any) -> Iterator[Any]:
    for a in args:
        if isinstance(a, list | tuple):
            yield from _flat(a)
        else:
            yield a


def _stable(function: Callable[..., Any]) -> Callable[..., Any]:
    """CuPy's sorts are stable; NumPy's are if asked."""
    return lambda *args, **kwargs: function(*args, kind="stable", **kwargs)


def _undefined(host: np.ndarray) -> np.ndarray:
    """New memory holds NaN, or the largest whole number, so that it shows if it is read before it is written."""
    if host.dtype.kind in "fc":
        host.fill(np.nan)
    elif host.dtype.kind in "iu":
        host.fill(np.iinfo(host.dtype).max)
    else:
        host.fill(True)
    return host


def _supported(host: np.ndarray) -> np.ndarray:
    if host.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    working("allocation")
    return host


for _name, _method in _operators():
    setattr(DeviceArray, _name, _method)
for _name, _parameters in METHODS.items():
    _function = getattr(np.ndarray, _name)
    _function = _stable(_function) if _name in ("sort", "argsort") else _function
    setattr(DeviceArray, _name, _checked(_name, _parameters, _function, is_method=True))


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


class Philox4x3210:
    """The bit generator. CuPy keeps 32 bits of the seed, whatever it is given."""

    def __init__(self, seed: Any = None) -> None:
        sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        self._seed = int(sequence.generate_state(1, np.uint32)[0])


class Generator:
    """CuPy's Generator has no `permutation`, `shuffle`, `choice` or `normal`, and no state to save."""

    def __init__(self, bit_generator: Philox4x3210) -> None:
        self.bit_generator = bit_generator
        self._rng = np.random.Generator(np.random.Philox(key=bit_generator._seed))

    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return self._draw(self._rng.random, size, dtype, out, scalar_without_size=True)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return self._draw(self._rng.standard_normal, size, dtype, out)

    def integers(
        self, low: Any, high: Any = None, size: Any = None, dtype: Any = np.int64, endpoint: bool = False
    ) -> Any:
        working("a random number generator")
        low, high = (0, int(low)) if high is None else (int(low), int(high))
        return _wrap(self._rng.integers(low, high, size=size, dtype=dtype, endpoint=endpoint))

    def _draw(
        self, draw: Callable[..., Any], size: Any, dtype: Any, out: Any, scalar_without_size: bool = False
    ) -> Any:
        """With `scalar_without_size`, as CuPy's `random`: without a size, all of `out` becomes one number."""
        working("a random number generator")
        if out is None:
            return _wrap(draw(size=size, dtype=dtype))
        if out.dtype != np.dtype(dtype):
            raise TypeError(f"out has dtype {out.dtype}, but dtype says {np.dtype(dtype)}")
        if not (out.flags.c_contiguous or out.flags.f_contiguous):
            raise ValueError("out is not contiguous")
        if size is not None and (tuple(size) if isinstance(size, list | tuple) else (size,)) != out.shape:
            raise ValueError(f"size {size} is not out's shape {out.shape}")
        out._host[...] = draw(size=size if scalar_without_size else out.shape, dtype=dtype)
        return out


class FakeCupy(ModuleType):
    """The module. `host_copies` and `device_copies` count the arrays moved each way since `reset_copies`."""

    def __init__(self, devices: int = 1) -> None:
        super().__init__("cupy", "A stand-in for CuPy on the host.")
        self.__version__ = "14.2.0"
        self.ndarray = DeviceArray
        self.host_copies = self.device_copies = 0
        for name in SAME_AS_NUMPY:
            setattr(self, name, getattr(np, name))
        for name in UFUNCS:
            setattr(self, name, Ufunc(getattr(np, name)))
        special = {
            "argsort": _stable(np.argsort),
            "sort": _stable(np.sort),
            "empty_like": lambda *args, **kwargs: _undefined(np.empty_like(*args, **kwargs)),
        }
        for name, parameters in FUNCTIONS.items():
            function = special.get(name, getattr(np, name))
            setattr(self, name, _checked(name, parameters, function, is_method=False))
        self.matmul = _matmul
        self.cuda = fake_cuda.cuda(devices)
        self.RawModule = fake_cuda.RawModule
        self.random = SimpleNamespace(Generator=Generator, Philox4x3210=Philox4x3210)

    def reset_copies(self) -> None:
        self.host_copies = self.device_copies = 0

    def asnumpy(self, a: Any, *, out: np.ndarray | None = None) -> np.ndarray:
        if not isinstance(a, DeviceArray):
            return np.asarray(a)
        working("a copy to the host", waits=True)
        self.host_copies += 1
        if out is None:
            return a._host.copy()
        np.copyto(out, a._host, casting="unsafe")
        return out

    def asarray(self, a: Any, dtype: Any = None) -> DeviceArray:
        if isinstance(a, DeviceArray):
            return a if dtype is None or a.dtype == np.dtype(dtype) else DeviceArray(_supported(a._host.astype(dtype)))
        self.device_copies += 1
        return DeviceArray(_supported(np.array(a, dtype=dtype)))

    def array(self, obj: Any, dtype: Any = None) -> DeviceArray:
        if isinstance(obj, DeviceArray):
            return DeviceArray(_supported(np.array(obj._host, dtype=dtype)))
        return self.asarray(obj, dtype)

    def empty(self, shape: Any, dtype: Any = float) -> DeviceArray:
        return DeviceArray(_undefined(_supported(np.empty(shape, dtype))))

    def zeros(self, shape: Any, dtype: Any = float) -> DeviceArray:
        return DeviceArray(_supported(np.zeros(shape, dtype)))

    def ones(self, shape: Any, dtype: Any = float) -> DeviceArray:
        return DeviceArray(_supported(np.ones(shape, dtype)))

    def full(self, shape: Any, fill_value: Any, dtype: Any = None) -> DeviceArray:
        return DeviceArray(_supported(np.full(shape, _assignable(fill_value, "cupy.full"), dtype)))

    def arange(self, start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> DeviceArray:
        start, stop = (0, start) if stop is None else (start, stop)
        return DeviceArray(_supported(np.arange(start, stop, step, dtype=dtype)))

    def eye(self, N: int, M: int | None = None, k: int = 0, dtype: Any = float) -> DeviceArray:
        return DeviceArray(_supported(np.eye(N, M, k, dtype=dtype)))

    def linspace(
        self, start: Any, stop: Any, num: int = 50, endpoint: bool = True, *, dtype: Any = None
    ) -> DeviceArray:
        return DeviceArray(_supported(np.linspace(start, stop, num, endpoint, dtype=dtype)))


@pytest.fixture(name="fake_cupy")
def fake_cupy_fixture(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    """The stand-in, in place of CuPy for the length of a test."""
    fake_cuda.clock.reset()
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake
