"""Exercise directional-check (medium): is a gradient right? an error, and a tolerance that is derived.

Write the function, then: python -m tinyvae exercises check directional-check
The tutorial is tutorials/07_checking_gradients.md; hints: python -m tinyvae exercises hint directional-check
"""

from collections.abc import Callable

import numpy as np

from tinyvae.backend import Array

EXERCISE = "directional-check"


def directional_check(terms: Callable[[Array], Array], p: Array, g: Array, u: Array, h: float) -> tuple[float, float]:
    """How far the gradient g is from the slope of the loss along u, and how far it may be.

    The loss is L(p) = sum of terms(p), D(h) = (L(p + h u) - L(p - h u)) / 2h, S = sum of |terms(p)|, and eps the
    distance from 1 to the next float64.

    error = |<g, u> - D(h)|
    tolerance = 30 eps S / h + (2/3) |D(2h) - D(h)|

    p, g, u of one shape -> error, tolerance.
    """
    raise NotImplementedError
