"""The dense layer: every output is a weighted sum of every input, plus a bias.

forward                         backward, given dy = dL/dy
y_nj = sum_i x_ni W_ij + b_j    dL/dx_ni = sum_j dy_nj W_ij        (y_nj holds x_ni with weight W_ij)
                                dL/dW_ij = sum_n x_ni dy_nj        (W_ij serves every row n, so the rows add up)
                                dL/db_j  = sum_n dy_nj
"""

from tinyvae.backend import Array, array_module


def dense_forward(x: Array, W: Array, b: Array) -> Array:
    """y = x W + b.  x (batch, in), W (in, out), b (out,) -> y (batch, out)."""
    array_module(x, W, b)
    return x @ W + b  # (batch, out)


def dense_backward(dy: Array, x: Array, W: Array) -> tuple[Array, Array, Array]:
    """dx = dy W^T, dW = x^T dy, db = column sums of dy.

    dy (batch, out), x (batch, in), W (in, out) -> dx (batch, in), dW (in, out), db (out,).
    """
    array_module(dy, x, W)
    dx = dy @ W.T  # (batch, in)
    dW = x.T @ dy  # (in, out)
    db = dy.sum(axis=0)  # (out,)
    return dx, dW, db
