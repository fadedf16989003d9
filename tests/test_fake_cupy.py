"""Tests of the stand-in for CuPy: it refuses what it must, computes what NumPy computes, and has nothing CuPy lacks.

A stand-in that forgives is worse than none: the code would pass here and fail on the first GPU.
"""

import copy
import importlib
import importlib.util
import inspect
import math
import operator
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_cuda import Device
from fake_cupy import (
    BINARY,
    COMPARISONS,
    CREATION,
    FUNCTIONS,
    METHODS,
    SAME_AS_NUMPY,
    UFUNCS,
    FakeCupy,
    Generator,
    HostTransferError,
    Philox4x3210,
    signature,
)
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture

HOST = np.arange(6.0).reshape(2, 3)


def device(fake: FakeCupy, host: Any = HOST) -> Any:
    return fake.asarray(host)


# ------------------------------------------------------------------------------------------------------ what is refused

WAITS: dict[str, Callable[[Any], Any]] = {
    "float()": lambda a: float(a.sum()),
    "int()": lambda a: int(a.sum()),
    "bool()": lambda a: bool(a.any()),
    "if a == b": lambda a: 1 if a.sum() == 15 else 0,
    "and": lambda a: a.any() and a.all(),
    "complex()": lambda a: complex(a.sum()),
    "index()": lambda a: operator.index(a.sum()),
    "an index of a list": lambda a: [1, 2][a.argmin()],
    "range()": lambda a: range(a.argmax()),
    "math": lambda a: math.sqrt(a.sum()),
    "item": lambda a: a.sum().item(),
    "tolist": lambda a: a.tolist(),
    "tobytes": lambda a: a.tobytes(),
    "get": lambda a: a.get(),
    "nonzero": lambda a: a.nonzero(),
    "str()": lambda a: str(a),
    "f-string": lambda a: f"{a.sum():.3f}",
    "pickle": lambda a: pickle.dumps(a),
    "for": lambda a: [row for row in a],
    "unpacking": lambda a: (lambda first, second: first)(*a),
    "in": lambda a: 1.0 in a,
    "max()": lambda a: max(a[0]),
    "np.asarray": lambda a: np.asarray(a),
    "np.array of a list": lambda a: np.array([a.sum(), 1.0]),
    "np.float64()": lambda a: np.float64(a.sum()),
    "assigned to a NumPy array": lambda a: HOST.copy().__setitem__(0, a[0]),
    "a mask read": lambda a: a[a > 1],
    "fill(device array)": lambda a: a.fill(a[0, 0]),
    "np.exp": lambda a: np.exp(a),
    "np.add": lambda a: np.add(a, 1.0),
    "np.add.reduce": lambda a: np.add.reduce(a),
    "np.exp with out": lambda a: np.exp(HOST, out=a),
    "np.sum": lambda a: np.sum(a),
    "np.concatenate": lambda a: np.concatenate([a, a]),
    "np.testing": lambda a: np.testing.assert_allclose(a, a),
    "np.linalg.norm": lambda a: np.linalg.norm(a),
    "np.shape": lambda a: np.shape(a),
}


@pytest.mark.parametrize("attempt", WAITS.values(), ids=WAITS)
def test_what_copies_or_waits_in_silence_is_refused(fake_cupy, attempt):
    with pytest.raises(HostTransferError):
        attempt(device(fake_cupy))
    assert fake_cupy.host_copies == 0


@pytest.mark.parametrize(
    ("attempt", "named"),
    [
        (lambda a: float(a), "float()"),
        (lambda a: a.item(), ".item()"),
        (lambda a: np.exp(a), "numpy.exp"),
        (lambda a: np.sum(a), "numpy.sum"),
        (lambda a: a + HOST, "mixed in cupy.add"),
        (lambda a: HOST + a, "mixed in numpy.add"),
        (lambda a: a.__setitem__(0, HOST[0]), "mixed in item assignment"),
        (lambda a: list(a), "iterated"),
        (lambda a: a[[0]], "index"),
    ],
)
def test_the_refusal_names_what_happened(fake_cupy, attempt, named):
    with pytest.raises(HostTransferError, match=re.escape(named)):
        attempt(device(fake_cupy))


