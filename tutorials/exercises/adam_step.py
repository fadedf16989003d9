"""Exercise adam-step (medium): one step of Adam.

Write the function, then: python -m tinyvae exercises check adam-step
The tutorial is tutorials/08_adam.md; hints: python -m tinyvae exercises hint adam-step
"""

import numpy as np

from tinyvae.backend import Array

EXERCISE = "adam-step"


def adam_step(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    t: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> tuple[Array, Array, Array]:
    """One step of Adam; t counts from 1. p, g, m, v of one shape -> the new p, m, v."""
    raise NotImplementedError
