"""Compare a written gradient with central differences, under a tolerance that is derived and not guessed.

For a tensor with gradient g and a random unit direction u, the directional derivative is known twice:

    analytic  <g, u>          numeric  D(h) = (L(p + h u) - L(p - h u)) / 2h,  with h = eps^(1/3), about 6e-6

D(h) is wrong by truncation, h^2 L'''/6, and by round-off, about eps S / h, where S is the sum of the absolute terms
of the loss. Since D(2h) carries four times the truncation, |D(2h) - D(h)| / 3 estimates it. So

    tolerance = 30 eps S / h + (2/3) |D(2h) - D(h)|

The first constant leaves room for the rounding inside the terms; the second doubles the estimate. The tolerance is also
the smallest error that the check can see: and so there are three verdicts.

ok           analytic and numeric agree up to the tolerance, and the tolerance is small enough to mean something.
WRONG        they do not agree, and f is not to blame.
cannot tell  nothing was checked, and the note says why, and what to do.

Small enough to mean something. Let s be the larger of |<g, u>| and |D(h)|. With a tolerance below s / 10 a wrong sign,
a factor of 2 or a forgotten half would be seen: that is enough. (Below s / 1000 if most of it is truncation, which
can be looked into at smaller steps.) Otherwise the slope may be truly small, which is no
reason for alarm (a dead unit, a bias before batch normalization, one small element among large ones), or it may be
hidden by a large f. Values at h cannot tell the two apart: f = c (1e12 + |w|^2) and c (1 + 1e-12 |w|^2) are one
function but for the scale. But round-off falls as 1 / t with the step t, and a slope that is truly 0 is 0 at all of
them. So the slope is taken at 8 h, 64 h, ... as well (`suspects.sharpest`), and where two of those contradict the
gradient, the check at h cannot tell. Where they do not, the verdict is ok if

- the tolerance is below a tenth of the slopes of the whole tensor, the largest along any direction and
  |g| / sqrt(size): then this element only is small, and it was confirmed from afar; or
- what is left of the tolerance is at most a thousandth of the largest gradient of all that is checked, or of 1. If both
  slopes are 0 from afar, what is left is the tolerance there. It is the one absolute number: a loss of ordinary
  size is one whose gradients are to be compared with 1. It is reached at S of 1e6 for a slope seen at h, and at
  1e9 or more for one that is 0 far off.

Else f is too large beside its change, or bends too much within h, or carries too much rounding: "cannot tell".

Terms. A term that does not depend on the tensor at all (`slopes.steady_terms`) adds nothing to the round-off of the
differences, since these are taken term by term. That is why a large constant should be returned as a term of its own.

Kinks (ReLU, abs, max): a difference across one means nothing. `kinks` tells on which side each unit is, and a direction
that crosses is drawn again, up to a cap, at which the check cannot tell. Without `kinks`, a kink shows itself:
see `suspects`. A gradient that is wrong beside the kink, or outside of the two slopes at it, is still WRONG.

Not to be checked this way: a loss that oscillates within h.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyvae.checking import suspects
from tinyvae.checking.slopes import EPS as EPS
from tinyvae.checking.slopes import ROUND_OFF as ROUND_OFF
from tinyvae.checking.slopes import H as H
from tinyvae.checking.slopes import Line, Loss, Slope, steady_terms

REDRAWS = 20
ELEMENTWISE = 64  # tensors up to this size are checked element by element as well
REACH = 0.1  # a tolerance below this share of the slope means something
REACH_BENT = 1e-3  # the same where truncation dominates: beside a kink it would forgive much
ORDINARY = 1e-3  # what may be left of the tolerance where the slope is too small for it
OK, BLIND, WRONG = "ok", "cannot tell", "WRONG"


@dataclass(frozen=True)
class Check:
    """One tensor's verdict: of all the directions tried, the one that is worst against its tolerance."""

    name: str
    error: float  # |analytic - numeric|
    tolerance: float
    passed: bool
    note: str = ""
    blind: bool = False  # not passed, and not found wrong either: the note says why

    @property
    def verdict(self) -> str:
        """ "ok", "WRONG" or "cannot tell"."""
        return OK if self.passed else BLIND if self.blind else WRONG


class Report(list[Check]):
    """The checks of one call, one for each tensor. True if all passed; prints as a table."""

    @property
    def passed(self) -> bool:
        """All checks passed: none is wrong, and of none the check could not tell."""
        return all(check.passed for check in self)

    @property
    def verdict(self) -> str:
        """The worst: "WRONG" if a gradient is wrong, else "cannot tell" if one could not be judged, else "ok"."""
        verdicts = {check.verdict for check in self}
        return next((verdict for verdict in (WRONG, BLIND) if verdict in verdicts), OK)

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        width = max((len(check.name) for check in self), default=0)
        lines = [
            f"{c.name:{width}}  error {c.error:.1e}  tolerance {c.tolerance:.1e}  {c.verdict} {c.note}" for c in self
        ]
        return "\n".join(line.rstrip() for line in lines)


