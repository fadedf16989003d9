"""Exercise dense-adjoint (medium): a property: the backward pass is the adjoint of the forward pass.

Assert what must hold of `implementation`, then: python -m tinyvae exercises check dense-adjoint
The tutorial is tutorials/02_dense_layer.md; hints: python -m tinyvae exercises hint dense-adjoint
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array

EXERCISE = "dense-adjoint"


def dense_adjoint(implementation: Callable[..., Any], dy: Array, x: Array, W: Array) -> None:
    """The backward pass of a dense layer is the adjoint of each linear part: <J v, dy> = <v, J^T dy>.

    implementation is dense_backward: (dy, x, W) -> dx, dW, db. Without the bias, x W is linear in x and in W.

    dy (batch, out), x (batch, in), W (in, out).
    """
    raise NotImplementedError
