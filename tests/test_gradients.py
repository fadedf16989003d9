"""Every written gradient against finite differences, and the checker itself: what it passes, and what it must not."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

import tinyvae
from tinyvae.checking import finite_differences
from tinyvae.checking.finite_differences import Check, Report, gradcheck
from tinyvae.checking.models import CASES, ModelCase, check_model, check_models
from tinyvae.checking.operations import WINDOWS, check_operations

KERNELS = ("reference", "fused")
OPERATIONS = (
    "dense: x", "dense: W", "dense: b",
    "reparameterize: mu", "reparameterize: logvar", "kl: mu", "kl: logvar", "free bits: kl",
    "bernoulli nll: logits", "gaussian nll: mean", "gaussian nll: logvar",
    "gaussian nll, one sigma: mean", "gaussian nll, one sigma: logvar",
    "batch norm: a", "batch norm: scale", "batch norm: shift",
    "log prior over q: z", "log prior over q: logvar", "bound: log_w",
    *(f"{kind}, stride {stride}, pad {pad}: {tensor}"
      for stride, pad in WINDOWS for kind in ("conv2d", "conv transpose2d") for tensor in ("x", "W", "b")),
    "linear: a", "relu: a", "tanh: a", "sigmoid: a", "softplus: a", "elu: a", "leaky-relu: a",
)  # fmt: skip


@cache
def operation_checks(seed: int) -> dict[str, Check]:
    return {check.name: check for check in check_operations(seed)}


def test_every_operation_is_checked() -> None:
    assert tuple(operation_checks(0)) == OPERATIONS


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("row", OPERATIONS)
def test_the_gradient_of_the_operation_is_right(row: str, seed: int) -> None:
    check = operation_checks(seed)[row]
    assert check.passed, check


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_gradient_of_the_model_is_right(case: ModelCase, kernels: str, seed: int) -> None:
    checks = list(check_model(case, kernels, seed))
    assert checks
    assert [check for check in checks if not check.passed] == []


def test_every_parameter_of_every_case_is_checked() -> None:
    names = [check.name for check in check_models("fused")]
    assert len(names) == len(set(names))
    assert {name.rpartition(": ")[0] for name in names} == {case.name for case in CASES}
    assert {"bernoulli: encoder.0.weight", "gaussian, sigma learned: likelihood.logvar"} <= set(names)


# ------------------------------------------------------------------------------------------------ the checker, checked


def small_model(seed: int = 0) -> tuple[Callable[[], float], tinyvae.VAE, dict[str, np.ndarray]]:
    """A smooth VAE: its loss, the model, and a copy of its gradients."""
    model = tinyvae.VAE(6, (5,), 2, activation="tanh", dtype="float64", seed=seed)
    rng = np.random.default_rng(seed)
    model.params.flat += 0.2 * rng.standard_normal(model.params.flat.shape)
    x, eps = rng.uniform(0, 1, (4, 6)), rng.standard_normal((4, 2))
    model.loss_and_grad(x, eps)
    return lambda: model.loss(x, eps).loss, model, {name: g.copy() for name, g in model.grads.items()}


def test_no_false_alarm_in_300_models() -> None:
    for seed in range(300):
        loss, model, grads = small_model(seed)
        assert gradcheck(loss, model.params, grads, seed=seed, elementwise=0), f"seed {seed}"


@pytest.mark.parametrize("error", [1e-3, 1e-4])
def test_a_small_relative_error_in_one_tensor_is_caught_and_only_there(error: float) -> None:
    loss, model, truth = small_model()
    for name in truth:
        report = gradcheck(loss, model.params, truth | {name: truth[name] * (1 + error)})
        assert [check.name for check in report if not check.passed] == [name]


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
