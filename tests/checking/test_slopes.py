"""Slopes from five points along a line, and how far they can be off; and a loss, watched: what it may not do."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from planted import Plant, after, assert_killed, instead
from strategies import SEEDS, assert_within, numbers, sampled

from checking.verdicts import BIG, BLIND, OK, WRONG, W, says, square
from tinyvae import gradcheck
from tinyvae.checking import slopes
from tinyvae.checking.slopes import H, Line, Loss, Slope


def line_of(f: Callable[[np.ndarray], Any], p: Any, g: Any, u: Any) -> Line:
    """f along u at p, and a gradient to be judged."""
    p = np.array(p, dtype=float)
    loss = Loss(lambda: f(p), {"p": p}, None)
    loss.start()
    return Line(loss, p, np.array(g, dtype=float), np.array(u, dtype=float))


def slope_of(f: Callable[[np.ndarray], Any], w: float, g: float, step: float = H) -> Slope:
    """Of a function of one number."""
    found = line_of(f, [w], [g], [1.0]).slope(step)
    assert found is not None
    return found


# --------------------------------------------------------------------------------------------------------------- slopes


def makes_exact_points(exponent: float, seed: int) -> None:
    p, u = 10.0**exponent * np.random.default_rng(seed).standard_normal((2, 50))
    line = line_of(lambda w: w.sum(), p, 0 * p, u / np.linalg.norm(u))
    d, grid = line.step_made(H), np.spacing(np.abs(p) + 2 * H * np.abs(line.u))
    assert_within(d, H * line.u, grid / 2)
    on_grid = p % grid == 0  # all but those that a step carries over a power of 2
    assert on_grid.mean() > 0.5 or exponent < -3
    for k in (1, -1, 2, -2):
        assert_within((p + k * d) - p, k * d, np.where(on_grid, 0, grid / 2))


@given(SEEDS, numbers(-6, 6))
def test_the_five_points_are_exact_multiples_of_the_step_that_is_made(seed: int, exponent: float) -> None:
    makes_exact_points(exponent, seed)


@pytest.mark.parametrize("seed", range(20))
def test_where_a_step_crosses_a_power_of_2_the_verdict_at_a_minimum_is_right_all_the_same(seed: int) -> None:
    """f is 0 there, so its slope is nothing but the rounding of the points."""
    p = 1 - np.random.default_rng(seed).uniform(0, 2 * H, (3, 4))
    says(lambda w: square(w - p), p, 0 * p, OK)
    says(lambda w: square(w - p), p, 0 * p + 1e-6, WRONG)


def has_the_slope_within_its_tolerance() -> None:
    """sin(c w): the truncation is c^3 h^2 / 6, far above rounding, and the tolerance at most six times that."""
    c = 50.0
    for w in np.linspace(0.1, 1.0, 7):
        truth = c * np.cos(c * w)
        s = slope_of(lambda x: np.sin(c * x), float(w), float(truth))
        truncation = c**3 * H**2 / 6
        assert abs(s.gap) > s.round_off
        assert s.agrees
        assert s.tolerance < 6 * truncation
        assert_within(s.numeric, truth, s.tolerance)
        assert not slope_of(lambda x: np.sin(c * x), float(w), float(truth + 7 * truncation)).agrees


def test_the_slope_is_within_a_tolerance_that_is_that_of_the_truncation() -> None:
    has_the_slope_within_its_tolerance()


def test_jump_and_bend_are_those_of_a_kink_and_of_a_parabola() -> None:
    """jump(t) is 2 c t for c t^2, and the difference of both slopes at a kink, whatever t; bend is 0 and that."""
    kink = slope_of(lambda w: np.maximum(w, 0) * 3 - np.minimum(w, 0), 0.0, 1.0)
    assert_within([kink.jump, kink.bend], [4, 4], 1e-9)
    parabola = slope_of(lambda w: 5 * w**2, 0.0, 0.0)
    assert_within([parabola.jump, parabola.bend], [10 * H, 0], 1e-9)


def test_terms_that_do_not_depend_on_a_tensor_are_known_from_afar() -> None:
    line = line_of(lambda w: np.array([1e12, w[0] ** 2, 1e12 + w[0], 7.0]), [0.5, 1.0], [0, 0], [0.6, 0.8])
    assert slopes.steady_terms(line.loss, line.p, line.u).tolist() == [True, False, False, True]
    rounding = lambda big: slope_of(lambda w: np.array([w[0] ** 2, big]), 1.0, 2.0).round_off
    assert rounding(1e6) > 1e5 * rounding(1.0)  # it is not known to be steady here, so it may hide what it likes


def test_a_slope_is_none_across_a_known_kink_and_the_parameters_are_put_back() -> None:
    p = np.array([H / 2])
    loss = Loss(lambda: np.maximum(p, 0), {"p": p}, lambda: p > 0)
    loss.start()
    assert Line(loss, p, np.ones(1), np.ones(1)).slope() is None
    assert Line(loss, p, np.ones(1), np.ones(1)).slope(H / 8) is not None
    assert p.tolist() == [H / 2]


def test_a_step_that_is_lost_in_rounding_judges_nothing() -> None:
    for g in (0.0, 1e-13):
        says(lambda w: 1e-13 * w.sum(), 1e13 * np.ones(3), np.full(3, g), BLIND, "lost in rounding")


# --------------------------------------------------------------------------------------------------------- noise, state


def test_noise_is_named() -> None:
    rng = np.random.default_rng(0)
    for f in (
        lambda w: square(w) + rng.standard_normal(),
        lambda w: square(w) + 1e-9 * rng.standard_normal(),
        lambda w: (w * (rng.random(w.shape) > 0.5)).sum(),  # dropout
    ):
        says(f, W, 2 * W, BLIND, "another value at each call")


@pytest.mark.parametrize("start", [0.0, float(W.mean())])
def test_a_running_average_is_named(start: float) -> None:
    """From the second start on, two calls at the same point give the same: the calls between move it."""
    state = [start]

    def f(w: np.ndarray) -> float:
        state[0] = 0.9 * state[0] + 0.1 * float(w.mean())
        return square(w) + state[0]

    says(f, W, 2 * W, BLIND, "another value at each call")


def test_rounding_in_another_order_is_no_noise() -> None:
    rng = np.random.default_rng(0)
    says(lambda w: sum(rng.permutation((w**2).ravel())), W, 2 * W, OK)


# ------------------------------------------------------------------------------------------------------- low precision


LOW = {
    "returns float32": lambda w: np.float32(square(w)),
    "returns float16": lambda w: np.float16(square(w)),
    "computes in float32": lambda w: float((w.astype(np.float32) ** 2).sum()),
    "f computes in float32": lambda w: (w.astype(np.float32) ** 2).astype(float),
    "as in float32": lambda w: float((w.astype(np.float32) ** 2).sum()) / 7 + 0.1,
}


@pytest.mark.parametrize("note", LOW)
@pytest.mark.parametrize("w", [W, 100 * W, BIG], ids=["small", "large", "many"])
def test_low_precision_is_named(note: str, w: np.ndarray) -> None:
    says(LOW[note], w, 2 * w / (7 if note == "as in float32" else 1), BLIND, note)


def test_values_that_are_float32_numbers_by_chance_are_no_float32() -> None:
    says(lambda w: 3.0, W, 0 * W, OK)
    says(lambda w: 0.5 * w[0], np.array([1.0]), np.array([0.5]), OK)
    says(lambda w: 0.5 * (np.exp(w) - w - 1).sum(), np.zeros(3), np.full(3, 1e-3), WRONG)


def test_a_gradient_in_low_precision_is_named_unless_it_is_wrong_beyond() -> None:
    says(square, W, (2 * W).astype(np.float32), BLIND, "lower precision")
    says(square, W, (2.01 * W).astype(np.float32), WRONG)


# -------------------------------------------------------------------------------------------- what f does to its arrays


def test_a_changed_argument_is_named_and_put_back() -> None:
    def shrinks(w: np.ndarray) -> float:
        w *= 0.5
        return square(w)

    def writes_after(w: np.ndarray) -> float:
        value = square(w)
        w[0, 0] = 3
        return value

    for f in (shrinks, writes_after):
        says(f, W, 2 * W, BLIND, "f changes x, which it is given")
    params = {"a": W.copy(), "b": W.copy()}

    def another(p: dict[str, np.ndarray]) -> float:
        p["b"] -= 1
        return square(p["a"])

    assert "f changes b" in repr(gradcheck(another, params, {"a": 2 * W, "b": 0 * W}))
    assert params["a"].tobytes() == params["b"].tobytes() == W.tobytes()


def test_a_buffer_that_f_overwrites_is_read_in_time() -> None:
    buffer = np.empty_like(W)
    says(lambda w: np.square(w, out=buffer), W, 2 * W, OK)
    says(lambda w: w, W, np.ones_like(W), OK)


def test_gradients_may_be_the_parameters_themselves_and_any_view() -> None:
    x = np.array([0.5, -1.5])
    assert gradcheck(lambda w: 0.5 * square(w), x, x)
    view = BIG.copy()[::2, ::3]
    assert gradcheck(square, view, 2 * view)
    assert gradcheck(square, view.T, 2 * view.T)


def test_an_array_that_f_does_not_read_is_suspected() -> None:
    elsewhere = W.copy()
    says(lambda w: square(elsewhere), W, 2 * W, WRONG, "does it read this array?")


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        (None, TypeError, "not None: does it lack a return"), (1j, TypeError, "complex"), ("a", TypeError, "str"),
        ({"loss": 1.0}, TypeError, "dict"), ((1.0, np.ones(3)), TypeError, "tuple: return the loss alone"),
        (np.array([object()]), TypeError, "array of object"), (np.array([]), ValueError, "empty"),
        ([np.inf, -np.inf], ValueError, "finite"),
    ],
)  # fmt: skip
def test_what_is_no_loss_is_refused(result: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        gradcheck(lambda w: result, W.copy(), 2 * W)


def test_terms_of_another_shape_are_refused() -> None:
    calls = []
    with pytest.raises(ValueError, match=r"shape \(1,\), and \(2,\)"):
        gradcheck(lambda w: np.ones(len([*calls, calls.append(0)])), W.copy(), 2 * W)


# -------------------------------------------------------------------------------------------------------- planted bugs


def only_once(true: Any) -> Any:
    """The slope by the points at h, without the truncation's estimate."""
    return lambda self, step=H: replace(found := true(self, step), tolerance=found.round_off)


