"""Exercise bernoulli-extremes (medium): a property: the loss is finite, and right, at huge logits.

Assert what must hold of `implementation`, then: python -m tinyvae exercises check bernoulli-extremes
The tutorial is tutorials/03_likelihoods.md; hints: python -m tinyvae exercises hint bernoulli-extremes
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array

EXERCISE = "bernoulli-extremes"


def bernoulli_extremes(implementation: Callable[..., Any], x: Array, size: float) -> None:
    """The Bernoulli loss is finite, and right, at logits as large as 10,000.

    With the logit +size and x = 1, or -size and x = 0, the model is sure and right: the loss is all but 0. Where it is
    sure and wrong, the loss is all but `size`.

    implementation is bernoulli_nll_forward: (logits, x) -> (batch,), a sum over each row.

    x (batch, data), each 0 or 1; size, a number from 50 to 10,000.
    """
    raise NotImplementedError
