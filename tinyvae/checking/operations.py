"""Every operation's backward, checked. The loss is <cotangent, output> with a random cotangent.

Never an all-ones cotangent: under a plain sum, a gradient that is wrong by something that sums to zero passes.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tinyvae.checking.finite_differences import Check, gradcheck
from tinyvae.ops import activations, convolution, dense, gaussian, importance, likelihoods, normalization

Arrays = dict[str, np.ndarray]
N, D, K = 5, 4, 3  # batch, wide, narrow: all different, so that a transpose shows
IMAGE, KERNEL, CHANNELS = (7, 6), 3, (2, 4)  # height and width; the window; channels in and out
WINDOWS = ((1, 0), (1, 1), (2, 1), (3, 0), (3, 1))  # stride and pad: most leave a remainder of the image


def check_operations(seed: int = 0) -> Iterator[Check]:
    """One Check for each input of each operation, named "operation: input"."""
    for case in (
        _dense, _reparameterize, _kl, _free_bits, _bernoulli, _gaussian, _gaussian_shared, _batch_norm,
        _log_prior_over_q, _bound,
    ):  # fmt: skip
        yield from case(np.random.default_rng(seed))
    for stride, pad in WINDOWS:
        yield from _conv2d(stride, pad, np.random.default_rng(seed))
        yield from _conv_transpose2d(stride, pad, np.random.default_rng(seed))
    for name in activations.ACTIVATIONS:
        yield from _activation(name, np.random.default_rng(seed))


def _dense(rng: np.random.Generator) -> Iterator[Check]:
    p = _normals(rng, x=(N, D), W=(D, K), b=(K,))
    dy = rng.standard_normal((N, K))
    dx, dW, db = dense.dense_backward(dy, p["x"], p["W"])
    yield from _report(rng, "dense", lambda: dy * dense.dense_forward(**p), p, {"x": dx, "W": dW, "b": db})


def _activation(name: str, rng: np.random.Generator) -> Iterator[Check]:
    forward, backward = activations.ACTIVATIONS[name]
    p = _normals(rng, a=(N, D))
    dy = rng.standard_normal((N, D))
    grads = {"a": backward(dy, forward(p["a"]))}
    kinks = (lambda: p["a"] > 0) if name in activations.KINKED else None
    yield from _report(rng, name, lambda: dy * forward(p["a"]), p, grads, kinks)


def _reparameterize(rng: np.random.Generator) -> Iterator[Check]:
    p = _normals(rng, mu=(N, K), logvar=(N, K))
    eps, dz = rng.standard_normal((2, N, K))
    dmu, dlogvar = gaussian.reparameterize_backward(dz, p["logvar"], eps)
    f = lambda: dz * gaussian.reparameterize_forward(p["mu"], p["logvar"], eps)
    yield from _report(rng, "reparameterize", f, p, {"mu": dmu, "logvar": dlogvar})


def _kl(rng: np.random.Generator) -> Iterator[Check]:
    p = _normals(rng, mu=(N, K), logvar=(N, K))
    dkl = rng.standard_normal((N, K))
    dmu, dlogvar = gaussian.kl_backward(dkl, p["mu"], p["logvar"])
    yield from _report(rng, "kl", lambda: dkl * gaussian.kl_forward(**p), p, {"mu": dmu, "logvar": dlogvar})


def _free_bits(rng: np.random.Generator) -> Iterator[Check]:
    p = {"kl": rng.uniform(0, 1, (N, K)) + np.array([0.0, 1.0, 2.0])}  # means near 0.5, 1.5, 2.5
    free_bits = 1.0  # one dimension below its allowance, two above
    dcharged = rng.standard_normal(K)
    dkl = gaussian.free_bits_backward(dcharged, p["kl"], free_bits)  # (latent,), the same for every row
    yield from _report(
        rng,
        "free bits",
        lambda: dcharged * gaussian.free_bits_forward(p["kl"], free_bits),
        p,
        {"kl": np.broadcast_to(dkl, (N, K))},
        kinks=lambda: p["kl"].mean(axis=0) > free_bits,
    )


def _bernoulli(rng: np.random.Generator) -> Iterator[Check]:
    p = {"logits": 3 * rng.standard_normal((N, D))}
    x = rng.uniform(0, 1, (N, D))
    dnll = rng.standard_normal((N, 1))
    dlogits = likelihoods.bernoulli_nll_backward(dnll, p["logits"], x)
    f = lambda: dnll[:, 0] * likelihoods.bernoulli_nll_forward(p["logits"], x)
    yield from _report(rng, "bernoulli nll", f, p, {"logits": dlogits})


def _gaussian(rng: np.random.Generator) -> Iterator[Check]:
    p = _normals(rng, mean=(N, D), logvar=(N, D))
    x = rng.standard_normal((N, D))
    dnll = rng.standard_normal((N, 1))
    dmean, dlogvar = likelihoods.gaussian_nll_backward(dnll, p["mean"], p["logvar"], x)
    f = lambda: dnll[:, 0] * likelihoods.gaussian_nll_forward(p["mean"], p["logvar"], x)
    yield from _report(rng, "gaussian nll", f, p, {"mean": dmean, "logvar": dlogvar})


def _gaussian_shared(rng: np.random.Generator) -> Iterator[Check]:
    p = _normals(rng, mean=(N, D), logvar=(1,))
    x = rng.standard_normal((N, D))
    dnll = rng.standard_normal((N, 1))
    dmean, dlogvar = likelihoods.gaussian_nll_backward(dnll, p["mean"], p["logvar"], x)
    f = lambda: dnll[:, 0] * likelihoods.gaussian_nll_forward(p["mean"], p["logvar"], x)
    yield from _report(rng, "gaussian nll, one sigma", f, p, {"mean": dmean, "logvar": dlogvar.sum(keepdims=True)[0]})


def _batch_norm(rng: np.random.Generator) -> Iterator[Check]:
    p = _normals(rng, a=(N, D), scale=(D,), shift=(D,))
    dy = rng.standard_normal((N, D))
    _, h, _, v = normalization.batch_norm_forward(**p)
    da, dscale, dshift = normalization.batch_norm_backward(dy, h, v, p["scale"])
    grads = {"a": da, "scale": dscale, "shift": dshift}
    yield from _report(rng, "batch norm", lambda: dy * normalization.batch_norm_forward(**p)[0], p, grads)


def _log_prior_over_q(rng: np.random.Generator) -> Iterator[Check]:
    p = _normals(rng, z=(N, K), logvar=(N, K))
    eps, d = rng.standard_normal((N, K)), rng.standard_normal((N, 1))
    dz, dlogvar = importance.log_prior_over_q_backward(d, p["z"])
    f = lambda: d[:, 0] * importance.log_prior_over_q_forward(p["z"], p["logvar"], eps)
    yield from _report(rng, "log prior over q", f, p, {"z": dz, "logvar": dlogvar})


def _bound(rng: np.random.Generator) -> Iterator[Check]:
    p = {"log_w": 2 * rng.standard_normal((N, K))}
    dbound = rng.standard_normal((N, 1))
    grads = {"log_w": importance.bound_backward(dbound, p["log_w"])}
    yield from _report(rng, "bound", lambda: dbound[:, 0] * importance.bound_forward(p["log_w"]), p, grads)


def _conv2d(stride: int, pad: int, rng: np.random.Generator) -> Iterator[Check]:
    p = _normals(rng, x=(2, *IMAGE, CHANNELS[0]), W=(KERNEL, KERNEL, *CHANNELS), b=(CHANNELS[1],))
    f = lambda: convolution.conv2d_forward(**p, stride=stride, pad=pad)
    dy = rng.standard_normal(f().shape)
    dx, dW, db = convolution.conv2d_backward(dy, p["x"], p["W"], stride, pad)
    name = f"conv2d, stride {stride}, pad {pad}"
    yield from _report(rng, name, lambda: dy * f(), p, {"x": dx, "W": dW, "b": db})


def _conv_transpose2d(stride: int, pad: int, rng: np.random.Generator) -> Iterator[Check]:
    places = [convolution.output_size(size, KERNEL, stride, pad) for size in IMAGE]
    p = _normals(rng, x=(2, *places, CHANNELS[1]), W=(KERNEL, KERNEL, *CHANNELS), b=(CHANNELS[0],))
    f = lambda: convolution.conv_transpose2d_forward(**p, shape=IMAGE, stride=stride, pad=pad)
    dy = rng.standard_normal(f().shape)
    dx, dW, db = convolution.conv_transpose2d_backward(dy, p["x"], p["W"], stride, pad)
    name = f"conv transpose2d, stride {stride}, pad {pad}"
    yield from _report(rng, name, lambda: dy * f(), p, {"x": dx, "W": dW, "b": db})


def _normals(rng: np.random.Generator, **shapes: tuple[int, ...]) -> Arrays:
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def _report(
    rng: np.random.Generator,
    operation: str,
    f: Callable[[], Any],
    p: Arrays,
    grads: Arrays,
    kinks: Callable[[], Any] | None = None,
) -> Iterator[Check]:
    for check in gradcheck(f, p, grads, kinks=kinks, seed=int(rng.integers(2**31))):
        yield replace(check, name=f"{operation}: {check.name}")
