"""Discretized logistic: pixels of 8 bits x in {0, 1/255, ..., 1}, from a mean m and a log-scale t = log s.

Kingma et al. 2016, "Improved variational inference with inverse autoregressive flow", and Salimans et al. 2017,
"PixelCNN++", with one logistic. A pixel is a logistic number that was rounded to the next of 256 values; what lies
beyond them is rounded to the first or the last. With h = 1/510 (half a bin), u = (x + h - m) / s, v = (x - h - m) / s,

    p(x) = sigmoid(u) - sigmoid(v),       where 1 stands for the first at x = 1, and 0 for the second at x = 0

That difference has no digits left where both are near 1. But e^-v - e^-u = e^-v (1 - e^-d), so it is a product,

    p(x) = sigmoid(u) sigmoid(-v) (1 - e^-d)                          d = u - v = 2 h / s
    nll = softplus(-u) + softplus(v) - log(1 - e^-d),                 softplus(-u) alone at x = 0, softplus(v) at x = 1

    dnll/dm = (sigmoid(-u) - sigmoid(v)) / s
    dnll/dt = u sigmoid(-u) - v sigmoid(v) + d / (e^d - 1)            each where its term stands

since du/dm = -1 / s, du/dt = -u, and dd/dt = -d. Far from x the loss grows as |x - m| / s. It is no infinity, because t
is held within +-12: at s = e^-12 all but e^-300 of a logistic lies in the bin of its mean, and at e^12 in the two
outermost bins; beyond that nothing changes but the loss of what is impossible.

The loss is -log of a probability, of pixels whose 256 values are known to be all: so it can be told in bits.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinyvae.backend import Array, array_module, to_host
from tinyvae.formula import Formula, backward_of, exp, expm1, formula, log, log1p, maximum, minimum, sigmoid, where
from tinyvae.layers.layer import Param, Views
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.likelihoods.support import check_unit_interval, learned_or_fixed, totals

LEVELS = 255  # steps from 0 to 1
HALF = 0.5 / LEVELS  # a bin
LARGEST = 12.0  # of |t|
START = -2.0  # of a t that is learned: s = 0.14, so that a logistic is about as wide as pixels are
NEAR = 1e-3  # of a step: what rounding in float32 may move a pixel by
STARTS = np.arange(-5.5, 1.5, 0.5)  # of a t that is predicted: from a bin to where the two outermost hold nearly all
RAREST = 1e-200  # a value less likely than that is left out of Fisher's information
SCALES = ("learned", "columns", "predicted")


@formula
def held(log_scale):
    """t within +-12."""
    return maximum(minimum(log_scale, LARGEST), -LARGEST)


@formula
def softplus(a):
    """log(1 + e^a)."""
    return maximum(a, 0) + log1p(exp(-abs(a)))


def _edges(mean: Any, log_scale: Any, x: Any) -> tuple[Any, Any, Any, Any]:
    """-u, v, 1 / s and d."""
    rate = exp(-held(log_scale))
    away = x - mean
    return -(away + HALF) * rate, (away - HALF) * rate, rate, 2 * HALF * rate


def _ends(x: Any) -> tuple[Any, Any]:
    """1 where the bin ends above, and where it ends below; else 0."""
    return where(x < 1 - HALF, 1.0, 0.0), where(x > HALF, 1.0, 0.0)


@formula
def discretized_logistic_nll(mean, log_scale, x):
    """softplus(-u) + softplus(v) - log(1 - e^-d), in nats; at x = 0 and at x = 1 one of the first two alone."""
    below, above, _, d = _edges(mean, log_scale, x)
    up, down = _ends(x)
    return up * softplus(below) + down * softplus(above) - up * down * log(-expm1(-d))


@backward_of(discretized_logistic_nll, "mean")
def discretized_logistic_dmean(dnll, mean, log_scale, x):
    """dmean = dnll (sigmoid(-u) - sigmoid(v)) / s."""
    below, above, rate, _ = _edges(mean, log_scale, x)
    up, down = _ends(x)
    return dnll * (up * sigmoid(below) - down * sigmoid(above)) * rate


@backward_of(discretized_logistic_nll, "log_scale")
def discretized_logistic_dlog_scale(dnll, mean, log_scale, x):
    """dlog_scale = dnll (u sigmoid(-u) - v sigmoid(v) + d / (e^d - 1)); 0 where t is held."""
    below, above, _, d = _edges(mean, log_scale, x)
    up, down = _ends(x)
    slope = -up * below * sigmoid(below) - down * above * sigmoid(above) - up * down * d * exp(-d) / expm1(-d)
    return where(abs(log_scale) < LARGEST, dnll * slope, 0.0)


@backward_of(discretized_logistic_nll, "mean", "log_scale")
def discretized_logistic_nll_backward(dnll, mean, log_scale, x):
    """dmean and dlog_scale. A log-scale that several x share gets the sum of its dlog_scale."""
    return (
        discretized_logistic_dmean(dnll, mean, log_scale, x),
        discretized_logistic_dlog_scale(dnll, mean, log_scale, x),
    )


@dataclass(frozen=True)
class DiscretizedLogistic(Likelihood):
    """Pixels of 8 bits, x = byte / 255.

    scale   "learned": one number s; "columns": one for each column; "predicted": one for each pixel, by the decoder;
            "fixed:0.1": that number
    """

    scale: str = "learned"

    replayed: ClassVar = True
    nll: ClassVar = discretized_logistic_nll
    interval: ClassVar = (0.0, 1.0)
    discrete: ClassVar = True
    step: ClassVar = 1 / LEVELS
    bits: ClassVar = True

    def __post_init__(self) -> None:
        """Raises ValueError for another scale."""
        learned_or_fixed("scale", self.scale, SCALES)

    @property
    def outputs(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The mean, and where it is predicted the log-scale."""
        return ("mean", "log_scale") if self.scale == "predicted" else ("mean",)

    @property
    def slopes(self) -> Formula:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As many as outputs."""
        return discretized_logistic_nll_backward if self.scale == "predicted" else discretized_logistic_dmean

    @property
    def own_slopes(self) -> Formula | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of a log-scale that is learned."""
        return discretized_logistic_dlog_scale if self.scale in ("learned", "columns") else None

    def own(self, data_dim: int) -> Iterator[Param]:
        """log_scale, (1,) or (data,)."""
        if self.scale in ("learned", "columns"):
            yield Param("log_scale", (1 if self.scale == "learned" else data_dim,), START)

    def fixed(self) -> dict[str, float]:
        """log_scale, where the scale is fixed."""
        value = learned_or_fixed("scale", self.scale, SCALES)
        return {} if value is None else {"log_scale": math.log(value)}

    def shared(self) -> "DiscretizedLogistic":
        """With one learned scale for a predicted one."""
        return DiscretizedLogistic() if self.scale == "predicted" else self

    def apart(self) -> "DiscretizedLogistic":
        """With a scale for each column."""
        return DiscretizedLogistic("columns") if self.scale == "learned" else self

    def check(self, smallest: float, largest: float, whole: bool | None = None) -> None:
        """Raises ValueError outside [0, 1], with the line that most likely brings the data there."""
        check_unit_interval("a discretized logistic likelihood", smallest, largest, whole)

    def check_rows(self, x: Array) -> None:
        """Raises ValueError for what lies between 0, 1/255, ..., 1."""
        xp = array_module(x)
        off = xp.abs(LEVELS * x - xp.floor(LEVELS * x + 0.5)) > NEAR  # of NaN it is not
        if bool(to_host(off.any())):
            first = float(to_host(x)[to_host(off)][0])
            raise ValueError(
                f"the data holds {first:g}, but a discretized logistic likelihood needs pixels of 8 bits: bytes / 255; "
                "round them: x = np.round(255 * x) / np.float32(255); for other grey values use the "
                "continuous-bernoulli or gaussian likelihood"
            )

    def start(self, x: np.ndarray) -> np.ndarray:
        """The mean of each column; where it is predicted, the best log-scale around it of a few."""
        total, count = totals(x)
        mean = np.where(count > 0, total / np.maximum(count, 1), 0.5)  # (data,)
        if self.scale != "predicted":
            return mean
        row, column = np.nonzero(~np.isnan(x))
        level = np.round(LEVELS * x[row, column]).astype(int)
        bins = np.bincount(column * (LEVELS + 1) + level, minlength=mean.size * (LEVELS + 1))
        bins = bins.reshape(mean.size, LEVELS + 1)  # how often each value occurs in each column
        values = np.arange(LEVELS + 1) / LEVELS
        losses = [(bins * discretized_logistic_nll(mean[:, None], t, values)).sum(axis=1) for t in STARTS]
        return np.concatenate([mean, STARTS[np.argmin(losses, axis=0)]])

    def log_scale(self, p: Views, output: Array) -> Array:
        """t of every number: (rows, data)."""
        log_scale = {**p, **self.fixed(), **self.parts(output)}["log_scale"]
        return held(log_scale * array_module(output).ones_like(self.parts(output)["mean"]))

    def mean(self, p: Views, output: Array) -> Array:
        """Of rounded numbers: a 255th of how likely x is to be at least 1/255, 2/255, ..., 1, all added up."""
        m, rate = self.parts(output)["mean"], exp(-self.log_scale(p, output))
        return sum(sigmoid((m - (level - 0.5) / LEVELS) * rate) for level in range(1, LEVELS + 1)) / LEVELS

    def draw(self, p: Views, output: Array, rng: np.random.Generator) -> np.ndarray:
        """A logistic number, rounded."""
        output = to_host(output)
        host = {name: to_host(a) for name, a in p.items()}
        m, scale = self.parts(output)["mean"], np.exp(self.log_scale(host, output))
        x = m.astype("float64") + scale * rng.logistic(size=m.shape)
        return (np.clip(np.round(LEVELS * x), 0, LEVELS) / LEVELS).astype(output.dtype)

    def information(self, p: Views, output: Array) -> Array:
        """The sum of (dp/do)^2 / p over all 256 values, each p a difference of the distribution F at its bin's ends.

        With e = (end - m) / s, dF/dm = -F (1 - F) / s and dF/dt = -F (1 - F) e. (In the outermost bins both slopes go
        together; what that adds between two outputs is left out.)
        """
        xp = array_module(output)
        m, t = self.parts(output)["mean"].astype("float64"), self.log_scale(p, output).astype("float64")
        rate = exp(-t)
        found: list[Any] = [0.0] * len(self.outputs)
        before: tuple[Any, ...] = (0.0, 0.0, 0.0)  # F, dF/dm and dF/dt, at the end below
        for level in range(LEVELS + 1):
            e = ((level + 0.5) / LEVELS - m) * rate
            F = sigmoid(e)
            slope = F * (F - 1)
            at = (F, slope * rate, slope * e) if level < LEVELS else (1.0, 0.0, 0.0)
            probability = at[0] - before[0]
            one_over = 1 / xp.where(probability > RAREST, probability, xp.inf)
            found = [f + (a - b) ** 2 * one_over for f, a, b in zip(found, at[1:], before[1:], strict=False)]
            before = at
        return xp.concatenate(found, axis=1).astype(output.dtype)
