"""Write the function: Adam, clipping, and the checks of a gradient."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinyvae.checking.finite_differences import EPS
from tinyvae.exercises import solutions
from tinyvae.exercises.drawing import Draw, array, sizes
from tinyvae.exercises.oracles import close
from tinyvae.exercises.task import Answer, Case, FunctionTask, Mistake, Property, exactly
from tinyvae.ops import adam

# ---------------------------------------------------------------------------------------------------------------- Adam


@st.composite
def _states(draw: Draw) -> Case:
    size = draw(sizes(1))
    return {
        "p": draw(array((*size,))), "g": draw(array((*size,))), "m": draw(array((*size,), -1, 1)),
        "v": draw(array((*size,), 0, 1, off=1 / 16)), "t": draw(st.integers(1, 9)),
        "lr": draw(st.sampled_from([0.5, 0.125])),
    }  # fmt: skip


@st.composite
def _first_steps(draw: Draw) -> Case:
    g = draw(array((2,))) * 1e-8
    return {"p": np.zeros(2), "g": g, "m": np.zeros(2), "v": np.zeros(2), "t": 1, "lr": 0.5}


@st.composite
def _other_numbers(draw: Draw) -> Case:
    numbers = st.sampled_from([(0.5, 0.75, 0.125), (0.75, 0.5, 1.0)])
    return draw(_states()) | dict(zip(("beta1", "beta2", "epsilon"), draw(numbers), strict=True))


def _adam_answer(c: Case) -> list[Answer]:
    beta1, beta2, epsilon = c.get("beta1", 0.9), c.get("beta2", 0.999), c.get("epsilon", 1e-8)
    m = beta1 * c["m"] + (1 - beta1) * c["g"]
    v = beta2 * c["v"] + (1 - beta2) * c["g"] ** 2
    m_hat, v_hat = m / (1 - beta1 ** c["t"]), v / (1 - beta2 ** c["t"])
    step = c["lr"] * m_hat / (np.sqrt(v_hat) + epsilon)
    # 1 - 0.999^t keeps all but three digits; what cancels in m leaves 1e-16 of its terms, over a root of 1/4 at least
    tolerance = 1e-11 * (np.abs(c["p"]) + np.abs(step)) + 1e-13
    return [exactly(c["p"] - step, tolerance), exactly(m, 1e-13), exactly(v, 1e-13)]


def _adam(step: Callable[..., Any], m: float = 0.9, v: float = 0.999) -> Callable[..., Any]:
    """From step(m, v, t): by what p moves, without lr."""

    def wrong(p: Any, g: Any, m_: Any, v_: Any, t: int, lr: float, *_: Any, **__: Any) -> Any:
        m_, v_ = m * m_ + (1 - m) * g, v * v_ + (1 - v) * g * g
        return p - lr * step(m_, v_, t), m_, v_

    return lambda p, g, m, v, t, lr, **_: wrong(p, g, m, v, t, lr)


def _epsilon_outside(p: Any, g: Any, m: Any, v: Any, t: int, lr: float, **_: Any) -> Any:
    moved, m, v = _adam(lambda m, v, t: m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t)))(p, g, m, v, t, lr)
    return moved + 1e-8, m, v


def _corrected(p: Any, g: Any, m: Any, v: Any, t: int, lr: float, **_: Any) -> Any:
    p, m, v = adam.adam_step(p, g, m, v, t, lr)
    return p, m / (1 - 0.9**t), v / (1 - 0.999**t)


ADAM = FunctionTask(
    "adam-step", adam.adam_step, ("p", "m", "v"),
    (
        Property("p, m and v are as algorithm 1 of Kingma & Ba 2015 says", _states(), _adam_answer),
        Property("so they are at the first step, with gradients as small as epsilon", _first_steps(), _adam_answer, 20),
        Property("and with other betas and another epsilon", _other_numbers(), _adam_answer, 20,
                 look="beta1, beta2 and epsilon are arguments: are 0.9, 0.999 or 1e-8 written somewhere instead?"),
    ),
    (
        Mistake("beta1, beta2 and epsilon are arguments: are 0.9, 0.999 or 1e-8 written somewhere instead?",
                lambda p, g, m, v, t, lr, **_: adam.adam_step(p, g, m, v, t, lr)),
        Mistake("the bias correction is missing: m / (1 - beta1^t) and v / (1 - beta2^t)",
                _adam(lambda m, v, t: m / (np.sqrt(v) + 1e-8))),
        Mistake("epsilon stands inside the square root; it is added to the root",
                _adam(lambda m, v, t: m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t) + 1e-8))),
        Mistake("p goes uphill: the step is subtracted",
                _adam(lambda m, v, t: -m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))),
        Mistake("beta^(t + 1): t counts from 1 already",
                _adam(lambda m, v, t: m / (1 - 0.9 ** (t + 1)) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8))),
        Mistake("only v is corrected: m / (1 - beta1^t) too",
                _adam(lambda m, v, t: m / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))),
        Mistake("only m is corrected: v / (1 - beta2^t) too",
                _adam(lambda m, v, t: m / (1 - 0.9**t) / (np.sqrt(v) + 1e-8))),
        Mistake("epsilon is added to the fraction: brackets around sqrt(v^) + epsilon", _epsilon_outside),
        Mistake("the step is not multiplied by lr", lambda p, g, m, v, t, lr, **_: adam.adam_step(
            p, g, m, v, t, 1.0)),
        Mistake("that is the step itself; the new p is wanted", lambda p, g, m, v, t, lr, **_: (
            p - adam.adam_step(p, g, m, v, t, lr)[0], *adam.adam_step(p, g, m, v, t, lr)[1:])),
        Mistake("beta and 1 - beta have changed places: the old mean keeps the weight beta",
                _adam(lambda m, v, t: m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), 0.1, 0.001)),
        Mistake("t beta stands where beta^t should: ** and not *", _adam(
            lambda m, v, t: m / (1 - 0.9 * t) / (np.sqrt(v / (1 - 0.999 * t)) + 1e-8))),
        Mistake("the corrected means are returned; the next step wants them without the correction", _corrected),
        Mistake("the square root is missing", _adam(lambda m, v, t: m / (1 - 0.9**t) / (v / (1 - 0.999**t) + 1e-8))),
        Mistake("beta1 and beta2 have changed places",
                _adam(lambda m, v, t: m / (1 - 0.999**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8), 0.999, 0.9)),
    ),
)  # fmt: skip


def _clip_answer(c: Case) -> list[Answer]:
    norm = math.sqrt(c["norm2"])
    return [close(1.0 if norm <= c["max_norm"] else c["max_norm"] / norm)]


@st.composite
def _norms(draw: Draw) -> Case:
    norm, most = draw(st.integers(0, 40)) / 8, draw(st.integers(1, 20)) / 8
    return {"norm2": np.float64(norm * norm), "max_norm": most}


CLIP = FunctionTask(
    "clip-scale", adam.clip_scale, ("scale",),
    (Property("scale |g| is the smaller of |g| and max_norm; a gradient that is short enough stays", _norms(),
              _clip_answer),),
    (
        Mistake("norm2 is |g|^2: the square root is missing",
                lambda norm2, max_norm: np.minimum(1, max_norm / np.maximum(norm2, 1e-30))),
        Mistake("short gradients are stretched: the scale is at most 1",
                lambda norm2, max_norm: max_norm / np.sqrt(np.maximum(norm2, 1e-30))),
        Mistake("norm2 is |g|^2: it is compared with max_norm, and |g| is meant", lambda norm2, max_norm: np.where(
            norm2 <= max_norm, 1, max_norm / np.sqrt(np.maximum(norm2, 1e-30)))),
        Mistake("that is the new length of the gradient; the factor is that over |g|",
                lambda norm2, max_norm: np.minimum(np.sqrt(norm2), max_norm)),
        Mistake("the larger of the two is taken: short gradients are stretched, and long ones stay",
                lambda norm2, max_norm: np.maximum(1, max_norm / np.sqrt(np.maximum(norm2, 1e-30)))),
        Mistake("it is the upside down of the right one: max_norm / |g|",
                lambda norm2, max_norm: np.maximum(1, np.sqrt(norm2) / max_norm)),
        Mistake("it is the upside down of the right one: max_norm / |g|",
                lambda norm2, max_norm: np.minimum(1, np.sqrt(norm2) / max_norm)),
    ),
    keeps_float32=False,
)  # fmt: skip

# --------------------------------------------------------------------------------------------------- finite differences


@dataclass(frozen=True)
class Cubic:
    """p -> the terms a p^3 + b p^2 + c p of each entry, or their sum."""

    a: float
    b: float
    c: float
    summed: bool = True

    def __call__(self, p: Any) -> Any:
        """The terms, or their sum."""
        terms = self.a * p**3 + self.b * p**2 + self.c * p
        return float(terms.sum()) if self.summed else terms

    def slope(self, p: Any) -> Any:
        """Its slope at each entry."""
        return 3 * self.a * p**2 + 2 * self.b * p + self.c

    def __repr__(self) -> str:
        formula = f"{self.a:g} * p**3 + {self.b:g} * p**2 + {self.c:g} * p"
        return f"lambda p: np.sum({formula})" if self.summed else f"lambda p: {formula}"


@st.composite
def _curves(draw: Draw, summed: bool, cubic: bool = True) -> Case:
    size = draw(st.integers(1, 3))
    a, b, c = (draw(st.integers(-2, 2)) for _ in range(3))
    f = Cubic(a, b, c, summed) if cubic else Cubic(0, 0, c, summed)
    return {"f": f, "terms": f, "p": draw(array((size,))), "u": draw(array((size,), -1, 1)),
            "g": draw(array((size,))), "h": draw(st.sampled_from([0.25, 0.125]))}  # fmt: skip


def _difference_answer(c: Case) -> list[Answer]:
    f, p, u, h = c["f"], c["p"], c["u"], c["h"]
    return [close((f.slope(p) * u + f.a * h * h * u**3).sum(), 1e4)]  # a cubic's truncation is known


CENTRAL = FunctionTask(
    "central-difference", solutions.central_difference, ("slope",),
    (Property("the slope of a cubic is right up to its truncation, which is known", _curves(True),
              _difference_answer),),
    (
        Mistake("that is the forward difference: go h to both sides, so that the error is of order h^2",
                lambda f, p, u, h: (f(p + h * u) - f(p)) / h),
        Mistake("that is a difference to one side only: go h to both sides, so that the error is of order h^2",
                lambda f, p, u, h: (f(p) - f(p - h * u)) / h),
        Mistake("the step is h to each side, so the two points are 2h apart; here they are h apart",
                lambda f, p, u, h: (f(p + h * u / 2) - f(p - h * u / 2)) / h),
        Mistake("/ binds before -: brackets around the difference",
                lambda f, p, u, h: f(p + h * u) - f(p - h * u) / (2 * h)),
        Mistake("the two points are 2h apart, not h", lambda f, p, u, h: (f(p + h * u) - f(p - h * u)) / h),
        Mistake("the difference is not divided by the distance 2h", lambda f, p, u, h: f(p + h * u) - f(p - h * u)),
        Mistake("the direction u is ignored: every entry moves alike",
                lambda f, p, u, h: (f(p + h) - f(p - h)) / (2 * h)),
        Mistake("* binds before +: / 2 * h multiplies by h", lambda f, p, u, h: (f(p + h * u) - f(p - h * u)) / 2 * h),
    ),
    keeps_float32=False,
)  # fmt: skip


def _check_answer(c: Case) -> list[Answer]:
    f, p, u, g, h = c["terms"], c["p"], c["u"], c["g"], c["h"]
    near, curve = (f.slope(p) * u + f.a * h * h * u**3).sum(), (f.a * h * h * u**3).sum()  # D(2h) - D(h) = 3 curve
    rounding = 30 * EPS * np.abs(f(p)).sum() / h
    return [close(abs((g * u).sum() - near), 1e4), exactly(rounding + 2 * abs(curve), 1e-11)]


def _rounding_answer(c: Case) -> list[Answer]:
    """A straight line on a coarse grid: no truncation, and no rounding either, so only the first term is left."""
    f, p, u, g, h = c["terms"], c["p"], c["u"], c["g"], c["h"]
    rounding = 30 * EPS * np.abs(f(p)).sum() / h
    return [close(abs((g * u).sum() - f.c * u.sum())), exactly(rounding, 1e-9 * rounding)]


def _wrong_check(error: Callable[..., Any], rounding: Callable[..., Any], share: float) -> Callable[..., Any]:
    def wrong(terms: Any, p: Any, g: Any, u: Any, h: float) -> Any:
        loss = lambda q: float(terms(q).sum())
        near, far = (solutions.central_difference(loss, p, u, k * h) for k in (1, 2))
        return error((g * u).sum(), near, g, u), 30 * EPS * rounding(terms(p)) / h + share * abs(far - near)

    return wrong


_error = lambda analytic, near, g, u: abs(analytic - near)
_size = lambda terms: np.abs(terms).sum()
DIRECTIONAL = FunctionTask(
    "directional-check", solutions.directional_check, ("error", "tolerance"),
    (
        Property("error and tolerance are as the formulas say", _curves(False), _check_answer),
        Property("of a straight line, the tolerance is the rounding's alone", _curves(False, cubic=False),
                 _rounding_answer, 30),
    ),
    (
        Mistake("the error has a sign: a tolerance is for its absolute value",
                _wrong_check(lambda analytic, near, g, u: analytic - near, _size, 2 / 3)),
        Mistake("the gradient is summed without u: the slope along u is <g, u>",
                _wrong_check(lambda analytic, near, g, u: abs(g.sum() - near), _size, 2 / 3)),
        Mistake("the truncation is missing in the tolerance", _wrong_check(_error, _size, 0.0)),
        Mistake("the rounding is missing in the tolerance", _wrong_check(_error, lambda terms: 0.0, 2 / 3)),
        Mistake("S is the sum of the absolute terms; terms that cancel round all the same",
                _wrong_check(_error, lambda terms: abs(terms.sum()), 2 / 3)),
    ),
    keeps_float32=False,
)  # fmt: skip

TASKS = (ADAM, CLIP, CENTRAL, DIRECTIONAL)
