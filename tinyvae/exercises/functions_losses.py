"""Write the function: the likelihoods."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinyvae.exercises.drawing import Draw, array, arrays, sizes
from tinyvae.exercises.oracles import close, slopes
from tinyvae.exercises.task import Answer, Case, FunctionTask, Mistake, Property
from tinyvae.likelihoods import bernoulli
from tinyvae.likelihoods import gaussian as gaussian_likelihood
from tinyvae.ops import activations

sigmoid = activations.sigmoid_forward


@st.composite
def _logits(draw: Draw, huge: bool = False) -> Case:
    shape = tuple(draw(sizes(2)))
    logits = draw(array(shape)) * (8000.0 if huge else 1.0)
    return {"dnll": draw(array((shape[0], 1))), "logits": logits, "x": draw(array(shape, 0, 1))}


def _bernoulli_answer(c: Case) -> list[Answer]:
    rows = [[np.logaddexp(0, l) - x * l for l, x in zip(*row, strict=True)] for row in zip(c["logits"], c["x"],
                                                                                         strict=True)]  # fmt: skip
    return [close([math.fsum(row) for row in rows])]


def _naive_bernoulli(logits: Any, x: Any) -> Any:
    p = 1 / (1 + np.exp(-logits))
    return -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1)


def _small_number_bernoulli(small: float, logits: Any, x: Any) -> Any:
    p = 1 / (1 + np.exp(-logits))
    return -(x * np.log(p + small) + (1 - x) * np.log(1 - p + small)).sum(axis=1)


BERNOULLI = FunctionTask(
    "bernoulli-nll", bernoulli.bernoulli_nll_forward, ("nll",),
    (
        Property("nll = -x log p - (1 - x) log(1 - p), p = sigmoid(logit), summed over each row", _logits(),
                 _bernoulli_answer),
        Property("it is finite and right at huge logits", _logits(huge=True), _bernoulli_answer, examples=30,
                 look="p rounds to 0 or 1 there; clipping it, or adding a small number to it, only bounds the loss: "
                      "work with the logit itself"),
    ),
    (
        Mistake("p is rounded to 0 or 1 before its logarithm is taken: simplify log p and log(1 - p) first, "
                "into softplus(l) - x l", _naive_bernoulli),
        Mistake("e^l overflows: log(1 + e^l) = max(l, 0) + log(1 + e^-|l|)",
                lambda logits, x: (np.log1p(np.exp(logits)) - x * logits).sum(axis=1)),
        Mistake("x and 1 - x have changed places", lambda logits, x: bernoulli.bernoulli_nll_forward(-logits, x)),
        Mistake("only x log p is there: the term with 1 - x is missing",
                lambda logits, x: (x * np.logaddexp(0, -logits)).sum(axis=1)),
        *(Mistake("a small number inside the logarithm makes every loss a little wrong, and bounds the large ones",
                  partial(_small_number_bernoulli, small)) for small in (1e-12, 1e-10, 1e-8, 1e-7, 1e-6)),
        Mistake("it is softplus(l) - x l, with a minus",
                lambda logits, x: (np.logaddexp(0, logits) + x * logits).sum(axis=1)),
        Mistake("a mean over the dimensions where a sum is meant: beta would then depend on their number",
                lambda logits, x: bernoulli.bernoulli_nll_forward(logits, x) / x.shape[1]),
    ),
)  # fmt: skip
BERNOULLI_BACKWARD = FunctionTask(
    "bernoulli-nll-backward", bernoulli.bernoulli_nll_backward.function, ("dlogits",),
    (
        Property("dlogits is the slope of sum(dnll nll) along the logits", _logits(), lambda c: slopes(
            lambda l: c["dnll"][:, 0] * bernoulli.bernoulli_nll_forward(l, c["x"]), c["logits"])),
        Property("it is finite and right at huge logits", _logits(huge=True), lambda c: [
            close(c["dnll"] * (np.where(c["logits"] == 0, 0.5, c["logits"] > 0) - c["x"]))], examples=30),
    ),
    (
        Mistake("the sigmoid is missing: it is p - x, not l - x", lambda dnll, logits, x: dnll * (logits - x)),
        Mistake("the slope of the sigmoid is in there a second time: dnll/dl is p - x",
                lambda dnll, logits, x: dnll * (sigmoid(logits) - x) * sigmoid(logits) * (1 - sigmoid(logits))),
        Mistake("that is the slope along p: dp/dl = p (1 - p) is missing, and cancels the denominator",
                lambda dnll, logits, x: dnll * (sigmoid(logits) - x) / (sigmoid(logits) * (1 - sigmoid(logits)))),
        Mistake("it is -1 times the right one: look at the sign", lambda dnll, logits, x: dnll * (x - sigmoid(logits))),
        Mistake("x is missing: it is p - x", lambda dnll, logits, x: dnll * sigmoid(logits)),
        Mistake("the sign inside the exponential is wrong: the sigmoid is 1 / (1 + e^-l)",
                lambda dnll, logits, x: dnll * (sigmoid(-logits) - x)),
        Mistake("tanh(l / 2) is not the sigmoid yet: (1 + tanh(l / 2)) / 2 is",
                lambda dnll, logits, x: dnll * (np.tanh(logits / 2) - x)),
        Mistake("e^l / (1 + e^l) is infinity over infinity at large l; 1 / (1 + e^-l) is 1 there",
                lambda dnll, logits, x: dnll * (np.exp(logits) / (1 + np.exp(logits)) - x)),
    ),
    cotangent="dnll",
)  # fmt: skip


def _gaussian_answer(c: Case) -> list[Answer]:
    logvar = np.broadcast_to(c["logvar"], c["x"].shape)
    return slopes(
        lambda m, s: c["dnll"][:, 0] * gaussian_likelihood.gaussian_nll_forward(m, s, c["x"]), c["mean"], logvar
    )


@st.composite
def _one_sigma(draw: Draw) -> Case:
    c = draw(arrays(2, {"dnll": "aI", "mean": "ab", "x": "ab"}))
    return c | {"logvar": draw(array((1,)))}


def _gaussian(dmean: Callable[..., Any], dlogvar: Callable[..., Any]) -> Callable[..., Any]:
    """From functions of the residual x - m and of logvar."""
    return lambda dnll, mean, logvar, x: (dnll * dmean(x - mean, logvar), dnll * dlogvar(x - mean, logvar))


_dmean = lambda r, s: -r * np.exp(-s)
_dlogvar = lambda r, s: 0.5 * (1 - r * r * np.exp(-s))
GAUSSIAN_BACKWARD = FunctionTask(
    "gaussian-nll-backward", gaussian_likelihood.gaussian_nll_backward.function, ("dmean", "dlogvar"),
    (
        Property("dmean and dlogvar are the slopes of sum(dnll nll) along the mean and logvar",
                 arrays(2, {"dnll": "aI", "mean": "ab", "logvar": "ab", "x": "ab"}), _gaussian_answer),
        Property("one logvar for all outputs, shape (1,), broadcasts", _one_sigma(), _gaussian_answer, examples=20),
    ),
    (
        Mistake("the precision e^-s is missing", _gaussian(lambda r, s: -r, _dlogvar)),
        Mistake("logvar is log sigma^2, so the precision is e^-s; e^-2s reads it as log sigma",
                _gaussian(lambda r, s: -r * np.exp(-2 * s), lambda r, s: 0.5 * (1 - r * r * np.exp(-2 * s)))),
        Mistake("the term s / 2 of the nll has a slope too: the 1 is missing",
                _gaussian(_dmean, lambda r, s: -0.5 * r * r * np.exp(-s))),
        Mistake("the precision is e^-s; e^(-s / 2) is one over sigma",
                _gaussian(lambda r, s: -r * np.exp(-s / 2), lambda r, s: 0.5 * (1 - r * r * np.exp(-s / 2)))),
        Mistake("logvar is a logarithm: the variance is e^logvar",
                _gaussian(lambda r, s: -r / s, lambda r, s: 0.5 * (1 - r * r / s))),
        Mistake("the slope of e^-s is -e^-s: the sign of that term is wrong",
                _gaussian(_dmean, lambda r, s: 0.5 * (1 + r * r * np.exp(-s)))),
        Mistake("the residual is not squared", _gaussian(_dmean, lambda r, s: 0.5 * (1 - r * np.exp(-s)))),
        Mistake("it is -1 times the right one: look at the sign", _gaussian(lambda r, s: r * np.exp(-s), _dlogvar)),
    ),
    cotangent="dnll",
)  # fmt: skip

TASKS = (BERNOULLI, BERNOULLI_BACKWARD, GAUSSIAN_BACKWARD)
