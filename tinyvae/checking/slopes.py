"""The slope of a loss along one direction, from five points, with how far it can be off. And the loss, watched.

Of the loss as a function phi(t) = L(p + t u) of the distance t along u:

    analytic  <g, u>          numeric  D(t) = (phi(t) - phi(-t)) / 2t

    tolerance = 30 eps S / t + (2/3) |D(2t) - D(t)|          (round-off and truncation: see `finite_differences`)
    jump      = (phi(t) + phi(-t) - 2 phi(0)) / t            the slope to the right less the slope to the left

The five points are p + k d with k = 0, 1, -1, 2, -2. d is t u, rounded to the grid of the float64 numbers around p, so
that all five are exact: otherwise rounding p would give a share of phi'' to the difference, and at a minimum where the
loss is 0 that is all there is. (Where 2 t |u| carries |p| over a power of 2, p may have a digit that the grid lacks:
then to half of that, for which `suspects.with_rounding` allows.) <g, u> is taken along d, the step really made.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

EPS = float(np.finfo(np.float64).eps)
H = EPS ** (1 / 3)
ROUND_OFF = 30.0
FAR = 1.0  # a term that is the same bit for bit this far off does not depend on the tensor
LOW = {2: "float16", 4: "float32"}  # by the bytes of one number


class Loss:
    """f at the current parameters, as the array of its terms; and what f does that no gradient is to blame for.

    `params` are put back after each call. `start()` comes first: it calls f twice where the parameters are.
    """

    def __init__(
        self, call: Callable[[], Any], params: Mapping[str, np.ndarray], kinks: Callable[[], Any] | None
    ) -> None:
        self.call, self.params, self.kinks = call, params, kinks
        self.origin: np.ndarray | None = None  # the terms at the parameters as they were given
        self.changed: list[str] = []  # parameters that f overwrote
        self.noise = 0.0  # the largest difference of two values at the origin
        self.returned = ""  # "float32" or "float16", if f returned that
        self.is_low, self.moved = True, False  # every value was a float32 number; and they moved, not by counts

    def start(self) -> None:
        """Call f twice at the parameters as they are."""
        self.origin = self.terms(guard=True)
        self.at_origin(self.terms(guard=True))

    def terms(self, guard: bool = False) -> np.ndarray:
        """Call f once, and see whether it leaves the parameters alone: if asked, and always once it did not.

        The result is a copy: f may return a buffer that it overwrites.
        """
        before = [p.copy() for p in self.params.values()] if guard or self.changed else None
        result = self.call()
        for (name, p), old in zip(self.params.items(), before or (), strict=before is not None):
            if not np.array_equal(p, old):
                p[...] = old
                self.changed += [] if name in self.changed else [name]
        terms = self._numbers(result)
        if self.is_low:
            with np.errstate(over="ignore"):
                self.is_low = bool((terms.astype(np.float32) == terms).all())
        if self.origin is not None:
            if terms.shape != self.origin.shape:
                raise ValueError(
                    f"f returned an array of shape {self.origin.shape}, and {terms.shape} at another call: "
                    "return the same terms at each, or their sum"
                )
            self.moved = self.moved or (self.is_low and bool(((terms != self.origin) & (terms % 1 != 0)).any()))
        return terms

    @property
    def count(self) -> int:
        """How many terms f returns."""
        return 0 if self.origin is None else self.origin.size

    def look_around(self, rng: np.random.Generator, steps: tuple[float, ...]) -> None:
        """Small differences of float64 numbers can be float32 numbers by chance: so look farther, too."""
        for p in self.params.values():
            for step in steps:
                if self.is_low:
                    steady_terms(self, p, np.asarray(rng.standard_normal(p.shape)), step)

    def side(self) -> bytes:
        """On which side of every kink the last call was, if that is known."""
        return b"" if self.kinks is None else np.asarray(self.kinks()).tobytes()

    def at_origin(self, terms: np.ndarray) -> None:
        """Compare with the first value there: a deterministic f differs by rounding at most."""
        assert self.origin is not None
        change = abs(math.fsum((terms - self.origin).ravel()))
        if change > ROUND_OFF * EPS * float(np.abs(self.origin).sum()):
            self.noise = max(self.noise, change)

    @property
    def misbehaves(self) -> bool:
        """It is certain already that f is to blame."""
        return bool(self.changed or self.noise or self.returned)

    def fault(self) -> str:
        """What is wrong with f, and what to do; "" if nothing is."""
        if self.changed:
            return f"f changes {', '.join(self.changed)}, which it is given: let it work on a copy"
        if self.noise:
            return (
                f"f gives another value at each call (by {self.noise:.1e}): draw the noise once, outside, and let no "
                "call change what the next one sees"
            )
        if self.returned:
            return f"f returns {self.returned}: compute in float64, or the differences are rounding"
        if self.is_low and self.moved:
            return "f computes in float32, or lower: every value of it is a float32 number. Let it compute in float64"
        return ""

    def _numbers(self, result: Any) -> np.ndarray:
        expected = "f must return a number or an array of numbers, not "
        try:
            array = np.asarray(result)
        except Exception as error:  # a ragged list, or an array of another library
            hint = ": return the loss alone" if isinstance(result, tuple) else ""
            raise TypeError(f"{expected}this {type(result).__name__}{hint}") from error
        if array.dtype.kind not in "biuf":
            if result is None:
                raise TypeError(f"{expected}None: does it lack a return?")
            is_array = isinstance(result, np.ndarray | np.generic)
            raise TypeError(expected + (f"an array of {array.dtype}" if is_array else f"this {type(result).__name__}"))
        if not array.size:
            raise ValueError("f returned an empty array: nothing to take a slope of")
        if array.dtype.kind == "f":
            self.returned = self.returned or LOW.get(array.dtype.itemsize, "")
        terms = np.array(array, dtype=np.float64, ndmin=1)
        if not np.isfinite(terms).all():
            value = terms[~np.isfinite(terms)][0]
            raise ValueError(f"the loss is {value}: finite differences need a finite loss near the parameters")
        return terms


@dataclass(frozen=True)
class Slope:
    """Along one direction, at one step."""

    step: float
    analytic: float
    numeric: float
    gap: float  # numeric - analytic
    round_off: float  # 30 eps S / step
    tolerance: float
    jump: float  # the slope to the right less the slope to the left
    bend: float  # what of the jump does not shrink with the step: 2 jump(t) - jump(2t); 0 up to t^3 where f is smooth
    still: bool  # f was the same at all five points
    lost: bool  # the step is so small beside p that rounding all but removes it

    @property
    def size(self) -> float:
        """The larger of the two slopes."""
        return max(abs(self.analytic), abs(self.numeric))

    @property
    def agrees(self) -> bool:
        """Up to the tolerance."""
        return abs(self.gap) <= self.tolerance


@dataclass(frozen=True)
class Line:
    """A loss along one direction u of one tensor p with the gradient g, all of one shape."""

    loss: Loss
    p: np.ndarray
    g: np.ndarray
    u: np.ndarray
    steady: Any = False  # which terms do not depend on p

    def step_made(self, step: float) -> np.ndarray:
        """step u, rounded so that p + k d is exact for |k| <= 2."""
        grid = np.spacing(np.abs(self.p) + 2 * step * np.abs(self.u))
        return grid * np.rint(step * self.u / grid)

    def points(self, multiples: Any, step: float) -> Iterator[tuple[np.ndarray, bytes]]:
        """The terms, and the side of each kink, at p + k d. p is put back, whatever happens."""
        origin, d = self.p.copy(), self.step_made(step)
        try:
            for k in multiples:
                self.p[...] = origin + k * d
                yield self.loss.terms(guard=k == 0), self.loss.side()
        finally:
            self.p[...] = origin

    def slope(self, step: float = H) -> Slope | None:
        """The slope at this step; None if one of the five points is on another side of a kink."""
        terms, sides = zip(*self.points((0, 1, -1, 2, -2), step), strict=True)
        self.loss.at_origin(terms[0])
        if any(side != sides[0] for side in sides):
            return None
        centre, plus, minus, plus2, minus2 = terms
        d = self.step_made(step)
        analytic = float((self.g * d).sum()) / step
        # term by term the difference of two near numbers is exact, and fsum adds exactly: constants leave no trace
        gap = math.fsum((plus - minus).ravel()) / (2 * step) - analytic
        gap2 = math.fsum((plus2 - minus2).ravel()) / (4 * step) - analytic
        still = (plus == centre) & (minus == centre) & (plus2 == centre) & (minus2 == centre)
        sizes, constant = np.abs(centre), still & self.steady
        round_off = ROUND_OFF * EPS * float(sizes[~constant].sum() / step + sizes[constant].sum() / FAR)
        jump = math.fsum(((plus - centre) - (centre - minus)).ravel()) / step
        jump2 = math.fsum(((plus2 - centre) - (centre - minus2)).ravel()) / (2 * step)
        return Slope(
            step=step,
            analytic=analytic,
            numeric=gap + analytic,
            gap=gap,
            round_off=round_off,
            tolerance=round_off + (2 / 3) * abs(gap2 - gap),
            jump=jump,
            bend=2 * jump - jump2,
            still=bool(still.all()),
            lost=bool(np.linalg.norm(d - step * self.u) > 0.1 * step * np.linalg.norm(self.u)),
        )

    def slope_if_any(self, step: float) -> Slope | None:
        """As `slope`, but far away f may leave its domain: None there."""
        with quietly():
            try:
                return self.slope(step)
            except Exception:
                return None


def steady_terms(loss: Loss, p: np.ndarray, u: np.ndarray, step: float = FAR) -> Any:
    """Which terms do not depend on p: the same bit for bit at a distance of 1 along u, to both sides.

    A term that hides its slope by rounding could hide eps |term| / 1 there: that is what it then adds to the tolerance.
    """
    assert loss.origin is not None
    with quietly():
        try:
            far = [terms for terms, _ in Line(loss, p, p, u).points((1, -1), step)]
        except Exception:  # f is not defined there
            return False
    return (far[0] == loss.origin) & (far[1] == loss.origin)


@contextmanager
def quietly() -> Iterator[None]:
    """No warnings: f is called where nobody else would."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
