"""Write the property: what it is tried on, and the wrong implementations that it must kill."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinyvae.exercises import reference
from tinyvae.exercises.drawing import Draw, array, arrays, sizes
from tinyvae.exercises.task import Case, Mistake, PropertyTask
from tinyvae.likelihoods import bernoulli
from tinyvae.ops import activations, adam, convolution, dense, gaussian, importance, normalization

_DENSE = arrays(3, {"dy": "ac", "x": "ab", "W": "bc"})
SEEDS = st.integers(0, 1000)
kl, z = gaussian.kl_forward, gaussian.reparameterize_forward

# ---------------------------------------------------------------------------------------------------------------- dense

DENSE_ADJOINT = PropertyTask("dense-adjoint", reference.dense_adjoint, dense.dense_backward, _DENSE, (
    Mistake("dW is a mean over the batch", lambda dy, x, W: (dy @ W.T, x.T @ dy / len(x), dy.sum(axis=0))),
    Mistake("dx forgets the last output", lambda dy, x, W: (
        dy[:, :-1] @ W[:, :-1].T, x.T @ dy, dy.sum(axis=0))),
    Mistake("db is in the wrong order", lambda dy, x, W: (dy @ W.T, x.T @ dy, dy.sum(axis=0)[::-1])),
    Mistake("dW has the wrong sign", lambda dy, x, W: (dy @ W.T, -x.T @ dy, dy.sum(axis=0))),
    Mistake("dx is off by a thousandth", lambda dy, x, W: (1.001 * dy @ W.T, x.T @ dy, dy.sum(axis=0))),
))  # fmt: skip
BATCH = PropertyTask("batch-gradient-adds", reference.batch_gradient_adds, dense.dense_backward, _DENSE, (
    Mistake("dW is a mean over the batch", lambda dy, x, W: (dy @ W.T, x.T @ dy / len(x), dy.sum(axis=0))),
    Mistake("db is that of the first row", lambda dy, x, W: (dy @ W.T, x.T @ dy, dy[0])),
    Mistake("dx is divided by the batch", lambda dy, x, W: (dy @ W.T / len(x), x.T @ dy, dy.sum(axis=0))),
    Mistake("dW centres x in the batch", lambda dy, x, W: (
        dy @ W.T, (x - x.mean(axis=0)).T @ dy + x[:1].T @ dy[:1], dy.sum(axis=0))),
))  # fmt: skip

# ----------------------------------------------------------------------------------------------------------- the latent


@st.composite
def _near_the_prior(draw: Draw) -> Case:
    """Zeros here and there, so that the prior itself is met, and both ways of leaving it."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    return {name: draw(array(shape)) * draw(array(shape, 0, 0.125)) * 8 for name in ("mu", "logvar")}


@st.composite
def _two_dimensions(draw: Draw) -> Case:
    shape = (draw(st.integers(1, 3)), draw(st.integers(2, 4)))
    return {"mu": draw(array(shape)), "logvar": draw(array(shape))}


KL_NONNEGATIVE = PropertyTask(
    "kl-is-never-negative", reference.kl_is_never_negative, gaussian.kl_forward.function, _near_the_prior(), (
        Mistake("the 1 is missing, so that it is 1/2 at the prior", lambda mu, s: 0.5 * (mu * mu + np.exp(s) - s)),
        Mistake("the sign of logvar is wrong", lambda mu, s: 0.5 * (mu * mu + np.expm1(s) + s)),
        Mistake("the mean is forgotten, so that it is 0 at mu = 1 too", lambda mu, s: kl(0 * mu, s)),
        Mistake("the variance is forgotten, so that it is 0 at every sigma", lambda mu, s: 0.5 * mu * mu),
        Mistake("it is -KL", lambda mu, s: -kl(mu, s)),
    ))  # fmt: skip
