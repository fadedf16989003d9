"""Exercise gaussian-nll-backward (medium): the Gaussian loss, backward.

Write the function, then: python -m tinyvae exercises check gaussian-nll-backward
The tutorial is tutorials/03_likelihoods.md; hints: python -m tinyvae exercises hint gaussian-nll-backward

Forward: nll_n = sum over j of ((x - m)^2 e^-s + s + log 2 pi) / 2, with m = mean and s = logvar = log sigma^2.
dNAME is the gradient of the loss with respect to NAME.
"""

import numpy as np

from tinyvae.backend import Array

EXERCISE = "gaussian-nll-backward"


def gaussian_nll_backward(dnll: Array | float, mean: Array, logvar: Array, x: Array) -> tuple[Array, Array]:
    """dmean = ?, dlogvar = ?.

    dnll (batch, 1) or a number; mean, x (batch, data); logvar (batch, data) or (1,) -> dmean, dlogvar (batch, data).
    A logvar that is shared by all outputs gets the sum of dlogvar.
    """
    raise NotImplementedError
