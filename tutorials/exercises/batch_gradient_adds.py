"""Exercise batch-gradient-adds (medium): a property: the gradient of a batch is the sum over its rows.

Assert what must hold of `implementation`, then: python -m tinyvae exercises check batch-gradient-adds
The tutorial is tutorials/02_dense_layer.md; hints: python -m tinyvae exercises hint batch-gradient-adds
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array

EXERCISE = "batch-gradient-adds"


def batch_gradient_adds(implementation: Callable[..., Any], dy: Array, x: Array, W: Array) -> None:
    """The gradient of a batch is the sum of the gradients of its rows, each taken alone.

    implementation is dense_backward: (dy, x, W) -> dx, dW, db. The rows of dx are those of the rows.

    dy (batch, out), x (batch, in), W (in, out).
    """
    raise NotImplementedError
