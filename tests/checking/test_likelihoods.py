"""`check_likelihood` on a stranger's right likelihood, and on what can be wrong of one, each with its line."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest

from tinyvae.checking.likelihoods import check_likelihood
from tinyvae.formula import backward_of, double, exp, formula, isnan, lgamma, log, log1p, sigmoid, where
from tinyvae.layers.layer import Param
from tinyvae.likelihoods.likelihood import Factors, Likelihood
from tinyvae.likelihoods.poisson import Poisson, poisson_nll_backward

# ------------------------------------------------------------------------- a stranger's: the logistic distribution


@formula
def logistic_nll(centre, log_width, wider, x):
    """u + 2 log(1 + e^-u) + s, with u = |x - c| e^-s: the density is symmetric."""
    u = abs(x - centre) * exp(-log_width - wider)
    return u + 2 * log1p(exp(-u)) + log_width + wider


@backward_of(logistic_nll, "centre")
def logistic_dcentre(dnll, centre, log_width, wider, x):
    steep = exp(-log_width - wider)
    return -dnll * (2 * sigmoid((x - centre) * steep) - 1) * steep


@backward_of(logistic_nll, "log_width", "wider")
def logistic_dwidth(dnll, centre, log_width, wider, x):
    u = (x - centre) * exp(-log_width - wider)
    d = dnll * (1 - u * (2 * sigmoid(u) - 1))
    return d, d


@dataclass(frozen=True)
class Logistic(Likelihood):
    """With a width that columns share, and a wider one for each: own parameters of both shapes."""

    shift: float = 0.0

    outputs: ClassVar = ("centre",)
    nll: ClassVar = logistic_nll
    slopes: ClassVar = logistic_dcentre
    own_slopes: ClassVar = logistic_dwidth

    def own(self, data_dim: int) -> Iterator[Param]:
        yield Param("log_width", (1,), 0.2)
        yield Param("wider", (data_dim,), 0.0)

    def width(self, p: Any) -> Any:
        return np.exp(p["log_width"] + p["wider"])

    def mean(self, p: Any, output: Any) -> Any:
        return output

    def draw(self, p: Any, output: Any, rng: np.random.Generator) -> np.ndarray:
        return (output + self.width(p) * rng.logistic(size=output.shape)).astype(output.dtype)

    def information(self, p: Any, output: Any) -> Any:
        return np.broadcast_to(1 / (3 * self.width(p) ** 2), output.shape)


def test_a_strangers_likelihood_that_is_right_passes() -> None:
    check_likelihood(Logistic())
    check_likelihood(Logistic(shift=0.5))


# -------------------------------------------------------------------------------------------------- what it cannot be


@dataclass(frozen=True)
class Keeps(Logistic):
    seen: list = field(default_factory=list)


@dataclass(frozen=True)
class Oblong(Logistic):
    def own(self, data_dim: int) -> Iterator[Param]:
        yield Param("log_width", (2, data_dim), 0.0)


@dataclass(frozen=True)
class Mute(Logistic):
    outputs: ClassVar = ()


@dataclass(frozen=True)
class Bare(Logistic):
    nll: ClassVar = lambda centre, x: x - centre


@dataclass(frozen=True)
class ReadsMore(Logistic):
    nll: ClassVar = formula(lambda centre, log_width, wider, temperature, x: x)


@dataclass(frozen=True)
class SlopeOfAnother(Logistic):
    slopes: ClassVar = poisson_nll_backward


@dataclass(frozen=True)
class OwnWithoutSlope(Logistic):
    own_slopes: ClassVar = None


@dataclass(frozen=True)
class Unsaid(Logistic):
    pair: Any = field(default=None, compare=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pair", object())


@pytest.mark.parametrize(
    ("planted", "line"),
    [
        (Keeps(), "its fields are options, and cannot be changed: unhashable type: 'list'"),
        (Oblong(), r"the parameter log_width must be one number \(1,\) or one a column, not \(2, 3\)"),
        (Mute(), "outputs must name what the decoder says"),
        (Bare(), "nll must be a @formula"),
        (ReadsMore(), "nll reads temperature, which is none of centre, log_width, wider, x"),
        (SlopeOfAnother(), r"slopes must be decorated with @backward_of\(logistic_nll, 'centre'\)"),
        (OwnWithoutSlope(), r"own_slopes must be decorated with @backward_of\(logistic_nll, 'log_width', 'wider'\)"),
        (Unsaid(), "options do not come back from the text"),
    ],
    ids=lambda p: type(p).__name__,
)
def test_what_is_no_likelihood_is_refused(planted: Likelihood, line: str) -> None:
    with pytest.raises(ValueError, match=line) as raised:
        check_likelihood(planted)
    assert type(planted).__name__ in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_object_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"int must be a subclass of .*Likelihood"):
        check_likelihood(3)  # pyright: ignore


# ------------------------------------------------------------------------------------------------- what is wrong of it


@dataclass(frozen=True)
class NoConstant(Logistic):
    nll: ClassVar = formula(lambda centre, log_width, wider, x: logistic_nll(centre, log_width, wider, x) - 0.1)
    slopes: ClassVar = backward_of(nll, "centre")(logistic_dcentre.function)
    own_slopes: ClassVar = backward_of(nll, "log_width", "wider")(logistic_dwidth.function)


@dataclass(frozen=True)
class DrawsNormal(Logistic):
    def draw(self, p: Any, output: Any, rng: np.random.Generator) -> np.ndarray:
        return (output + math.pi / math.sqrt(3) * self.width(p) * rng.standard_normal(output.shape)).astype(
            output.dtype
        )


@dataclass(frozen=True)
class DrawsOnItsOwn(Logistic):
    def draw(self, p: Any, output: Any, rng: np.random.Generator) -> np.ndarray:
        return super().draw(p, output, np.random.default_rng())


@dataclass(frozen=True)
class DrawsInFloat64(Logistic):
    def draw(self, p: Any, output: Any, rng: np.random.Generator) -> np.ndarray:
        return super().draw(p, output, rng).astype("float64")


@dataclass(frozen=True)
class RefusesItsOwn(Logistic):
    def check(self, smallest: float, largest: float, whole: bool | None = None) -> None:
        if smallest < 0:
            raise ValueError("negative")


@dataclass(frozen=True)
class NotDiscrete(Logistic):
    discrete: ClassVar = True


@dataclass(frozen=True)
class MeanAside(Logistic):
    def mean(self, p: Any, output: Any) -> Any:
        return output + 0.2


@dataclass(frozen=True)
class LessInformation(Logistic):
    def information(self, p: Any, output: Any) -> Any:
        return np.broadcast_to(1 / (2.8 * self.width(p) ** 2), output.shape)


@dataclass(frozen=True)
class ShortStart(Logistic):
    def start(self, x: np.ndarray) -> np.ndarray:
        return x.mean(axis=0)[:1]


@dataclass(frozen=True)
class StartsAside(Logistic):
    def start(self, x: np.ndarray) -> np.ndarray:
        return -np.nan_to_num(x).mean(axis=0)


@dataclass(frozen=True)
class StartsAtNaN(Logistic):
    def start(self, x: np.ndarray) -> np.ndarray:
        return x.mean(axis=0)


@dataclass(frozen=True)
class WrongSlope(Logistic):
    slopes: ClassVar = backward_of(logistic_nll, "centre")(
        lambda dnll, centre, log_width, wider, x: 1.01 * logistic_dcentre(dnll, centre, log_width, wider, x)
    )


@dataclass(frozen=True)
class WrongOwnSlope(Logistic):
    own_slopes: ClassVar = backward_of(logistic_nll, "log_width", "wider")(
        lambda dnll, centre, log_width, wider, x: (
            logistic_dwidth(dnll, centre, log_width, wider, x)[0],
            0.99 * logistic_dwidth(dnll, centre, log_width, wider, x)[0],
        )
    )


@dataclass(frozen=True)
class HidesNaN(Logistic):
    nll: ClassVar = formula(
        lambda centre, log_width, wider, x: where(isnan(centre), 0.0, logistic_nll(centre, log_width, wider, x))
    )
    slopes: ClassVar = backward_of(nll, "centre")(logistic_dcentre.function)
    own_slopes: ClassVar = backward_of(nll, "log_width", "wider")(logistic_dwidth.function)


@dataclass(frozen=True)
class SumsInFloat32(Poisson):
    nll: ClassVar = formula(lambda log_rate, x: exp(log_rate) - x * log_rate + lgamma(double(x) + 1))
    slopes: ClassVar = backward_of(nll, "log_rate")(poisson_nll_backward.function)


@dataclass(frozen=True)
class SeesLogOf0(Poisson):
    encoder_input: ClassVar = formula(lambda x: log(x))


@dataclass(frozen=True)
class WrongPairs(Poisson):
    def factors(self, p: Any, output: Any, x: Any) -> Factors:
        return super().factors(p, output, x)._replace(of_x=0.0)


FROZEN: dict[Any, Any] = {}


@dataclass(frozen=True)
class Frozen(Logistic):
    """Keeps the first loss of every size."""

    def forward(self, k: Any, p: Any, output: Any, x: Any, each: float, missing: bool = False) -> Any:
        loss, back = super().forward(k, p, output, x, each, missing)
        return FROZEN.setdefault((k.name, str(k.dtype), loss.shape), np.array(loss)), back


@dataclass(frozen=True)
class ForgetsWeights(Logistic):
    def forward(self, k: Any, p: Any, output: Any, x: Any, each: float, missing: bool = False) -> Any:
        loss, back = super().forward(k, p, output, x, each, missing)
        return loss, lambda weight, g: back(None, g)


@dataclass(frozen=True)
class CountsTheUnseen(Logistic):
    def forward(self, k: Any, p: Any, output: Any, x: Any, each: float, missing: bool = False) -> Any:
        return super().forward(k, p, output, np.nan_to_num(x), each, False)


@pytest.mark.parametrize(
    ("planted", "line"),
    [
        (NoConstant(), "of the draws lie below .* but the integral of e.-nll is"),
        (DrawsNormal(), "of the draws lie below"),
        (DrawsOnItsOwn(), "draw must draw from the generator that it is given"),
        (DrawsInFloat64(), "draw must give .* float32, not float64"),
        (RefusesItsOwn(), "check refuses what draw drew"),
        (NotDiscrete(), "discrete says that x are whole numbers"),
        (MeanAside(), "mean is .* by 20000 draws"),
        (LessInformation(), "the information of centre is"),
        (ShortStart(), r"start must give \(3,\) numbers"),
        (StartsAside(), "at its start the loss is"),
        (StartsAtNaN(), "start is not finite, of data with NaN"),
        (WrongSlope(), r"the slope by the output \(centre\) is not the derivative of nll"),
        (WrongOwnSlope(), "the slope by the parameter wider .* is not the derivative of nll"),
        (HidesNaN(), "a decoder that says NaN has a finite loss"),
        (SumsInFloat32(), "in float32 on the reference kernels, at outputs up to 1e4: the loss is"),
        (SeesLogOf0(), "what the encoder sees is not finite"),
        (WrongPairs(), "log p of all pairs"),
        (Frozen(), "the loss"),
        (ForgetsWeights(), "slope and forward differ: the slope"),
        (CountsTheUnseen(), "with NaN.* loss and forward differ|loss and forward differ"),
    ],
    ids=lambda p: type(p).__name__,
)
def test_what_is_wrong_is_found_and_said_in_one_line(planted: Likelihood, line: str) -> None:
    FROZEN.clear()
    with pytest.raises(AssertionError, match=line) as raised:
        check_likelihood(planted)
    assert type(planted).__name__ in str(raised.value)
    assert "\n" not in str(raised.value)
