"""Convolution and transposed convolution: one linear map and its adjoint, as patches and a matrix product.

Images are (batch, height, width, channels). A window of k x k pixels slides over the image, padded by `pad` zeros on
each side, in steps of `stride`; what it covers at one place is a patch, a row of k k channels numbers. So

    conv2d            y = patches(x) W + b            patches: image -> rows (batch, places, k k in)
    conv_transpose2d  y = fold(x W^T) + b             fold: rows -> image, overlapping patches added

`fold` is the adjoint of `patches` (each number is handed back to the pixel it was copied from), and so one convolution
is the other's adjoint: with the same W, <conv2d(x), y> = <x, conv_transpose2d(y)>, biases aside. Each backward pass is
then made of the other's forward pass:

    conv2d:            dx = fold(dy W^T)        dW = sum patches(x)^T dy        db = sum dy
    conv_transpose2d:  dx = patches(dy) W       dW = sum patches(dy)^T x        db = sum dy

where the sums run over the images and the places of the window. W (k, k, in, out) is always the convolution's: it maps
`in` channels to `out`, and the transposed convolution, `out` channels to `in`.

Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning". What deep learning calls convolution does
not flip W: it is a cross-correlation.
"""

from tinyvae.backend import Array, array_module


def output_size(size: int, kernel: int, stride: int, pad: int) -> int:
    """At how many places a window of `kernel` fits along `size` pixels: floor((size + 2 pad - kernel) / stride) + 1."""
    return (size + 2 * pad - kernel) // stride + 1


def patches(x: Array, kernel: int, stride: int, pad: int) -> Array:
    """What the window covers at each place, as rows.

    x (batch, height, width, channels) -> (batch, places down, places across, kernel, kernel, channels).
    """
    xp = array_module(x)
    n, h, w, c = x.shape
    down, across = output_size(h, kernel, stride, pad), output_size(w, kernel, stride, pad)
    padded = xp.zeros((n, h + 2 * pad, w + 2 * pad, c), dtype=x.dtype)
    padded[:, pad : pad + h, pad : pad + w] = x
    rows = xp.empty((n, down, across, kernel, kernel, c), dtype=x.dtype)
    for i in range(kernel):  # the pixel at (i, j) of every window, all windows at once
        for j in range(kernel):
            rows[:, :, :, i, j] = padded[:, i : i + stride * down : stride, j : j + stride * across : stride]
    return rows


def fold(rows: Array, shape: tuple[int, int], stride: int, pad: int) -> Array:
    """The adjoint of `patches`: each number is added to the pixel that `patches` would have copied it from.

    rows (batch, places down, places across, kernel, kernel, channels), shape = (height, width)
    -> (batch, height, width, channels).
    """
    xp = array_module(rows)
    n, down, across, kernel, _, c = rows.shape
    h, w = shape
    padded = xp.zeros((n, h + 2 * pad, w + 2 * pad, c), dtype=rows.dtype)
    for i in range(kernel):
        for j in range(kernel):
            padded[:, i : i + stride * down : stride, j : j + stride * across : stride] += rows[:, :, :, i, j]
    return padded[:, pad : pad + h, pad : pad + w]


def conv2d_forward(x: Array, W: Array, b: Array, stride: int, pad: int) -> Array:
    """y = patches(x) W + b.

    x (batch, height, width, in), W (kernel, kernel, in, out), b (out,) -> y (batch, places down, places across, out).
    """
    array_module(x, W, b)
    k, _, _, out = W.shape
    rows = patches(x, k, stride, pad)  # (batch, down, across, k, k, in)
    y = rows.reshape(-1, W.size // out) @ W.reshape(-1, out) + b  # (batch * places, out)
    return y.reshape(*rows.shape[:3], out)


def conv2d_backward(dy: Array, x: Array, W: Array, stride: int, pad: int) -> tuple[Array, Array, Array]:
    """dx = fold(dy W^T), dW = patches(x)^T dy, db = sum of dy.

    dy (batch, places down, places across, out), x and W as in the forward -> dx, dW, db, as x, W and b.
    """
    array_module(dy, x, W)
    k, _, _, out = W.shape
    rows = patches(x, k, stride, pad)  # (batch, down, across, k, k, in)
    dy2 = dy.reshape(-1, out)  # (batch * places, out)
    dW = (rows.reshape(-1, W.size // out).T @ dy2).reshape(W.shape)  # (k, k, in, out)
    drows = (dy2 @ W.reshape(-1, out).T).reshape(rows.shape)  # (batch, down, across, k, k, in)
    dx = fold(drows, x.shape[1:3], stride, pad)  # (batch, height, width, in)
    return dx, dW, dy2.sum(axis=0)


def conv_transpose2d_forward(x: Array, W: Array, b: Array, shape: tuple[int, int], stride: int, pad: int) -> Array:
    """y = fold(x W^T) + b: the adjoint of the convolution by W, of images of `shape` = (height, width).

    x (batch, places down, places across, out), W (kernel, kernel, in, out), b (in,) -> y (batch, height, width, in).
    `shape` must be one from which the window has just these places: where the stride leaves a remainder there are
    several.
    """
    array_module(x, W, b)
    k, _, channels, out = W.shape
    rows = x.reshape(-1, out) @ W.reshape(-1, out).T  # (batch * places, k k in)
    return fold(rows.reshape(*x.shape[:3], k, k, channels), shape, stride, pad) + b


def conv_transpose2d_backward(dy: Array, x: Array, W: Array, stride: int, pad: int) -> tuple[Array, Array, Array]:
    """dx = patches(dy) W, dW = patches(dy)^T x, db = sum of dy.

    dy (batch, height, width, in), x and W as in the forward -> dx, dW, db, as x, W and b.
    """
    array_module(dy, x, W)
    k, _, channels, out = W.shape
    drows = patches(dy, k, stride, pad).reshape(-1, W.size // out)  # (batch * places, k k in)
    dx = (drows @ W.reshape(-1, out)).reshape(x.shape)  # (batch, down, across, out)
    dW = (drows.T @ x.reshape(-1, out)).reshape(W.shape)  # (k, k, in, out)
    return dx, dW, dy.reshape(-1, channels).sum(axis=0)
