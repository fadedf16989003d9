"""Write the function: the dense layer, the activations, convolution, batch normalization."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinyvae.exercises.drawing import Draw, array, arrays, sizes
from tinyvae.exercises.oracles import close, slopes
from tinyvae.exercises.task import Answer, Case, FunctionTask, Mistake, Property, exactly
from tinyvae.ops import activations, convolution, dense, normalization

# ---------------------------------------------------------------------------------------------------------------- dense


def _dense_answer(c: Case) -> list[Answer]:
    x, W, b = c["x"], c["W"], c["b"]
    y = [[math.fsum([*(row * W[:, j]), b[j]]) for j in range(W.shape[1])] for row in x]  # (batch, out)
    return [close(y)]


DENSE_FORWARD = FunctionTask(
    "dense-forward", dense.dense_forward, ("y",),
    (Property("y_nj = sum_i x_ni W_ij + b_j", arrays(3, {"x": "ab", "W": "bc", "b": "c"}), _dense_answer),),
    (
        Mistake("the bias is missing", lambda x, W, b: x @ W),
        Mistake("the bias is subtracted: look at its sign", lambda x, W, b: x @ W - b),
        Mistake("the bias is added once for each input: b joins after the sum over i, not inside it",
                lambda x, W, b: x @ W + x.shape[1] * b),
    ),
)  # fmt: skip
DENSE_BACKWARD = FunctionTask(
    "dense-backward", dense.dense_backward, ("dx", "dW", "db"),
    (Property(
        "dx, dW and db are the slopes of sum(dy y) along x, W and b",
        arrays(3, {"dy": "ac", "x": "ab", "W": "bc", "b": "c"}),
        lambda c: slopes(lambda x, W, b: c["dy"] * dense.dense_forward(x, W, b), c["x"], c["W"], c["b"]),
    ),),
    (
        Mistake("a mean over the rows where a sum is meant: every row uses W and b, so their gradients add up",
                lambda dy, x, W: (dy @ W.T, x.T @ dy / len(x), dy.mean(axis=0))),
        Mistake("only one row reaches it: every row uses W and b, so their gradients add up",
                lambda dy, x, W: (dy @ W.T, np.outer(x[0], dy[0]), dy[0])),
        Mistake("it is -1 times the right one: look at the sign",
                lambda dy, x, W: (-dy @ W.T, -x.T @ dy, -dy.sum(axis=0))),
        Mistake("dy is missing: it counts the rows", lambda dy, x, W: (
            dy @ W.T, x.T @ dy, np.full(dy.shape[1], float(len(dy))))),
    ),
    cotangent="dy",
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------------- activations


def _activation(name: str, mistakes: tuple[Mistake, ...], *more: Property) -> FunctionTask:
    """A backward pass that gets the output y; the oracle goes back to a."""
    forward, backward = activations.ACTIVATIONS[name].forward, activations.ACTIVATIONS[name].backward.function

    @st.composite
    def cases(draw: Draw) -> Case:
        shape = tuple(draw(sizes(2)))
        a = draw(array(shape, off=1 / 16))  # never at a kink
        return {"dy": draw(array(shape)), "y": forward(a), "a": a}

    slope = Property(
        f"da is the slope of sum(dy {name}(a)) along a",
        cases(),
        lambda c: slopes(lambda a: c["dy"] * forward(a), c["a"]),
    )
    return FunctionTask(f"{name}-backward", backward, ("da",), (slope, *more), mistakes, cotangent="dy")


def _at(says: str, numbers: list[float], slope: Callable[[Any], Any], relative: float, look: str) -> Property:
    """A property at outputs y that are given, where the slope is known."""

    @st.composite
    def cases(draw: Draw) -> Case:
        return {"dy": draw(array((1, 2))), "y": np.array([[draw(st.sampled_from(numbers)) for _ in range(2)]])}

    def answer(c: Case) -> list[Answer]:
        value = c["dy"] * slope(c["y"])
        return [exactly(value, relative * np.abs(value))]

    return Property(says, cases(), answer, examples=20, look=look)


RELU = _activation("relu", (
    Mistake("the mask is missing, or asks whether y >= 0, which y always is: where y is 0 nothing passes",
            lambda dy, y: 1.0 * dy),
    Mistake("the mask asks whether dy > 0; it must ask whether y > 0", lambda dy, y: dy * (dy > 0)),
    Mistake("dy is multiplied by y; the slope is 1 where y > 0, however large y is", lambda dy, y: dy * y),
    Mistake("dy is clipped at 0: the slope depends on y and not on dy", lambda dy, y: np.maximum(dy, 0) * (y > 0)),
))  # fmt: skip
TANH = _activation("tanh", (
    Mistake("the slope is 1 - y^2, not 1 - y", lambda dy, y: dy * (1 - y)),
    Mistake("the slope is 1 - y^2, with a minus", lambda dy, y: dy * (1 + y * y)),
    Mistake("y is the output already: the tanh is taken twice", lambda dy, y: dy * (1 - np.tanh(y) ** 2)),
    Mistake("that is the slope of the sigmoid, y (1 - y)", lambda dy, y: dy * y * (1 - y)),
    Mistake("y^2 is all that is there: it must be taken from 1", lambda dy, y: dy * y * y),
))  # fmt: skip
SIGMOID = _activation("sigmoid", (
    Mistake("y is the output already: the sigmoid is taken twice", lambda dy, y: dy * (
        activations.sigmoid_forward(y) * (1 - activations.sigmoid_forward(y)))),
    Mistake("a factor 1 - y is missing", lambda dy, y: dy * y),
    Mistake("a factor y is missing", lambda dy, y: dy * (1 - y)),
    Mistake("that is the slope of the tanh, 1 - y^2", lambda dy, y: dy * (1 - y * y)),
))  # fmt: skip
SOFTPLUS = _activation("softplus", (
    Mistake("that is the sigmoid of y; the slope is the sigmoid of a, and y is the output",
            lambda dy, y: dy / (1 + np.exp(-y))),
    Mistake("that is e^-y; it must be taken from 1", lambda dy, y: dy * np.exp(-y)),
    Mistake("1 - e^-y loses its digits where y is small: see np.expm1", lambda dy, y: dy * (1 - np.exp(-y))),
    Mistake("the sign inside the exponential is wrong: e^y - 1", lambda dy, y: dy * np.expm1(y)),
    Mistake("the sign inside the exponential is wrong: 1 - e^-y, not 1 - e^y", lambda dy, y: -dy * np.expm1(y)),
), _at("a small y keeps its digits", [2.0**-k for k in range(20, 60, 5)], lambda y: -np.expm1(-y), 1e-12,
       "e^y is almost 1 here, and what is taken from it loses its digits: see np.expm1"))  # fmt: skip
ELU = _activation("elu", (
    Mistake("where y < 0 the slope is y + 1, not y: e^a = y + 1", lambda dy, y: dy * np.where(y > 0, 1, y)),
    Mistake("where y < 0 the slope is e^a, and not e^y: y is the output", lambda dy, y: dy * np.where(
        y > 0, 1, np.exp(y))),
    Mistake("e^a is y + 1, since y = e^a - 1; y - 1 has the wrong sign", lambda dy, y: dy * np.where(y > 0, 1, y - 1)),
    Mistake("where y > 0 the slope is 1", lambda dy, y: dy * (y + 1)),
    Mistake("that is the slope of the ReLU: where y < 0 it is y + 1", lambda dy, y: dy * (y > 0)),
))  # fmt: skip

# ---------------------------------------------------------------------------------------------------------- convolution


@st.composite
def _windows(draw: Draw) -> Case:
    """Images, a kernel, and a gradient for each of the two maps."""
    c, out = draw(sizes(2, 1, 3))
    k, stride, pad = draw(st.integers(2, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 1))
    h, w = draw(sizes(2, 3, 5))
    down, across = (convolution.output_size(size, k, stride, pad) for size in (h, w))
    return {
        "x": draw(array((1, h, w, c), -1, 1)), "W": draw(array((k, k, c, out), -1, 1)),
        "b": draw(array((out,), -1, 1)), "dy": draw(array((1, down, across, out), -1, 1)),
        "stride": stride, "pad": pad,
    }  # fmt: skip


def _conv2d_answer(c: Case) -> list[Answer]:
    f = lambda x, W, b: c["dy"] * convolution.conv2d_forward(x, W, b, c["stride"], c["pad"])
    return slopes(f, c["x"], c["W"], c["b"])


def _overwriting(rows: Any, shape: tuple[int, int], stride: int, pad: int) -> Any:
    """`fold` with = instead of +=."""
    n, down, across, kernel, _, c = rows.shape
    padded = np.zeros((n, shape[0] + 2 * pad, shape[1] + 2 * pad, c))
    for i in range(kernel):
        for j in range(kernel):
            padded[:, i : i + stride * down : stride, j : j + stride * across : stride] = rows[:, :, :, i, j]
    return padded[:, pad : pad + shape[0], pad : pad + shape[1]]


def _conv2d_overwriting(dy: Any, x: Any, W: Any, stride: int, pad: int) -> Any:
    rows = (dy.reshape(-1, dy.shape[-1]) @ W.reshape(-1, dy.shape[-1]).T).reshape(*dy.shape[:3], *W.shape[:3])
    return (_overwriting(rows, x.shape[1:3], stride, pad), *convolution.conv2d_backward(dy, x, W, stride, pad)[1:])


def _conv2d_mixed(dy: Any, x: Any, W: Any, stride: int, pad: int) -> Any:
    rows = (dy.reshape(-1, dy.shape[-1]) @ W.reshape(dy.shape[-1], -1)).reshape(*dy.shape[:3], *W.shape[:3])
    dx = convolution.fold(rows, x.shape[1:3], stride, pad)
    return (dx, *convolution.conv2d_backward(dy, x, W, stride, pad)[1:])


def _changed(backward: Callable[..., Any], *changes: Callable[[Any], Any]) -> Callable[..., Any]:
    """The results of `backward`, each changed."""
    return lambda *a, **k: tuple(f(r) for f, r in zip(changes, backward(*a, **k), strict=True))


_same = lambda r: r
_flipped = lambda r: r[::-1, ::-1].copy()
CONV2D_BACKWARD = FunctionTask(
    "conv2d-backward", convolution.conv2d_backward, ("dx", "dW", "db"),
    (Property("dx, dW and db are the slopes of sum(dy y) along x, W and b", _windows(), _conv2d_answer, examples=15),),
    (
        Mistake("windows overlap, and what they hand back to a pixel adds up: += and not =", _conv2d_overwriting),
        Mistake("the kernel is flipped for dx; fold puts each number back where it was copied from",
                lambda dy, x, W, stride, pad: convolution.conv2d_backward(dy, x, W[::-1, ::-1], stride, pad)),
        Mistake("dW is flipped: nothing in a cross-correlation is",
                _changed(convolution.conv2d_backward, _same, _flipped, _same)),
        Mistake("W is reshaped to (out, k k in), which mixes its numbers: reshape to (k k in, out), and then take .T",
                _conv2d_mixed),
        Mistake("the windows are transposed: rows are (batch, down, across, k down, k across, in)",
                lambda dy, x, W, stride, pad: convolution.conv2d_backward(dy, x, W.swapaxes(0, 1), stride, pad)),
        Mistake("db is a mean where a sum is meant: the bias serves every place of every image",
                lambda dy, x, W, stride, pad: (
                    *convolution.conv2d_backward(dy, x, W, stride, pad)[:2], dy.mean(axis=(0, 1, 2)))),
        Mistake("db belongs to one place only: the bias serves them all",
                lambda dy, x, W, stride, pad: (
                    *convolution.conv2d_backward(dy, x, W, stride, pad)[:2], dy[:, 0, 0].sum(axis=0))),
    ),
    cotangent="dy",
)  # fmt: skip


@st.composite
def _transposed_windows(draw: Draw) -> Case:
    c = draw(_windows())
    return {"x": c["dy"], "W": c["W"], "b": draw(array((c["W"].shape[2],), -1, 1)), "shape": c["x"].shape[1:3],
            "stride": c["stride"], "pad": c["pad"]}  # fmt: skip


def _conv_transpose2d_answer(c: Case) -> list[Answer]:
    """By its meaning: y is the slope of <x, conv2d(image)> along the image, which is linear; then the bias."""
    W, image = c["W"], np.zeros((1, *c["shape"], c["W"].shape[2]))
    none = np.zeros(W.shape[3])
    [answer] = slopes(lambda i: c["x"] * convolution.conv2d_forward(i, W, none, c["stride"], c["pad"]), image)
    return [Answer(answer.value + c["b"], answer.tolerance)]


CONV_TRANSPOSE2D_FORWARD = FunctionTask(
    "conv-transpose2d-forward", convolution.conv_transpose2d_forward, ("y",),
    (Property("without the bias it is the adjoint of conv2d: <x, conv2d(image)> = <y, image>",
              _transposed_windows(), _conv_transpose2d_answer, examples=20),),
    (
        Mistake("windows overlap, and what they give to a pixel adds up: += and not =",
                lambda x, W, b, shape, stride, pad: b + _overwriting(
                    (x.reshape(-1, x.shape[-1]) @ W.reshape(-1, x.shape[-1]).T).reshape(*x.shape[:3], *W.shape[:3]),
                    shape, stride, pad)),
        Mistake("the windows are transposed: rows are (batch, down, across, k down, k across, in)",
                lambda x, W, b, shape, stride, pad: convolution.conv_transpose2d_forward(
                    x, W.swapaxes(0, 1), b, shape, stride, pad)),
        Mistake("the bias is missing", lambda x, W, b, shape, stride, pad: convolution.conv_transpose2d_forward(
            x, W, 0 * b, shape, stride, pad)),
        Mistake("the kernel is flipped; fold puts each number back where it would have been copied from",
                lambda x, W, b, shape, stride, pad: convolution.conv_transpose2d_forward(
                    x, W[::-1, ::-1], b, shape, stride, pad)),
        Mistake("the bias is added to every patch, so once for each window over a pixel",
                lambda x, W, b, shape, stride, pad: convolution.fold(
                    (x.reshape(-1, x.shape[-1]) @ W.reshape(-1, x.shape[-1]).T).reshape(*x.shape[:3], *W.shape[:3]) + b,
                    shape, stride, pad)),
    ),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------------- normalization


@st.composite
def _batches(draw: Draw) -> Case:
    rows, columns = draw(st.integers(2, 5)), draw(st.integers(1, 3))
    ramp = 0.7 * np.arange(rows)[:, None]  # off the grid, so that no column is constant
    a, scale = draw(array((rows, columns))) + ramp, draw(array((columns,), off=1 / 16))
    _, h, _, v = normalization.batch_norm_forward(a, scale, np.zeros(columns))
    return {"dy": draw(array((rows, columns))), "h": h, "v": v, "scale": scale, "a": a}


def _batch_norm_answer(c: Case) -> list[Answer]:
    f = lambda a, scale, shift: c["dy"] * normalization.batch_norm_forward(a, scale, shift)[0]
    return slopes(f, c["a"], c["scale"], np.zeros_like(c["scale"]))


def _batch_norm(da: Callable[..., Any]) -> Callable[..., Any]:
    """A wrong da(dy, h, r, scale) beside the right dscale and dshift."""
    r = lambda v: 1 / np.sqrt(v + normalization.EPSILON)
    return lambda dy, h, v, scale: (da(dy, h, r(v), scale), (dy * h).sum(axis=0), dy.sum(axis=0))


BATCH_NORM_BACKWARD = FunctionTask(
    "batch-norm-backward", normalization.batch_norm_backward, ("da", "dscale", "dshift"),
    (Property("da, dscale and dshift are the slopes of sum(dy y) along a, scale and shift", _batches(),
              _batch_norm_answer, examples=30),),
    (
        Mistake("two paths are missing: the mean and the variance depend on every a as well",
                _batch_norm(lambda dy, h, r, scale: dy * scale * r)),
        Mistake("the path through the variance is missing: the term with h mean(dh h)",
                _batch_norm(lambda dy, h, r, scale: scale * r * (dy - dy.mean(axis=0)))),
        Mistake("the path through the mean is missing: the term with mean(dh)",
                _batch_norm(lambda dy, h, r, scale: scale * r * (dy - h * (dy * h).mean(axis=0)))),
        Mistake("the scale is missing: dh = dy scale",
                _batch_norm(lambda dy, h, r, scale: r * (dy - dy.mean(axis=0) - h * (dy * h).mean(axis=0)))),
        Mistake("the path through the variance has the wrong sign: a variance that grows makes r smaller",
                _batch_norm(lambda dy, h, r, scale: scale * r * (dy - dy.mean(axis=0) + h * (dy * h).mean(axis=0)))),
        Mistake("the factor r = 1 / sqrt(v + EPSILON) is missing",
                _batch_norm(lambda dy, h, r, scale: scale * (dy - dy.mean(axis=0) - h * (dy * h).mean(axis=0)))),
        Mistake("EPSILON is missing in r = 1 / sqrt(v + EPSILON)", lambda dy, h, v, scale: (
            scale / np.sqrt(v) * (dy - dy.mean(axis=0) - h * (dy * h).mean(axis=0)), (dy * h).sum(axis=0),
            dy.sum(axis=0))),
        Mistake("mean(dh h) is multiplied by h, row by row: that factor is missing",
                _batch_norm(lambda dy, h, r, scale: scale * r * (dy - dy.mean(axis=0) - (dy * h).mean(axis=0)))),
        Mistake("that is made of dh = dy scale; scale and shift get theirs from dy itself", lambda dy, h, v, scale: (
            normalization.batch_norm_backward(dy, h, v, scale)[0], (dy * scale * h).sum(axis=0),
            (dy * scale).sum(axis=0))),
        Mistake("sums where means are meant, inside da",
                _batch_norm(lambda dy, h, r, scale: scale * r * (dy - dy.sum(axis=0) - h * (dy * h).sum(axis=0)))),
    ),
    cotangent="dy",
)  # fmt: skip

TASKS = (
    DENSE_FORWARD, DENSE_BACKWARD, RELU, TANH, SIGMOID, SOFTPLUS, ELU, CONV2D_BACKWARD, CONV_TRANSPOSE2D_FORWARD,
    BATCH_NORM_BACKWARD,
)  # fmt: skip
