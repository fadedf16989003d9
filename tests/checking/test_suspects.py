"""Who is to blame: rounding, a kink, a bend, or the gradient; and what is too blunt to tell."""

from typing import Any

import numpy as np
import pytest
from planted import Plant, after, assert_killed, instead
from strategies import sampled

from checking.verdicts import BIG, BLIND, OK, WRONG, ZERO, W, off, relu, says, square
from tinyvae import gradcheck
from tinyvae.checking import suspects
from tinyvae.checking.slopes import EPS, Line, Loss

# --------------------------------------------------------------------------------------- a check that could not fail


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, -1.0])
@pytest.mark.parametrize("elementwise", [0, 64])
@pytest.mark.parametrize("constant", [1e10, 1e12, 1e16])
def test_a_large_f_hides_its_gradient(constant: float, share: float, elementwise: int) -> None:
    ones = np.ones((4, 5))
    note = "f is too large beside its change"
    says(lambda w: constant + square(w), ones, share * 2 * ones, BLIND, note, elementwise=elementwise)


@pytest.mark.parametrize(("share", "verdict"), [(1.0, BLIND), (0.5, BLIND), (0.0, WRONG), (-1.0, WRONG)])
def test_an_error_within_the_tolerance_is_no_pass_and_one_beyond_it_is_wrong(share: float, verdict: str) -> None:
    ones = np.ones((4, 5))  # the tolerance is 1.1, the slope of an element 2
    says(lambda w: 1e9 + square(w), ones, share * 2 * ones, verdict)


def test_as_terms_or_without_the_constant_the_same_f_is_judged() -> None:
    for f in (square, lambda w: np.append(w**2, 1e12), lambda w: np.append(1e12, square(w))):
        says(f, W, 2 * W, OK)
        says(f, W, W, WRONG)
        says(f, W, 0 * W, WRONG)


def test_one_wrong_element_hides_under_a_large_f() -> None:
    says(lambda w: 1e12 + square(w), W, off(2 * W, -2 * W[2, 2]), BLIND, "f is too large")


@pytest.mark.parametrize("small", [1e-11, 1e-10])
def test_an_element_far_smaller_than_the_others_is_not_passed_unseen(small: float) -> None:
    c = np.ones((3, 4))
    c[1, 2] = small
    right = 2 * c * W
    says(lambda w: (c * w**2).sum(), W, right, OK)
    for share in (-1.0, -2.0):  # zero, and the sign
        says(lambda w: (c * w**2).sum(), W, off(right, share * right[1, 2], (1, 2)), BLIND, "at [1, 2]")


def test_an_f_that_bends_within_the_step_hides_its_gradient() -> None:
    f = lambda w: np.sin(1e5 * w).sum()
    says(f, W, 1e5 * np.cos(1e5 * W), BLIND, "bends too much")


X = np.random.default_rng(2).standard_normal((8, 4))
# ------------------------------------------------------------------------------------------------------------- kinks


LARGEST = BIG.max() == BIG
TIE = np.array([1.0, 3.0, 3.0, 2.0])
AT_A_KINK = {
    "relu, 0": (relu, ZERO, ZERO),
    "relu, 1": (relu, ZERO, ZERO + 1),
    "leaky relu": (lambda w: np.where(w > 0, w, 0.01 * w).sum(), ZERO, ZERO + 0.01),
    "abs": (lambda w: np.abs(w).sum(), ZERO, ZERO),
    "clip": (lambda w: np.clip(w, 0, 1).sum(), np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0])),
    "a tie of two": (np.max, TIE, np.array([0.0, 1.0, 0.0, 0.0])),
    "a layer": (lambda b: np.maximum(X @ np.ones((4, 2)) * 0 + b, 0).sum(), np.zeros(2), np.zeros(2)),
    "one of many": (relu, np.where(LARGEST, 0, BIG), (BIG > 0) & ~LARGEST),
}  # fmt: skip


@pytest.mark.parametrize("case", AT_A_KINK)
def test_at_a_kink_a_right_subgradient_is_not_blamed(case: str) -> None:
    f, w, g = AT_A_KINK[case]
    says(f, w, g, BLIND, "f has a kink at this point")
    says(f, w, 70 + g, WRONG)  # above both slopes


def test_the_elements_at_a_kink_are_named_and_the_others_are_judged() -> None:
    for many, place in ((W, "[1, 1]"), (BIG, "[1, 1]")):
        w = many.copy()
        w[1, 1] = 0
        right = (w > 0).astype(float)
        says(relu, w, right, BLIND, f"at {place}: f has a kink")
        says(relu, w, off(right), WRONG)
        says(relu, w, off(right, 5.0, (1, 1)), WRONG)


@pytest.mark.parametrize("distance", [3e-6, 1e-7, 1e-9, 1e-13])
def test_a_kink_within_the_step_is_not_blamed_on_the_gradient(distance: float) -> None:
    w = W.copy()
    w[0, 0] = distance
    right = (w > 0).astype(float)
    says(relu, w, right, BLIND, "at [0, 0]: f has a kink")
    says(relu, w, off(right), WRONG)


