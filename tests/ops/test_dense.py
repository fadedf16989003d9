"""The dense layer: exact in small whole numbers by SymPy, and what adjoint means, in both precisions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy
from hypothesis import example, given, note
from planted import Plant, after, assert_killed, instead
from strategies import DTYPES, SEEDS, assert_within, eps_of, normals, sampled, sizes

from tinyvae.ops import dense


def test_it_is_the_sum_over_inputs_and_its_derivatives() -> None:
    rng = np.random.default_rng(7)
    x, W, b, dy = (rng.integers(-8, 9, shape) / 4 for shape in [(2, 4), (4, 3), (3,), (2, 3)])  # exact in binary
    X, V, c = (sympy.symarray(name, a.shape) for name, a in [("x", x), ("W", W), ("b", b)])
    values: Any = dict(zip([*X.flat, *V.flat, *c.flat], [*x.flat, *W.flat, *b.flat], strict=True))
    y = [[sum(X[n, i] * V[i, j] for i in range(4)) + c[j] for j in range(3)] for n in range(2)]
    loss = sum(dy[n, j] * y[n][j] for n in range(2) for j in range(3))
    assert dense.dense_forward(x, W, b).tolist() == [[float(term.subs(values)) for term in row] for row in y]
    for gradient, tensor in zip(dense.dense_backward(dy, x, W), (X, V, c), strict=True):
        derivatives = [float(sympy.diff(loss, t).subs(values)) for t in tensor.flat]
        assert gradient.ravel().tolist() == derivatives


@given(SEEDS, sizes(3), DTYPES)
@example(0, (1, 2, 3), "float32")
def test_the_backward_is_the_adjoint_of_each_linear_part(seed: int, shape: Any, dtype: str) -> None:
    rows, fan_in, fan_out = shape
    x, W, b, dy = normals(seed, (rows, fan_in), (fan_in, fan_out), (fan_out,), (rows, fan_out), dtype=dtype)
    dx, dW, db = dense.dense_backward(dy, x, W)
    assert (dx.shape, dW.shape, db.shape) == (x.shape, W.shape, b.shape)
    assert dx.dtype == dW.dtype == db.dtype == dtype
    zero = np.zeros(fan_out, dtype=dtype)
    # <J v, u> and <v, J^T u> are the same sum of rows * fan_in * fan_out products, added up in two orders: each has at
    # most rows + fan_in + fan_out + 3 roundings on the way, so the two differ by at most twice that.
    roundings = 2 * (rows + fan_in + fan_out + 3)
    for forward, v, adjoint, terms in [
        (dense.dense_forward(x, W, zero), x, dx, np.abs(x) @ np.abs(W)),
        (dense.dense_forward(x, W, zero), W, dW, np.abs(x) @ np.abs(W)),
        (dense.dense_forward(0 * x, W, b), b, db, np.tile(np.abs(b), (rows, 1))),
    ]:
        left, right = float((forward * dy).sum()), float((v * adjoint).sum())
        note(f"<J v, u> = {left}, <v, J^T u> = {right}")
        assert_within(left, right, roundings * eps_of(dtype) * float((terms * np.abs(dy)).sum()))


@given(SEEDS, sizes(3))
def test_each_row_depends_on_its_own_row_only(seed: int, shape: Any) -> None:
    rows, fan_in, fan_out = shape
    x, W, b, dy = normals(seed, (rows, fan_in), (fan_in, fan_out), (fan_out,), (rows, fan_out))
    bound = (2 * fan_in + 4) * eps_of("float64") * (np.abs(x[-1:]) @ np.abs(W) + np.abs(b))
    assert_within(dense.dense_forward(x, W, b)[-1:], dense.dense_forward(x[-1:], W, b), bound)
    alone = dense.dense_backward(dy[-1:], x[-1:], W)[0]
    bound = (2 * fan_out + 4) * eps_of("float64") * (np.abs(dy[-1:]) @ np.abs(W).T)
    assert_within(dense.dense_backward(dy, x, W)[0][-1:], alone, bound)


# -------------------------------------------------------------------------------------------------------- planted bugs


def scaled(i: int, factor: float) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    return lambda results: tuple(r * factor if j == i else r for j, r in enumerate(results))


BUGS: dict[str, Plant] = {
    "dx without the last output": instead(dense, "dense_backward", lambda dy, x, W: (
        dy[:, :-1] @ W[:, :-1].T, x.T @ dy, dy.sum(axis=0))),
    "dx off by 0.1 %": after(dense, "dense_backward", scaled(0, 1.001)),
    "dW off by 0.01 %": after(dense, "dense_backward", scaled(1, 1.0001)),
    "dW averaged over the batch": instead(dense, "dense_backward", lambda dy, x, W: (
        dy @ W.T, x.T @ dy / len(x), dy.sum(axis=0))),
    "db dropped": after(dense, "dense_backward", scaled(2, 0.0)),
    "db of the first row": instead(dense, "dense_backward", lambda dy, x, W: (dy @ W.T, x.T @ dy, dy[0])),
    "no bias": instead(dense, "dense_forward", lambda x, W, b: x @ W),
}  # fmt: skip
KILLERS = [
    test_it_is_the_sum_over_inputs_and_its_derivatives,
    test_the_backward_is_the_adjoint_of_each_linear_part,
]


@pytest.mark.parametrize("killer", KILLERS, ids=["exact", "adjoint"])
@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed_by_both(bug: str, killer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, BUGS[bug], killer)