KL_ADDS = PropertyTask("kl-adds-up", reference.kl_adds_up, gaussian.kl_forward.function, _two_dimensions(), (
    Mistake("each dimension gets a share of the mean", lambda mu, s: np.broadcast_to(
        kl(mu, s).mean(axis=1, keepdims=True), mu.shape)),
    Mistake("it is divided by the number of dimensions", lambda mu, s: kl(mu, s) / mu.shape[1]),
    Mistake("the mean is centred over the dimensions", lambda mu, s: kl(mu - mu.mean(axis=1, keepdims=True), s)),
    Mistake("the largest variance of a row is used for all of it", lambda mu, s: kl(
        mu, np.broadcast_to(s.max(axis=1, keepdims=True), s.shape))),
))  # fmt: skip
_NOISE = arrays(2, {"mu": "ab", "logvar": "ab", "eps": "ab"})
OPPOSITE = PropertyTask("opposite-noise", reference.opposite_noise, gaussian.reparameterize_forward.function, _NOISE, (
    Mistake("the noise loses its sign", lambda mu, s, eps: z(mu, s, np.abs(eps))),
    Mistake("the noise is shifted by 1/8", lambda mu, s, eps: z(mu, s, eps + 0.125)),
    Mistake("eps is inside the exponential", lambda mu, s, eps: mu + np.exp(0.5 * s * eps)),
    Mistake("negative noise is halved", lambda mu, s, eps: z(mu, s, np.where(eps < 0, 0.5 * eps, eps))),
    Mistake("mu is doubled", lambda mu, s, eps: z(2 * mu, s, eps)),
))  # fmt: skip
SCALE = PropertyTask("noise-scale", reference.noise_scale, gaussian.reparameterize_forward.function, _NOISE, (
    Mistake("the variance scales the noise", lambda mu, s, eps: z(mu, 2 * s, eps)),
    Mistake("the precision's root scales the noise", lambda mu, s, eps: z(mu, -s, eps)),
    Mistake("half of sigma scales the noise", lambda mu, s, eps: mu + 0.5 * np.exp(0.5 * s) * eps),
    Mistake("the noise is not scaled", lambda mu, s, eps: mu + eps),
    Mistake("the noise is squared", lambda mu, s, eps: z(mu, s, eps * eps)),
))  # fmt: skip

# --------------------------------------------------------------------------------------------------------------- losses


@st.composite
def _sure(draw: Draw) -> Case:
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    x = (draw(array(shape, 0, 1)) > 0.5).astype(float)
    return {"x": x, "size": draw(st.sampled_from([10000.0, 1000.0, 300.0, 50.0]))}


def _clipped(logits: Any, x: Any) -> Any:
    p = np.clip(activations.sigmoid_forward(logits), 1e-7, 1 - 1e-7)
    return -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1)


def _of_rounded_p(logits: Any, x: Any) -> Any:
    p = activations.sigmoid_forward(logits)
    return -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1)


def _with_a_small_number(logits: Any, x: Any) -> Any:
    p = activations.sigmoid_forward(logits)
    return -(x * np.log(p + 1e-12) + (1 - x) * np.log(1 - p + 1e-12)).sum(axis=1)


EXTREMES = PropertyTask("bernoulli-extremes", reference.bernoulli_extremes, bernoulli.bernoulli_nll_forward,
    _sure(), (
        Mistake("the logarithm of a p that is rounded to 0", _of_rounded_p),
        Mistake("p is clipped at 1e-7, so that no loss is above 16", _clipped),
        Mistake("1e-12 is added inside the logarithm, so that no loss is above 28", _with_a_small_number),
        Mistake("log(1 + e^l) overflows", lambda l, x: (np.log1p(np.exp(l)) - x * l).sum(axis=1)),
        Mistake("logits are clipped at 100", lambda l, x: bernoulli.bernoulli_nll_forward(np.clip(l, -100, 100), x)),
    ))  # fmt: skip


@st.composite
def _weights(draw: Draw) -> Case:
    shape = (draw(st.integers(1, 2)), draw(st.integers(2, 4)))
    return {"log_w": draw(array(shape)), "c": draw(st.integers(-16, 16)) / 8}


