"""Functions that the library holds only inside larger ones, as the exercises ask for them.

`central_difference` and `directional_check` are what `tinyvae.gradcheck` does along one direction; `elbo_gradients`
is what `tinyvae.VAE.loss_and_grad` does for the smallest VAE that has everything.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array
from tinyvae.checking.finite_differences import EPS
from tinyvae.likelihoods import bernoulli
from tinyvae.ops import activations, dense, gaussian


def central_difference(f: Callable[[Array], Any], p: Array, u: Array, h: float) -> float:
    """The slope of f at p along u: (f(p + h u) - f(p - h u)) / 2h, wrong by no more than order h^2.

    f maps an array to a number; p, u of one shape -> a number. p is left as it is.
    """
    return (f(p + h * u) - f(p - h * u)) / (2 * h)


def directional_check(terms: Callable[[Array], Array], p: Array, g: Array, u: Array, h: float) -> tuple[float, float]:
    """How far the gradient g is from the slope of the loss along u, and how far it may be.

    The loss is L(p) = sum of terms(p), D(h) = (L(p + h u) - L(p - h u)) / 2h, S = sum of |terms(p)|, and eps the
    distance from 1 to the next float64.

    error = |<g, u> - D(h)|
    tolerance = 30 eps S / h + (2/3) |D(2h) - D(h)|

    p, g, u of one shape -> error, tolerance.
    """
    loss = lambda q: float(terms(q).sum())
    near, far = central_difference(loss, p, u, h), central_difference(loss, p, u, 2 * h)
    error = abs(float((g * u).sum()) - near)
    return error, 30 * EPS * float(np.abs(terms(p)).sum()) / h + (2 / 3) * abs(far - near)


def elbo_gradients(
    x: Array, eps: Array, W1: Array, b1: Array, W2: Array, b2: Array, W3: Array, b3: Array
) -> tuple[Array, Array, Array, Array, Array, Array, Array]:
    """The loss of a small VAE and its gradient with respect to every weight.

    h = tanh(x W1 + b1)     (mu, logvar) = halves of h W2 + b2     z = mu + e^(logvar / 2) eps     logits = z W3 + b3
    loss = mean over the batch of (Bernoulli nll + KL to the standard normal), in nats

    x (batch, data), eps (batch, latent), W1 (data, hidden), b1 (hidden,), W2 (hidden, 2 latent), b2 (2 latent,),
    W3 (latent, data), b3 (data,) -> loss (a number), dW1, db1, dW2, db2, dW3, db3.
    """
    n, latent = eps.shape
    h = activations.tanh_forward(dense.dense_forward(x, W1, b1))  # (batch, hidden)
    head = dense.dense_forward(h, W2, b2)  # (batch, 2 latent)
    mu, logvar = head[:, :latent], head[:, latent:]  # (batch, latent)
    z = gaussian.reparameterize_forward(mu, logvar, eps)  # (batch, latent)
    logits = dense.dense_forward(z, W3, b3)  # (batch, data)
    nll = bernoulli.bernoulli_nll_forward(logits, x)  # (batch,)
    loss = nll.sum() / n + gaussian.kl_forward(mu, logvar).sum() / n

    dlogits = bernoulli.bernoulli_nll_backward(1 / n, logits, x)  # (batch, data)
    dz, dW3, db3 = dense.dense_backward(dlogits, z, W3)
    through_z = gaussian.reparameterize_backward(dz, logvar, eps)  # dmu, dlogvar, (batch, latent) each
    through_kl = gaussian.kl_backward(1 / n, mu, logvar)
    dhead = np.concatenate([a + b for a, b in zip(through_z, through_kl, strict=True)], axis=1)  # (batch, 2 latent)
    dh, dW2, db2 = dense.dense_backward(dhead, h, W2)
    _, dW1, db1 = dense.dense_backward(activations.tanh_backward(dh, h), x, W1)
    return loss, dW1, db1, dW2, db2, dW3, db3