def gradcheck(
    f: Callable[..., Any],
    params: Mapping[str, np.ndarray] | np.ndarray,
    grads: Mapping[str, np.ndarray] | np.ndarray,
    *,
    kinks: Callable[[], Any] | None = None,
    seed: int = 0,
    elementwise: int = ELEMENTWISE,
) -> Report:
    """Check the gradients `grads` of `f` at `params` against central differences.

    f       returns the loss, as a number, or as an array of terms whose sum is the loss (an honest tolerance when the
            terms cancel, and a sharper one when some do not depend on a tensor). It is called as f(params), or as
            f() if it takes no argument; `params` are perturbed in place and put back, so a function that reads
            them elsewhere (a model's own views) serves as well. It must be deterministic (draw the noise once,
            outside), compute in float64, and leave its argument as it is: if not, the report says so.
    params  float64 arrays by name, or one array.
    grads   the gradients under test, the same names and shapes.
    kinks   returns, after a call of f, an array of booleans: on which side of each kink the loss was evaluated.

    Returns a Report, true if every gradient is right: `assert tinyvae.gradcheck(f, params, grads)`. A check that could
    not be made has the verdict "cannot tell", with a note that says why: it did not pass, and nothing was found wrong.
    Raises ValueError if names or shapes differ, a parameter is not a writeable float64 array or not finite, there is
    nothing to check, the loss is not finite, or f returns other terms at each call; TypeError if f is no function, or
    what it returns or a gradient is not real numbers.
    """
    argument = params
    if not isinstance(params, Mapping):
        params = {"x": params}
    if not isinstance(grads, Mapping):
        grads = {"x": grads if grads is None else np.asarray(grads)}
    _check_arguments(f, params, grads)
    rounded = {name: _epsilon(g) for name, g in grads.items()}
    grads = {name: np.array(g, dtype=np.float64) for name, g in grads.items()}  # f may overwrite its own
    loss = Loss((lambda: f(argument)) if _takes_an_argument(f) else f, params, kinks)
    given = {name: p.copy() for name, p in params.items()}
    unit = max([1.0, *(float(np.abs(g).max()) for g in grads.values() if np.isfinite(g).all())])
    rng = np.random.default_rng(seed)
    try:
        loss.start()
        checks = [
            _Tensor(loss, name, p, grads[name], rng, elementwise, unit, rounded[name]).check()
            for name, p in params.items()
        ]
        loss.look_around(rng, suspects.WIDE)
        loss.at_origin(loss.terms())
    finally:
        for name, p in params.items():
            p[...] = given[name]
    if fault := loss.fault():
        # a gradient of NaN is wrong whatever f does
        checks = [c if math.isnan(c.error) else replace(c, passed=False, blind=True, note=fault) for c in checks]
    return Report(checks)


@dataclass(frozen=True)
class _Finding:
    """What one direction says."""

    slope: Slope
    verdict: str
    note: str = ""
    elements: tuple[int, ...] = ()  # whom it concerns, of the flat tensor

    @property
    def worst(self) -> tuple[int, float]:
        """For comparisons: the verdict, then the error in tolerances."""
        error, tolerance = abs(self.slope.gap), self.slope.tolerance
        return (OK, BLIND, WRONG).index(self.verdict), error / tolerance if tolerance else error


