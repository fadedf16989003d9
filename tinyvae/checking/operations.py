"""Every operation's backward, checked. The loss is <cotangent, output> with a random cotangent.

Never an all-ones cotangent: under a plain sum, a gradient that is wrong by something that sums to zero passes.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tinyvae.checking.finite_differences import Check, gradcheck
from tinyvae.ops import activations, dense, gaussian, likelihoods

Arrays = dict[str, np.ndarray]
N, D, K = 5, 4, 3  # batch, wide, narrow: all different, so that a transpose shows


def check_operations(seed: int = 0) -> Iterator[Check]:
    """One Check for each input of each operation, named "operation: input"."""
    for case in (_dense, _reparameterize, _kl, _free_bits, _bernoulli, _gaussian, _gaussian_shared):
        yield from case(np.random.default_rng(seed))
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
