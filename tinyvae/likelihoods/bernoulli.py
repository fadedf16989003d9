"""Bernoulli: x in {0, 1}, from logits l, with probability p = sigmoid(l).

    nll = -x log p - (1 - x) log(1 - p) = softplus(l) - x l        dnll/dl = sigmoid(l) - x

On grey x in [0, 1] the same formula is binary cross-entropy. It is a fine loss, but no log-likelihood: e^-nll does not
integrate to 1 over [0, 1] (Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli").
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinyvae.backend import Array, to_host
from tinyvae.formula import backward_of, exp, formula, log1p, maximum, sigmoid
from tinyvae.layers.layer import Views
from tinyvae.likelihoods.likelihood import Factors, Likelihood
from tinyvae.likelihoods.support import check_unit_interval, totals


@formula
def bernoulli_nll(logits, x):
    """softplus(l) - x l, in nats; exact at any finite logit."""
    return maximum(logits, 0) + log1p(exp(-abs(logits))) - x * logits


@backward_of(bernoulli_nll, "logits")
def bernoulli_nll_backward(dnll, logits, x):
    """dlogits = dnll (sigmoid(l) - x)."""
    return dnll * (sigmoid(logits) - x)


def bernoulli_nll_forward(logits: Array, x: Array) -> Array:
    """nll of each row: logits, x (batch, data), x in [0, 1] -> (batch,)."""
    return bernoulli_nll(logits, x).sum(axis=1)


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """x in {0, 1}; grey values in [0, 1] are allowed, as binary cross-entropy."""

    outputs: ClassVar = ("logits",)
    replayed: ClassVar = True
    nll: ClassVar = bernoulli_nll
    slopes: ClassVar = bernoulli_nll_backward
    captured: ClassVar = "output_bernoulli"
    interval: ClassVar = (0.0, 1.0)
    discrete: ClassVar = True

    def check(self, smallest: float, largest: float, whole: bool | None = None) -> None:
        """Raises ValueError outside [0, 1], with the line that most likely brings the data there."""
        check_unit_interval("a Bernoulli likelihood", smallest, largest, whole)

    def start(self, x: np.ndarray) -> np.ndarray:
        """The logit of each column's mean (Burda et al. 2016), with half a 0 and half a 1 more."""
        total, count = totals(x)
        return np.log((total + 0.5) / (count - total + 0.5))

    def mean(self, p: Views, output: Array) -> Array:
        """The probability of 1."""
        return sigmoid(output)

    def draw(self, p: Views, output: Array, rng: np.random.Generator) -> np.ndarray:
        """0s and 1s."""
        probability = to_host(sigmoid(output))
        return (rng.random(probability.shape) < probability).astype(probability.dtype)

    def information(self, p: Views, output: Array) -> Array:
        """p (1 - p)."""
        probability = sigmoid(output)
        return probability * (1 - probability)

    def factors(self, p: Views, output: Array, x: Array) -> Factors:
        """x l - softplus(l)."""
        return Factors([(x, output)], -bernoulli_nll(output, 0.0), 0.0)
