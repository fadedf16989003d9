"""Write the function: the loss of a whole VAE, and every gradient."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinyvae.exercises import solutions
from tinyvae.exercises.drawing import Draw, array, sizes
from tinyvae.exercises.oracles import close, slopes
from tinyvae.exercises.task import Answer, Case, FunctionTask, Mistake, Property
from tinyvae.ops import activations

_WEIGHTS = ("W1", "b1", "W2", "b2", "W3", "b3")


@st.composite
def _vaes(draw: Draw) -> Case:
    rows, data, hidden = draw(sizes(3, 1, 3))
    latent = draw(st.integers(1, 2))
    shapes = {"W1": (data, hidden), "b1": (hidden,), "W2": (hidden, 2 * latent), "b2": (2 * latent,),
              "W3": (latent, data), "b3": (data,)}  # fmt: skip
    return {"x": draw(array((rows, data), 0, 1)), "eps": draw(array((rows, latent)))} | {
        name: draw(array(shape, -1, 1)) for name, shape in shapes.items()
    }


def elbo_terms(x: Any, eps: Any, W1: Any, b1: Any, W2: Any, b2: Any, W3: Any, b3: Any) -> Any:
    """nll + KL of each row, over the number of rows: by the formulas, straight on."""
    head = np.tanh(x @ W1 + b1) @ W2 + b2
    mu, s = head[:, : eps.shape[1]], head[:, eps.shape[1] :]
    logits = (mu + np.exp(s / 2) * eps) @ W3 + b3
    nll = (np.logaddexp(0, logits) - x * logits).sum(axis=1)
    return (nll + ((mu * mu + np.exp(s) - 1 - s) / 2).sum(axis=1)) / len(x)


def _elbo_answer(c: Case) -> list[Answer]:
    loss = close(math.fsum(elbo_terms(c["x"], c["eps"], *(c[name] for name in _WEIGHTS))))
    return [loss, *slopes(lambda *w: elbo_terms(c["x"], c["eps"], *w), *(c[name] for name in _WEIGHTS))]


def _elbo(**wrong: float) -> Callable[..., Any]:
    """`elbo_gradients` with paths weighed: through z and through the KL, in dmu and dlogvar; the slope of tanh."""
    weight = {"z_mu": 1.0, "z_s": 1.0, "kl": 1.0, "kl_mu": 1.0, "kl_s": 1.0, "kl_n": 0.0, "tanh": 1.0} | wrong

    def gradients(x: Any, eps: Any, W1: Any, b1: Any, W2: Any, b2: Any, W3: Any, b3: Any) -> Any:
        n, latent = eps.shape
        loss = solutions.elbo_gradients(x, eps, W1, b1, W2, b2, W3, b3)[0]
        h = np.tanh(x @ W1 + b1)
        head = h @ W2 + b2
        mu, s = head[:, :latent], head[:, latent:]
        z = mu + np.exp(s / 2) * eps
        dlogits = (activations.sigmoid_forward(z @ W3 + b3) - x) / n
        dz = dlogits @ W3.T
        kl = weight["kl"] / (n if not weight["kl_n"] else 1)
        dmu = weight["z_mu"] * dz + kl * weight["kl_mu"] * mu
        ds = weight["z_s"] * dz * eps * np.exp(s / 2) / 2 + kl * weight["kl_s"] * np.expm1(s) / 2
        dhead = np.concatenate([dmu, ds] if not weight.get("swap") else [ds, dmu], axis=1)
        da = dhead @ W2.T * (1 - weight["tanh"] * h * h)
        return loss, x.T @ da, da.sum(axis=0), h.T @ dhead, dhead.sum(axis=0), z.T @ dlogits, dlogits.sum(axis=0)

    return gradients


def _loss(nll: Callable[..., Any], kl: Callable[..., Any], swap: bool = False) -> Callable[..., Any]:
    """The loss, made of other nll and KL (of rows and dimensions), beside the right gradients."""

    def losses(x: Any, eps: Any, W1: Any, b1: Any, W2: Any, b2: Any, W3: Any, b3: Any) -> Any:
        head = np.tanh(x @ W1 + b1) @ W2 + b2
        mu, s = np.split(head, 2, axis=1)[:: -1 if swap else 1]
        logits = (mu + np.exp(s / 2) * eps) @ W3 + b3
        loss = nll(np.logaddexp(0, logits) - x * logits) + kl((mu * mu + np.exp(s) - 1 - s) / 2)
        return loss, *solutions.elbo_gradients(x, eps, W1, b1, W2, b2, W3, b3)[1:]

    return losses


_each = lambda terms: terms.sum() / len(terms)  # a sum over the dimensions, a mean over the rows


def _summed(*arguments: Any, **named: Any) -> Any:
    rows = len(arguments[0] if arguments else named["x"])
    return tuple(rows * r for r in solutions.elbo_gradients(*arguments, **named))


ELBO = FunctionTask(
    "elbo-backward", solutions.elbo_gradients, ("loss", *(f"d{name}" for name in _WEIGHTS)),
    (Property("the loss is the formula's, and each gradient its slope along that weight", _vaes(), _elbo_answer, 30),),
    (
        Mistake("the loss is a mean over the batch: divide by the number of rows", _summed),
        Mistake("a mean over the dimensions where a sum is meant: only the rows are averaged", _loss(np.mean, np.mean)),
        Mistake("a mean over the data's dimensions where a sum is meant: only the rows are averaged",
                _loss(np.mean, _each)),
        Mistake("the KL is not halved", _loss(_each, lambda kl: 2 * _each(kl))),
        Mistake("the KL is missing in the loss", _loss(_each, lambda kl: 0.0)),
        Mistake("mu is the first half of the columns, and logvar the second", _loss(_each, _each, swap=True)),
        Mistake("the path from the KL to mu and logvar is missing", _elbo(kl=0.0)),
        Mistake("the path from the KL to mu is missing: dmu has two parts, from z and from the KL", _elbo(kl_mu=0.0)),
        Mistake("the path from the KL to logvar is missing: dlogvar has two parts, from z and from the KL",
                _elbo(kl_s=0.0)),
        Mistake("a half is missing in what comes to logvar through z: sigma = e^(logvar / 2)", _elbo(z_s=2.0)),
        Mistake("a half is missing in what comes to logvar from the KL: (e^logvar - 1) / 2", _elbo(kl_s=2.0)),
        Mistake("dmu and dlogvar stand in the wrong order: first the half of mu, then that of logvar", _elbo(swap=1.0)),
        Mistake("the path from z to logvar is missing: dlogvar has two parts, from z and from the KL", _elbo(z_s=0.0)),
        Mistake("the path from z to mu is missing: dmu has two parts, from z and from the KL", _elbo(z_mu=0.0)),
        Mistake("the KL's part is not divided by the number of rows", _elbo(kl_n=1.0)),
        Mistake("the slope of the tanh, 1 - h^2, is missing", _elbo(tanh=0.0)),
    ),
    keeps_float32=False,
)  # fmt: skip

TASKS = (ELBO,)
