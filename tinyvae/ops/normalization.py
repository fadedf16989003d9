"""Batch normalization (Ioffe & Szegedy 2015): each column to mean 0 and variance 1 in the batch, then scaled and moved.

In training, over the n rows of a batch, for each column:

    m = mean(a)     v = mean((a - m)^2)     h = (a - m) r,  r = 1 / sqrt(v + EPSILON)     y = scale h + shift

Backward. y depends on a_i directly, and through m and v on every a_i. With dh = dy scale, and since sum (a - m) = 0,

    dv = sum_i dh_i (a_i - m) (-r^3 / 2)           dm = -r sum_i dh_i
    da_i = dh_i r + dv 2 (a_i - m) / n + dm / n    = r (dh_i - mean(dh) - h_i mean(dh h))

    dscale = sum_i dy_i h_i     dshift = sum_i dy_i

In evaluation m and v are fixed numbers, the running averages of what training saw, and a row's y no longer depends on
the other rows.
"""

from tinyvae.backend import Array, array_module
from tinyvae.formula import formula, sqrt

EPSILON = 1e-5  # so that a column without variance is not divided by 0
MOMENTUM = 0.1  # the share of the newest batch in the running averages


@formula
def inverse_root(v):
    """r = 1 / sqrt(v + EPSILON)."""
    return 1 / sqrt(v + EPSILON)


@formula
def normalized(a, m, r):
    """h = (a - m) r."""
    return (a - m) * r


@formula
def scaled_and_shifted(a, m, r, scale, shift):
    """y = scale h + shift."""
    return scale * normalized(a, m, r) + shift


@formula
def batch_norm_da(dy, h, r, scale, dscale, dshift, share):
    """da = r scale (dy - dshift / n - h dscale / n), with share = 1 / n."""
    return scale * r * (dy - dshift * share - h * (dscale * share))


@formula
def running_average(average, new):
    """(1 - MOMENTUM) average + MOMENTUM new: an average that forgets."""
    return (1 - MOMENTUM) * average + MOMENTUM * new


def batch_norm_forward(a: Array, scale: Array, shift: Array) -> tuple[Array, Array, Array, Array]:
    """y = scale (a - m) / sqrt(v + EPSILON) + shift, with the mean m and the variance v of the batch.

    a (rows, columns), scale, shift (columns,) -> y (rows, columns), h (rows, columns), m, v (columns,).
    """
    array_module(a, scale, shift)
    m = a.mean(axis=0)  # (columns,)
    v = ((a - m) * (a - m)).mean(axis=0)  # (columns,)
    h = normalized(a, m, inverse_root(v))  # (rows, columns)
    return scale * h + shift, h, m, v


def batch_norm_backward(dy: Array, h: Array, v: Array, scale: Array) -> tuple[Array, Array, Array]:
    """da = r (dh - mean(dh) - h mean(dh h)) with dh = dy scale and r = 1 / sqrt(v + EPSILON); dscale, dshift as above.

    dy (rows, columns); h and v from the forward; scale (columns,) -> da (rows, columns), dscale, dshift (columns,).
    """
    array_module(dy, h, v, scale)
    dscale = (dy * h).sum(axis=0)  # (columns,)
    dshift = dy.sum(axis=0)  # (columns,)
    da = batch_norm_da(dy, h, inverse_root(v), scale, dscale, dshift, 1 / dy.shape[0])  # (rows, columns)
    return da, dscale, dshift


def batch_norm_evaluate(a: Array, scale: Array, shift: Array, mean: Array, var: Array) -> Array:
    """y = scale (a - mean) / sqrt(var + EPSILON) + shift, with the running averages.

    a (rows, columns), the others (columns,) -> y (rows, columns).
    """
    array_module(a, scale, shift, mean, var)
    return scaled_and_shifted(a, mean, inverse_root(var), scale, shift)