class _Tensor:
    """The check of one tensor: a random direction, and every element if they are few."""

    def __init__(
        self,
        loss: Loss,
        name: str,
        p: np.ndarray,
        g: np.ndarray,
        rng: np.random.Generator,
        elementwise: int,
        unit: float,
        rounded: float,
    ) -> None:
        self.loss, self.name, self.p, self.g, self.rng = loss, name, p, g, rng
        self.by_element = p.size <= elementwise
        self.unit, self.rounded = unit, rounded
        self.scale = 0.0  # the size of this tensor's slopes
        self.random: Line | None = None
        self.rounding: float | None = None  # of the loss along `random`, once it is asked for

    def check(self) -> Check:
        if bad := int((~np.isfinite(self.g)).sum()):
            what = "NaN" if np.isnan(self.g).any() else "infinity"
            return Check(self.name, math.nan, 0.0, False, f"the gradient holds {what}: {bad} of {self.g.size} elements")
        lines = self.lines()
        if lines is None:
            note = f"every one of {REDRAWS} directions crosses a kink: check at parameters that are not on it"
            crossed = Check(self.name, math.inf, 0.0, False, note, blind=True)
            lines = []
        else:
            crossed = None
        if self.by_element:
            # an element that sits on a known kink cannot be drawn again; the random direction has covered the tensor
            lines += [(line, slope, i) for i, line in self.elements() if (slope := line.slope()) is not None]
        self.scale = max(
            [float(np.linalg.norm(self.g)) / self.p.size**0.5, *(slope.size for _, slope, _ in lines)],
        )
        # the worst first: if it is wrong for sure, no other need be looked into
        lines.sort(key=lambda entry: _Finding(entry[1], OK).worst, reverse=True)
        findings: list[_Finding] = []
        for line, slope, element in lines:
            findings.append(self.judge(line, slope, element))
            if findings[-1].verdict == WRONG:
                break
        worst = max(findings, key=lambda finding: finding.worst, default=None)
        if worst is None or (crossed and worst.verdict != WRONG):
            assert crossed is not None
            return crossed
        passed, blind = worst.verdict == OK, worst.verdict == BLIND
        note = self.where(worst, findings)
        if worst.verdict == WRONG and not note and all(slope.still for _, slope, _ in lines):
            note = "f does not change at all: does it read this array?"
        return Check(self.name, abs(worst.slope.gap), worst.slope.tolerance, passed, note, blind)

    def lines(self) -> list[tuple[Line, Slope, int | None]] | None:
        """A random direction that crosses no known kink; None if none was found."""
        for attempt in range(REDRAWS):
            u = np.asarray(self.rng.standard_normal(self.p.shape))
            u = u / np.linalg.norm(u)
            if attempt == 0:
                # one term alone leaves nothing to tell apart
                self.steady = steady_terms(self.loss, self.p, u) if self.loss.count > 1 else False
            line = Line(self.loss, self.p, self.g, u, self.steady)
            if (slope := line.slope()) is not None:
                self.random = line
                return [(line, slope, None)]
        return None

    def elements(self) -> list[tuple[int, Line]]:
        found = []
        for i in range(self.p.size):
            u = np.zeros(self.p.shape)
            u.flat[i] = 1.0
            found.append((i, Line(self.loss, self.p, self.g, u, self.steady)))
        return found

    def judge(self, line: Line, slope: Slope, element: int | None) -> _Finding:
        """The verdict of one direction. A gradient is WRONG if it disagrees, and nothing else explains that."""
        mine = () if element is None else (element,)
        if slope.lost:
            note = f"the parameters are so large that a step of {slope.step:.0e} is lost in rounding: scale them"
            return _Finding(slope, BLIND, note, mine)
        if slope.agrees and abs(slope.bend) <= 8 * slope.round_off:
            return _Finding(slope, *self.within_reach(line, slope, 0.0), mine)
        if self.loss.misbehaves:  # the report will say how
            return _Finding(slope, BLIND)
        if self.rounding is None:  # along the random direction, where all elements take part
            self.rounding = 0.0 if self.random is None else suspects.rounding(self.random)
        rounding = max(self.rounding, suspects.rounding(line))
        slope = suspects.with_rounding(line, slope, rounding)
        near = suspects.slopes(line, suspects.NEAR, rounding)
        if not slope.agrees and suspects.vanishes(slope, near):
            if abs(slope.gap) <= suspects.first_order(slope):
                slope = replace(slope, tolerance=suspects.first_order(slope))
                return _Finding(slope, *self.within_reach(line, slope, rounding), mine)
            note = f"f has a kink, or a very sharp bend, within {2 * slope.step:.0e} of the point, and a difference "
            note += "across it means nothing: pass kinks, or check at other parameters or with another seed"
            return _Finding(slope, BLIND, note, mine)
        if kink := suspects.at_kink(slope, near):
            return self.judge_at_kink(line, slope, element, rounding, *kink)
        if slope.agrees:
            return _Finding(slope, *self.within_reach(line, slope, rounding), mine)
        if abs(slope.gap) <= slope.tolerance + self.rounded * float(np.abs(self.g * line.u).sum()):
            return _Finding(
                slope, BLIND, "the gradient comes in lower precision than float64: compute it in float64", mine
            )
        return _Finding(slope, WRONG, "", mine)

    def judge_at_kink(
        self, line: Line, slope: Slope, element: int | None, rounding: float, what: str, last: Slope
    ) -> _Finding:
        """At a kink an element's slope must lie between the two that it has there, and more cannot be said."""
        note = f"f has a {what} at this point, where it has no slope: check at parameters that are not on it"
        if element is not None:
            outside = what == "kink" and abs(last.gap) > abs(last.jump) / 2 + 2 * last.tolerance
            if outside:
                note = f"f has a kink here, and this is neither of its slopes {last.numeric - last.jump / 2:.3g} and "
                note += f"{last.numeric + last.jump / 2:.3g}, nor between them"
            return _Finding(slope, WRONG if outside else BLIND, note, (element,))
        if self.by_element:
            return _Finding(slope, BLIND, note)
        found = suspects.kinked_elements(line, rounding)
        if found is None:
            return _Finding(slope, BLIND, note)
        for i, single in ((i, line) for i, line in self.elements() if i in found):
            first = single.slope()
            if first is not None and (finding := self.judge(single, first, i)).verdict == WRONG:
                return finding
        u = line.u.copy()
        u.flat[found] = 0.0
        rest = replace(line, u=u)
        if (others := rest.slope()) is not None and not (
            others := suspects.with_rounding(rest, others, rounding)
        ).agrees:
            near = suspects.slopes(rest, suspects.NEAR, rounding)
            if not suspects.vanishes(others, near) and suspects.at_kink(others, near) is None:
                return _Finding(others, WRONG, "beside a kink elsewhere in the tensor")
        return _Finding(slope, BLIND, note, tuple(found))

    def within_reach(self, line: Line, slope: Slope, rounding: float) -> tuple[str, str]:
        """Of a direction that agrees: could it have disagreed? See "small enough to mean something" above."""
        # where truncation is most of the tolerance, smaller steps see more: it must be small, or they must agree
        reach = REACH if slope.tolerance <= 2 * slope.round_off else REACH_BENT
        if slope.tolerance < reach * slope.size:
            return OK, ""
        best, contradicted = suspects.sharpest(line, slope, rounding)
        left = best.tolerance if best.size <= best.tolerance else slope.tolerance
        if not contradicted and (slope.tolerance < REACH * self.scale or left <= ORDINARY * self.unit):
            return OK, ""
        if slope.tolerance > 2 * slope.round_off:
            why = "f bends too much within the step, or has a kink there: scale the parameters, or check elsewhere"
        elif suspects.is_rough(line, rounding):
            why = f"f carries rounding of {rounding:.0e}, as in float32, or where large numbers cancel inside: "
            why += "let it compute in float64, and return its terms"
        else:
            why = "f is too large beside its change: return it as terms, or subtract the constant"
        return BLIND, f"the tolerance is too large for a slope of {best.size:.1e}: {why}"

    def where(self, worst: _Finding, findings: list[_Finding]) -> str:
        """The note, with the elements that share its verdict and reason."""
        if not worst.note:
            return ""
        same = [f for f in findings if f.verdict == worst.verdict and f.note[:30] == worst.note[:30]]
        elements = sorted({i for finding in same for i in finding.elements})
        if not elements or self.p.size == 1:
            return worst.note
        places = [str([int(i) for i in np.unravel_index(i, self.p.shape)]) for i in elements[:4]]
        more = f" and {len(elements) - 4} more" if len(elements) > 4 else ""
        return f"at {', '.join(places)}{more}: {worst.note}"


