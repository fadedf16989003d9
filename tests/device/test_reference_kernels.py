"""Every method of the kernels' contract on CuPy's arrays, by the reference kernels, as on NumPy's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from both_backends import BACKENDS, D, K, N, assert_close, moved, normal, uniform
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture

from tinyvae.backend import get_backend
from tinyvae.formula import formula
from tinyvae.kernels.contract import Kernels, Lookup, Rows, Window
from tinyvae.kernels.reference import Reference
from tinyvae.loop import Loop
from tinyvae.ops.activations import ACTIVATIONS, LINEAR

WINDOW = Window(height=7, width=6, channels=2, kernel=3, stride=2, pad=1)
PLACES = WINDOW.down * WINDOW.across
OUT = 4  # channels that a convolution makes
LABELS = np.array([2, 0, 1, 2, 2])


def nan(*shape: int) -> np.ndarray:
    """What must be written."""
    return np.full(shape, np.nan)


BOTH = Loop([formula(lambda a, b: a * b)], [formula(lambda a, s: a * s)], [formula(lambda a, b: a - b)])
TABLE = Loop([formula(lambda a, v: a + v)])
Call = Callable[..., Any]


def below(f: str) -> Any:
    return lambda y, a: Rows(y, ACTIVATIONS[f], a)


# name -> the method, its arrays, and the call: what it returns, with what it was given to write into
CALLS: dict[str, tuple[str, list[np.ndarray], Call]] = {
    "map, all kinds of results": ("map", [normal(N, D), normal(D), normal(N, 1)], lambda k, a, b, s: k.map(
        BOTH, a=a, b=b, s=s)),
    "map, written": ("map", [normal(N, D), normal(D), nan(N, D), nan(N), nan(D)], lambda k, a, b, y, sums, columns: (
        k.map(BOTH, a=a, b=b, s=0.5, out=(y,), sums=(sums,), columns=(columns,)), (y, sums, columns))[1]),
    "map, added, K rows to one": ("map", [normal(2 * N, D), normal(N, D), uniform(N, D)], lambda k, a, b, y: (
        k.map(Loop(BOTH.formulas[0]), a=a, b=b, into=(y,)), y)[1]),
    "map, a label's row": ("map", [normal(2 * N, D), normal(3, D), LABELS], lambda k, a, table, labels: k.map(
        TABLE, a=a, v=Lookup(table, labels.repeat(2)))),
    **{f"product, {f}": ("product", [normal(N, D), normal(D, K), normal(K)], lambda k, x, W, b, f=f: k.product(
        x, W, b, ACTIVATIONS[f])[::2]) for f in ACTIVATIONS},
    "product with labels": ("product", [normal(N, D), normal(D, K), normal(3, K), LABELS],
        lambda k, x, W, table, labels: k.product(x, W, None, ACTIVATIONS["tanh"], Lookup(table, labels)).y),
    **{f"back, {f}": ("back", [normal(N, K), normal(D, K), uniform(N, D), normal(N, D)],
        lambda k, da, W, y, a, f=f: k.back(da, W, below(f)(y, a))) for f in ACTIVATIONS},
    "end": ("end", [normal(N, D), uniform(N, D), normal(N, D)], lambda k, dy, y, a: k.end(dy, below("swish")(y, a))),
    "gradient": ("gradient", [normal(N, D), normal(N, K), nan(D, K), nan(K)], lambda k, x, da, dW, db: (
        k.gradient(x, da, dW, db), dW, db)[1:]),
    "gradient, added": ("finish", [normal(N, D), normal(N, K), uniform(D, K), nan(K)], lambda k, x, da, dW, db: (
        k.gradient(x, da, dW, db, add=True), k.finish(), dW, db)[2:]),
    "column_sums": ("column_sums", [normal(N, D), nan(D)], lambda k, da, db: (k.column_sums(da, db), db)[1]),
    "scatter": ("scatter", [LABELS, normal(2 * N, D), nan(3, D)], lambda k, labels, da, table: (
        k.scatter(labels, da, table), table)[1]),
    "convolve": ("convolve", [normal(N, WINDOW.image), normal(WINDOW.patch, OUT), normal(OUT)],
        lambda k, x, W, b: k.convolve(x, W, b, ACTIVATIONS["elu"], WINDOW).y),
    "convolve_back": ("convolve_back", [
        normal(N, PLACES * OUT), normal(WINDOW.patch, OUT), uniform(N, WINDOW.image), normal(N, WINDOW.image)
    ], lambda k, da, W, y, a: k.convolve_back(da, W, below("tanh")(y, a), WINDOW)),
    "spread": ("spread", [normal(N, PLACES * OUT), normal(WINDOW.patch, OUT), normal(WINDOW.channels)],
        lambda k, x, W, b: k.spread(x, W, b, ACTIVATIONS["elu"], WINDOW).y),
    "spread_back": ("spread_back", [
        normal(N, WINDOW.image), normal(WINDOW.patch, OUT), uniform(N, PLACES * OUT), normal(N, PLACES * OUT)
    ], lambda k, da, W, y, a: k.spread_back(da, W, below("gelu")(y, a), WINDOW)),
    "convolve_gradient": ("convolve_gradient", [
        normal(N, WINDOW.image), normal(N, PLACES * OUT), nan(WINDOW.patch, OUT)
    ], lambda k, image, places, dW: (k.convolve_gradient(image, places, dW, WINDOW), dW)[1]),
    "halves": ("halves", [normal(N, 2 * D)], lambda k, a: k.halves(a)),
    "zeros": ("zeros", [normal(N, D)], lambda k, a: a + k.zeros(N, D)),
    "row_max": ("row_max", [normal(N, D)], lambda k, a: k.row_max(a)),
    "group_max": ("group_max", [normal(N, D)], lambda k, a: k.group_max(a, (D - 1, 1))),
    "group_sum": ("group_sum", [normal(N, D)], lambda k, a: k.group_sum(a, (1, D - 1))),
    "total": ("total", [normal(N, D)], lambda k, a: k.total(a)),
    "gather": ("gather", [np.arange(7 * D, dtype=np.uint8).reshape(7, D), np.array([6, 0, 3, 3, 1]), nan(N, D)],
        lambda k, data, rows, x: (k.gather(data, rows, 1 / 255, x), x)[1]),
    "squared_norm": ("squared_norm", [normal(D)], lambda k, g: k.squared_norm(g)),
}  # fmt: skip


def test_every_method_is_called_here() -> None:
    methods = {name for name in vars(Kernels) if not name.startswith("_") and callable(getattr(Reference, name, None))}
    assert {method for method, *_ in CALLS.values()} == methods - {"begin", "new", "replayed"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_every_method_on_cupy(fake_cupy: Any, name: str, dtype: str) -> None:
    _, arrays, call = CALLS[name]
    results = []
    for backend in map(get_backend, BACKENDS):
        k, arguments = Reference(backend.xp, dtype), moved(backend, arrays, dtype)
        fake_cupy.reset_copies()
        k.begin("a pass")
        found = call(k, *arguments)
        assert (fake_cupy.host_copies, fake_cupy.device_copies) == (0, 0)
        results.append([a for a in (found if isinstance(found, tuple) else (found,)) if a is not None])
    on_numpy, on_cupy = results
    for actual, expected in zip(on_cupy, on_numpy, strict=True):
        assert isinstance(actual, fake_cupy.ndarray)
        assert np.isfinite(expected).all()
        assert_close(actual, expected)


def test_data_has_no_gradient(fake_cupy: Any) -> None:
    k, data = Reference(fake_cupy, "float32"), Rows(fake_cupy.ones((N, D), "float32"), None)
    da, W = fake_cupy.ones((N, K), "float32"), fake_cupy.ones((D, K), "float32")
    assert k.back(da, W, data) is k.end(data.y, data) is None
    assert k.end(data.y, Rows(data.y, LINEAR)) is data.y


def test_new_arrays_are_on_the_device(fake_cupy: Any) -> None:
    a = Reference(fake_cupy, "float32").new(2, 3)
    assert isinstance(a, fake_cupy.ndarray)
    assert (a.shape, a.dtype) == ((2, 3), np.float32)
