"""Exercise adam-ignores-scale (hard): a property: Adam does not know the unit of the loss.

Assert what must hold of `implementation`, then: python -m tinyvae exercises check adam-ignores-scale
The tutorial is tutorials/08_adam.md; hints: python -m tinyvae exercises hint adam-ignores-scale
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array

EXERCISE = "adam-ignores-scale"


def adam_ignores_scale(implementation: Callable[..., Any], p: Array, g: Array, k: int) -> None:
    """Gradients and epsilon times 2^k give the same update, bit for bit: Adam has no idea of the loss's unit.

    implementation is adam_step: (p, g, m, v, t, lr, beta1, beta2, epsilon) -> p, m, v. Begin at m = v = 0 and take
    two steps at least. m is then 2^k times what it was, and v is 4^k times.

    p, g (size,); k, a whole number from -8 to 8, not 0.
    """
    raise NotImplementedError
