"""Exercise central-difference (easy): the slope along a direction, by a central difference.

Write the function, then: python -m tinyvae exercises check central-difference
The tutorial is tutorials/07_checking_gradients.md; hints: python -m tinyvae exercises hint central-difference
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array

EXERCISE = "central-difference"


def central_difference(f: Callable[[Array], Any], p: Array, u: Array, h: float) -> float:
    """The slope of f at p along u: ?, wrong by no more than order h^2.

    f maps an array to a number; p, u of one shape -> a number. p is left as it is.
    """
    raise NotImplementedError