def test_a_small_error_does_not_hide_in_the_truncation_beside_a_kink() -> None:
    """Along a random direction alone, where the kink is between h and 2h or all but."""
    w = np.array([3e-6, 2.0, 3.0, -1.0])
    for seed in range(20):
        right, wrong = (
            gradcheck(relu, w, g, seed=seed, elementwise=0).verdict for g in ((w > 0) * 1.0, (w > 0) * 1.01)
        )
        assert right in (OK, BLIND)
        assert wrong in (WRONG, BLIND)


def test_a_jump_is_named() -> None:
    says(lambda w: np.floor(w).sum() + square(w), np.ones(3), 2 * np.ones(3), BLIND, "f has a jump")


@pytest.mark.parametrize("sharpness", [1e2, 1e3, 1e4])
def test_a_sharp_bend_is_no_kink(sharpness: float) -> None:
    f = lambda w: np.logaddexp(0, sharpness * w).sum() / sharpness
    for w in (ZERO, 1e-5 * W):
        right = 1 / (1 + np.exp(-sharpness * w))
        says(f, w, right, OK)
        says(f, w, right + 0.01, WRONG)


def test_where_the_second_derivative_jumps_the_slope_is_judged() -> None:
    elu = lambda w: np.where(w > 0, w, np.expm1(np.minimum(w, 0))).sum()
    says(elu, ZERO, ZERO + 1, OK)
    says(elu, ZERO, ZERO + 1.001, WRONG)


# ------------------------------------------------------------------------------------------------- measured on its own


def line_of(f: Any, p: np.ndarray, u: np.ndarray) -> Line:
    """f along u at p."""
    loss = Loss(lambda: f(p), {"p": p}, None)
    loss.start()
    return Line(loss, p, np.zeros(p.shape), u)


def measures(noise: float, kink: float = 0.0) -> None:
    """Noise of a known size, which is a function of the point, comes out within a factor of 3; a kink leaves it."""
    p, u = np.array([0.3]), np.ones(1)
    f = lambda w: np.sin(w[0]) + kink * abs(w[0] - 0.3) + noise * np.sin(1e14 * (w[0] - 0.3) ** 2 + 1e9 * w[0])
    found = suspects.rounding(line_of(f, p, u))
    deviation = noise / 2**0.5  # of a sine
    if noise:
        assert deviation / 3 < found < 3 * deviation, found
    else:
        assert found < 10 * EPS, found


@pytest.mark.parametrize("kink", [0.0, 3.0])
@pytest.mark.parametrize("noise", [0.0, 1e-13, 1e-9])
def test_the_rounding_of_a_loss_is_measured_and_deaf_to_a_kink(noise: float, kink: float) -> None:
    measures(noise, kink)


def test_the_elements_on_a_kink_are_found_by_halving() -> None:
    p = np.random.default_rng(3).uniform(1, 2, 40)
    p[[3, 17, 18, 39]] = 0
    line = line_of(lambda w: np.maximum(w, 0), p, np.random.default_rng(4).standard_normal(40))
    assert sorted(suspects.kinked_elements(line, 0.0) or ()) == [3, 17, 18, 39]
    p[[3, 17, 18, 39]] = 1
    assert suspects.kinked_elements(line, 0.0) is None


def test_a_loss_that_rounds_inside_as_float32_does_is_named() -> None:
    says(lambda w: float((w.astype(np.float32) ** 2).sum()) / 7 + 0.1, W, 2 * W / 7, BLIND, "as in float32")


# -------------------------------------------------------------------------------------------------------- planted bugs

BUGS: dict[str, tuple[Plant, Any]] = {
    "nothing vanishes at a smaller step": (
        instead(suspects, "vanishes", lambda slope, near: False),
        lambda: test_a_kink_within_the_step_is_not_blamed_on_the_gradient(1e-7)),
    "no kink is seen": (
        instead(suspects, "at_kink", lambda slope, near: None),
        lambda: test_at_a_kink_a_right_subgradient_is_not_blamed("relu, 0")),
    "a bend is a kink": (
        instead(suspects, "at_kink", lambda slope, near: ("kink", slope)),
        lambda: test_a_sharp_bend_is_no_kink(1e3)),
    "a jump is a kink": (
        after(suspects, "at_kink", lambda found: found and ("kink", found[1])), test_a_jump_is_named),
    "which elements are on a kink is not found": (
        instead(suspects, "kinked_elements", lambda line, rounding: None),
        test_the_elements_at_a_kink_are_named_and_the_others_are_judged),
    "what contradicts from afar is not heard": (
        after(suspects, "sharpest", lambda found: (found[0], False)),
        lambda: test_an_element_far_smaller_than_the_others_is_not_passed_unseen(1e-11)),
    "the truncation always falls as the square": (
        instead(suspects, "first_order", lambda slope: slope.tolerance),
        test_where_the_second_derivative_jumps_the_slope_is_judged),
    "rounding is taken a hundred times too small": (
        after(suspects, "_eighth_differences", lambda found: (found[0] / 100, found[1])), lambda: measures(1e-9)),
    "rounding is that of the mean": (
        instead(np, "median", np.mean), lambda: measures(0.0, kink=3.0)),
    "rounding is not looked into": (
        instead(suspects, "is_rough", lambda line, rounding: False),
        test_a_loss_that_rounds_inside_as_float32_does_is_named),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, *BUGS[bug])