ZERO_D = np.array(1.0)
MIXES: dict[str, Callable[[Any, Any], Any]] = {
    "@": lambda xp, a: a.T @ HOST,
    "@, left": lambda xp, a: HOST.T @ a,
    "+=": lambda xp, a: operator.iadd(a, HOST),
    "host +=": lambda xp, a: operator.iadd(HOST.copy(), a),
    "+ 0-d": lambda xp, a: a + ZERO_D,
    "0-d +": lambda xp, a: ZERO_D + a,
    "ufunc": lambda xp, a: xp.maximum(a, HOST),
    "ufunc, 0-d": lambda xp, a: xp.maximum(a, ZERO_D),
    "ufunc, host only": lambda xp, a: xp.exp(HOST),
    "out": lambda xp, a: xp.exp(a, out=HOST.copy()),
    "sum": lambda xp, a: xp.sum(HOST),
    "sum, out": lambda xp, a: a.sum(axis=0, out=HOST[0].copy()),
    "dot": lambda xp, a: a.dot(HOST.T),
    "matmul": lambda xp, a: xp.matmul(a, HOST.T),
    "where": lambda xp, a: xp.where(a > 1, a, HOST),
    "concatenate": lambda xp, a: xp.concatenate([a, HOST]),
    "stack": lambda xp, a: xp.stack((HOST, a)),
    "take": lambda xp, a: xp.take(a, np.array([0])),
    "a list as an index": lambda xp, a: a[[1, 0]],
    "a NumPy array as an index": lambda xp, a: a[np.array([1, 0])],
    "a NumPy array as an index to write": lambda xp, a: a.__setitem__(np.array([0]), 1.0),
    "item assignment": lambda xp, a: a.__setitem__(Ellipsis, HOST),
    "copyto": lambda xp, a: xp.copyto(a, HOST),
    "full": lambda xp, a: xp.full(3, HOST[0]),
    "fill": lambda xp, a: a.fill(HOST[0]),
}


@pytest.mark.parametrize("attempt", MIXES.values(), ids=MIXES)
def test_numpy_arrays_are_refused(fake_cupy, attempt):
    a = device(fake_cupy)
    fake_cupy.reset_copies()
    with pytest.raises(TypeError):
        attempt(fake_cupy, a)
    assert fake_cupy.device_copies == 0


@pytest.mark.parametrize("name", [*BINARY, *COMPARISONS])
def test_every_operator_refuses_a_numpy_array_on_either_side(fake_cupy, name):
    ints = HOST.astype(np.int64)
    function, a = getattr(operator, f"__{name}__"), device(fake_cupy, ints)
    for arguments in [(a, ints), (ints, a)]:
        with pytest.raises(TypeError):
            function(*arguments)


@pytest.mark.parametrize("other", [None, "1", [1.0, 2.0, 3.0], object()], ids=["None", "str", "list", "object"])
def test_operators_take_scalars_and_device_arrays_only(fake_cupy, other):
    with pytest.raises(TypeError):
        operator.add(device(fake_cupy), other)


def test_unhashable_and_without_new_attributes(fake_cupy):
    a = device(fake_cupy)
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)
    with pytest.raises(AttributeError):
        a.note = 1


@pytest.mark.parametrize("name", ["permutation", "apply_along_axis", "random_like", "linalg", "ndarrays", "trapz"])
def test_what_is_not_listed_is_missing(fake_cupy, name):
    with pytest.raises(AttributeError, match=name):
        getattr(fake_cupy, name)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda xp, a: xp.take(a, a.argmin(), mode="clip"),
        lambda xp, a: xp.sum(a, where=a > 1),
        lambda xp, a: xp.max(a, initial=0.0),
        lambda xp, a: xp.exp(a, where=a > 1),
        lambda xp, a: a.mean(where=a > 1),
        lambda xp, a: a.reshape(6, copies=True),
        lambda xp, a: xp.where(a > 1),
        lambda xp, a: xp.exp(a, a, a),
        lambda xp, a: xp.exp(),
        lambda xp, a: xp.sum(1.0),
    ],
)
def test_arguments_that_are_not_listed_are_refused(fake_cupy, attempt):
    with pytest.raises(TypeError):
        attempt(fake_cupy, device(fake_cupy))


def test_only_sums_and_products_reduce(fake_cupy):
    a = device(fake_cupy)
    assert_same(fake_cupy, fake_cupy.add.reduce(a, axis=1), HOST.sum(axis=1))
    assert_same(fake_cupy, fake_cupy.multiply.reduce(a), HOST.prod(axis=0))
    with pytest.raises(NotImplementedError, match="maximum"):
        fake_cupy.maximum.reduce(a)


