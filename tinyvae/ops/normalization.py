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

EPSILON = 1e-5  # so that a column without variance is not divided by 0
MOMENTUM = 0.1  # the share of the newest batch in the running averages


def batch_norm_forward(a: Array, scale: Array, shift: Array) -> tuple[Array, Array, Array, Array]:
    """y = scale (a - m) / sqrt(v + EPSILON) + shift, with the mean m and the variance v of the batch.

    a (rows, columns), scale, shift (columns,) -> y (rows, columns), h (rows, columns), m, v (columns,).
    """
    xp = array_module(a, scale, shift)
    m = a.mean(axis=0)  # (columns,)
    centred = a - m  # (rows, columns)
    v = (centred * centred).mean(axis=0)  # (columns,)
    h = centred / xp.sqrt(v + EPSILON)  # (rows, columns)
    return scale * h + shift, h, m, v


def batch_norm_backward(dy: Array, h: Array, v: Array, scale: Array) -> tuple[Array, Array, Array]:
    """da = r (dh - mean(dh) - h mean(dh h)) with dh = dy scale and r = 1 / sqrt(v + EPSILON); dscale, dshift as above.

    dy (rows, columns); h and v from the forward; scale (columns,) -> da (rows, columns), dscale, dshift (columns,).
    """
    xp = array_module(dy, h, v, scale)
    dscale = (dy * h).sum(axis=0)  # (columns,)
    dshift = dy.sum(axis=0)  # (columns,)
    n = dy.shape[0]
    da = (scale / xp.sqrt(v + EPSILON)) * (dy - dshift / n - h * (dscale / n))  # (rows, columns)
    return da, dscale, dshift


def batch_norm_evaluate(a: Array, scale: Array, shift: Array, mean: Array, var: Array) -> Array:
    """y = scale (a - mean) / sqrt(var + EPSILON) + shift, with the running averages.

    a (rows, columns), the others (columns,) -> y (rows, columns).
    """
    xp = array_module(a, scale, shift, mean, var)
    return scale * ((a - mean) / xp.sqrt(var + EPSILON)) + shift


def running_average(average: Array, new: Array) -> Array:
    """(1 - MOMENTUM) average + MOMENTUM new: an average that forgets.  Any one shape."""
    array_module(average, new)
    return (1 - MOMENTUM) * average + MOMENTUM * new
