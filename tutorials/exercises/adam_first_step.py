"""Exercise adam-first-step (easy): a property: Adam's first step.

Assert what must hold of `implementation`, then: python -m tinyvae exercises check adam-first-step
The tutorial is tutorials/08_adam.md; hints: python -m tinyvae exercises hint adam-first-step
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array

EXERCISE = "adam-first-step"


def adam_first_step(implementation: Callable[..., Any], p: Array, g: Array, lr: float) -> None:
    """Adam's first step from m = v = 0 is -lr g / (|g| + epsilon), with epsilon = 1e-8.

    implementation is adam_step: (p, g, m, v, t, lr) -> p, m, v; t counts from 1.

    p, g (size,), many gradients as small as 1e-8; lr, a number.
    """
    raise NotImplementedError
