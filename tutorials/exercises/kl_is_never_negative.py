"""Exercise kl-is-never-negative (easy): a property: KL >= 0, and 0 only at the prior.

Assert what must hold of `implementation`, then: python -m tinyvae exercises check kl-is-never-negative
The tutorial is tutorials/10_property_based_testing.md; hints: python -m tinyvae exercises hint kl-is-never-negative
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array

EXERCISE = "kl-is-never-negative"


def kl_is_never_negative(implementation: Callable[..., Any], mu: Array, logvar: Array) -> None:
    """KL >= 0 everywhere, 0 at the standard normal, and more than 0 anywhere else.

    implementation is kl_forward: (mu, logvar) -> the KL of each row and dimension. Many of the drawn numbers are 0.

    mu, logvar (batch, latent): multiples of 1/8.
    """
    raise NotImplementedError
