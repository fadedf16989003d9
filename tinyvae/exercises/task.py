"""What an exercise is made of, for the judge."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from hypothesis.strategies import SearchStrategy

Case = dict[str, Any]  # the arguments by name, and what else the oracle needs (which no learner sees)


class Answer(NamedTuple):
    """What an output must be: `value`, up to `tolerance` in each entry."""

    value: np.ndarray
    tolerance: np.ndarray


def exactly(value: Any, tolerance: Any = 0.0) -> Answer:
    """An Answer from numbers or arrays that broadcast."""
    value = np.asarray(value, dtype=np.float64)
    return Answer(value, np.broadcast_to(np.asarray(tolerance, dtype=np.float64), value.shape))


@dataclass(frozen=True)
class Property:
    """Something that must hold for every case: the outputs are the oracle's, within its tolerances."""

    says: str  # in words, what holds
    cases: SearchStrategy[Case]
    answer: Callable[[Case], list[Answer]]  # the oracle; it sees neither the learner's file nor its results
    examples: int = 50
    look: str = ""  # where to look if it fails and nothing explains the failure


@dataclass(frozen=True)
class Mistake:
    """A typical wrong first attempt: what to tell whoever makes it, and the attempt."""

    says: str
    wrong: Callable[..., Any]


@dataclass(frozen=True)
class FunctionTask:
    """The first kind: write the function. `solution` is the library's."""

    name: str
    solution: Callable[..., Any]
    outputs: tuple[str, ...]
    properties: tuple[Property, ...]
    mistakes: tuple[Mistake, ...]
    cotangent: str = ""  # the argument that is the gradient from above, if there is one
    keeps_float32: bool = True  # float32 arrays in, float32 arrays out

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the arguments, in order."""
        return tuple(inspect.signature(self.solution).parameters)

    def arguments(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a case that the function is called with, arrays as fresh copies."""
        given = {name: case[name] for name in self.parameters if name in case}
        return {name: v.copy() if isinstance(v, np.ndarray) else v for name, v in given.items()}


@dataclass(frozen=True)
class PropertyTask:
    """The second kind: write the property. It must hold for `truth` and fail for each of `bugs`."""

    name: str
    solution: Callable[..., Any]  # the reference property: (implementation, *inputs) -> None, or AssertionError
    truth: Callable[..., Any]  # the library's function
    cases: SearchStrategy[Case]  # the inputs that follow `implementation`
    bugs: tuple[Mistake, ...]  # wrong implementations; what they say is told once they are killed
    examples: int = 60


Task = FunctionTask | PropertyTask
