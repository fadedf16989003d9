"""The kernels for NumPy arrays as loops that Numba compiles: what surrounds a matrix product is one pass over memory.

Each function computes what its namesake in `reference.py` computes, in float32; the comments say only how. The loops
run on one core: waking another for so short a loop takes longer than the loop.

A loop that calls the C library's exp stays scalar. Written out as Taylor sums, LLVM makes vector instructions of it:

    e^x = 2^k e^r,  k = x / log 2 rounded, so |r| <= log(2) / 2, and e^r = 1 + r + r^2/2! + ... + r^7/7! + 5e-9
    log(1 + t) = 2 artanh(s),  s = t / (2 + t), and artanh s = s + s^3/3 + ... + s^13/13 + 5e-9 for 0 <= t <= 1

All in one file, because Numba compiles a function anew when its own file has changed, and looks at no other. Whoever
changes a constant that is imported here must touch this file too, or delete `__pycache__` beside it.
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import event

from tinyvae.backend import Array
from tinyvae.kernels.numpy_fused import clip as clip
from tinyvae.kernels.numpy_fused import squared_norm as squared_norm
from tinyvae.ops.activations import ACTIVATIONS, LEAKY_SLOPE
from tinyvae.ops.adam import BETA1, BETA2, step_and_epsilon
from tinyvae.ops.likelihoods import LOG_2PI

LINEAR, RELU, TANH, SIGMOID, SOFTPLUS, ELU, LEAKY_RELU = range(7)
KINDS = {name: kind for kind, name in enumerate(ACTIVATIONS)}  # in the order of that table (a test holds it)


_not_kept: list[str] = []  # functions that no folder can be found for


def _compiled(*fastmath: str) -> Callable[[Any], Any]:
    options: dict[str, Any] = {"fastmath": set(fastmath), "error_model": "numpy", "nogil": True}

    def compiled(function: Any) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)  # the next process finds it on disk
        except RuntimeError:  # no folder can be written: each process compiles anew
            _not_kept.append(function.__name__)
            return numba.njit(**options)(function)

    return compiled


def announce_compilation(tell: Callable[[bool], None]) -> None:
    """Call `tell` when the first function is about to be compiled, which takes seconds; not if all are on disk.

    It is told whether what is compiled will be kept for the next process.
    """

    class Once(event.Listener):
        def on_start(self, event: Any) -> None:
            if not told:
                told.append(True)
                tell(not _not_kept)

        def on_end(self, event: Any) -> None:
            pass

    told: list[bool] = []
    event.register("numba:compile", Once())


# NaN and infinity mean what they mean in all of them: a training run that diverges must be seen to.
_exact = _compiled("contract")  # a * b + c in one rounding; the order of sums as written
_loop = _compiled("contract", "nsz", "reassoc")  # and a sum over a row in several lanes at once

ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
SLOPE, LOG_TWO_PI = np.float32(LEAKY_SLOPE), np.float32(LOG_2PI)
C1, C2 = np.float32(1 - BETA1), np.float32(1 - BETA2)
LOG2_E = np.float32(1 / math.log(2))
LN2_HIGH = np.float32(0.693359375)  # log 2 in two parts: the first has few bits, so k * LN2_HIGH is exact
LN2_LOW = np.float32(math.log(2) - 0.693359375)
LOW, HIGH = np.float32(-104), np.float32(89)  # e^x is 0 below and infinite above, in float32
ROUND = np.float32(1.5 * 2**23)  # adding it and taking it away rounds to a whole number
T3, T4, T5, T6, T7 = (np.float32(1 / math.factorial(n)) for n in (3, 4, 5, 6, 7))
L3, L5, L7, L9, L11, L13 = (np.float32(1 / n) for n in (3, 5, 7, 9, 11, 13))


# ------------------------------------------------------------------------------------------------------- arithmetic


@_exact
def _power_of_two(k: Any) -> Any:
    bits = np.int32((k + 127) << 23)  # of a float32: the exponent, 127 more than k, in front of 23 bits
    return bits.view(np.float32)


@_exact
def _split(x: Any) -> Any:
    """q, s1, s2 with e^x = (1 + q) s1 s2, s1 and s2 powers of two: their product alone could overflow."""
    x = min(max(x, LOW), HIGH)  # NaN stays NaN, and so does r
    k = (x * LOG2_E + ROUND) - ROUND
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    q = r + r * r * (HALF + r * (T3 + r * (T4 + r * (T5 + r * (T6 + r * T7)))))
    whole = np.int32(k)
    half = np.int32(whole >> 1)
    return q, _power_of_two(half), _power_of_two(whole - half)


@_exact
def exp(x: Any) -> Any:
    """e^x."""
    q, s1, s2 = _split(x)
    return (s1 + s1 * q) * s2


@_exact
def expm1(x: Any) -> Any:
    """e^x - 1, without the digits that are lost near 0."""
    q, s1, s2 = _split(x)
    s = s1 * s2  # infinite only where e^x is
    y = s * q + (s - ONE)
    if x > HIGH - ONE:
        y = (s1 + s1 * q) * s2
    return y


@_exact
def log1p(t: Any) -> Any:
    """log(1 + t) for 0 <= t <= 1."""
    s = t / (TWO + t)
    w = s * s
    return TWO * (s + s * w * (L3 + w * (L5 + w * (L7 + w * (L9 + w * (L11 + w * L13))))))


@_exact
def softplus(a: Any) -> Any:
    """log(1 + e^a) = max(a, 0) + log(1 + e^-|a|)."""
    return max(a, ZERO) + log1p(exp(-abs(a)))


@_exact
def sigmoid(a: Any) -> Any:
    """1 / (1 + e^-a)."""
    return ONE / (ONE + exp(-a))


@_exact
def tanh(a: Any) -> Any:
    """1 - e^(-2|a|) over 1 + e^(-2|a|), with the sign of a."""
    e = expm1(-TWO * abs(a))
    y = -e / (e + TWO)
    return y if a > 0 else -y


# ---------------------------------------------------------------------------------------------------------- batches


def gather(data: Array, rows: Array, scale: float, *, x: Array, raw: Array) -> None:
    """Straight from the stored numbers to x: `raw` is not needed."""
    _gather(data, rows, np.float32(scale), x)


@_loop
def _gather(data: Array, rows: Array, scale: Any, x: Array) -> None:
    for i in range(rows.size):
        row = data[rows[i]]  # (data,)
        for j in range(row.size):
            x[i, j] = np.float32(row[j]) * scale


def binarize(x: Array, u: Array) -> None:
    """One pass."""
    _binarize(x, u)


@_loop
def _binarize(x: Array, u: Array) -> None:
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] = ONE if u[i, j] < x[i, j] else ZERO


# ----------------------------------------------------------------------------------------------------------- layers


def dense_forward(x: Array, W: Array, b: Array, activation: str, *, y: Array, work: Array) -> None:
    """The product by BLAS, then bias and activation in one pass."""
    np.matmul(x, W, out=y)
    _bias_and_activation(y, b, KINDS[activation])


@_loop
def _bias_and_activation(y: Array, b: Array, kind: int) -> None:
    for i in range(y.shape[0]):
        row = y[i]  # (out,)
        if kind == LINEAR:
            for j in range(row.size):
                row[j] += b[j]
        elif kind == RELU:
            for j in range(row.size):
                row[j] = max(row[j] + b[j], ZERO)
        elif kind == LEAKY_RELU:
            for j in range(row.size):
                a = row[j] + b[j]
                row[j] = max(a, SLOPE * a)
        elif kind == ELU:
            for j in range(row.size):
                a = row[j] + b[j]
                row[j] = max(a, ZERO) + expm1(min(a, ZERO))
        elif kind == TANH:
            for j in range(row.size):
                row[j] = tanh(row[j] + b[j])
        elif kind == SIGMOID:
            for j in range(row.size):
                row[j] = sigmoid(row[j] + b[j])
        else:
            for j in range(row.size):
                row[j] = softplus(row[j] + b[j])


def dense_backward(
    dy: Array, x: Array, W: Array, y: Array, activation: str,
    *, dx: Array | None, dW: Array, db: Array, work: Array,
) -> None:  # fmt: skip
    """dy becomes da = dy f'(a), and db its column sums, in one pass; then the products."""
    _slope_and_sums(dy, y, db, KINDS[activation])
    np.matmul(x.T, dy, out=dW)
    if dx is not None:
        np.matmul(dy, W.T, out=dx)


