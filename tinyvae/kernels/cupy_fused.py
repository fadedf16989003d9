"""The kernels for CuPy, in float32: matrix products by cuBLAS, and one kernel of `cuda/kernels.cu` for all around each.

Each function computes what its namesake in `reference.py` computes; the comments say only how. Nothing waits for the
device. Nothing is allocated but by CuPy itself: it copies a tied layer's half of a matrix before cuBLAS takes it, and
its dot product may use scratch. Data comes as bytes or float32: `Batches` narrows what is wider.
"""

import numpy as np

from tinyvae.backend import Array, array_module
from tinyvae.kernels import reference
from tinyvae.kernels.cuda.launch import launcher
from tinyvae.kernels.cuda.table import ACTIVATION_NAMES
from tinyvae.ops.adam import step_and_epsilon

ACTIVATION_NUMBERS = {name: i for i, name in enumerate(ACTIVATION_NAMES)}


def gather(data: Array, rows: Array, scale: float, *, x: Array, raw: Array) -> None:
    """No scratch: each byte becomes a number on its way."""
    kernel = "gather_rows_bytes" if data.dtype == np.uint8 else "gather_rows_floats"
    launch = launcher(array_module(x)).launch
    launch(kernel, data=data, order=rows, x=x, rows=x.shape[0], columns=x.shape[1], scale=scale)


def binarize(x: Array, u: Array) -> None:
    """In place."""
    launcher(array_module(x)).launch("binarize", x=x, u=u, size=x.size)


def dense_forward(x: Array, W: Array, b: Array, activation: str, *, y: Array, work: Array) -> None:
    """The product, then bias and activation in one pass over y."""
    xp, number = array_module(x), ACTIVATION_NUMBERS[activation]
    xp.matmul(x, W, out=y)
    launcher(xp).launch("bias_activation", y=y, b=b, size=y.size, outputs=y.shape[1], activation=number)


def dense_backward(
    dy: Array, x: Array, W: Array, y: Array, activation: str,
    *, dx: Array | None, dW: Array, db: Array, work: Array,
) -> None:  # fmt: skip
    """dy becomes da in place; then the products, and the sum of its rows."""
    xp, number = array_module(x), ACTIVATION_NUMBERS[activation]
    if activation != "linear":
        launcher(xp).launch("activation_backward", dy=dy, y=y, size=dy.size, activation=number)
    xp.matmul(x.T, dy, out=dW)
    xp.sum(dy, axis=0, out=db)
    if dx is not None:
        xp.matmul(dy, W.T, out=dx)


def latent_forward(head: Array, eps: Array, *, z: Array, kl: Array, work: Array) -> None:
    """One pass."""
    launch = launcher(array_module(head)).launch
    launch("latent_forward", head=head, eps=eps, z=z, kl=kl, size=eps.size, latent=eps.shape[1])


def latent_backward(dz: Array, head: Array, eps: Array, dkl: Array, *, dhead: Array, work: Array) -> None:
    """One pass."""
    launch = launcher(array_module(head)).launch
    launch("latent_gradient", dz=dz, head=head, eps=eps, dkl=dkl, dhead=dhead, size=eps.size, latent=eps.shape[1])


def bernoulli_loss(logits: Array, x: Array, dnll: float, *, nll: Array, dlogits: Array | None, work: Array) -> None:
    """A block for each row sums its losses and writes its gradient."""
    rows, columns = x.shape
    launch = launcher(array_module(x)).launch
    launch("bernoulli_loss", logits=logits, x=x, dnll=dnll, nll=nll, dlogits=dlogits, rows=rows, columns=columns)


def gaussian_loss(
    mean: Array, logvar: Array, x: Array, dnll: float,
    *, nll: Array, dmean: Array | None, dlogvar: Array | None, work: Array,
) -> None:  # fmt: skip
    """As above; each row writes its part of a shared logvar's gradient, and a sum makes them one number."""
    rows, columns = x.shape
    shared = logvar.ndim == 1
    parts = work[:rows] if shared and dlogvar is not None else dlogvar  # (rows,), or (batch, data)
    stride = mean.strides[0] // mean.itemsize  # numbers from row to row, alike in mean, logvar and their gradients
    launcher(array_module(x)).launch(
        "gaussian_loss", mean=mean, logvar=logvar, x=x, dnll=dnll, nll=nll, dmean=dmean, dlogvar=parts,
        rows=rows, columns=columns, stride=stride, shared=shared,
    )  # fmt: skip
    if shared and dlogvar is not None and parts is not None:
        parts.sum(axis=0, keepdims=True, out=dlogvar)


def squared_norm(g: Array, *, out: Array) -> None:
    """CuPy's dot, which leaves the number on the device."""
    reference.squared_norm(g, out=out)


def clip(g: Array, norm2: Array, max_norm: float) -> None:
    """The factor stays on the device, so g is always passed over: to look at it would be to wait."""
    reference.clip(g, norm2, max_norm)


def adam_step(p: Array, g: Array, m: Array, v: Array, t: int, lr: float, *, work: Array) -> None:
    """One pass."""
    step_size, epsilon = step_and_epsilon(t, lr)
    launch = launcher(array_module(p)).launch
    launch("adam", p=p, g=g, m=m, v=v, size=p.size, step_size=step_size, epsilon=epsilon)
