"""Batch normalization: its moments, its gradient by complex steps, what it takes away and what it does not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import Plant, assert_killed, instead
from strategies import SEEDS, assert_within, eps_of, normals, numbers, sampled

from tinyvae.ops import normalization
from tinyvae.ops.normalization import EPSILON

EPS = eps_of("float64")
ROWS = st.integers(2, 30)


def columns(seed: int, rows: int, width: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a (rows, width) with columns far from mean 0 and variance 1; scale and shift (width,)."""
    a, center, spread, scale, shift = normals(seed, (rows, width), (width,), (width,), (width,), (width,))
    return 5 * center + np.exp(spread) * a, scale, shift


@given(SEEDS, ROWS)
def test_columns_come_out_with_the_mean_shift_and_the_variance_scale_squared(seed: int, rows: int) -> None:
    a, scale, shift = columns(seed, rows)
    y, h, m, v = normalization.batch_norm_forward(a, scale, shift)
    np.testing.assert_allclose(m, a.mean(axis=0), rtol=0, atol=rows * EPS * np.abs(a).max())
    # v is a mean of squares of numbers that are off by `rows` roundings of the largest of a
    off = (rows + 4) * EPS * np.abs(a).max() * (1 + np.sqrt(v))
    assert_within(v, a.var(axis=0), 4 * off)
    loss = (off + (rows + 9) * EPS) / np.sqrt(v + EPSILON) * (1 + 1 / np.sqrt(v + EPSILON))  # of h, relative to 1
    assert_within(h.mean(axis=0), np.zeros(4), loss * 2)
    assert_within(y.mean(axis=0), shift, 2 * np.abs(scale) * loss + (rows + 2) * EPS * (np.abs(scale) + np.abs(shift)))
    assert_within(y.var(axis=0), scale**2 * v / (v + EPSILON), 20 * (1 + scale**2 + shift**2) * loss)


@given(SEEDS, ROWS, numbers(0.1, 10), st.sampled_from([-1, 1]), numbers(-10, 10))
def test_what_stretches_and_moves_a_column_is_taken_away(
    seed: int, rows: int, factor: float, sign: int, offset: float
) -> None:
    """But for EPSILON: h of c a + d is sign(c) h sqrt((v + EPSILON) / (v + EPSILON / c^2))."""
    a, scale, shift = columns(seed, rows)
    _, h, _, v = normalization.batch_norm_forward(a, scale, shift)
    _, moved, _, _ = normalization.batch_norm_forward(sign * factor * a + offset, scale, shift)
    expected = sign * h * np.sqrt((v + EPSILON) / (v + EPSILON / factor**2))
    # `rows` roundings of numbers below this, beside the standard deviation that they are divided by
    size = np.abs(a).max() + abs(offset) / factor + np.sqrt(rows)
    assert_within(moved, expected, 20 * (rows + 9) * EPS * (1 + size / np.sqrt(v + EPSILON / factor**2)))


@given(SEEDS, ROWS)
def test_the_gradient_is_the_derivative_by_complex_steps(seed: int, rows: int) -> None:
    """Im f(a + i t) / t for a tiny t has no difference to cancel in: exact but for rounding."""
    a, scale, shift = columns(seed, rows)
    (dy,) = normals(seed + 1, a.shape)
    _, h, _, v = normalization.batch_norm_forward(a, scale, shift)
    got = normalization.batch_norm_backward(dy, h, v, scale)
    t = 1e-30
    for grad, i in zip(got, range(3), strict=True):
        exact = np.empty(grad.shape)
        for at in np.ndindex(grad.shape):
            arguments = [p.astype(complex) for p in (a, scale, shift)]
            arguments[i][at] += 1j * t
            exact[at] = (dy * normalization.batch_norm_forward(*arguments)[0]).sum().imag / t
        # `rows` roundings of terms of this size; the deviations from the mean have roundings of a's own size
        size = (1 + np.abs(scale)) * np.abs(dy).max() * (1 + 1 / np.sqrt(v + EPSILON)) * np.sqrt(rows)
        assert_within(grad, exact, 50 * rows * EPS * size * (1 + np.abs(a).max() / np.sqrt(v + EPSILON)))


