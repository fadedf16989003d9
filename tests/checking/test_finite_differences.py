"""The checker itself: what it passes, what it must not, and that it leaves everything as it was."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from planted import assert_killed, instead
from strategies import sampled

import tinyvae
from checking.verdicts import BLIND, OK, WRONG, ZERO, W, off, relu, says, square
from tinyvae.checking import finite_differences
from tinyvae.checking.finite_differences import Report, gradcheck
from tinyvae.ops.normalization import batch_norm_forward


def small_model(seed: int = 0) -> tuple[Callable[[], float], tinyvae.VAE, dict[str, np.ndarray]]:
    """A smooth VAE: its loss, the model, and a copy of its gradients."""
    model = tinyvae.VAE(6, (5,), 2, activation="tanh", dtype="float64", seed=seed)
    rng = np.random.default_rng(seed)
    model.params.flat += 0.2 * rng.standard_normal(model.params.flat.shape)
    x, eps = rng.uniform(0, 1, (4, 6)), rng.standard_normal((4, 2))
    model.loss_and_grad(x, eps)
    return lambda: model.loss(x, eps).loss, model, {name: g.copy() for name, g in model.grads.items()}


@pytest.mark.parametrize("models", sampled([30, 300], 2))
def test_no_false_alarm(models: int) -> None:
    for seed in range(models):
        loss, model, grads = small_model(seed)
        assert gradcheck(loss, model.params, grads, seed=seed, elementwise=0), f"seed {seed}"


@pytest.mark.parametrize("error", sampled([1e-4, 1e-3], 2))
def test_a_small_relative_error_in_one_tensor_is_caught_and_only_there(error: float) -> None:
    loss, model, truth = small_model()
    for name in truth:
        report = gradcheck(loss, model.params, truth | {name: truth[name] * (1 + error)})
        assert [check.name for check in report if not check.passed] == [name]


@pytest.mark.sweeps
def test_an_error_of_one_in_ten_thousand_is_caught_by_the_random_direction_alone() -> None:
    # The tolerance is about 6e-9 and 1e-4 |g| at least 5e-5. It hides if the random direction is all but orthogonal to
    # g: |cos| < 1.2e-4, which in 30 dimensions has a chance of 2 * 1.2e-4 * sqrt(30 / 2 pi), about 5e-4: three in
    # a hundred then have a chance of 2e-5.
    missed = []
    for seed in range(100):
        loss, model, truth = small_model(seed)
        wrong = truth | {"encoder.0.weight": truth["encoder.0.weight"] * (1 + 1e-4)}
        missed += [seed] if gradcheck(loss, model.params, wrong, seed=seed, elementwise=0) else []
    assert len(missed) < 3, f"seeds {missed}"


def test_a_dropped_bias_gradient_is_caught() -> None:
    loss, model, truth = small_model()
    for name in (name for name in truth if name.endswith("bias")):
        report = gradcheck(loss, model.params, truth | {name: np.zeros_like(truth[name])})
        assert [check.name for check in report if not check.passed] == [name]


def test_one_wrong_element_is_caught() -> None:
    loss, model, truth = small_model()
    wrong = truth["decoder.0.weight"].copy()
    wrong[1, 2] *= 1.001
    assert not gradcheck(loss, model.params, truth | {"decoder.0.weight": wrong})


def test_a_gradient_of_nan_is_wrong() -> None:
    x = np.array([1.0, 2.0, 3.0])
    assert not gradcheck(lambda p: (p**2).sum(), x, np.full(3, np.nan))


def test_the_loss_may_take_params_or_nothing_or_have_defaults() -> None:
    x, y = np.array([0.3, -1.2, 2.0]), np.array([[0.5, 1.5]])
    params, grads = {"x": x, "y": y}, {"x": 3 * x**2, "y": np.cos(y)}
    assert gradcheck(lambda p: (p["x"] ** 3).sum() + np.sin(p["y"]).sum(), params, grads)
    assert gradcheck(lambda: (x**3).sum() + np.sin(y).sum(), params, grads)
    assert gradcheck(lambda k=3: (x**k).sum() + np.sin(y).sum(), params, grads)
    assert not gradcheck(lambda k=4: (x**k).sum() + np.sin(y).sum(), params, grads)


def test_one_array_needs_no_name() -> None:
    x = np.array([[0.3, -1.2, 2.0]])
    assert gradcheck(lambda p: (p**2).sum(), x, 2 * x)
    assert not gradcheck(lambda p: (p**2).sum(), x, 2.001 * x)


def test_terms_that_cancel_are_summed_exactly_and_widen_the_tolerance() -> None:
    x = np.array([0.3, -1.2, 2.0])
    big = 1e6
    terms = lambda p: np.concatenate([p**2, big * np.cos(p), -big * np.cos(p)])
    plain, cancelling = gradcheck(lambda p: p**2, x, 2 * x)[0], gradcheck(terms, x, 2 * x)[0]
    assert plain.passed
    assert cancelling.passed
    # C eps S / h, where S holds both big terms: the round-off of a real cancellation is forgiven, and no more
    size = 2 * big * np.abs(np.cos(x)).sum()
    expected = finite_differences.ROUND_OFF * finite_differences.EPS * size / finite_differences.H
    assert cancelling.tolerance == pytest.approx(expected, rel=1e-3)
    assert plain.tolerance < 1e-4 * cancelling.tolerance


def test_a_direction_across_a_kink_is_drawn_again() -> None:
    x, H = np.array([1.0, 2.0]), finite_differences.H
    x[0] = H / 2  # along u the kink at 0 is crossed if 2 H |u_0| > H / 2, about 5 draws of 6
    sides = lambda: x > 0
    relu = lambda: np.maximum(x, 0)
    drawn = [gradcheck(relu, x, np.ones(2), kinks=sides, seed=seed, elementwise=0) for seed in range(10)]
    assert all(drawn)
    assert not all(gradcheck(relu, x, np.ones(2), seed=seed, elementwise=0) for seed in range(10))
    assert not any(gradcheck(relu, x, np.array([1.0, 1.01]), kinks=sides, seed=s, elementwise=0) for s in range(10))


def test_if_every_direction_crosses_a_kink_the_check_fails() -> None:
    x = np.array([1.0, 2.0])
    calls = []
    report = gradcheck(lambda p: (p**2).sum(), x, 2 * x, kinks=lambda: [calls.append(0), len(calls) % 2 == 0][1:])
    assert not report
    assert "crosses a kink" in repr(report)
    # five points for each of the directions, and for each of the two elements
    assert len(calls) == 5 * (finite_differences.REDRAWS + 2)
    assert x.tolist() == [1.0, 2.0]


def test_a_loss_of_zero_has_the_gradient_zero_and_no_other() -> None:
    x = np.array([1.0, 2.0])
    assert gradcheck(lambda p: 0.0, x, np.zeros(2))
    assert not gradcheck(lambda p: 0.0, x, np.array([0.0, 1e-3]))


def test_a_mapping_with_the_single_name_x_is_still_a_mapping_to_the_loss() -> None:
    x = np.array([1.0, 2.0])
    assert gradcheck(lambda p: (p["x"] ** 2).sum(), {"x": x}, {"x": 2 * x})


@pytest.mark.parametrize("bad", [np.ones(3, dtype=np.float32), np.ones(3, dtype=np.int64)])
def test_params_that_are_not_float64_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="float64"):
        gradcheck(lambda p: p.sum(), bad, np.ones(3))


def test_names_and_shapes_must_agree() -> None:
    x = np.ones(3)
    with pytest.raises(ValueError, match=r"different names.*'b'"):
        gradcheck(lambda p: 0.0, {"a": x}, {"a": x, "b": x})
    with pytest.raises(ValueError, match=r"different names.*'b'"):
        gradcheck(lambda p: 0.0, {"a": x, "b": x}, {"a": x})
    with pytest.raises(ValueError, match=r"a has shape \(3,\), its gradient \(3, 1\)"):
        gradcheck(lambda p: 0.0, {"a": x}, {"a": np.ones((3, 1))})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        gradcheck(lambda p: value, np.ones(2), np.ones(2))


def test_the_parameters_are_put_back_bit_for_bit() -> None:
    loss, model, grads = small_model()
    before = model.params.flat.tobytes()
    gradcheck(loss, model.params, grads)
    assert model.params.flat.tobytes() == before


@pytest.mark.parametrize("call", [1, 2, 3, 5])
def test_the_parameters_are_put_back_if_the_loss_raises(call: int) -> None:
    x = np.array([0.1, 0.2, 0.3])
    calls = []

    def f(p: np.ndarray) -> float:
        calls.append(p.copy())
        if len(calls) == call:
            raise RuntimeError("from the loss")
        return float((p**2).sum())

    with pytest.raises(RuntimeError, match="from the loss"):
        gradcheck(f, x, 2 * x)
    assert x.tobytes() == np.array([0.1, 0.2, 0.3]).tobytes()


def test_gradients_that_the_loss_overwrites_are_checked_as_they_were() -> None:
    x = np.array([0.3, -1.2, 2.0])
    g = 2 * x

    def f(p: np.ndarray) -> float:
        g.fill(0.0)
        return float((p**2).sum())

    assert gradcheck(f, x, g)


def test_a_report_is_true_or_false_and_prints_one_line_for_each_tensor() -> None:
    x, y = np.array([0.3, -1.2]), np.array([1.5])
    f = lambda p: (p["first"] ** 2).sum() + p["b"].sum()
    right = gradcheck(f, {"first": x, "b": y}, {"first": 2 * x, "b": np.ones(1)})
    wrong = gradcheck(f, {"first": x, "b": y}, {"first": 2 * x, "b": np.zeros(1)})
    assert (bool(right), right.passed, bool(wrong), wrong.passed) == (True, True, False, False)
    assert isinstance(wrong, Report)
    first, second = repr(wrong).splitlines()
    assert first.startswith("first  error ")
    assert first.endswith(" ok")
    assert second.startswith("b      error 1.0e+00  tolerance ")
    assert second.endswith(" WRONG")
    assert [check.verdict for check in wrong] == ["ok", "WRONG"]


def test_an_error_that_the_random_direction_cannot_see_is_seen_element_by_element() -> None:
    """The error is orthogonal to the direction that seed 0 draws first."""
    x = np.array([0.3, -0.7, 1.1])
    u = np.random.default_rng(0).standard_normal(3)
    hidden = np.cross(u, [1.0, 2.0, 3.0])
    wrong = np.cos(x) + 1e-3 * hidden / np.linalg.norm(hidden)
    assert gradcheck(np.sin, x, wrong, seed=0, elementwise=0)
    assert not gradcheck(np.sin, x, wrong, seed=0)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6])
def test_the_step_that_was_really_made_counts_where_the_parameters_are_large(size: float) -> None:
    """At |x| = 1e6 the step of 6e-6 is rounded by 1e-10: two parts in 10^5 of the difference."""
    for seed in range(20):
        x = size * np.random.default_rng(seed).standard_normal(3)
        assert gradcheck(np.sin, x, np.cos(x), seed=seed), f"seed {seed}"


def test_terms_that_cancel_raise_no_false_alarm_when_they_are_given_as_terms() -> None:
    for seed in range(50):
        x = np.random.default_rng(seed).standard_normal(5)
        constant = 1e6 * np.cos(x).sum()

        def terms(x: np.ndarray, constant: float = constant) -> np.ndarray:
            return np.append(1e6 * np.cos(x), -constant)

        assert gradcheck(terms, x, -1e6 * np.sin(x), seed=seed), f"seed {seed}"


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


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(("bad", "note"), [(np.nan, "holds NaN: 1 of 12"), (np.inf, "holds infinity: 1 of 12")])
def test_a_gradient_that_is_not_finite_is_wrong_and_says_so(bad: float, note: str) -> None:
    rng = np.random.default_rng(0)
    for f in (square, lambda w: square(w) + rng.random()):
        says(f, W, off(2 * W, bad), WRONG, note)


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


# -------------------------------------------------------------------------------------------------------- planted bugs

TENSOR = finite_differences._Tensor
BUGS = {
    "no element is looked at alone": (
        instead(TENSOR, "elements", lambda self: []),
        test_an_error_that_the_random_direction_cannot_see_is_seen_element_by_element),
    "a direction is drawn once": (
        instead(finite_differences, "REDRAWS", 1), test_a_direction_across_a_kink_is_drawn_again),
    "what cannot be told passes": (
        instead(TENSOR, "within_reach", lambda self, line, slope, rounding: (OK, "")),
        lambda: says(lambda w: 1e12 + square(w), W, 0 * W, BLIND)),
    "a small slope is never right": (
        instead(finite_differences, "ORDINARY", 0.0),
        lambda: test_a_gradient_that_is_truly_zero_is_right_and_another_wrong("a dead unit")),
    "the tolerance is a thousand times as large": (
        instead(finite_differences.Slope, "agrees", property(lambda s: abs(s.gap) <= 1e6 * s.tolerance)),
        lambda: test_a_small_relative_error_in_one_tensor_is_caught_and_only_there(1e-4)),
    "the gradients are f's own": (
        instead(finite_differences, "_epsilon", lambda g: g.fill(0.0) or 0.0),
        test_gradients_that_the_loss_overwrites_are_checked_as_they_were),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, *BUGS[bug])
