"""The kernels for NumPy: no array is made, and data is worked on in blocks that stay in the cache.

Each function computes what its namesake in `reference.py` computes; the comments say only how.
"""

import numpy as np

from tinyvae.backend import Array
from tinyvae.ops.activations import LEAKY_SLOPE
from tinyvae.ops.adam import BETA1, BETA2, clip_scale, step_and_epsilon
from tinyvae.ops.likelihoods import LOG_2PI

ADAM_BLOCK = 65536  # numbers of the flat buffer worked on at a time; measured: half is 6% slower, twice is 5%


def gather(data: Array, rows: Array, scale: float, *, x: Array, raw: Array) -> None:
    """`take` with mode "clip" writes straight into its output; with the default it would make a copy first."""
    np.take(data, rows, axis=0, out=raw, mode="clip")
    np.multiply(raw, scale, out=x, dtype=x.dtype)


def binarize(x: Array, u: Array) -> None:
    """The comparison writes its 0 and 1 as real numbers."""
    np.less(u, x, out=x)


def dense_forward(x: Array, W: Array, b: Array, activation: str, *, y: Array, work: Array) -> None:
    """y = f(x W + b), in place in y."""
    np.matmul(x, W, out=y)
    y += b
    if activation == "linear":
        return
    t = work[: y.size].reshape(y.shape)  # (batch, out)
    if activation == "relu":
        np.maximum(y, _zeros(work, y), out=y)
    elif activation == "tanh":
        np.tanh(y, out=y)
    elif activation == "sigmoid":
        _sigmoid(y, out=y)
    elif activation == "softplus":
        _softplus(y, t)
    elif activation == "elu":
        np.minimum(y, 0, out=t)
        np.expm1(t, out=t)
        np.maximum(y, 0, out=y)
        y += t
    elif activation == "leaky-relu":
        np.multiply(y, LEAKY_SLOPE, out=t)
        np.maximum(y, t, out=y)
    else:
        raise ValueError(f"unknown activation {activation!r}")


def dense_backward(
    dy: Array, x: Array, W: Array, y: Array, activation: str,
    *, dx: Array | None, dW: Array, db: Array, work: Array,
) -> None:  # fmt: skip
    """dy becomes da in place, with f'(a) made from y in place of y; then the three products."""
    if activation != "linear":
        _activation_slope(y, dy, activation)
        dy *= y  # da
    np.matmul(x.T, dy, out=dW)
    np.add.reduce(dy, axis=0, out=db)
    if dx is not None:
        np.matmul(dy, W.T, out=dx)


def _activation_slope(y: Array, dy: Array, activation: str) -> None:
    """Overwrite y with f'(a), or with a part of it while dy takes the rest: then da = dy y."""
    if activation == "relu":
        np.greater(y, 0, out=y)  # 1 or 0, as real numbers; np.sign takes 30 times as long on mixed signs and zeros
    elif activation == "tanh":
        np.multiply(y, y, out=y)
        np.subtract(1, y, out=y)
    elif activation == "sigmoid":
        dy *= y
        np.subtract(1, y, out=y)
    elif activation == "softplus":
        np.negative(y, out=y)
        np.expm1(y, out=y)
        np.negative(y, out=y)
    elif activation == "elu":
        np.minimum(y, 0, out=y)
        y += 1
    elif activation == "leaky-relu":
        np.greater(y, 0, out=y)
        np.maximum(y, LEAKY_SLOPE, out=y)
    else:
        raise ValueError(f"unknown activation {activation!r}")


def latent_forward(head: Array, eps: Array, *, z: Array, kl: Array, work: Array) -> None:
    """kl holds sigma until z is made."""
    mu, logvar = head[:, : eps.shape[1]], head[:, eps.shape[1] :]  # (batch, latent) each
    np.multiply(logvar, 0.5, out=kl)
    np.exp(kl, out=kl)
    np.multiply(kl, eps, out=z)
    z += mu
    t = work[: kl.size].reshape(kl.shape)  # (batch, latent)
    np.expm1(logvar, out=kl)
    kl -= logvar
    np.multiply(mu, mu, out=t)
    kl += t
    kl *= 0.5


def latent_backward(dz: Array, head: Array, eps: Array, dkl: Array, *, dhead: Array, work: Array) -> None:
    """Both parts of each gradient, summed in dhead."""
    latent = eps.shape[1]
    mu, logvar = head[:, :latent], head[:, latent:]  # (batch, latent) each
    dmu, dlogvar = dhead[:, :latent], dhead[:, latent:]  # (batch, latent) each
    t = work[: dz.size].reshape(dz.shape)  # (batch, latent)
    np.multiply(mu, dkl, out=dmu)  # through the KL
    dmu += dz  # through z
    np.multiply(logvar, 0.5, out=t)
    np.exp(t, out=t)
    t *= eps
    t *= dz
    np.expm1(logvar, out=dlogvar)
    dlogvar *= dkl  # through the KL
    dlogvar += t  # through z
    dlogvar *= 0.5


