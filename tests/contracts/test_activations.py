"""Every activation of the table keeps the contract, and a pair that does not is found, with what it breaks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from strategies import sampled

from tinyvae.checking.contracts import check_activation
from tinyvae.formula import FormulaError, backward_of, exp, formula, log1p, maximum, where
from tinyvae.ops.activations import ACTIVATIONS, Activation, relu_backward, tanh_backward, tanh_forward


@pytest.mark.parametrize("of", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_the_activation_keeps_the_contract(of: Activation) -> None:
    check_activation(of.forward, of.backward, of.name)


def pair(value: Callable[..., Any], slope: Callable[..., Any]) -> tuple[Any, Any]:
    forward = formula(value)
    return forward, backward_of(forward, "a")(slope)


WRONG = {
    "the slope of another function": (
        *pair(lambda a: a * a, lambda dy, a: dy * a), r"gradient by a is wrong: off by .*, where .* is allowed"),
    "dy forgotten": (*pair(lambda a: a * a, lambda dy, a: 2 * a), "gradient by a is wrong"),
    "the slope by y, which falls and rises": (
        *pair(lambda a: a * a, lambda dy, y: dy * 2 * y), "gradient by a is wrong"),
    "e^a overflows": (
        *pair(lambda a: where(a > 0, exp(a), 0.0) / (1 + where(a > 0, exp(a), 0.0)) + where(a > 0, 0.0, 0.5),
              lambda dy, y, a: where(a > 0, dy * y * (1 - y), 0.0)),
        "in float32 .* the value at a = .* is nan, not"),
    "digits lost in float32": (
        *pair(lambda a: a + (a * a * a + 1e6 * a - a * a * a - 1e6 * a), lambda dy, y: dy), "in float32 .* the value"),
}  # fmt: skip


@pytest.mark.parametrize("what", sampled(WRONG, 3))
def test_a_pair_that_breaks_the_contract_is_found_in_one_line(what: str) -> None:
    forward, backward, message = WRONG[what]
    with pytest.raises(AssertionError, match=message) as error:
        check_activation(forward, backward, "mine")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("mine: ")


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a @formula of one number, called a"):
        check_activation(np.tanh, tanh_backward)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r'the slope must be decorated with @backward_of\(tanh_forward, "a"\)'):
        check_activation(tanh_forward, relu_backward)
    forward, backward = pair(lambda a: 2 * a, lambda dy, x: 2 * dy)
    with pytest.raises(ValueError, match="may read dy, which comes first, a and y; not dy, x"):
        check_activation(forward, backward)


def test_a_formula_that_no_loop_can_work_off_is_refused_with_its_line() -> None:
    def value(a: Any) -> Any:
        return maximum(a, 0) + log1p(exp(-abs(a))) if np.all(a == a) else a

    forward, backward = pair(value, lambda dy, y: dy * (1 - exp(-y)))
    with pytest.raises(FormulaError, match=r"test_activations\.py, line \d+: return maximum"):
        check_activation(forward, backward)
