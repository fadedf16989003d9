"""Compare a written gradient with central differences, under a tolerance that is derived and not guessed.

For a tensor with gradient g and a random unit direction u, the directional derivative is known twice:

    analytic  <g, u>          numeric  D(h) = (L(p + h u) - L(p - h u)) / 2h,  with h = eps^(1/3), about 6e-6

D(h) is wrong by truncation, h^2 L'''/6, and by round-off, about eps S / h, where S is the sum of the absolute terms
of the loss. Since D(2h) carries four times the truncation, |D(2h) - D(h)| / 3 estimates it. So

    tolerance = 30 eps S / h + (2/3) |D(2h) - D(h)|

The first constant leaves room for the rounding inside the terms; the second doubles the estimate. The tolerance is also
the smallest error that the check can see. p + h u is rounded, so <g, u> is taken along the step that was really made.
Not to be checked this way: a loss that oscillates within h. Where the loss has
kinks (ReLU), a difference across one means nothing: `kinks` tells on which side each unit is, and a direction that
crosses is drawn again, up to a cap, at which the check FAILS.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

EPS = float(np.finfo(np.float64).eps)
H = EPS ** (1 / 3)
ROUND_OFF = 30.0
REDRAWS = 20
ELEMENTWISE = 64  # tensors up to this size are checked element by element as well


@dataclass(frozen=True)
class Check:
    """One tensor's verdict: of all the directions tried, the one that is worst against its tolerance."""

    name: str
    error: float  # |analytic - numeric|
    tolerance: float
    passed: bool
    note: str = ""

    @property
    def verdict(self) -> str:
        """ "ok" or "WRONG"."""
        return "ok" if self.passed else "WRONG"


class Report(list[Check]):
    """The checks of one call, one for each tensor. True if all passed; prints as a table."""

    @property
    def passed(self) -> bool:
        """All checks passed."""
        return all(check.passed for check in self)

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

    f       returns the loss, as a number, or as an array of terms whose sum is the loss (a sharper tolerance when
            the terms cancel). It is called as f(params), or as f() if it takes no argument; `params` are perturbed
            in place and put back, so a function that reads them elsewhere (a model's own views) serves as well.
            It must be deterministic: draw the noise once, outside.
    params  float64 arrays by name, or one array.
    grads   the gradients under test, the same names and shapes.
    kinks   returns, after a call of f, an array of booleans: on which side of each kink the loss was evaluated.

    Returns a Report, true if every gradient is right: `assert tinyvae.gradcheck(f, params, grads)`.
    Raises ValueError if names or shapes differ, a parameter is not float64, or the loss is not finite.
    """
    argument = params
    if not isinstance(params, Mapping):
        params = {"x": params}
    if not isinstance(grads, Mapping):
        grads = {"x": np.asarray(grads)}
    _check_arguments(params, grads)
    grads = {name: np.array(g, dtype=np.float64) for name, g in grads.items()}  # f may overwrite its own
    required = [
        p for p in inspect.signature(f).parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD
    ]
    call = (lambda: f(argument)) if required else f
    loss = _Loss(call, kinks)
    rng = np.random.default_rng(seed)
    return Report(_check_tensor(loss, name, params[name], grads[name], rng, elementwise) for name in params)


class _Loss:
    """The loss at the current parameters: its value, the sum of its absolute terms, and the side of every kink."""

    def __init__(self, call: Callable[[], Any], kinks: Callable[[], Any] | None) -> None:
        self.call, self.kinks = call, kinks

    def __call__(self) -> tuple[float, float, bytes]:
        terms = np.atleast_1d(np.asarray(self.call(), dtype=np.float64))
        value = math.fsum(terms.ravel())
        if not math.isfinite(value):
            raise ValueError(f"the loss is {value}: finite differences need a finite loss near the parameters")
        side = b"" if self.kinks is None else np.asarray(self.kinks()).tobytes()
        return value, float(np.abs(terms).sum()), side


def _check_tensor(
    loss: _Loss, name: str, p: np.ndarray, g: np.ndarray, rng: np.random.Generator, elementwise: int
) -> Check:
    checks = [_check_random_direction(loss, name, p, g, rng)]
    if p.size <= elementwise:
        for i in range(p.size):
            u = np.zeros(p.shape)
            u.flat[i] = 1.0
            check = _check_direction(loss, name, p, g, u)
            # an element that sits on a kink cannot be drawn again; the random direction has covered the tensor
            checks += [] if check is None else [check]
    return max(checks, key=lambda c: (not c.passed, c.error / c.tolerance if c.tolerance else c.error))


def _check_random_direction(loss: _Loss, name: str, p: np.ndarray, g: np.ndarray, rng: np.random.Generator) -> Check:
    for _ in range(REDRAWS):
        u = rng.standard_normal(p.shape)
        check = _check_direction(loss, name, p, g, u / np.linalg.norm(u))
        if check is not None:
            return check
    return Check(name, math.inf, 0.0, False, f"every one of {REDRAWS} directions crosses a kink")


def _check_direction(loss: _Loss, name: str, p: np.ndarray, g: np.ndarray, u: np.ndarray) -> Check | None:
    """The check along u; None if a kink lies between the points."""
    origin = p.copy()
    points, places = [], []
    try:
        for steps in (0, 1, -1, 2, -2):
            p[...] = origin + (steps * H) * u
            points.append(loss())
            places.append(p.copy())
    finally:
        p[...] = origin
    (_, size, side), plus, minus, plus2, minus2 = points
    if any(point[2] != side for point in points):
        return None
    # numeric minus analytic, along the steps as they were rounded: at h, and at 2h
    gap = (plus[0] - minus[0] - float((g * (places[1] - places[2])).sum())) / (2 * H)
    gap2 = (plus2[0] - minus2[0] - float((g * (places[3] - places[4])).sum())) / (4 * H)
    tolerance = ROUND_OFF * EPS * size / H + (2 / 3) * abs(gap2 - gap)
    return Check(name, abs(gap), tolerance, bool(abs(gap) <= tolerance))


def _check_arguments(params: Mapping[str, np.ndarray], grads: Mapping[str, np.ndarray]) -> None:
    if set(params) != set(grads):
        raise ValueError(f"params and grads have different names: {sorted(set(params) ^ set(grads))}")
    for name, p in params.items():
        if not isinstance(p, np.ndarray) or p.dtype != np.float64:
            raise ValueError(
                f"{name} must be a float64 NumPy array: in lower precision finite differences mean nothing"
            )
        if p.shape != np.shape(grads[name]):
            raise ValueError(f"{name} has shape {p.shape}, its gradient {np.shape(grads[name])}")