def test_out_is_never_broadcast_to_and_keeps_its_kind(fake_cupy):
    a = device(fake_cupy)
    with pytest.raises(ValueError, match="shape"):
        fake_cupy.exp(a[0], out=a)
    with pytest.raises(ValueError, match="shape"):
        fake_cupy.matmul(a, a.T, out=a)
    with pytest.raises(TypeError, match="same_kind"):
        fake_cupy.exp(a, out=fake_cupy.zeros((2, 3), "int32"))
    with pytest.raises(TypeError, match="same_kind"):
        operator.iadd(fake_cupy.zeros((2, 3), "int32"), a)


def test_unsupported_dtypes(fake_cupy):
    for attempt in [lambda: fake_cupy.empty(3, object), lambda: fake_cupy.asarray(["a"])]:
        with pytest.raises(ValueError, match="Unsupported dtype"):
            attempt()


# -------------------------------------------------------------------------------------------------------- what it does


def assert_same(fake: FakeCupy, actual: Any, expected: Any) -> None:
    assert isinstance(actual, fake.ndarray)
    host = fake.asnumpy(actual)
    assert host.dtype == np.asarray(expected).dtype
    np.testing.assert_array_equal(host, expected)


WORKS: dict[str, Callable[[Any, Any], Any]] = {
    "operators": lambda xp, a: 1 - 2 * a / (a + 3.0) ** 2 + -a,
    "NumPy scalars": lambda xp, a: np.float64(2) * a - np.float64(1) + (np.int64(3) > a),
    "comparison": lambda xp, a: (a > 1) & ~(a == 3),
    "matmul": lambda xp, a: a @ a.T,
    "dot": lambda xp, a: a[0].dot(a[1]),
    "sum": lambda xp, a: a.sum(axis=1, keepdims=True),
    "mean": lambda xp, a: a.mean(),
    "var": lambda xp, a: a.var(axis=0, ddof=1),
    "min": lambda xp, a: xp.min(a, axis=0),
    "argmax": lambda xp, a: a.argmax(axis=1),
    "any": lambda xp, a: (a > 4).any(),
    "all": lambda xp, a: (a > 4).all(axis=1),
    "astype": lambda xp, a: a.astype("float32"),
    "view": lambda xp, a: a.reshape(3, 2)[1:, ::-1].T.ravel(),
    "reshape": lambda xp, a: a.reshape((-1, 2)),
    "new axis": lambda xp, a: a[:, None, 1],
    "a device index": lambda xp, a: a[xp.arange(2)[::-1]],
    "where": lambda xp, a: xp.where(a > 2, a, 0.5),
    "clip": lambda xp, a: xp.clip(a, 1, 4),
    "concatenate": lambda xp, a: xp.concatenate([a, xp.ones_like(a)], axis=1),
    "stack": lambda xp, a: xp.stack((a, 2 * a)),
    "take": lambda xp, a: xp.take(a, xp.arange(2, dtype="int32"), axis=1),
    "argsort": lambda xp, a: xp.argsort(-a, axis=1),
    "ufuncs": lambda xp, a: xp.log1p(xp.exp(-xp.abs(a))) + xp.maximum(a, 2) + xp.expm1(a) + xp.tanh(a) + xp.sqrt(a),
    "divide": lambda xp, a: xp.divide(1.0, a + 1),
    "a ufunc of scalars": lambda xp, a: xp.maximum(1.0, 2.0) + a[0],
    "broadcast": lambda xp, a: xp.broadcast_to(a[0], (4, 3)),
    "full": lambda xp, a: xp.full((2, 2), 1.5) + xp.zeros(2) + xp.ones(2) + xp.eye(2),
    "full_like": lambda xp, a: xp.full_like(a, 2.0),
    "linspace": lambda xp, a: xp.linspace(0, 1, 5),
    "overflow without a warning": lambda xp, a: xp.exp(1000 * a) - xp.log(a - a),
}


@pytest.mark.parametrize("formula", WORKS.values(), ids=WORKS)
def test_the_same_numbers_as_numpy(fake_cupy, formula):
    with np.errstate(all="ignore"):
        expected = formula(np, HOST)
    assert_same(fake_cupy, formula(fake_cupy, device(fake_cupy)), expected)


