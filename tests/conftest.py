"""Hypothesis profiles, chosen by TINYVAE_HYPOTHESIS_PROFILE or by --hypothesis-profile (which wins).

ci       the same examples on every run, so that a failure is the change's and not the draw's (the default)
dev      new random examples on every run
nightly  the same, many more of them

And --exercise FILE: the properties of an exercise, on the function in FILE instead of the library's, and nothing else.
"""

import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is loaded: the tests run side by side, one per core

import pytest
from hypothesis import settings

settings.register_profile("ci", settings.get_profile("ci"), max_examples=100)  # derandomized, no deadline
settings.register_profile("dev", deadline=None, max_examples=100)
settings.register_profile("nightly", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("TINYVAE_HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--exercise", type=Path, metavar="FILE", help="judge this file as the exercise that it names")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --exercise: that exercise's test alone. What takes minutes runs only where -m names it."""
    for marker in ("faults", "sweeps", "notebooks"):
        if marker in config.option.markexpr:
            continue
        left_out = [item for item in items if item.get_closest_marker(marker)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    path = config.getoption("--exercise")
    if path is None:
        return
    from tinyvae.exercises.learner import Found, exercise_of

    try:
        name = exercise_of(path)
    except Found as found:
        raise pytest.UsageError(found.failure.says) from found
    wanted = [item for item in items if item.name == f"test_the_properties_hold[{name}]"]
    if not wanted:
        raise pytest.UsageError(f"{path} names an exercise that there is not: {name!r}")
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted
