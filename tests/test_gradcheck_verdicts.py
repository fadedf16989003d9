"""What `tinyvae.gradcheck` says of a function: ok, WRONG, or cannot tell with the reason, and who is to blame."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinyvae import gradcheck
from tinyvae.ops.normalization import batch_norm_forward

OK, BLIND, WRONG = "ok", "cannot tell", "WRONG"
W = np.random.default_rng(0).standard_normal((3, 4))
BIG = np.random.default_rng(1).standard_normal((20, 15))  # more than are checked one by one
ZERO = np.zeros((3, 4))


def square(w: np.ndarray) -> float:
    return float((w**2).sum())


def relu(w: np.ndarray) -> float:
    return float(np.maximum(w, 0).sum())


def off(g: np.ndarray, by: float = 1e-3, place: tuple[int, ...] = (2, 2)) -> np.ndarray:
    """The gradient with one number wrong."""
    wrong = g.astype(float)
    wrong[place] += by
    return wrong


def says(f: Callable[..., Any], w: np.ndarray, g: Any, verdict: str, note: str = "", **options: Any) -> None:
    """gradcheck of f has this verdict and note; it passes only if ok, and the parameters are as they were."""
    w = w.copy()
    before = w.tobytes()
    report = gradcheck(f, w, g, **options)
    assert report.verdict == report[0].verdict == verdict, report
    assert bool(report) == report.passed == report[0].passed == (verdict == OK)
    assert f"  {verdict}" in repr(report)
    assert note in repr(report)
    assert w.tobytes() == before


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


def test_a_step_that_is_lost_in_rounding_judges_nothing() -> None:
    for g in (0.0, 1e-13):
        says(lambda w: 1e-13 * w.sum(), 1e13 * np.ones(3), np.full(3, g), BLIND, "lost in rounding")


X, DY = np.random.default_rng(2).standard_normal((2, 8, 4))
ZERO_GRADIENTS = {
    "a dead unit": (lambda w: 5 + relu(w - 9), W),
    "a parameter that is not used": (lambda w: 40.0, W),
    "the same, under a sum over a large batch": (lambda w: 1e5 + 0 * w.sum(), W),
    "a bias before batch normalization": (lambda b: DY * batch_norm_forward(X + b, np.ones(4), np.zeros(4))[0], W[0]),
    "the same, summed": (lambda b: (DY * batch_norm_forward(X + b, np.ones(4), np.zeros(4))[0]).sum(), W[0]),
    "a minimum where f is 0": (lambda w: square(w - 1), np.ones((3, 4))),
    "the KL at its minimum": (lambda v: 0.5 * (np.exp(v) - v - 1).sum(), ZERO),
    "a maximum": (lambda w: np.cos(w).sum() - 20, ZERO),
    "a saddle": (lambda w: 1 + (w**3).sum(), ZERO),
    "a squared rectifier at its corner": (lambda w: square(np.maximum(w, 0)), ZERO),
}


@pytest.mark.parametrize("case", ZERO_GRADIENTS)
def test_a_gradient_that_is_truly_zero_is_right_and_another_wrong(case: str) -> None:
    f, w = ZERO_GRADIENTS[case]
    says(f, w, 0 * w, OK)
    says(f, w, 0 * w + 1e-17, OK)  # as rounding leaves it
    says(f, w, 0 * w + 1e-3, WRONG)


def test_a_saturated_unit_has_a_tiny_gradient_that_is_right() -> None:
    says(lambda w: np.tanh(w + 14).sum(), W, 1 / np.cosh(W + 14) ** 2, OK)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_unit_of_the_loss_does_not_matter(scale: float) -> None:
    f = lambda w: scale * np.cos(w).sum()
    says(f, W, -scale * np.sin(W), OK)
    says(f, W, -scale * np.sin(W) * 1.001, WRONG)
    says(f, W, 0 * W, WRONG)


def test_no_false_alarm_in_random_smooth_functions_and_no_missed_error() -> None:
    """Sums of activations of a layer, of many sizes and scales, as a number and as terms."""
    kinds = (np.tanh, lambda u, v: 1 - v * v), (np.sin, lambda u, v: np.cos(u)), (np.exp, lambda u, v: v)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        a, b = rng.integers(1, 6, 2)
        scale, (f, slope) = 10 ** rng.uniform(-3, 3), kinds[seed % 3]
        params = {"w": rng.standard_normal((a, b)), "b": rng.standard_normal(b)}
        x, y = rng.standard_normal((5, a)) / a, scale * rng.standard_normal((5, b))

        def loss(p: dict[str, np.ndarray], x: np.ndarray = x, y: np.ndarray = y, f: Any = f) -> np.ndarray:
            return y * f(x @ p["w"] + p["b"])

        u = x @ params["w"] + params["b"]
        dy = y * slope(u, f(u))
        grads = {"w": x.T @ dy, "b": dy.sum(axis=0)}
        for call in (loss, lambda p, loss=loss: loss(p).sum()):
            assert gradcheck(call, params, grads, seed=seed).verdict == OK, seed
        wrong = gradcheck(loss, params, grads | {"w": grads["w"] * (1 + 1e-4)}, seed=seed)
        assert [check.verdict for check in wrong] == [WRONG, OK], seed


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


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(("bad", "note"), [(np.nan, "holds NaN: 1 of 12"), (np.inf, "holds infinity: 1 of 12")])
def test_a_gradient_that_is_not_finite_is_wrong_and_says_so(bad: float, note: str) -> None:
    rng = np.random.default_rng(0)
    for f in (square, lambda w: square(w) + rng.random()):
        says(f, W, off(2 * W, bad), WRONG, note)


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


def read_only() -> np.ndarray:
    w = W.copy()
    w.flags.writeable = False
    return w


@pytest.mark.parametrize(
    ("w", "g", "error", "words"),
    [
        (W, 2j * W, TypeError, "complex128"), (W, W.astype(object), TypeError, "object"), (W, None, TypeError, "None"),
        ({}, {}, ValueError, "nothing to check"), (np.ones((0, 3)), np.ones((0, 3)), ValueError, "no elements"),
        (read_only(), W, ValueError, "not writeable"), (np.array([np.nan]), np.ones(1), ValueError, "NaN"),
    ],
)  # fmt: skip
def test_what_cannot_be_checked_is_refused(w: Any, g: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        gradcheck(lambda w: 0.0, w, g)
    with pytest.raises(TypeError, match="must be a function"):
        gradcheck(3.0, W, W)  # pyright: ignore[reportArgumentType]