def test_views_share_memory_and_single_elements_are_views(fake_cupy):
    a = device(fake_cupy)
    a.reshape(3, 2)[1, 0] = 10.0
    element = a[1, 1]
    element[...] = 20.0
    a[0] = a[1]
    a[:, 2:] += np.float32(0.5)
    assert element.shape == ()
    assert_same(fake_cupy, a, [[3.0, 20.0, 5.5], [3.0, 20.0, 5.5]])


def test_item_assignment(fake_cupy):
    a = fake_cupy.zeros(4, "float32")
    a[0] = np.array(1.0)  # CuPy takes NumPy arrays of no dimensions here, though not in operators
    a[1] = fake_cupy.asarray(2.0)
    a[2:] = fake_cupy.asarray([3, 4])
    a[a > 3.5] = 9.0
    assert_same(fake_cupy, a, np.array([1, 2, 3, 9], "float32"))


def test_results_in_out(fake_cupy):
    a, b = device(fake_cupy), fake_cupy.empty((2, 3))
    assert fake_cupy.exp(a, out=b) is b
    assert_same(fake_cupy, b, np.exp(HOST))
    assert fake_cupy.exp(b, b) is b  # CuPy takes it by position too
    assert fake_cupy.less(a, 3, out=b) is b
    assert_same(fake_cupy, b, (HOST < 3).astype(float))
    out = fake_cupy.empty(2)
    assert a.sum(axis=1, out=out) is out
    assert fake_cupy.matmul(a, a[0], out=out) is out
    assert_same(fake_cupy, out, HOST @ HOST[0])


def test_python_scalars_are_weak_and_arrays_of_no_dimensions_are_not(fake_cupy):
    a = fake_cupy.ones(2, "float32")
    assert (a * 2.5).dtype == (1 - a).dtype == fake_cupy.maximum(a, 0).dtype == np.float32
    assert (np.float64(2) * a).dtype == (a * fake_cupy.asarray(2.0)).dtype == np.float64
    assert (a.sum() * 2.5).dtype == np.float32
    assert (fake_cupy.ones(2, "uint8") * 0.5).dtype == np.float64


def test_reductions_are_arrays_of_no_dimensions(fake_cupy):
    a = device(fake_cupy)
    for result in (a.sum(), a.mean(), a.max(), a.argmax(), a.any(), a[0].dot(a[0]), fake_cupy.count_nonzero(a)):
        assert isinstance(result, fake_cupy.ndarray)
        assert result.shape == ()


def test_new_memory_is_undefined(fake_cupy):
    for new in (fake_cupy.empty((2, 2), "float32"), fake_cupy.empty_like(device(fake_cupy))):
        assert np.isnan(fake_cupy.asnumpy(new)).all()
    assert_same(fake_cupy, fake_cupy.empty(2, "int64"), np.full(2, np.iinfo(np.int64).max))
    with pytest.raises(IndexError):
        fake_cupy.zeros(3)[fake_cupy.empty(2, "int64")]


def test_attributes(fake_cupy):
    a = device(fake_cupy)
    assert (a.shape, a.ndim, a.size, a.dtype, a.nbytes, a.itemsize) == ((2, 3), 2, 6, np.float64, 48, 8)
    assert a.strides == (24, 8)
    assert len(a) == 2
    assert a.flags.c_contiguous
    assert a.T.flags.f_contiguous
    assert not hasattr(a.flags, "writeable")
    assert repr(a) == "<device array (2, 3) float64>"
    with pytest.raises(TypeError):
        len(a.sum())


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda a: a.copy()], ids=["copy", "deepcopy", "method"])
def test_copies_share_nothing(fake_cupy, copied):
    a = device(fake_cupy)
    b = copied(a)
    b += 1
    assert_same(fake_cupy, a, HOST)


