"""Exercise opposite-noise (easy): a property: opposite noise, symmetric samples.

Assert what must hold of `implementation`, then: python -m tinyvae exercises check opposite-noise
The tutorial is tutorials/10_property_based_testing.md; hints: python -m tinyvae exercises hint opposite-noise
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array

EXERCISE = "opposite-noise"


def opposite_noise(implementation: Callable[..., Any], mu: Array, logvar: Array, eps: Array) -> None:
    """Opposite noise gives samples that are symmetric about mu: z(eps) + z(-eps) = 2 mu.

    implementation is reparameterize_forward: (mu, logvar, eps) -> z.

    mu, logvar, eps (batch, latent).
    """
    raise NotImplementedError