def bernoulli_loss(logits: Array, x: Array, dnll: float, *, nll: Array, dlogits: Array | None, work: Array) -> None:
    """t gathers the loss of each number; d is scratch, then the gradient."""
    t = work[: x.size].reshape(x.shape)  # (batch, data)
    d = work[x.size : 2 * x.size].reshape(x.shape) if dlogits is None else dlogits  # (batch, data)
    np.abs(logits, out=t)
    np.negative(t, out=t)
    np.exp(t, out=t)
    np.log1p(t, out=t)
    np.maximum(logits, _zeros(work, logits), out=d)
    t += d  # softplus(logits)
    np.multiply(x, logits, out=d)
    t -= d
    np.add.reduce(t, axis=1, out=nll)
    if dlogits is not None:
        _sigmoid(logits, out=d)
        d -= x
        d *= dnll


def gaussian_loss(
    mean: Array, logvar: Array, x: Array, dnll: float,
    *, nll: Array, dmean: Array | None, dlogvar: Array | None, work: Array,
) -> None:  # fmt: skip
    """With r = (x - m) e^(-s/2): nll = sum of (r^2 + s + log 2 pi) / 2, dm = -r e^(-s/2), ds = (1 - r^2) / 2."""
    shared = logvar.ndim == 1
    r = work[: x.size].reshape(x.shape)  # (batch, data)
    t = work[x.size : 2 * x.size].reshape(x.shape)  # (batch, data)
    np.subtract(x, mean, out=r)
    if shared:
        root = float(np.exp(-0.5 * float(logvar[0])))  # e^(-s/2): one number; infinite, not an error, beyond floats
    else:
        np.multiply(logvar, -0.5, out=t)
        root = np.exp(t, out=t)  # (batch, data)
    r *= root
    if dmean is not None:
        np.multiply(r, root, out=dmean)
        dmean *= -dnll
    np.multiply(r, r, out=r)
    if shared:
        np.add.reduce(r, axis=1, out=nll)
        nll += x.shape[1] * (float(logvar[0]) + LOG_2PI)
    else:
        np.add(r, logvar, out=t)
        np.add.reduce(t, axis=1, out=nll)
        nll += x.shape[1] * LOG_2PI
    nll *= 0.5
    if dlogvar is not None:
        np.subtract(1, r, out=r)
        r *= 0.5 * dnll
        dlogvar[...] = np.add.reduce(r, axis=None) if shared else r


def squared_norm(g: Array, *, out: Array) -> None:
    """One pass of BLAS."""
    out[...] = np.dot(g, g)


def clip(g: Array, norm2: Array, max_norm: float) -> None:
    """No pass at all where the norm is small enough."""
    factor = clip_scale(norm2, max_norm)
    if factor < 1:
        g *= factor


def adam_step(p: Array, g: Array, m: Array, v: Array, t: int, lr: float, *, work: Array) -> None:
    """Block by block; m += (1 - beta1)(g - m) saves a pass over beta1 m + (1 - beta1) g."""
    step_size, epsilon = step_and_epsilon(t, lr)
    for start in range(0, p.size, ADAM_BLOCK):
        block = slice(start, start + ADAM_BLOCK)
        p_, g_, m_, v_ = p[block], g[block], m[block], v[block]  # (<= ADAM_BLOCK,) each
        w = work[: p_.size]
        np.subtract(g_, m_, out=w)
        w *= 1 - BETA1
        m_ += w
        np.multiply(g_, g_, out=w)
        w -= v_
        w *= 1 - BETA2
        v_ += w
        np.sqrt(v_, out=w)
        w += epsilon
        np.divide(m_, w, out=w)
        w *= step_size
        p_ -= w


def _zeros(work: Array, a: Array) -> Array:
    """A row of zeros at the end of the scratch: np.maximum with a row takes a third of its time with the number 0."""
    row = work[-a.shape[1] :]  # (columns of a,)
    row.fill(0)
    return row


def _sigmoid(a: Array, *, out: Array) -> None:
    np.multiply(a, 0.5, out=out)
    np.tanh(out, out=out)
    out += 1
    out *= 0.5


def _softplus(a: Array, t: Array) -> None:
    """log(1 + e^a) in place, with scratch t of the same shape."""
    np.abs(a, out=t)
    np.negative(t, out=t)
    np.exp(t, out=t)
    np.log1p(t, out=t)
    np.maximum(a, 0, out=a)
    a += t
