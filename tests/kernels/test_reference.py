"""The oracle of all kernels beside what shares nothing with it: NumPy's own sums, `ops`, and loops of Python."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import SEEDS, assert_within, normals, sizes

from tinyvae.formula import formula
from tinyvae.kernels.contract import Lookup, Rows, Window
from tinyvae.kernels.reference import Reference
from tinyvae.loop import Loop
from tinyvae.ops import convolution
from tinyvae.ops.activations import ACTIVATIONS, LINEAR

K = Reference(np, "float64")
EXACT = 1e-12  # of numbers below 100: float64, in another order
ACTIVATION = st.sampled_from(list(ACTIVATIONS.values()))


@given(SEEDS, sizes(3), ACTIVATION, st.booleans(), st.integers(0, 3))
def test_products_and_what_is_at_their_ends(seed: int, shape: Any, f: Any, bias: bool, draws: int) -> None:
    rows, fan_in, fan_out = shape
    n = rows * max(draws, 1)
    x, W, b, V = normals(seed, (n, fan_in), (fan_in, fan_out), (fan_out,), (3, fan_out))
    labels = np.arange(rows) % 3
    a = np.einsum("ni,io->no", x, W) + (b if bias else 0)
    for i in range(n if draws else 0):
        a[i] += V[labels[i // draws]]
    y = K.product(x, W, b if bias else None, f, Lookup(V, labels) if draws else None)
    assert y.f is f
    assert_within(y.y, f.forward(a), EXACT)
    assert (y.a is None) or np.abs(y.a - a).max() <= EXACT
    da = normals(seed + 1, (n, fan_out))[0]
    below = Rows(f.forward(x), f, x)
    slope = (f.forward(x + 1e-6) - f.forward(x - 1e-6)) / 2e-6  # x is a here
    smooth = np.abs(x) > 1e-5  # no kink in between
    dx, dy = K.back(da, W, below), K.end(np.ones_like(x), below)
    assert dx is not None
    assert dy is not None
    assert_within(dx[smooth], (np.einsum("no,io->ni", da, W) * slope)[smooth], 1e-7)
    assert_within(dy[smooth], slope[smooth], 1e-8)
    assert K.back(da, W, Rows(x, None)) is None
    assert K.end(x, Rows(x, None)) is None


@given(SEEDS, sizes(3), st.integers(1, 3))
def test_gradients_and_sums(seed: int, shape: Any, draws: int) -> None:
    rows, fan_in, fan_out = shape
    x, da, dW, start = normals(seed, (rows, fan_in), (rows, fan_out), *2 * [(fan_in, fan_out)])
    db = np.empty(fan_out)
    K.gradient(x, da, dW, db)
    assert_within(dW, np.einsum("ni,no->io", x, da), EXACT)
    assert_within(db, np.einsum("no->o", da), EXACT)
    K.begin()
    K.gradient(x, da, dW, add=True)
    dW[...] = start
    K.finish()
    assert_within(dW, start + np.einsum("ni,no->io", x, da), EXACT)
    labels, table = np.random.default_rng(seed).integers(0, 4, rows), np.empty((4, fan_out))
    many = normals(seed, (rows * draws, fan_out))[0]
    K.scatter(labels, many, table)
    expected = np.zeros((4, fan_out))
    np.add.at(expected, np.repeat(labels, draws), many)
    assert_within(table, expected, EXACT)


@given(SEEDS, st.integers(1, 3), st.tuples(*3 * [st.integers(1, 5)]), st.integers(1, 3), st.integers(1, 3), ACTIVATION)
def test_convolutions_are_those_of_ops(seed: int, rows: int, image: Any, kernel: int, stride: int, f: Any) -> None:
    height, width, channels = image
    w = Window(height, width, channels, kernel, stride, kernel // 2)
    assume(min(w.down, w.across) >= 1)
    x, y, W, b, c = normals(
        seed, (rows, *image), (rows, w.down, w.across, 2), (kernel, kernel, image[2], 2), (2,), (image[2],)
    )
    flat, flat_y, W2 = x.reshape(rows, -1), y.reshape(rows, -1), W.reshape(w.patch, 2)
    a = convolution.conv2d_forward(x, W, b, stride, w.pad).reshape(rows, -1)
    assert_within(K.convolve(flat, W2, b, f, w).y, f.forward(a), EXACT)
    a = convolution.conv_transpose2d_forward(y, W, c, image[:2], stride, w.pad).reshape(rows, -1)
    assert_within(K.spread(flat_y, W2, c, f, w).y, f.forward(a), EXACT)
    dx, dW, _ = convolution.conv2d_backward(y, x, W, stride, w.pad)
    assert_within(K.convolve_back(flat_y, W2, Rows(flat, LINEAR), w), dx.reshape(rows, -1), EXACT)
    got = np.empty_like(W2)
    K.convolve_gradient(flat, flat_y, got, w)
    assert_within(got, dW.reshape(W2.shape), EXACT)
    dy, dW, _ = convolution.conv_transpose2d_backward(x, y, W, stride, w.pad)
    assert_within(K.spread_back(flat, W2, Rows(flat_y, LINEAR), w), dy.reshape(rows, -1), EXACT)
    assert_within(got, dW.reshape(W2.shape), EXACT)  # one map and its adjoint: the same sums


@given(SEEDS, sizes(2), st.integers(1, 3))
def test_a_loop_is_the_formula_of_each_number(seed: int, shape: Any, draws: int) -> None:
    rows, cols = shape
    n = rows * draws
    a, v, row, column, table = normals(seed, (n, cols), (rows, cols), (cols,), (n, 1), (2, cols))
    labels, p = np.arange(rows) % 2, normals(seed + 1, (rows, cols))[0]
    f = lambda a, v, row, column, label: a * v - row * column + label
    loop = Loop([formula(f)], sums=[formula(f)], columns=[formula(f)])
    given = {"a": a, "v": v, "row": row, "column": column, "label": Lookup(table, labels)}
    each = np.array([
        [f(a[i, j], v[i // draws, j], row[j], column[i, 0], table[labels[i // draws], j]) for j in range(cols)]
        for i in range(n)
    ])  # fmt: skip
    value, sums, columns = K.map(loop, **given)
    assert_within(value, each, EXACT)
    assert_within(sums, each.sum(1), EXACT)
    assert_within(columns, each.sum(0), EXACT)
    expected = p + np.array([each[i * draws : (i + 1) * draws].sum(0) for i in range(rows)])
    K.map(Loop([formula(f)]), into=(p,), **given)
    assert_within(p, expected, EXACT)


def test_the_others() -> None:
    a = np.arange(6.0).reshape(2, 3)
    assert K.row_max(a).tolist() == [[2], [5]]
    assert K.group_max(a, (1, 2)).tolist() == [[0, 2, 2], [3, 5, 5]]
    assert K.group_sum(a, (2, 1)).tolist() == [[1, 1, 2], [7, 7, 5]]
    assert K.total(a).tolist() == [15]
    assert K.squared_norm(a.reshape(-1)).tolist() == [55]
    assert [h.tolist() for h in K.halves(a[:, :2])] == [[[0], [3]], [[1], [4]]]
    x = np.empty((3, 3))
    K.gather(a.astype("u1"), np.array([1, 1, 0]), 0.5, x)
    assert x.tolist() == [[1.5, 2, 2.5], [1.5, 2, 2.5], [0, 0.5, 1]]
    assert K.new(2, 3).shape == (2, 3)
    before = K.generation
    K.begin("a", 1)
    assert K.generation == before + 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_are_of_the_kernels_dtype(dtype: str) -> None:
    k, a = Reference(np, dtype), np.ones((2, 3), dtype)
    value, sums = k.map(Loop([formula(lambda a, c: a * c)], sums=[formula(lambda a: 1.0)]), a=a, c=np.float64(0.1))
    assert (value.dtype, sums.dtype) == (dtype, dtype)