def _takes_an_argument(f: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(f).parameters.values()
    except ValueError:  # a builtin that does not tell
        return True
    return any(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in parameters)


def _epsilon(gradient: Any) -> float:
    """The rounding of a gradient that came in lower precision than float64, relative; 0 for all others."""
    kind = np.asarray(gradient).dtype
    return float(np.finfo(kind).eps) if kind.kind == "f" and kind.itemsize < 8 else 0.0


def _check_arguments(f: Any, params: Mapping[str, np.ndarray], grads: Mapping[str, np.ndarray]) -> None:
    if not callable(f):
        raise TypeError(f"f must be a function of the parameters, not {type(f).__name__}")
    if set(params) != set(grads):
        raise ValueError(f"params and grads have different names: {sorted(set(params) ^ set(grads))}")
    if not params:
        raise ValueError("params is empty: there is nothing to check")
    for name, p in params.items():
        if not isinstance(p, np.ndarray) or p.dtype != np.float64:
            raise ValueError(
                f"{name} must be a float64 NumPy array: in lower precision finite differences mean nothing"
            )
        if not p.size:
            raise ValueError(f"{name} has no elements, its shape is {p.shape}: leave it out")
        if not p.flags.writeable:
            raise ValueError(f"{name} is not writeable, and gradcheck moves it in place: pass a copy, which f reads")
        if not np.isfinite(p).all():
            raise ValueError(f"{name} holds NaN or infinity: there is no slope at such a point")
        if grads[name] is None:
            raise TypeError(f"the gradient of {name} is None: was the backward pass called?")
        if p.shape != np.shape(grads[name]):
            raise ValueError(f"{name} has shape {p.shape}, its gradient {np.shape(grads[name])}")
        if np.asarray(grads[name]).dtype.kind not in "biuf":
            raise TypeError(f"the gradient of {name} must hold real numbers, not {np.asarray(grads[name]).dtype}")
