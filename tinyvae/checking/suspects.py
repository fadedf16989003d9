"""Who is to blame where a gradient and a difference disagree, or where the difference is too blunt to tell.

Asked only then, and of one direction. In this order:

rounding   At 33 points h/16 apart the eighth differences of a smooth loss are nothing but rounding. Their median over
           sqrt(12870), the sum of their squared weights, estimates it (Moré and Wild, "Estimating Computational Noise",
           2011). The median is deaf to a kink, which is in few of them. The same h/64 apart, and the smaller of both,
           since a sharp bend is no rounding. But where f stands still from point to point, as it does on the steps of
           a lower precision, they are taken farther apart. Where the estimate is above eps S, f carries rounding
           that its terms do not show: float32 inside, or large numbers that cancel.
nearby     The same slope at steps h/4, h/16, ... If the disagreement vanishes, the loss has a kink within the step, or
           bends too sharply. If the gradient is wrong it stays, as large as it was. Where the second derivative jumps
           (ELU, a squared ReLU) the truncation falls as h, not as h^2, and is at most 2 |D(2h) - D(h)|.
kink       The slope to the right less the slope to the left shrinks as the step where f is smooth, by 4 each time.
           At a kink it stays; at a jump it grows. It is followed as far as rounding lets it be seen.
blunt      The slope at steps 8 h, 64 h, ..., where round-off is smaller: it confirms a slope too small for the step h,
           or contradicts it. Two steps must contradict, for far away the truncation is less sure.
"""

from dataclasses import replace

import numpy as np

from tinyvae.checking.slopes import EPS, ROUND_OFF, H, Line, Slope, quietly

NEAR = tuple(H / 4**k for k in range(1, 13))
SPACINGS = tuple(H * 4.0**k for k in range(-2, 4))
WIDE = tuple(H * 8**k for k in range(1, 5))
KINKED = 64  # so many elements on a kink are looked for


def rounding(line: Line) -> float:
    """The rounding error of the loss along the line, measured."""
    fine, stood = _eighth_differences(line, H / 64)
    estimate, stands = fine, True
    for spacing in SPACINGS:
        if stands:
            estimate, stands = _eighth_differences(line, spacing)
    return estimate if stood else min(fine, estimate)


def _eighth_differences(line: Line, spacing: float) -> tuple[float, bool]:
    """The estimate at this spacing, and whether f stands still over most of it."""
    try:
        with quietly():
            values = [(terms - line.loss.origin).sum() for terms, _ in line.points(range(-16, 17), spacing)]
    except ValueError:  # not finite: that is told elsewhere
        return 0.0, False
    estimate = float(np.median(np.abs(np.diff(values, 8)))) / 12870**0.5
    return estimate, bool(np.mean(np.diff(values) == 0) > 0.5)


def with_rounding(line: Line, slope: Slope, rounding: float) -> Slope:
    """The slope with its tolerance for this much rounding of the loss, if it is more than was thought.

    p is rounded as well, and eps |p| away the slope is another: all the rounding there is at a minimum where f is 0.
    """
    beside = EPS * float(np.abs(line.p).max()) * abs(slope.jump)
    round_off = max(slope.round_off, ROUND_OFF * max(rounding, beside) / slope.step)
    return replace(slope, round_off=round_off, tolerance=slope.tolerance - slope.round_off + round_off)


def slopes(line: Line, steps: tuple[float, ...], rounding: float) -> list[Slope]:
    """The slopes at these steps, but for those where f is not defined, or a known kink is crossed."""
    found = [line.slope_if_any(step) for step in steps]
    return [with_rounding(line, slope, rounding) for slope in found if slope is not None]


def vanishes(slope: Slope, near: list[Slope]) -> bool:
    """The disagreement is gone at a smaller step, at which it would be seen."""
    return any(abs(s.gap) <= first_order(s) <= abs(slope.gap) / 4 for s in near)


def first_order(slope: Slope) -> float:
    """The tolerance if the truncation falls as the step, and not as its square."""
    return slope.round_off + 3 * (slope.tolerance - slope.round_off)


def at_kink(slope: Slope, near: list[Slope]) -> tuple[str, Slope] | None:
    """("kink" or "jump", the slope at the smallest step that shows it), or None."""
    seen = [slope, *(s for s in near if 16 * s.round_off < abs(slope.jump))]
    if len(seen) < 2 or abs(seen[-1].jump) < 4 * seen[-1].round_off:
        return None
    shrinks = abs(seen[-1].jump) / abs(seen[-2].jump) if seen[-2].jump else 0.0
    if shrinks < 0.35:  # 1/4 where f is smooth
        return None
    return ("kink" if shrinks < 2 else "jump"), seen[-1]


def kinked_elements(line: Line, rounding: float) -> list[int] | None:
    """The elements whose share of the line crosses a kink, found by halving; None if they are too many, or none is."""
    found: list[int] = []
    parts = [np.arange(line.p.size)]
    while parts:
        part = parts.pop()
        u = np.zeros(line.p.shape)
        u.flat[part] = line.u.flat[part]
        share = replace(line, u=u)
        first = share.slope_if_any(H)
        if first is None:
            return None
        first = with_rounding(share, first, rounding)
        if at_kink(first, slopes(share, NEAR, rounding)) is None:
            continue
        if part.size > 1:
            parts += [part[: part.size // 2], part[part.size // 2 :]]
            continue
        found.append(int(part[0]))
        if len(found) > KINKED:
            return None
    return found or None


def sharpest(line: Line, slope: Slope, rounding: float) -> tuple[Slope, bool]:
    """The slope at the step that sees best, and whether two steps contradict the gradient."""
    steps = (*WIDE, *NEAR[:6]) if slope.tolerance > 2 * slope.round_off else WIDE
    found = sorted(slopes(line, steps, rounding), key=lambda s: s.tolerance)
    return min([slope, *found[:1]], key=lambda s: s.tolerance), len(found) > 1 and all(
        abs(s.gap) > first_order(s) for s in found[:2]
    )


def is_rough(line: Line, rounding: float) -> bool:
    """The measured rounding is far above that of a float64 loss of this size."""
    assert line.loss.origin is not None
    return rounding > 100 * EPS * float(np.abs(line.loss.origin).sum())
