"""Exercise noise-scale (medium): a property that a gradient check cannot see: sigma, not sigma^2.

Assert what must hold of `implementation`, then: python -m tinyvae exercises check noise-scale
The tutorial is tutorials/11_museum_of_wrong_vaes.md; hints: python -m tinyvae exercises hint noise-scale
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array

EXERCISE = "noise-scale"


def noise_scale(implementation: Callable[..., Any], mu: Array, logvar: Array, eps: Array) -> None:
    """The noise is scaled by the standard deviation: z is mu, and from there eps times e^(logvar / 2).

    A gradient check cannot see this: a backward pass that matches the wrong scale passes it. Say it of z itself.

    implementation is reparameterize_forward: (mu, logvar, eps) -> z.

    mu, logvar, eps (batch, latent).
    """
    raise NotImplementedError
