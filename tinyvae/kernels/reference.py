"""The readable kernels: `tinyvae.ops` composed, results copied into the buffers. NumPy and CuPy alike.

`--kernels reference` trains with these, and every other kernels file is compared with them.
"""

from tinyvae.backend import Array, array_module
from tinyvae.ops import activations, adam, dense, gaussian, likelihoods


def gather(data: Array, rows: Array, scale: float, *, x: Array, raw: Array) -> None:
    """x = data[rows] * scale: a batch of pixels kept as bytes, as real numbers.

    data (all rows, data), rows (batch,) -> x (batch, data). `raw` is scratch with x's shape and data's dtype.
    """
    x[...] = array_module(data).multiply(data[rows], scale, dtype=x.dtype)  # in x's precision, as the others do


def binarize(x: Array, u: Array) -> None:
    """x becomes 1 where u < x, else 0: a draw with probability x. u uniform on [0, 1).  x, u (batch, data)."""
    x[...] = u < x


def dense_forward(x: Array, W: Array, b: Array, activation: str, *, y: Array, work: Array) -> None:
    """y = f(x W + b).  x (batch, in), W (in, out), b (out,) -> y (batch, out)."""
    forward, _ = activations.ACTIVATIONS[activation]
    y[...] = forward(dense.dense_forward(x, W, b))


def dense_backward(
    dy: Array, x: Array, W: Array, y: Array, activation: str,
    *, dx: Array | None, dW: Array, db: Array, work: Array,
) -> None:  # fmt: skip
    """da = dy f'(a), then dx = da W^T (unless dx is None), dW = x^T da, db = column sums of da.

    dy, y (batch, out), x (batch, in), W (in, out) -> dx (batch, in), dW (in, out), db (out,). May destroy dy and y.
    """
    _, backward = activations.ACTIVATIONS[activation]
    da = backward(dy, y)  # (batch, out)
    dx_, dW[...], db[...] = dense.dense_backward(da, x, W)
    if dx is not None:
        dx[...] = dx_


def latent_forward(head: Array, eps: Array, *, z: Array, kl: Array, work: Array) -> None:
    """z = mu + sigma eps and the KL of every row and dimension.

    head (batch, 2 latent) holds mu, then logvar; eps (batch, latent) -> z, kl (batch, latent).
    """
    mu, logvar = head[:, : eps.shape[1]], head[:, eps.shape[1] :]  # (batch, latent) each
    z[...] = gaussian.reparameterize_forward(mu, logvar, eps)
    kl[...] = gaussian.kl_forward(mu, logvar)


def latent_backward(dz: Array, head: Array, eps: Array, dkl: Array, *, dhead: Array, work: Array) -> None:
    """The gradient of mu and logvar: one part through z, one part through the KL.

    dz, eps (batch, latent), head (batch, 2 latent), dkl (latent,) -> dhead (batch, 2 latent).
    """
    latent = eps.shape[1]
    mu, logvar = head[:, :latent], head[:, latent:]  # (batch, latent) each
    dmu_from_z, dlogvar_from_z = gaussian.reparameterize_backward(dz, logvar, eps)
    dmu_from_kl, dlogvar_from_kl = gaussian.kl_backward(dkl, mu, logvar)
    dhead[:, :latent] = dmu_from_z + dmu_from_kl
    dhead[:, latent:] = dlogvar_from_z + dlogvar_from_kl


def bernoulli_loss(logits: Array, x: Array, dnll: float, *, nll: Array, dlogits: Array | None, work: Array) -> None:
    """nll of each row from logits, and its gradient times dnll (unless dlogits is None).

    logits, x (batch, data) -> nll (batch,), dlogits (batch, data). dlogits must not overlap logits or x.
    """
    nll[...] = likelihoods.bernoulli_nll_forward(logits, x)
    if dlogits is not None:
        dlogits[...] = likelihoods.bernoulli_nll_backward(dnll, logits, x)


def gaussian_loss(
    mean: Array, logvar: Array, x: Array, dnll: float,
    *, nll: Array, dmean: Array | None, dlogvar: Array | None, work: Array,
) -> None:  # fmt: skip
    """nll of each row, and its gradients times dnll (each unless it is None).

    mean, x (batch, data); logvar (batch, data), or (1,) if all outputs share it -> nll (batch,), dmean (batch, data),
    dlogvar as logvar: a shared one gets the sum. dmean and dlogvar must not overlap mean, logvar or x.
    """
    nll[...] = likelihoods.gaussian_nll_forward(mean, logvar, x)
    if dmean is None and dlogvar is None:
        return
    dmean_, dlogvar_ = likelihoods.gaussian_nll_backward(dnll, mean, logvar, x)
    if dmean is not None:
        dmean[...] = dmean_
    if dlogvar is not None:
        dlogvar[...] = dlogvar_ if dlogvar.ndim == 2 else dlogvar_.sum()


def squared_norm(g: Array, *, out: Array) -> None:
    """out = |g|^2.  g (parameters,) -> out ()."""
    out[...] = adam.squared_norm(g)


def clip(g: Array, norm2: Array, max_norm: float) -> None:
    """Shorten g, whose squared norm is `norm2`, to at most max_norm, in place."""
    g *= adam.clip_scale(norm2, max_norm)


def adam_step(p: Array, g: Array, m: Array, v: Array, t: int, lr: float, *, work: Array) -> None:
    """One step of Adam on the flat p, m and v, in place; t counts from 1."""
    p[...], m[...], v[...] = adam.adam_step(p, g, m, v, t, lr)
