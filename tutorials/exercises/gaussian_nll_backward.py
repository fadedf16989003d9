"""Exercise gaussian-nll-backward (medium): the Gaussian loss, backward.

Write the function, then: python -m tinyvae exercises check gaussian-nll-backward
The tutorial is tutorials/03_likelihoods.md; hints: python -m tinyvae exercises hint gaussian-nll-backward

Forward: nll_n = sum over j of ((x - m)^2 e^-s + s + log 2 pi) / 2, with m = mean and s = logvar = log sigma^2.
dNAME is the gradient of the loss with respect to NAME.
dnll (batch, 1) or a number; mean, x (batch, data); logvar (batch, data) or (1,) -> dmean, dlogvar (batch, data).
Whoever shares one logvar adds up; here dlogvar has a number for each x.
"""

import numpy as np

EXERCISE = "gaussian-nll-backward"


def gaussian_nll_backward(dnll, mean, logvar, x):
    """dmean and dlogvar. A logvar that several x share gets the sum of its dlogvar."""
    raise NotImplementedError
