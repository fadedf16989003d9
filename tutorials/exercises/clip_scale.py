"""Exercise clip-scale (easy): the factor that clips a gradient by its norm.

Write the function, then: python -m tinyvae exercises check clip-scale
The tutorial is tutorials/08_adam.md; hints: python -m tinyvae exercises hint clip-scale
"""

import numpy as np

from tinyvae.backend import Array

EXERCISE = "clip-scale"


def clip_scale(norm2: Array, max_norm: float) -> Array:
    """?: the factor that shortens a gradient of squared norm `norm2` to at most max_norm."""
    raise NotImplementedError
