"""Exercise bernoulli-nll (medium): the Bernoulli loss, stable at any logit.

Write the function, then: python -m tinyvae exercises check bernoulli-nll
The tutorial is tutorials/03_likelihoods.md; hints: python -m tinyvae exercises hint bernoulli-nll

Of one dimension: -x log p - (1 - x) log(1 - p), with p = 1 / (1 + e^-l) and the logit l.
"""

import numpy as np

from tinyvae.backend import Array

EXERCISE = "bernoulli-nll"


def bernoulli_nll_forward(logits: Array, x: Array) -> Array:
    """nll of each row: logits, x (batch, data), x in [0, 1] -> (batch,)."""
    raise NotImplementedError