BOUND = PropertyTask("bound-leave-one-out", reference.bound_leave_one_out, importance.bound_forward, _weights(), (
    Mistake("the smallest log-weight", lambda w: w.min(axis=1)),
    Mistake("a harmonic mean of the weights", lambda w: -importance.bound_forward(-w)),
    Mistake("the mean of the log-weights less half their variance", lambda w: w.mean(axis=1) - w.var(axis=1) / 2),
    Mistake("the sum of the weights, not their mean", lambda w: importance.bound_forward(w) + np.log(w.shape[1])),
    Mistake("the logarithm of the mean of the log-weights, kept from being negative",
            lambda w: np.log1p(np.abs(w.mean(axis=1)))),
))  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------- Adam


@st.composite
def _small_gradients(draw: Draw) -> Case:
    size = (draw(st.integers(1, 4)),)
    unit = draw(st.sampled_from([1e-8, 1.0]))
    return {"p": draw(array(size)), "g": draw(array(size)) * unit, "lr": draw(st.sampled_from([0.5, 0.125]))}


@st.composite
def _scales(draw: Draw) -> Case:
    size = (draw(st.integers(1, 4)),)
    k = draw(st.integers(1, 8)) * draw(st.sampled_from([1, -1]))
    return {"p": draw(array(size)), "g": draw(array(size, off=1 / 16)), "k": k}


