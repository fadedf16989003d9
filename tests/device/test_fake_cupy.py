"""Tests of the stand-in for CuPy: it refuses what it must, computes what NumPy computes, and has nothing CuPy lacks.

A stand-in that forgives is worse than none: the code would pass here and fail on the first GPU.
"""

import copy
import math
import operator
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_arrays import HostTransferError
from fake_cupy import FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture
from fake_tables import BINARY, COMPARISONS

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
