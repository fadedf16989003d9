"""Runs the properties of an exercise on an implementation: the first that fails, as small as it gets."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Flaky
from hypothesis.strategies import SearchStrategy

from tinyvae.exercises.diagnosis import Seen, about_shape, diagnose, right
from tinyvae.exercises.learner import Failure, Found, asserts, called, error_lines, fail, shown, shown_arguments
from tinyvae.exercises.task import Answer, Case, FunctionTask, Property, PropertyTask, Task

CASES = 12  # that a diagnosis must explain
FLOAT32 = "float32 arrays in, float32 arrays out"
TRUTH = "it holds for the library's function"


@dataclass(frozen=True)
class Verdict:
    """What holds, and the first thing that does not."""

    holds: tuple[str, ...]
    failure: Failure | None

    @property
    def passed(self) -> bool:
        """Nothing failed."""
        return self.failure is None


def judge(task: Task, function: Callable[..., Any], path: Path | None = None, shrink: bool = True) -> Verdict:
    """The verdict on a function. `path` is its file; without `shrink` the first counter-example is taken as it is."""
    steps = _property_steps if isinstance(task, PropertyTask) else _function_steps
    holds: list[str] = []
    for says, step in steps(task, function, path, shrink):  # pyright: ignore[reportArgumentType]
        failure = step()
        if failure is not None:
            return Verdict(tuple(holds), failure)
        holds.append(says)
    return Verdict(tuple(holds), None)


def search(cases: SearchStrategy[Case], body: Callable[[Case], None], examples: int, shrink: bool) -> Failure | None:
    """Draw cases until `body` raises Found; shrink that case, and return the failure that it ends with."""

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
    )  # fmt: skip
    @given(cases)
    def run(case: Case) -> None:
        body(case)

    try:
        run()
    except Found as found:
        return found.failure
    except Flaky:
        return Failure("it does not answer the same question in the same way twice: it must not depend on the past")
    return None


# --------------------------------------------------------------------------------------------- write the function


def _function_steps(task: FunctionTask, function: Callable[..., Any], path: Path | None, shrink: bool) -> Any:
    for prop in task.properties:
        yield prop.says, partial(_property_holds, task, prop, function, path, shrink)
    first = task.properties[0]
    yield "each call returns arrays of its own", partial(_results_stay, task, first, function, path)
    if task.keeps_float32:
        yield FLOAT32, partial(search, first.cases, partial(_keeps_float32, task, function, path), 5, shrink)


def _property_holds(
    task: FunctionTask, prop: Property, function: Callable[..., Any], path: Path | None, shrink: bool
) -> Failure | None:
    wrong: list[int] = []  # which output, in the smallest case
    stays: list[bool] = []  # whether it is not 0 there, though the gradient from above is

    def body(case: Case) -> None:
        arguments = task.arguments(case)
        answers = prop.answer(case)
        got, printed = outputs(task, function, case, answers, path)
        again, _ = outputs(task, function, case, answers, path)
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(got, again, strict=True)):
            raise fail(
                "two calls with the same arguments give two results: no randomness, and nothing kept between calls",
                *shown_arguments(arguments),
            )
        for i, (name, value, answer) in enumerate(zip(task.outputs, got, answers, strict=True)):
            if not right(value, answer):
                above = case.get(task.cotangent)
                stays[:] = [above is not None and not np.any(above) and bool(np.all(np.isfinite(value)))]
                wrong[:] = [i]
                pair = shown(_rounded(answer)), shown(value + 0.0)  # + 0.0: no -0
                if pair[0] == pair[1]:
                    pair = shown(answer.value, 17), shown(value, 17)
                raise fail(f"{name} is wrong", *shown_arguments(arguments), (f"expected {name}", pair[0]),
                           (f"got {name}", pair[1]), printed=printed)  # fmt: skip

    failure = search(prop.cases, body, prop.examples, shrink)
    if failure is None or not failure.says.endswith(" is wrong"):
        return failure
    seen = _seen(task, prop, function, path)
    look = diagnose(task, prop, seen, wrong[0]) if seen else ""
    if not look and stays[0]:
        look = f"{task.cotangent} is 0 here and it is not: the chain rule multiplies all of it by {task.cotangent}"
    look = look or prop.look or _unexplained(failure, seen, wrong[0])
    also = [name for i, name in enumerate(task.outputs) if i != wrong[0] and _goes_wrong(seen, i)]
    lines = (("must hold", prop.says), *([("also wrong", ", ".join(also))] if also else []), *failure.lines)
    return Failure(failure.says, lines, look, failure.printed)


def _rounded(answer: Answer) -> np.ndarray:
    """What is expected, with 0 for what is 0 up to the oracle's own error."""
    return np.where(np.abs(answer.value) <= answer.tolerance, 0.0, answer.value)


