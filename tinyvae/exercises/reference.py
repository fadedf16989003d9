"""The properties that the second kind of exercise asks for, each with the reason for its tolerance.

Each gets `implementation`, the function under test, and inputs that the judge draws; it returns nothing, and raises
AssertionError where the property does not hold.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array
from tinyvae.checking.finite_differences import gradcheck
from tinyvae.ops.convolution import output_size, patches
from tinyvae.ops.normalization import batch_norm_forward

Function = Callable[..., Any]
ATOL = 1e-9  # inputs are of size 1 and sums short: rounding leaves a millionth of this


def dense_adjoint(implementation: Function, dy: Array, x: Array, W: Array) -> None:
    """The backward pass of a dense layer is the adjoint of each linear part: <J v, dy> = <v, J^T dy>.

    implementation is dense_backward: (dy, x, W) -> dx, dW, db. Without the bias, x W is linear in x and in W.

    dy (batch, out), x (batch, in), W (in, out).
    """
    dx, dW, db = implementation(dy, x, W)
    whole = float((dy * (x @ W)).sum())
    np.testing.assert_allclose((dx * x).sum(), whole, atol=ATOL)
    np.testing.assert_allclose((dW * W).sum(), whole, atol=ATOL)
    b = np.arange(1.0, 1 + len(db))  # any bias: y = b in every row is linear in b
    np.testing.assert_allclose(db @ b, (dy * b).sum(), atol=ATOL)


def batch_gradient_adds(implementation: Function, dy: Array, x: Array, W: Array) -> None:
    """The gradient of a batch is the sum of the gradients of its rows, each taken alone.

    implementation is dense_backward: (dy, x, W) -> dx, dW, db. The rows of dx are those of the rows.

    dy (batch, out), x (batch, in), W (in, out).
    """
    dx, dW, db = implementation(dy, x, W)
    alone = [implementation(dy[i : i + 1], x[i : i + 1], W) for i in range(len(x))]
    np.testing.assert_allclose(dx, np.concatenate([a[0] for a in alone]), atol=ATOL)
    np.testing.assert_allclose(dW, sum(a[1] for a in alone), atol=ATOL)
    np.testing.assert_allclose(db, sum(a[2] for a in alone), atol=ATOL)


def kl_is_never_negative(implementation: Function, mu: Array, logvar: Array) -> None:
    """KL >= 0 everywhere, 0 at the standard normal, and more than 0 anywhere else.

    implementation is kl_forward: (mu, logvar) -> the KL of each row and dimension. Many of the drawn numbers are 0.

    mu, logvar (batch, latent): multiples of 1/8.
    """
    kl = implementation(mu, logvar)
    at_prior = (mu == 0) & (logvar == 0)
    assert np.all(np.abs(kl[at_prior]) < ATOL)
    assert np.all(kl[~at_prior] > 1e-4)  # at mu = 1/8 it is 0.008, at logvar = 1/8 it is 0.004


def kl_adds_up(implementation: Function, mu: Array, logvar: Array) -> None:
    """The KL of a diagonal Gaussian adds over dimensions: those of one part know nothing of the others.

    implementation is kl_forward: (mu, logvar) -> (batch, latent). What it says of the first dimensions alone, and of
    the others alone, is what it says of them together.

    mu, logvar (batch, latent), latent at least 2.
    """
    whole = implementation(mu, logvar)
    assert whole.shape == mu.shape
    for part in (slice(0, 1), slice(1, None)):
        np.testing.assert_allclose(implementation(mu[:, part], logvar[:, part]), whole[:, part], atol=ATOL)


def opposite_noise(implementation: Function, mu: Array, logvar: Array, eps: Array) -> None:
    """Opposite noise gives samples that are symmetric about mu: z(eps) + z(-eps) = 2 mu.

    implementation is reparameterize_forward: (mu, logvar, eps) -> z.

    mu, logvar, eps (batch, latent).
    """
    z, mirrored = implementation(mu, logvar, eps), implementation(mu, logvar, -eps)
    np.testing.assert_allclose(z + mirrored, 2 * mu, atol=ATOL)


def noise_scale(implementation: Function, mu: Array, logvar: Array, eps: Array) -> None:
    """The noise is scaled by the standard deviation: z is mu, and from there eps times e^(logvar / 2).

    A gradient check cannot see this: a backward pass that matches the wrong scale passes it. Say it of z itself.

    implementation is reparameterize_forward: (mu, logvar, eps) -> z.

    mu, logvar, eps (batch, latent).
    """
    step = implementation(mu, logvar, np.ones_like(eps)) - mu
    np.testing.assert_allclose(step**2, np.exp(logvar), atol=ATOL)  # its square is the variance
    assert np.all(step > 0)
    np.testing.assert_allclose(implementation(mu, logvar, eps) - mu, eps * step, atol=ATOL)


def bernoulli_extremes(implementation: Function, x: Array, size: float) -> None:
    """The Bernoulli loss is finite, and right, at logits as large as 10,000.

    With the logit +size and x = 1, or -size and x = 0, the model is sure and right: the loss is all but 0. Where it is
    sure and wrong, the loss is all but `size`.

    implementation is bernoulli_nll_forward: (logits, x) -> (batch,), a sum over each row.

    x (batch, data), each 0 or 1; size, a number from 50 to 10,000.
    """
    right = size * (2 * x - 1)
    data = x.shape[1]
    np.testing.assert_allclose(implementation(right, x), np.zeros(len(x)), atol=ATOL)  # e^-50 is 2e-22
    np.testing.assert_allclose(implementation(-right, x), np.full(len(x), size * data), rtol=1e-12)


def adam_first_step(implementation: Function, p: Array, g: Array, lr: float) -> None:
    """Adam's first step from m = v = 0 is -lr g / (|g| + epsilon), with epsilon = 1e-8.

    implementation is adam_step: (p, g, m, v, t, lr) -> p, m, v; t counts from 1.

    p, g (size,), many gradients as small as 1e-8; lr, a number.
    """
    zero = np.zeros_like(p)
    new, _, _ = implementation(p, g, zero, zero, 1, lr)
    # 1 - 0.999 has lost three digits
    np.testing.assert_allclose(new - p, -lr * g / (np.abs(g) + 1e-8), atol=1e-10)


def adam_ignores_scale(implementation: Function, p: Array, g: Array, k: int) -> None:
    """Gradients and epsilon times 2^k give the same update, bit for bit: Adam has no idea of the loss's unit.

    implementation is adam_step: (p, g, m, v, t, lr, beta1, beta2, epsilon) -> p, m, v. Begin at m = v = 0 and take
    two steps at least. m is then 2^k times what it was, and v is 4^k times.

    p, g (size,); k, a whole number from -8 to 8, not 0.
    """
    plain = [p, np.zeros_like(p), np.zeros_like(p)]
    scaled = [p, np.zeros_like(p), np.zeros_like(p)]
    for t in (1, 2):
        plain = list(implementation(plain[0], g, *plain[1:], t, 0.125, 0.9, 0.999, 1e-3))
        scaled = list(implementation(scaled[0], g * 2.0**k, *scaled[1:], t, 0.125, 0.9, 0.999, 1e-3 * 2.0**k))
    assert np.array_equal(plain[0], scaled[0])  # powers of two round nothing
    assert np.array_equal(plain[1] * 2.0**k, scaled[1])
    assert np.array_equal(plain[2] * 4.0**k, scaled[2])


def bound_leave_one_out(implementation: Function, log_w: Array, c: float) -> None:
    """The bound from K draws is at least the mean of the K bounds that each leave one draw out, on the same draws.

    It is also a mean: of equal weights it is that weight, it lies between the smallest and the largest, and adding c
    to each log-weight adds c to it. Burda et al. 2016, theorem 1.

    implementation is bound_forward: log_w (batch, K) -> (batch,).

    log_w (batch, K), K at least 2; c, a number.
    """
    bound = implementation(log_w)
    without = [implementation(np.delete(log_w, k, axis=1)) for k in range(log_w.shape[1])]
    assert np.all(bound >= np.mean(without, axis=0) - ATOL)
    assert np.all((bound >= log_w.min(axis=1) - ATOL) & (bound <= log_w.max(axis=1) + ATOL))
    np.testing.assert_allclose(implementation(np.full_like(log_w, c)), np.full(len(log_w), c), atol=ATOL)
    np.testing.assert_allclose(implementation(log_w + c), bound + c, atol=ATOL)


def fold_adjoint(implementation: Function, x: Array, kernel: int, stride: int, pad: int, seed: int) -> None:
    """fold is the adjoint of patches: <patches(x), rows> = <x, fold(rows)> for every x and every rows.

    implementation is fold: (rows, (height, width), stride, pad) -> an image. tinyvae.ops.convolution.patches(x, kernel,
    stride, pad) is right; the seed is for rows that you draw.

    x (batch, height, width, channels).
    """
    h, w = (output_size(size, kernel, stride, pad) for size in x.shape[1:3])
    rows = np.random.default_rng(seed).standard_normal((x.shape[0], h, w, kernel, kernel, x.shape[3]))
    left = math.fsum((patches(x, kernel, stride, pad) * rows).ravel())
    right = math.fsum((x * implementation(rows, x.shape[1:3], stride, pad)).ravel())
    np.testing.assert_allclose(left, right, atol=ATOL)


def random_cotangent(implementation: Function, a: Array, scale: Array, seed: int) -> None:
    """da of batch normalization is the slope of sum(dy y) along a, for a dy that is drawn.

    Not with dy = 1: a column of y always adds up to the same number, so that slope is 0, and much that is wrong is 0
    there too.

    implementation is batch_norm_backward: (dy, h, v, scale) -> da, dscale, dshift. tinyvae.gradcheck and
    tinyvae.ops.normalization.batch_norm_forward(a, scale, shift) -> y, h, m, v are right; the seed is for dy.

    a (rows, columns), scale (columns,).
    """
    shift = np.zeros_like(scale)
    dy = np.random.default_rng(seed).standard_normal(a.shape)
    _, h, _, v = batch_norm_forward(a, scale, shift)
    da, dscale, _ = implementation(dy, h, v, scale)
    params = {"a": a, "scale": scale}
    f = lambda p: dy * batch_norm_forward(p["a"], p["scale"], shift)[0]
    assert gradcheck(f, params, {"a": da, "scale": dscale})