BUGS: dict[str, tuple[Plant, Any]] = {
    "the step is not rounded to the grid": (
        instead(Line, "step_made", lambda self, step: step * self.u),
        lambda: makes_exact_points(0.0, 1)),
    "no estimate of the truncation": (
        instead(Line, "slope", only_once(Line.slope)), has_the_slope_within_its_tolerance),
    "the truncation counts a hundred times": (
        after(Line, "slope", lambda s: replace(s, tolerance=s.round_off + 100 * (s.tolerance - s.round_off))),
        has_the_slope_within_its_tolerance),
    "steady is what is near": (
        instead(slopes.steady_terms, "__defaults__", (1e-9,)),
        test_terms_that_do_not_depend_on_a_tensor_are_known_from_afar),
    "a kink that is known is crossed": (
        instead(Loss, "side", lambda self: b""),
        test_a_slope_is_none_across_a_known_kink_and_the_parameters_are_put_back),
    "noise is not looked for": (instead(Loss, "at_origin", lambda self, terms: None), test_noise_is_named),
    "arguments that f changes are left so": (
        instead(Loss, "terms", lambda self, guard=False: self._numbers(self.call())),
        test_a_changed_argument_is_named_and_put_back),
    "the terms are f's own buffer": (
        instead(Loss, "_numbers", lambda self, result: result), test_a_buffer_that_f_overwrites_is_read_in_time),
    "float32 is not looked for": (
        instead(slopes, "LOW", {}), lambda: test_low_precision_is_named("returns float32", W)),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, *BUGS[bug])