def _seen(task: FunctionTask, prop: Property, function: Callable[..., Any], path: Path | None) -> list[Seen]:
    """Cases as they are drawn, with what was right and what came."""
    seen: list[Seen] = []

    def body(case: Case) -> None:
        answers = prop.answer(case)
        try:
            got, _ = outputs(task, function, case, answers, path)
        except Found:
            return
        seen.append(Seen(case, answers, got))

    search(prop.cases, body, CASES, shrink=False)
    return seen


def _goes_wrong(seen: list[Seen], output: int) -> bool:
    """Output number `output` is wrong in some case."""
    return not all(right(s.got[output], s.answers[output]) for s in seen)


def _unexplained(failure: Failure, seen: list[Seen], output: int) -> str:
    if any("nan" in text or "inf" in text for label, text in failure.lines if label.startswith("got")):
        return "a number is not finite: look for an overflow, log 0, or a division by 0"
    share = [right(s.got[output], s.answers[output]) for s in seen]
    if 2 * sum(share) >= len(share) > 0:
        return f"it is right in {sum(share)} of {len(share)} other cases: what is special in this one?"
    return "work this case out by hand, and print what your function computes on the way"


def outputs(
    task: FunctionTask, function: Callable[..., Any], case: Case, answers: list[Answer], path: Path | None
) -> tuple[list[np.ndarray], str]:
    """What the function returns for a case, and what it prints. Raises Found if these are not arrays as promised."""
    arguments, kept = task.arguments(case), task.arguments(case)
    result, printed = called(function, arguments, path)
    try:
        return _as_promised(task, result, arguments, kept, answers), printed
    except Found as found:
        raise Found(replace(found.failure, printed=printed)) from None


def _as_promised(
    task: FunctionTask, result: Any, arguments: dict[str, Any], kept: dict[str, Any], answers: list[Answer]
) -> list[np.ndarray]:
    """The results, one for each output, as float64. `kept` is what the arguments were before the call."""
    for name, value in kept.items():
        if isinstance(value, np.ndarray) and not np.array_equal(value, arguments[name], equal_nan=True):
            raise fail(f"it changes its argument {name}: the caller still needs it", *shown_arguments(kept),
                       look="+=, *= and assignments to parts of an array work in place: make a new array")  # fmt: skip
    names = ", ".join(task.outputs)
    if result is None:
        raise fail("it returns nothing", look=f"end it with: return {names}")
    if len(task.outputs) == 1:
        results = [result]
    elif isinstance(result, tuple | list) and len(result) == len(task.outputs):
        results = list(result)
    else:
        count = f"{len(result)} values" if isinstance(result, tuple | list) else "one value"
        raise fail(f"it returns {count}; it must return {len(task.outputs)}: {names}",
                   look=f"end it with: return {names}")  # fmt: skip
    shapes = {name: answer.value.shape for name, answer in zip(task.outputs, answers, strict=True)}
    for name, value in zip(task.outputs, results, strict=True):
        _check_array(name, value, shapes, kept)
    return [np.array(value, dtype=np.float64) for value in results]


def _check_array(name: str, value: Any, shapes: dict[str, tuple[int, ...]], arguments: dict[str, Any]) -> None:
    shape = shapes[name]
    if value is None:
        raise fail(f"{name} is None", look="was it computed, and is its own return missing?")
    if shape == () and isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return
    if isinstance(value, int | float):
        value = np.asarray(value)  # one number, where more are wanted
    if not isinstance(value, np.ndarray | np.generic):
        kind = type(value).__name__
        raise fail(f"{name} is a {kind} and no array", look="NumPy's functions return arrays; np.array makes one")
    if np.shape(value) != shape:
        raise fail(f"{name} has shape {np.shape(value)}; it must have shape {shape}", *shown_arguments(arguments),
                   look=about_shape(shape, np.shape(value), arguments, shapes))  # fmt: skip
    if value.dtype != np.float64 and shape != ():
        raise fail(f"{name} has dtype {value.dtype}; its arguments are float64, and so must it be",
                   look="does an array made on the way have a dtype of its own (a mask, a list)?")  # fmt: skip


