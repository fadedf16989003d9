"""What a part of your own must keep: the very checks that the package's own parts pass.

    from tinyvae.checking.contracts import check_activation, check_layer, check_likelihood, check_objective

    check_layer(Residual(4, 3))

Each returns nothing, or raises AssertionError or ValueError with one line: what is broken, where, and by how much.
"""

from tinyvae.checking.activations import check_activation as check_activation
from tinyvae.checking.layers import check_layer as check_layer
from tinyvae.checking.likelihoods import check_likelihood as check_likelihood
from tinyvae.checking.objectives import check_objective as check_objective
