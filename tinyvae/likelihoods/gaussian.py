"""Gaussian: real x, from a mean m and a logvar s = log sigma^2.

    nll = ((x - m)^2 e^-s + s + log 2 pi) / 2
    dnll/dm = (m - x) e^-s                dnll/ds = (1 - (x - m)^2 e^-s) / 2

With sigma fixed at 1, nll is half the squared error, and a constant.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinyvae.backend import Array, array_module, to_host
from tinyvae.formula import Formula, backward_of, exp, formula
from tinyvae.layers.layer import Param, Views
from tinyvae.likelihoods.likelihood import Factors, Likelihood
from tinyvae.likelihoods.support import learned_or_fixed

LOG_2PI = math.log(2 * math.pi)
SIGMAS = ("learned", "columns", "predicted")


@formula
def gaussian_nll(mean, logvar, x):
    """((x - m)^2 e^-s + s + log 2 pi) / 2, in nats (a density: it can be negative)."""
    return 0.5 * ((x - mean) * (x - mean) * exp(-logvar) + logvar + LOG_2PI)


@backward_of(gaussian_nll, "mean")
def gaussian_dmean(dnll, mean, logvar, x):
    """dmean = dnll (m - x) e^-s."""
    return -dnll * (x - mean) * exp(-logvar)


@backward_of(gaussian_nll, "logvar")
def gaussian_dlogvar(dnll, mean, logvar, x):
    """dlogvar = dnll (1 - (x - m)^2 e^-s) / 2."""
    return dnll * (0.5 * (1 - (x - mean) * (x - mean) * exp(-logvar)))


@backward_of(gaussian_nll, "mean", "logvar")
def gaussian_nll_backward(dnll, mean, logvar, x):
    """dmean and dlogvar. A logvar that several x share gets the sum of its dlogvar."""
    return gaussian_dmean(dnll, mean, logvar, x), gaussian_dlogvar(dnll, mean, logvar, x)


def gaussian_nll_forward(mean: Array, logvar: Array, x: Array) -> Array:
    """nll of each row: mean, x (batch, data); logvar (batch, data) or one number as (1,) -> (batch,)."""
    return gaussian_nll(mean, logvar, x).sum(axis=1)


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Real x.

    sigma   "learned": one number; "columns": one for each column; "predicted": one for each number of x, by the
            decoder; "fixed:0.5": that number
    """

    sigma: str = "learned"

    replayed: ClassVar = True
    nll: ClassVar = gaussian_nll
    scale_matters: ClassVar = True

    def __post_init__(self) -> None:
        """Raises ValueError for another sigma."""
        learned_or_fixed("sigma", self.sigma, SIGMAS)

    @property
    def outputs(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The mean, and where it is predicted the logvar."""
        return ("mean", "logvar") if self.sigma == "predicted" else ("mean",)

    @property
    def captured(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Its kernel for the captured step; there is none for a sigma for each column."""
        kinds = {"predicted": "output_gaussian_predicted", "columns": None}
        return kinds.get(self.sigma, "output_gaussian")

    @property
    def slopes(self) -> Formula:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As many as outputs."""
        return gaussian_nll_backward if self.sigma == "predicted" else gaussian_dmean

    @property
    def own_slopes(self) -> Formula | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of a logvar that is learned."""
        return gaussian_dlogvar if self.sigma in ("learned", "columns") else None

    def own(self, data_dim: int) -> Iterator[Param]:
        """logvar, (1,) or (data,)."""
        if self.sigma in ("learned", "columns"):
            yield Param("logvar", (1 if self.sigma == "learned" else data_dim,), 0.0)

    def fixed(self) -> dict[str, float]:
        """logvar, where sigma is fixed."""
        value = learned_or_fixed("sigma", self.sigma, SIGMAS)
        return {} if value is None else {"logvar": 2 * math.log(value)}

    def shared(self) -> "Gaussian":
        """With one learned sigma for a predicted one."""
        return Gaussian() if self.sigma == "predicted" else self

    def apart(self) -> "Gaussian":
        """With a sigma for each column."""
        return Gaussian("columns") if self.sigma == "learned" else self

    def check(self, smallest: float, largest: float, whole: bool | None = None) -> None:
        """Any real number will do."""

    def logvar(self, p: Views, output: Array) -> Array:
        """log sigma^2 of every number: (rows, data)."""
        logvar = {**p, **self.fixed(), **self.parts(output)}["logvar"]
        xp = array_module(output)
        return xp.broadcast_to(xp.asarray(logvar, dtype=output.dtype), self.mean(p, output).shape)

    def mean(self, p: Views, output: Array) -> Array:
        """The mean."""
        return self.parts(output)["mean"]

    def draw(self, p: Views, output: Array, rng: np.random.Generator) -> np.ndarray:
        """The mean and noise of that size."""
        mean, logvar = to_host(self.mean(p, output)), to_host(self.logvar(p, output))
        return mean + np.exp(0.5 * logvar) * rng.standard_normal(mean.shape).astype(mean.dtype)

    def information(self, p: Views, output: Array) -> Array:
        """e^-s of a mean, 1/2 of a logvar."""
        xp = array_module(output)
        precision = xp.exp(-self.logvar(p, output))
        return xp.concatenate([precision, 0 * precision + 0.5], axis=1) if len(self.outputs) == 2 else precision

    def factors(self, p: Views, output: Array, x: Array) -> Factors:
        """-(x^2 e^-s - 2 x m e^-s + m^2 e^-s + s + log 2 pi) / 2."""
        mean, logvar = self.mean(p, output), self.logvar(p, output)
        precision = array_module(output).exp(-logvar)
        of_output = -0.5 * (mean * mean * precision + logvar + LOG_2PI)
        return Factors([(x * x, -0.5 * precision), (x, mean * precision)], of_output, 0.0)
