"""Exercise bound-leave-one-out (hard): a property: the importance-weighted bound against leave-one-out.

Assert what must hold of `implementation`, then: python -m tinyvae exercises check bound-leave-one-out
The tutorial is tutorials/09_training_and_looking.md; hints: python -m tinyvae exercises hint bound-leave-one-out
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array

EXERCISE = "bound-leave-one-out"


def bound_leave_one_out(implementation: Callable[..., Any], log_w: Array, c: float) -> None:
    """The bound from K draws is at least the mean of the K bounds that each leave one draw out, on the same draws.

    It is also a mean: of equal weights it is that weight, it lies between the smallest and the largest, and adding c
    to each log-weight adds c to it. Burda et al. 2016, theorem 1.

    implementation is bound_forward: log_w (batch, K) -> (batch,).

    log_w (batch, K), K at least 2; c, a number.
    """
    raise NotImplementedError