def _results_stay(
    task: FunctionTask, prop: Property, function: Callable[..., Any], path: Path | None
) -> Failure | None:
    earlier: list[tuple[Any, Any]] = []

    def body(case: Case) -> None:
        result, _ = called(function, task.arguments(case), path)
        results = result if isinstance(result, tuple | list) else [result]
        for kept, copy in earlier:
            if not np.array_equal(kept, copy, equal_nan=True):
                raise fail("the result of an earlier call changes at a later one",
                           look="it hands out a buffer that it uses again: make a new array at each call")  # fmt: skip
        earlier.extend((r, np.array(r)) for r in results)

    return search(prop.cases, body, 4, shrink=False)


def _keeps_float32(task: FunctionTask, function: Callable[..., Any], path: Path | None, case: Case) -> None:
    arguments = {k: v.astype(np.float32) if isinstance(v, np.ndarray) else v for k, v in task.arguments(case).items()}
    result, _ = called(function, arguments, path)
    for name, value in zip(task.outputs, result if isinstance(result, tuple | list) else [result], strict=True):
        if np.ndim(value) and value.dtype != np.float32:
            raise fail(f"{name} has dtype {value.dtype} where all arrays are float32",
                       look="training is in float32: does an array made on the way have its own dtype?")  # fmt: skip


# --------------------------------------------------------------------------------------------- write the property


def _property_steps(task: PropertyTask, function: Callable[..., Any], path: Path | None, shrink: bool) -> Any:
    yield TRUTH, lambda: search(task.cases, partial(_holds_for_truth, task, function, path), task.examples, shrink)
    killed: list[str] = []
    for bug in task.bugs:
        says = f"it kills: {bug.says}"
        yield says, partial(_survives, task, function, path, bug.wrong, killed)
        killed.append(bug.says)


def _holds_for_truth(task: PropertyTask, function: Callable[..., Any], path: Path | None, case: Case) -> None:
    calls: list[Any] = []  # what they returned

    def implementation(*arguments: Any, **named: Any) -> Any:
        calls.append(())
        calls[-1] = task.truth(*arguments, **named)
        return calls[-1]

    try:
        result, printed = called(function, {"implementation": implementation, **_copied(case)}, path)
    except Found as found:
        cause = found.__cause__
        if isinstance(cause, AssertionError):
            look = "is it true at all? Is its tolerance below rounding? np.testing.assert_allclose(a, b, atol=1e-9)"
            returned = (("it returned", shown(calls[-1])),) if calls else ()
            lines = (*error_lines(cause, path), *shown_arguments(case), *returned)
            raise fail("it does not hold for the library's function, which is right", *lines, look=look,
                       printed=found.failure.printed) from None  # fmt: skip
        raise
    if result is not None:
        raise fail(f"it returns {shown(result)}, and nobody looks at that", look="a property asserts: assert a == b")
    if not calls:
        raise fail("it never calls implementation", look="the property is about what implementation returns",
                   printed=printed)  # fmt: skip


def _survives(
    task: PropertyTask, function: Callable[..., Any], path: Path | None, wrong: Callable[..., Any], killed: list[str]
) -> Failure | None:
    def body(case: Case) -> None:
        try:
            called(function, {"implementation": wrong, **_copied(case)}, None)
        except Found as found:
            raise fail("killed") from found

    if search(task.cases, body, task.examples, shrink=False) is not None:
        return None
    lines = tuple(("killed", says) for says in killed)
    look = "what is wrong with it is told once it is killed; which wrong functions would your property let pass?"
    if path is not None and not asserts(path):
        look = "it asserts nothing: np.allclose and gradcheck only answer; write assert before them"
    return Failure(f"a wrong implementation survives: number {len(killed) + 1} of {len(task.bugs)}", lines, look)


def _copied(case: Case) -> Case:
    return {name: v.copy() if isinstance(v, np.ndarray) else v for name, v in case.items()}