@_loop
def _slope_and_sums(dy: Array, y: Array, db: Array, kind: int) -> None:
    for j in range(db.size):
        db[j] = ZERO
    for i in range(dy.shape[0]):
        d, out = dy[i], y[i]  # (out,) each
        if kind == RELU:
            for j in range(d.size):
                d[j] = d[j] if out[j] > 0 else ZERO
        elif kind == LEAKY_RELU:
            for j in range(d.size):
                d[j] *= ONE if out[j] > 0 else SLOPE
        elif kind == ELU:
            for j in range(d.size):
                d[j] *= min(out[j], ZERO) + ONE
        elif kind == TANH:
            for j in range(d.size):
                d[j] *= ONE - out[j] * out[j]
        elif kind == SIGMOID:
            for j in range(d.size):
                d[j] *= out[j] * (ONE - out[j])
        elif kind == SOFTPLUS:
            for j in range(d.size):
                d[j] *= -expm1(-out[j])
        for j in range(d.size):
            db[j] += d[j]


# ----------------------------------------------------------------------------------------------------------- latent


def latent_forward(head: Array, eps: Array, *, z: Array, kl: Array, work: Array) -> None:
    """One pass."""
    _latent_forward(head, eps, z, kl)


@_loop
def _latent_forward(head: Array, eps: Array, z: Array, kl: Array) -> None:
    latent = eps.shape[1]
    for i in range(eps.shape[0]):
        mu, logvar = head[i, :latent], head[i, latent:]  # (latent,) each
        for j in range(latent):
            z[i, j] = mu[j] + exp(HALF * logvar[j]) * eps[i, j]
            kl[i, j] = HALF * (mu[j] * mu[j] + (expm1(logvar[j]) - logvar[j]))


