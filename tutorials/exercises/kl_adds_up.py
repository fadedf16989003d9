"""Exercise kl-adds-up (easy): a property: the KL adds over dimensions.

Assert what must hold of `implementation`, then: python -m tinyvae exercises check kl-adds-up
The tutorial is tutorials/04_gaussian_kl.md; hints: python -m tinyvae exercises hint kl-adds-up
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array

EXERCISE = "kl-adds-up"


def kl_adds_up(implementation: Callable[..., Any], mu: Array, logvar: Array) -> None:
    """The KL of a diagonal Gaussian adds over dimensions: those of one part know nothing of the others.

    implementation is kl_forward: (mu, logvar) -> (batch, latent). What it says of the first dimensions alone, and of
    the others alone, is what it says of them together.

    mu, logvar (batch, latent), latent at least 2.
    """
    raise NotImplementedError