def test_copies_between_host_and_device_are_counted_and_share_nothing(fake_cupy):
    host = HOST.copy()
    a = fake_cupy.asarray(host, dtype="float32")
    host[...] = 0
    assert (fake_cupy.host_copies, fake_cupy.device_copies) == (0, 1)
    back = fake_cupy.asnumpy(a)
    back[...] = 0
    assert (fake_cupy.host_copies, fake_cupy.device_copies) == (1, 1)
    assert fake_cupy.asarray(a) is a
    assert fake_cupy.asarray(a, "float32") is a
    assert fake_cupy.asarray(a, "float64").dtype == np.float64
    assert fake_cupy.asnumpy(host) is host
    fake_cupy.array(a)
    assert (fake_cupy.host_copies, fake_cupy.device_copies) == (1, 1)
    fake_cupy.array([1, 2])
    out = np.empty((2, 3))
    assert fake_cupy.asnumpy(a, out=out) is out
    np.testing.assert_array_equal(out, HOST)
    assert (fake_cupy.host_copies, fake_cupy.device_copies) == (2, 2)
    fake_cupy.reset_copies()
    assert (fake_cupy.host_copies, fake_cupy.device_copies) == (0, 0)


# -------------------------------------------------------------------------------------------- random numbers, devices


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (1.5, TypeError), ("a", TypeError)], ids=["negative", "float", "str"]
)
def test_seeds_are_checked(fake_cupy, seed, error):
    with pytest.raises(error):
        fake_cupy.random.Philox4x3210(seed)


def generator(fake: FakeCupy, seed: Any = 0) -> Any:
    return fake.random.Generator(fake.random.Philox4x3210(seed))


def test_random_numbers(fake_cupy):
    rng = generator(fake_cupy)
    z, u = rng.standard_normal((100, 50), dtype="float32"), rng.random(5000)
    assert (z.shape, z.dtype, u.shape, u.dtype) == ((100, 50), np.float32, (5000,), np.float64)
    assert abs(fake_cupy.asnumpy(z).mean()) < 0.1
    assert 0 <= fake_cupy.asnumpy(u).min() < 0.01
    assert 0.99 < fake_cupy.asnumpy(u).max() < 1
    k = fake_cupy.asnumpy(rng.integers(2, 5, size=1000, dtype="int32"))
    assert (k.dtype, set(k.tolist())) == (np.int32, {2, 3, 4})
    assert rng.standard_normal().shape == rng.integers(3).shape == ()


def test_the_seed_names_the_stream(fake_cupy):
    def numbers(seed: Any) -> list[float]:
        return fake_cupy.asnumpy(generator(fake_cupy, seed).random(4)).tolist()

    assert numbers(1) == numbers(1) == numbers(np.random.SeedSequence(1))
    assert numbers(1) != numbers(2)
    assert numbers((1, 2)) != numbers((2, 1))


def test_random_numbers_into_out(fake_cupy):
    rng, out = generator(fake_cupy), fake_cupy.empty((4, 3), "float32")
    assert rng.standard_normal(out=out, dtype="float32") is out
    assert np.isfinite(fake_cupy.asnumpy(out)).all()
    assert rng.random((4, 3), "float32", out) is out
    with pytest.raises(TypeError, match="dtype"):
        rng.standard_normal(out=out)  # as in NumPy: the default of float64 must be overridden
    with pytest.raises(ValueError, match="shape"):
        rng.random((3, 4), dtype="float32", out=out)
    with pytest.raises(ValueError, match="contiguous"):
        rng.random(dtype="float32", out=out[:, :2])


@pytest.mark.parametrize("name", ["permutation", "shuffle", "choice", "normal", "spawn"])
def test_the_generator_lacks_what_cupy_lacks(fake_cupy, name):
    assert hasattr(np.random.Generator, name)
    assert not hasattr(generator(fake_cupy), name)


def test_devices():
    cuda = FakeCupy(devices=2).cuda
    assert cuda.runtime.getDeviceCount() == 2
    cuda.Device(1).use()
    assert cuda.runtime.getDevice() == cuda.Device().id == 1
    with cuda.Device(0):
        assert cuda.runtime.getDevice() == 0
    assert cuda.runtime.getDevice() == 1
    with pytest.raises(cuda.runtime.CUDARuntimeError, match="cudaErrorInvalidDevice"):
        cuda.Device(2).use()
    with pytest.raises(RuntimeError, match="cudaErrorNoDevice"):
        FakeCupy(devices=0).cuda.runtime.getDeviceCount()


# ---------------------------------------------------------------------------------------------- against the real CuPy


@pytest.fixture(scope="module")
def real_cupy() -> Any:
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed: its names and arguments cannot be compared")
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        pytest.skip(f"CuPy is installed but does not load: {error}")