def latent_backward(dz: Array, head: Array, eps: Array, dkl: Array, *, dhead: Array, work: Array) -> None:
    """Both parts of each gradient, summed in one pass."""
    _latent_backward(dz, head, eps, dkl, dhead)


@_loop
def _latent_backward(dz: Array, head: Array, eps: Array, dkl: Array, dhead: Array) -> None:
    latent = eps.shape[1]
    for i in range(eps.shape[0]):
        mu, logvar = head[i, :latent], head[i, latent:]  # (latent,) each
        dmu, dlogvar = dhead[i, :latent], dhead[i, latent:]  # (latent,) each
        for j in range(latent):
            dmu[j] = dz[i, j] + dkl[j] * mu[j]
            sigma = exp(HALF * logvar[j])
            dlogvar[j] = HALF * (dz[i, j] * eps[i, j] * sigma + dkl[j] * expm1(logvar[j]))


# ------------------------------------------------------------------------------------------------------ likelihoods


def bernoulli_loss(logits: Array, x: Array, dnll: float, *, nll: Array, dlogits: Array | None, work: Array) -> None:
    """One pass: with e = exp(-|l|), softplus(l) = max(l, 0) + log(1 + e), and sigmoid(l) = (1 or e) / (1 + e)."""
    if dlogits is None:
        _bernoulli_nll(logits, x, nll)
    else:
        _bernoulli_loss(logits, x, np.float32(dnll), nll, dlogits)


