"""Exercise elbo-backward (hard): a whole VAE: the loss and all gradients, in NumPy.

Write the function, then: python -m tinyvae exercises check elbo-backward
The tutorial is tutorials/06_whole_backward.md; hints: python -m tinyvae exercises hint elbo-backward
"""

import numpy as np

from tinyvae.backend import Array

EXERCISE = "elbo-backward"


def elbo_gradients(
    x: Array, eps: Array, W1: Array, b1: Array, W2: Array, b2: Array, W3: Array, b3: Array
) -> tuple[Array, Array, Array, Array, Array, Array, Array]:
    """The loss of a small VAE and its gradient with respect to every weight.

    h = tanh(x W1 + b1)     (mu, logvar) = halves of h W2 + b2     z = mu + e^(logvar / 2) eps     logits = z W3 + b3
    loss = mean over the batch of (Bernoulli nll + KL to the standard normal), in nats

    x (batch, data), eps (batch, latent), W1 (data, hidden), b1 (hidden,), W2 (hidden, 2 latent), b2 (2 latent,),
    W3 (latent, data), b3 (data,) -> loss (a number), dW1, db1, dW2, db2, dW3, db3.
    """
    raise NotImplementedError