@given(SEEDS, ROWS)
def test_the_gradient_knows_that_moving_and_stretching_change_nothing(seed: int, rows: int) -> None:
    """Sum da = 0, and sum da h = r scale (sum dy h) EPSILON / (v + EPSILON), since sum h^2 = n v / (v + EPSILON)."""
    a, scale, shift = columns(seed, rows)
    (dy,) = normals(seed + 1, a.shape)
    _, h, _, v = normalization.batch_norm_forward(a, scale, shift)
    da, dscale, _ = normalization.batch_norm_backward(dy, h, v, scale)
    r = 1 / np.sqrt(v + EPSILON)
    size = rows * r * np.abs(scale) * np.abs(dy).max() * (1 + np.abs(h).max()) ** 2
    rounding = 20 * rows * EPS * size * (1 + np.abs(a).max() * r)
    assert_within(da.sum(axis=0), np.zeros(4), rounding)
    assert_within((da * h).sum(axis=0), r * scale * dscale * EPSILON / (v + EPSILON), rounding)


def test_one_row_and_a_column_without_variance_come_out_as_the_shift() -> None:
    a, scale, shift = columns(0, 1)
    for rows in (1, 5):
        y, h, _, v = normalization.batch_norm_forward(np.repeat(a, rows, axis=0), scale, shift)
        np.testing.assert_array_equal(y, np.tile(shift, (rows, 1)))
        assert not h.any()
        da, dscale, dshift = normalization.batch_norm_backward(np.ones_like(y), h, v, scale)
        assert np.isfinite(da).all()
        assert not dscale.any()
        np.testing.assert_array_equal(dshift, np.full(4, rows))


def test_evaluation_is_the_same_formula_with_given_moments() -> None:
    a, scale, shift = columns(1, 7)
    y, _, m, v = normalization.batch_norm_forward(a, scale, shift)
    assert_within(normalization.batch_norm_evaluate(a, scale, shift, m, v), y, 8 * EPS * (1 + np.abs(y)))


# ---------------------------------------------------------------------------------------------------------------- bugs


def backward(mean: bool = True, along: bool = True) -> Any:
    def wrong(dy: Any, h: Any, v: Any, scale: Any) -> Any:
        dscale, dshift, n = (dy * h).sum(axis=0), dy.sum(axis=0), len(dy)
        da = scale / np.sqrt(v + EPSILON) * (dy - mean * dshift / n - along * h * dscale / n)
        return da, dscale, dshift

    return wrong


def forward(ddof: int = 0, outside: float = 0.0) -> Any:
    def wrong(a: Any, scale: Any, shift: Any) -> Any:
        m, v = a.mean(axis=0), a.var(axis=0, ddof=ddof)
        h = (a - m) / (np.sqrt(v) + outside if outside else np.sqrt(v + EPSILON))
        return scale * h + shift, h, m, v

    return wrong


BUGS: dict[str, tuple[Plant, Any]] = {
    "the gradient forgets that the mean moves": (
        instead(normalization, "batch_norm_backward", backward(mean=False)),
        test_the_gradient_is_the_derivative_by_complex_steps),
    "the gradient forgets that the variance moves": (
        instead(normalization, "batch_norm_backward", backward(along=False)),
        test_the_gradient_is_the_derivative_by_complex_steps),
    "dscale without h": (
        instead(normalization, "batch_norm_backward", lambda dy, h, v, scale: (
            backward()(dy, h, v, scale)[0], dy.sum(axis=0), dy.sum(axis=0))),
        test_the_gradient_is_the_derivative_by_complex_steps),
    "the unbiased variance in the batch": (
        instead(normalization, "batch_norm_forward", forward(ddof=1)),
        test_columns_come_out_with_the_mean_shift_and_the_variance_scale_squared),
    "epsilon outside of the root": (
        instead(normalization, "batch_norm_forward", forward(outside=EPSILON)),
        test_evaluation_is_the_same_formula_with_given_moments),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the unbiased variance of one row
@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, *BUGS[bug])
