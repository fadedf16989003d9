"""What a wrong answer is in terms of the right one: -1 times it, twice it, its mean over the rows, another output...

A sentence is said only if it explains the answer in every one of a dozen cases, and not merely in the smallest.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tinyvae.exercises.task import Answer, FunctionTask, Property

SLACK = 1e-12  # relative: the same formula, added up in another order


class Seen(NamedTuple):
    """One case: what it was, what each output had to be, and what it was."""

    case: dict[str, Any]
    answers: list[Answer]
    got: list[np.ndarray]


def diagnose(task: FunctionTask, prop: Property, seen: list[Seen], output: int) -> str:
    """A sentence on what output number `output` is instead of the right one; "" if nothing explains it.

    Cases that give no finite number are left out, if the others show that it is wrong.
    """
    finite = [s for s in seen if np.all(np.isfinite(s.got[output]))]
    if not all(right(s.got[output], s.answers[output]) for s in finite):
        seen = finite
    got = [s.got[output] for s in seen]
    answers = [s.answers[output] for s in seen]
    for says, candidates in _candidates(task, prop, seen, output):
        try:
            values = [np.asarray(candidates(s), dtype=np.float64) for s in seen]
        except Exception:  # a wrong attempt may fail where the right one does not: then it is not this one
            continue
        explains = all(_same(v, g, a) for v, g, a in zip(values, got, answers, strict=True))
        if explains and not all(right(v, a) for v, a in zip(values, answers, strict=True)):
            return says
    if any(a.value.shape != g.shape or not np.all(np.isfinite(g)) for a, g in zip(answers, got, strict=True)):
        return ""
    whole = Answer(*(np.concatenate([np.ravel(part) for part in parts]) for parts in zip(*answers, strict=True)))
    return _multiple(whole, np.concatenate([np.ravel(g) for g in got]))


def _candidates(
    task: FunctionTask, prop: Property, seen: list[Seen], output: int
) -> Iterator[tuple[str, Callable[[Seen], Any]]]:
    for mistake in task.mistakes:

        def attempt(s: Seen, wrong: Callable[..., Any] = mistake.wrong) -> Any:
            with np.errstate(all="ignore"):
                results = wrong(**task.arguments(s.case))
            return results[output] if len(task.outputs) > 1 else results

        yield mistake.says, attempt
    yield "it is always 0: a path to it is missing", lambda s: 0 * s.answers[output].value
    yield "it is -1 times the right one: look at the sign", lambda s: -s.answers[output].value
    yield (
        "it is twice the right one: look for a factor of 2, or for a half that is missing",
        lambda s: 2 * s.answers[output].value,
    )
    yield "it is half the right one: look for a half that is too much", lambda s: s.answers[output].value / 2
    if task.cotangent:
        name = task.cotangent

        def without(s: Seen) -> Any:
            ones = s.case | {name: np.ones_like(np.asarray(s.case[name], dtype=np.float64))}
            return prop.answer(ones)[output].value

        yield f"it is right only where {name} is 1: the chain rule multiplies by {name}", without
    for says, power, axis in (
        ("a mean over the rows where a sum is meant: it is the right one divided by the number of rows", -1, 0),
        ("a sum over the rows where a mean is meant: it is the right one times the number of rows", 1, 0),
        ("a mean over the columns where a sum is meant: it is the right one divided by their number", -1, -1),
        ("a sum over the columns where a mean is meant: it is the right one times their number", 1, -1),
    ):
        size = lambda s, axis=axis: _size(task, s, axis)
        yield says, lambda s, size=size, power=power: s.answers[output].value * float(size(s)) ** power
    for other, name in enumerate(task.outputs):
        if other != output:
            yield (
                f"it is what {name} should be: are {task.outputs[output]} and {name} swapped?",
                lambda s, other=other: s.answers[other].value,
            )


def _size(task: FunctionTask, seen: Seen, axis: int) -> int:
    """Rows or columns: a side of the first argument that is a matrix (a cotangent may have one column for all)."""
    arguments = task.arguments(seen.case)
    matrices = [name for name, a in arguments.items() if isinstance(a, np.ndarray) and a.ndim >= 2]
    return arguments[next((name for name in matrices if name != task.cotangent), matrices[0])].shape[axis]


def _multiple(whole: Answer, got: np.ndarray) -> str:
    """A factor or an offset that nobody foresaw, of all entries of all cases."""
    e, size = whole.value, float((whole.value**2).sum())
    c = float((e * got).sum()) / size if size else 1.0
    if abs(c - 1) > 1e-6 and _same(c * e, got, whole):
        return f"it is {c:.4g} times the right one"
    offset = float((got - e).mean())
    if e.size > 1 and abs(offset) > 1e-6 and _same(e + offset, got, whole):
        return f"it is off by {offset:.4g} everywhere: a constant is missing, or too much"
    return ""


def right(value: np.ndarray, answer: Answer) -> bool:
    """The value is the answer, within its tolerance."""
    return value.shape == answer.value.shape and bool(np.all(np.abs(value - answer.value) <= answer.tolerance))


def _same(a: np.ndarray, b: np.ndarray, answer: Answer) -> bool:
    """Two candidates agree, as closely as the answer itself is known (several times over: for its multiples)."""
    if a.shape != b.shape:
        return False
    scale = float(np.max(answer.tolerance, initial=0.0))
    return bool(np.allclose(a, b, rtol=SLACK, atol=6 * scale, equal_nan=True))


def about_shape(
    expected: tuple[int, ...], got: tuple[int, ...], arguments: dict[str, Any], others: dict[str, tuple[int, ...]]
) -> str:
    """What a wrong shape suggests. `others` are the shapes that the other outputs must have."""
    if len(got) == len(expected) == 2 and got == expected[::-1]:
        return "it is transposed: with sizes that differ, only one order of the product fits"
    if len(got) < len(expected):
        return "something was summed that should have stayed, or a factor that is an array is missing"
    if len(got) >= 2:
        for name, shape in others.items():
            if shape == got:
                return f"that is the shape of {name}: are the two swapped?"
    if not expected:
        return "one number is wanted: it is not summed yet, or stands in an array"
    if len(got) == len(expected) + 1:
        summed = "rows" if got[1:] == expected else "columns"
        return f"a sum over the {summed} is missing, or there is a keepdims or a [:, None] too much"
    if len(got) > len(expected):
        return (
            f"it has {len(got) - len(expected)} axes too many: what puts them together, or sums over them, is missing"
        )
    if len(got) >= 2 and all(g == e or e == 1 for e, g in zip(expected, got, strict=True)):
        return (
            "broadcasting made it larger: is an array (n,) added or multiplied where (n, 1) is meant (keepdims=True)?"
        )
    sides = {side for a in arguments.values() if isinstance(a, np.ndarray) for side in a.shape}
    return "it was summed over the wrong axis" if got and set(got) <= sides else ""