@_loop
def _bernoulli_nll(logits: Array, x: Array, nll: Array) -> None:
    for i in range(x.shape[0]):
        row, target = logits[i], x[i]  # (data,) each
        total = ZERO
        for j in range(row.size):
            total += softplus(row[j]) - target[j] * row[j]
        nll[i] = total


@_loop
def _bernoulli_loss(logits: Array, x: Array, dnll: Any, nll: Array, dlogits: Array) -> None:
    for i in range(x.shape[0]):
        row, target, d = logits[i], x[i], dlogits[i]  # (data,) each
        total = ZERO
        for j in range(row.size):
            e = exp(-abs(row[j]))
            total += max(row[j], ZERO) + log1p(e) - target[j] * row[j]
            d[j] = dnll * ((ONE if row[j] >= 0 else e) / (ONE + e) - target[j])
        nll[i] = total


def gaussian_loss(
    mean: Array, logvar: Array, x: Array, dnll: float,
    *, nll: Array, dmean: Array | None, dlogvar: Array | None, work: Array,
) -> None:  # fmt: skip
    """One pass; the gradients nobody wants go into the scratch."""
    n, data = x.shape
    dmean_ = work[: x.size].reshape(n, data) if dmean is None else dmean  # (batch, data)
    if logvar.ndim == 1:
        total = _gaussian_shared(mean, logvar, x, np.float32(dnll), nll, dmean_)
        if dlogvar is not None:
            dlogvar[0] = total
    else:
        dlogvar_ = work[x.size : 2 * x.size].reshape(n, data) if dlogvar is None else dlogvar  # (batch, data)
        _gaussian_predicted(mean, logvar, x, np.float32(dnll), nll, dmean_, dlogvar_)


@_loop
def _gaussian_shared(mean: Array, logvar: Array, x: Array, dnll: Any, nll: Array, dmean: Array) -> Any:
    s = logvar[0]
    precision = exp(-s)
    dlogvar = ZERO
    for i in range(x.shape[0]):
        m, target, d = mean[i], x[i], dmean[i]  # (data,) each
        squares = ZERO
        for j in range(m.size):
            residual = target[j] - m[j]
            squares += residual * residual
            d[j] = -dnll * residual * precision
        count = np.float32(m.size)
        nll[i] = HALF * (squares * precision + count * (s + LOG_TWO_PI))
        dlogvar += HALF * dnll * (count - squares * precision)
    return dlogvar


@_loop
def _gaussian_predicted(
    mean: Array, logvar: Array, x: Array, dnll: Any, nll: Array, dmean: Array, dlogvar: Array
) -> None:
    for i in range(x.shape[0]):
        m, s, target = mean[i], logvar[i], x[i]  # (data,) each
        dm, ds = dmean[i], dlogvar[i]  # (data,) each
        total = ZERO
        for j in range(m.size):
            residual = target[j] - m[j]
            precision = exp(-s[j])
            square = residual * residual * precision
            total += square + s[j] + LOG_TWO_PI
            dm[j] = -dnll * residual * precision
            ds[j] = HALF * dnll * (ONE - square)
        nll[i] = HALF * total


# ------------------------------------------------------------------------------------------------------------- Adam


def adam_step(p: Array, g: Array, m: Array, v: Array, t: int, lr: float, *, work: Array) -> None:
    """One pass, with the bias corrections folded into two numbers."""
    step, epsilon = step_and_epsilon(t, lr)
    _adam_step(p, g, m, v, np.float32(step), np.float32(epsilon))


@_loop
def _adam_step(p: Array, g: Array, m: Array, v: Array, step: Any, epsilon: Any) -> None:
    for i in range(p.size):
        m[i] += C1 * (g[i] - m[i])
        v[i] += C2 * (g[i] * g[i] - v[i])
        p[i] -= step * m[i] / (np.sqrt(v[i]) + epsilon)
