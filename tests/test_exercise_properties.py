"""Every exercise's properties, on the library; with --exercise FILE, one exercise's, on the function in FILE.

python -m pytest tests/test_exercise_properties.py --exercise my_exercises/kl_backward.py
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinyvae.exercises.judge import judge
from tinyvae.exercises.learner import Found, load
from tinyvae.exercises.task import Task
from tinyvae.exercises.tasks import TASKS


@pytest.fixture
def implementation(request: pytest.FixtureRequest) -> Callable[[Task], Callable[..., Any]]:
    """Of a task: the library's function, or the learner's."""
    path: Path | None = request.config.getoption("--exercise")
    return lambda task: task.solution if path is None else load(path, task.solution)


@pytest.mark.parametrize("name", TASKS)
def test_the_properties_hold(
    name: str, implementation: Callable[[Task], Callable[..., Any]], request: pytest.FixtureRequest
) -> None:
    task = TASKS[name]
    try:
        failure = judge(task, implementation(task), request.config.getoption("--exercise")).failure
    except Found as found:
        failure = found.failure
    if failure is not None:
        lines = [failure.says, *(f"{label}: {text}" for label, text in failure.lines), failure.look]
        pytest.fail("\n".join(lines), pytrace=False)
