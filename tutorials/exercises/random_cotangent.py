"""Exercise random-cotangent (hard): a property: a gradient check with a cotangent that is drawn.

Assert what must hold of `implementation`, then: python -m tinyvae exercises check random-cotangent
The tutorial is tutorials/07_checking_gradients.md; hints: python -m tinyvae exercises hint random-cotangent
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae import gradcheck
from tinyvae.backend import Array
from tinyvae.ops.normalization import batch_norm_forward

EXERCISE = "random-cotangent"


def random_cotangent(implementation: Callable[..., Any], a: Array, scale: Array, seed: int) -> None:
    """da of batch normalization is the slope of sum(dy y) along a, for a dy that is drawn.

    Not with dy = 1: a column of y always adds up to the same number, so that slope is 0, and much that is wrong is 0
    there too.

    implementation is batch_norm_backward: (dy, h, v, scale) -> da, dscale, dshift. tinyvae.gradcheck and
    tinyvae.ops.normalization.batch_norm_forward(a, scale, shift) -> y, h, m, v are right; the seed is for dy.

    a (rows, columns), scale (columns,).
    """
    raise NotImplementedError
