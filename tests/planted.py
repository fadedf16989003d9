"""Proof of teeth: a wrong formula in the place of the right one, and the test that must fail under it.

Each test file has its own bugs, in the formulas of the file that it tests. A bug that the named test does not notice is
a failure.
"""

from collections.abc import Callable
from typing import Any

import pytest

Plant = Callable[[pytest.MonkeyPatch], None]


def instead(target: Any, name: str, wrong: Any) -> Plant:
    """`wrong` in the place of target.name."""
    return lambda patch: patch.setattr(target, name, wrong)


def after(target: Any, name: str, change: Callable[[Any], Any]) -> Plant:
    """The result of target.name, changed."""
    truth = getattr(target, name)
    return instead(target, name, lambda *a, **k: change(truth(*a, **k)))


def both(*plants: Plant) -> Plant:
    """One after the other."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        for each in plants:
            each(patch)

    return plant


def assert_killed(patch: pytest.MonkeyPatch, plant: Plant, killer: Callable[[], Any]) -> None:
    """The killer passes, fails while the bug is there, and passes again."""
    killer()
    with patch.context() as inner:
        plant(inner)
        try:
            killer()
        except (AssertionError, ExceptionGroup) as failure:  # Hypothesis may find several ways to fail
            if isinstance(failure, ExceptionGroup) and failure.split(AssertionError)[1] is not None:
                raise
        else:
            raise AssertionError("the killer does not notice the bug")
    killer()
