"""An activation of one's own: softsign (Turian et al. 2009), y = a / (1 + |a|), which saturates slower than tanh.

dy/da = 1 / (1 + |a|)^2 = (1 - |y|)^2        since 1 - |y| = 1 / (1 + |a|)
"""

import numpy as np

import tinyvae
from tinyvae.checking.contracts import check_activation
from tinyvae.formula import backward_of, formula
from tinyvae.layers import Dense
from tinyvae.ops.activations import Activation


@formula
def softsign_forward(a):
    """y = a / (1 + |a|)."""
    return a / (1 + abs(a))


@backward_of(softsign_forward, "a")
def softsign_backward(dy, y):
    """da = dy (1 - |y|)^2."""
    return dy * (1 - abs(y)) * (1 - abs(y))


SOFTSIGN = Activation("softsign", softsign_forward, softsign_backward)

if __name__ == "__main__":
    check_activation(softsign_forward, softsign_backward)
    model = tinyvae.VAE(
        encoder=[Dense(64, 32, SOFTSIGN), Dense(32, 2 * 4, gain=0.1)],
        decoder=[Dense(4, 32, SOFTSIGN), Dense(32, 64, gain=0.1)],
    )
    rng = np.random.default_rng(0)
    print(model.loss_and_grad(rng.uniform(size=(10, 64)), rng.standard_normal((10, 4))))