def assert_accepted(function: str, ours: inspect.Signature, theirs: list[str], any_positional: bool = False) -> None:
    """Every argument of ours exists in theirs; those that can be given by position stand in the same place."""
    for place, (name, parameter) in enumerate(ours.parameters.items()):
        if parameter.kind is parameter.POSITIONAL_ONLY or parameter.kind is parameter.VAR_POSITIONAL:
            assert any_positional or place < len(theirs), f"{function} takes {theirs} only"
            continue
        assert name in theirs, f"{function} takes {theirs}, not {name}"
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and not any_positional:
            assert theirs.index(name) == place, f"{function} takes {theirs}, {name} not as number {place}"


def described_parameters(documented: Any) -> list[str]:
    """Of compiled functions only the first line of the docstring says what they take: "name(self, type a, b=0)"."""
    text = re.search(r"\((.*)\)", documented.__doc__.splitlines()[0])
    assert text is not None
    return [part.split("=")[0].split()[-1] for part in text[1].split(",") if part.strip() not in ("self", "/", "*")]


def test_cupy_has_the_ufuncs(real_cupy):
    for name in UFUNCS:
        real = getattr(real_cupy, name)
        assert isinstance(real, real_cupy.ufunc), name
        assert real.nin == getattr(np, name).nin, name
        assert {"out", "casting", "dtype"} <= {part.strip("\\*") for part in described_parameters(real)}, name


def test_cupy_has_the_functions(real_cupy):
    for name, parameters in FUNCTIONS.items():
        theirs = inspect.signature(getattr(real_cupy, name)).parameters
        any_positional = any(p.kind is p.VAR_POSITIONAL for p in theirs.values())
        assert_accepted(name, signature(parameters), list(theirs), any_positional)


def test_cupy_has_the_functions_that_make_arrays(real_cupy):
    for name in CREATION:
        ours, theirs = (inspect.signature(getattr(xp, name)) for xp in (FakeCupy(), real_cupy))
        assert_accepted(name, ours, list(theirs.parameters))


def test_cupy_has_the_methods_and_attributes_of_an_array(real_cupy):
    for name, parameters in METHODS.items():
        ours = signature(parameters)
        starred = any(p.kind is p.VAR_POSITIONAL for p in ours.parameters.values())
        theirs = [part.lstrip("*") for part in described_parameters(getattr(real_cupy.ndarray, name))]
        assert_accepted(name, ours, theirs, any_positional=starred)
    for name in ("shape", "dtype", "size", "ndim", "nbytes", "itemsize", "strides", "T", "flags", "fill"):
        assert hasattr(real_cupy.ndarray, name), name


def test_cupy_has_the_types_and_constants(real_cupy):
    for name in SAME_AS_NUMPY:
        real, numpys = getattr(real_cupy, name), getattr(np, name)
        if name in ("finfo", "iinfo"):
            assert repr(real(real_cupy.int8 if name == "iinfo" else real_cupy.float32)) == repr(
                numpys(np.int8 if name == "iinfo" else np.float32)
            )
        else:
            assert real is numpys or repr(real) == repr(numpys), name


def test_the_generator_takes_what_cupys_takes(real_cupy):
    for name in ("random", "standard_normal", "integers", "__init__"):
        theirs = inspect.signature(getattr(real_cupy.random.Generator, name)).parameters
        ours = inspect.signature(getattr(Generator, name)).parameters
        assert list(ours) == list(theirs), name
        assert [p.default for p in ours.values()] == [p.default for p in theirs.values()], name


def test_cupy_refuses_the_same_seeds_and_lacks_the_same_methods(real_cupy):
    with pytest.raises(ValueError, match="non-negative"):
        real_cupy.random.Philox4x3210(-1)
    with pytest.raises(TypeError, match="SeedSequence"):
        real_cupy.random.Philox4x3210(1.5)
    for name in ("permutation", "shuffle", "choice", "normal"):
        assert not hasattr(real_cupy.random.Generator, name)
    assert list(inspect.signature(Philox4x3210).parameters) == ["seed"]


def test_cupy_has_the_device_functions(real_cupy):
    for name in ("use", "synchronize", "id", "__enter__", "__exit__"):
        assert hasattr(real_cupy.cuda.Device, name)
        assert hasattr(Device, name) or name == "id"
    for name in ("getDeviceCount", "getDevice", "CUDARuntimeError"):
        assert hasattr(real_cupy.cuda.runtime, name)
    assert issubclass(real_cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