def _adam(step: Callable[..., Any]) -> Callable[..., Any]:
    """Adam with a step(m^, v^, epsilon) of its own, uncorrected moments and t beside."""

    def wrong(
        p: Any, g: Any, m: Any, v: Any, t: int, lr: float, beta1: float = 0.9, beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> Any:  # fmt: skip
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        return p - lr * step(m / (1 - beta1**t), v / (1 - beta2**t), epsilon, m, v), m, v

    return wrong


FIRST = PropertyTask("adam-first-step", reference.adam_first_step, adam.adam_step, _small_gradients(), (
    Mistake("no bias correction", _adam(lambda mh, vh, e, m, v: m / (np.sqrt(v) + e))),
    Mistake("epsilon inside the square root", _adam(lambda mh, vh, e, m, v: mh / np.sqrt(vh + e))),
    Mistake("only m is corrected", _adam(lambda mh, vh, e, m, v: mh / (np.sqrt(v) + e))),
    Mistake("uphill", _adam(lambda mh, vh, e, m, v: -mh / (np.sqrt(vh) + e))),
    Mistake("epsilon is 1e-7", _adam(lambda mh, vh, e, m, v: mh / (np.sqrt(vh) + 1e-7))),
))  # fmt: skip
UNIT = PropertyTask("adam-ignores-scale", reference.adam_ignores_scale, adam.adam_step, _scales(), (
    Mistake("epsilon is a constant, whatever is asked for", _adam(lambda mh, vh, e, m, v: mh / (np.sqrt(vh) + 1e-3))),
    Mistake("epsilon inside the square root", _adam(lambda mh, vh, e, m, v: mh / np.sqrt(vh + e))),
    Mistake("the square root is missing", _adam(lambda mh, vh, e, m, v: mh / (vh + e))),
    Mistake("the old m is clipped at 1/8, which shows from the second step on",
            lambda p, g, m, v, *a, **k: adam.adam_step(p, g, np.clip(m, -0.125, 0.125), v, *a, **k)),
    Mistake("v is a moving mean of |g|", lambda p, g, m, v, t, lr, b1=0.9, b2=0.999, e=1e-8: (
        p - lr * (b1 * m + (1 - b1) * g) / (b2 * v + (1 - b2) * np.abs(g) + e), b1 * m + (1 - b1) * g,
        b2 * v + (1 - b2) * np.abs(g))),
))  # fmt: skip

# ---------------------------------------------------------------------------------------------------------- convolution


@st.composite
def _images(draw: Draw) -> Case:
    h, w = draw(sizes(2, 3, 6))
    shape = (1, h, w, draw(st.integers(1, 2)))
    return {"x": draw(array(shape)), "kernel": draw(st.integers(2, 3)), "stride": draw(st.integers(1, 2)),
            "pad": draw(st.integers(0, 1)), "seed": draw(SEEDS)}  # fmt: skip


def _folding(
    rows: Any, shape: tuple[int, int], stride: int, pad: int, overwrite: bool = False, shift: int = 0, last: int = 0
) -> Any:
    """`fold`, wrong in one way: = for +=, the padding cut off at another place, the last row of windows left out."""
    n, down, across, kernel, _, c = rows.shape
    padded = np.zeros((n, shape[0] + 2 * pad + 1, shape[1] + 2 * pad + 1, c))
    for i in range(kernel):
        for j in range(kernel):
            here = np.s_[:, i : i + stride * (down - last) : stride, j : j + stride * across : stride]
            part = rows[:, : down - last, :, i, j]
            padded[here] = part if overwrite else padded[here] + part
    return padded[:, pad + shift : pad + shift + shape[0], pad : pad + shape[1]]


def _averaging(rows: Any, shape: tuple[int, int], stride: int, pad: int) -> Any:
    counts = convolution.fold(np.ones_like(rows), shape, stride, pad)
    return convolution.fold(rows, shape, stride, pad) / np.maximum(counts, 1)


FOLD = PropertyTask("fold-adjoint", reference.fold_adjoint, convolution.fold, _images(), (
    Mistake("windows overwrite each other: = for +=", lambda *a: _folding(*a, overwrite=True)),
    Mistake("pixels that several windows cover get their mean", _averaging),
    Mistake("the padding is cut off one pixel too far down", lambda *a: _folding(*a, shift=1)),
    Mistake("the last row of windows is left out", lambda *a: _folding(*a, last=1)),
    Mistake("the windows are transposed", lambda rows, *a: convolution.fold(rows.swapaxes(3, 4), *a)),
), examples=40)  # fmt: skip


@st.composite
def _columns(draw: Draw) -> Case:
    rows, columns = draw(st.integers(3, 5)), draw(st.integers(1, 3))
    ramp = 0.7 * np.arange(rows)[:, None]  # off the grid, so that no column is constant
    return {"a": draw(array((rows, columns))) + ramp, "scale": draw(array((columns,), 0.5, 2)), "seed": draw(SEEDS)}


def _batch_norm(da: Callable[..., Any]) -> Callable[..., Any]:
    """A wrong da(dy, h, r, scale), which is 0 all the same where dy is 1."""
    r = lambda v: 1 / np.sqrt(v + normalization.EPSILON)
    return lambda dy, h, v, scale: (da(dy, h, r(v), scale), (dy * h).sum(axis=0), dy.sum(axis=0))


_centred = lambda dy: dy - dy.mean(axis=0)
COTANGENT = PropertyTask("random-cotangent", reference.random_cotangent, normalization.batch_norm_backward,
    _columns(), (
        Mistake("the path through the variance is missing",
                _batch_norm(lambda dy, h, r, scale: scale * r * _centred(dy))),
        Mistake("that path has the wrong sign",
                _batch_norm(lambda dy, h, r, scale: scale * r * (_centred(dy) + h * (dy * h).mean(axis=0)))),
        Mistake("da is always 0", _batch_norm(lambda dy, h, r, scale: 0 * dy)),
        Mistake("the scale is missing in da",
                _batch_norm(lambda dy, h, r, scale: r * (_centred(dy) - h * (dy * h).mean(axis=0)))),
        Mistake("da is twice too large",
                _batch_norm(lambda dy, h, r, scale: 2 * scale * r * (_centred(dy) - h * (dy * h).mean(axis=0)))),
    ), examples=20)  # fmt: skip

TASKS = (
    DENSE_ADJOINT, BATCH, KL_NONNEGATIVE, KL_ADDS, OPPOSITE, SCALE, EXTREMES, BOUND, FIRST, UNIT, FOLD, COTANGENT,
)  # fmt: skip
