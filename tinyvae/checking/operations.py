"""The backward of everything in `ops`, checked. The loss is <cotangent, output> with a random cotangent.

Never an all-ones cotangent: under a plain sum, a gradient that is wrong by something that sums to zero passes.

Pairs of formulas say themselves what they are the gradient of: those are found in the folder. (Activations have a check
of their own.) Functions of arrays are listed, since each is called in its own way.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tinyvae import ops
from tinyvae.checking.finite_differences import Check, gradcheck
from tinyvae.formula import Formula
from tinyvae.ops import activations, convolution, dense, gaussian, groups, importance, normalization

Arrays = dict[str, np.ndarray]
N, D, K = 5, 4, 3  # batch, wide, narrow: all different, so that a transpose shows
IMAGE, KERNEL, CHANNELS = (7, 6), 3, (2, 4)  # height and width; the window; channels in and out
WINDOWS = ((1, 0), (1, 1), (2, 1), (3, 0), (3, 1))  # stride and pad: most leave a remainder of the image


def check_operations(seed: int = 0) -> Iterator[Check]:
    """One Check for each input of each operation, named "operation: input"."""
    for backward in formula_pairs():
        yield from _formula(backward, np.random.default_rng(seed))
    for case in (_dense, _free_bits, _batch_norm, _log_prior_over_q, _bound, _groups):
        yield from case(np.random.default_rng(seed))
    for stride, pad in WINDOWS:
        yield from _conv2d(stride, pad, np.random.default_rng(seed))
        yield from _conv_transpose2d(stride, pad, np.random.default_rng(seed))


def formula_pairs() -> list[Formula]:
    """Every formula in `ops` that is a gradient, but for those of activations."""
    modules = [importlib.import_module(f"{ops.__name__}.{m.name}") for m in pkgutil.iter_modules(ops.__path__)]
    own = {id(v): v for m in modules for v in vars(m).values() if isinstance(v, Formula) and v.of is not None}
    taken = {id(a.backward) for a in activations.ACTIVATIONS.values()}
    return [f for key, f in own.items() if key not in taken]


def _formula(backward: Formula, rng: np.random.Generator) -> Iterator[Check]:
    """Every input that the gradient is by: all are real numbers."""
    forward = backward.of
    assert forward is not None
    p = _normals(rng, **{name: (N, K) for name in forward.inputs})
    dy = rng.standard_normal((N, K))
    read = {**p, "y": forward(*p.values())}
    found = backward(dy, *(read[name] for name in backward.inputs[1:]))
    grads = dict(zip(backward.wrt, found if isinstance(found, tuple) else (found,), strict=True))
    grads = {name: np.broadcast_to(g, (N, K)) for name, g in grads.items()}
    f = lambda: dy * forward(*p.values())
    yield from _report(rng, forward.__name__.removesuffix("_forward"), f, {name: p[name] for name in grads}, grads)


def _dense(rng: np.random.Generator) -> Iterator[Check]:
    p = _normals(rng, x=(N, D), W=(D, K), b=(K,))
    dy = rng.standard_normal((N, K))
    dx, dW, db = dense.dense_backward(dy, p["x"], p["W"])
    yield from _report(rng, "dense", lambda: dy * dense.dense_forward(**p), p, {"x": dx, "W": dW, "b": db})


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


def _groups(rng: np.random.Generator) -> Iterator[Check]:
    of = (1, 4, 2)
    p = _normals(rng, a=(N, sum(of)))
    dy = rng.standard_normal(p["a"].shape)
    for name, forward, da in [
        ("group sum", groups.group_sum, groups.group_sum_backward(dy, of)),
        ("log sum exp", groups.log_sum_exp_forward, groups.log_sum_exp_backward(dy, p["a"], of)),
    ]:
        yield from _report(rng, name, lambda f=forward: dy * f(p["a"], of), p, {"a": da})


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
