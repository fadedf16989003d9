"""Laplace: real x, from a median m and a log-scale s = log b. Its tails are heavier than a Gaussian's.

    nll = |x - m| e^-s + s + log 2
    dnll/dm = sign(m - x) e^-s            dnll/ds = 1 - |x - m| e^-s

At x = m, where |x - m| has a kink, the slope is taken to be 0. The variance is 2 b^2.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinyvae.backend import Array, array_module, to_host
from tinyvae.formula import Formula, backward_of, exp, formula, where
from tinyvae.layers.layer import Param, Views
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.likelihoods.support import learned_or_fixed

LOG_2 = math.log(2)


@formula
def laplace_nll(median, log_scale, x):
    """|x - m| e^-s + s + log 2, in nats (a density: it can be negative)."""
    return abs(x - median) * exp(-log_scale) + log_scale + LOG_2


@backward_of(laplace_nll, "median")
def laplace_dmedian(dnll, median, log_scale, x):
    """dmedian = dnll sign(m - x) e^-s."""
    return dnll * where(median > x, 1.0, where(median < x, -1.0, 0.0)) * exp(-log_scale)


@backward_of(laplace_nll, "log_scale")
def laplace_dlog_scale(dnll, median, log_scale, x):
    """dlog_scale = dnll (1 - |x - m| e^-s)."""
    return dnll * (1 - abs(x - median) * exp(-log_scale))


@dataclass(frozen=True)
class Laplace(Likelihood):
    """Real x, some of them far out.

    scale   "learned": one number b; "columns": one for each column; "fixed:0.5": that number
    """

    scale: str = "learned"

    outputs: ClassVar = ("median",)
    replayed: ClassVar = True
    nll: ClassVar = laplace_nll
    slopes: ClassVar = laplace_dmedian
    scale_matters: ClassVar = True

    def __post_init__(self) -> None:
        """Raises ValueError for another scale."""
        learned_or_fixed("scale", self.scale)

    @property
    def own_slopes(self) -> Formula | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of a log-scale that is learned."""
        return None if self.fixed() else laplace_dlog_scale

    def own(self, data_dim: int) -> Iterator[Param]:
        """log_scale, (1,) or (data,)."""
        if not self.fixed():
            yield Param("log_scale", (data_dim if self.scale == "columns" else 1,), 0.0)

    def fixed(self) -> dict[str, float]:
        """log_scale, where the scale is fixed."""
        value = learned_or_fixed("scale", self.scale)
        return {} if value is None else {"log_scale": math.log(value)}

    def apart(self) -> "Laplace":
        """With a scale for each column."""
        return Laplace("columns") if self.scale == "learned" else self

    def check(self, smallest: float, largest: float, whole: bool | None = None) -> None:
        """Any real number will do."""

    def scales(self, p: Views, output: Array) -> Array:
        """b of every number: (rows, data)."""
        xp = array_module(output)
        log_scale = xp.asarray({**p, **self.fixed()}["log_scale"], dtype=output.dtype)
        return xp.broadcast_to(xp.exp(log_scale), output.shape)

    def mean(self, p: Views, output: Array) -> Array:
        """The median, which is the mean too."""
        return output

    def draw(self, p: Views, output: Array, rng: np.random.Generator) -> np.ndarray:
        """The median and noise of that scale."""
        output = to_host(output)
        noise = rng.laplace(size=output.shape).astype(output.dtype)
        return output + to_host(self.scales(p, output)) * noise

    def information(self, p: Views, output: Array) -> Array:
        """e^-2s."""
        return self.scales(p, output) ** -2
