"""Exercise bernoulli-nll-backward (easy): the Bernoulli loss, backward.

Write the function, then: python -m tinyvae exercises check bernoulli-nll-backward
The tutorial is tutorials/03_likelihoods.md; hints: python -m tinyvae exercises hint bernoulli-nll-backward

Forward: nll_n = sum over j of softplus(l_nj) - x_nj l_nj, with softplus(l) = log(1 + e^l).
dNAME is the gradient of the loss with respect to NAME, in its shape.
dnll (batch, 1) or a number; logits, x (batch, data) -> dlogits (batch, data).
"""

import numpy as np

EXERCISE = "bernoulli-nll-backward"


def bernoulli_nll_backward(dnll, logits, x):
    """dlogits = ?."""
    raise NotImplementedError
