"""A memory of prepared calls, and an arena for their results: so that nothing is allocated from the second pass on.

The i-th call of a pass gets the arrays that the i-th call of the pass before got, if they fit. With it goes all that
was worked out for it (shapes, views, the compiled loop). It is used again only if the operation is the same and every
operand is the very same memory, which is looked at in every call: nothing that is remembered can be out of date. A
number may be another each time. (Only an array object that is given another shape in place, which NumPy discourages, is
taken for what it was.)

A whole pass that made the very same calls twice is made again without asking who made them: see `replayed`.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tinyvae.backend import Array, get_backend
from tinyvae.kernels.domain import NUMBERS, address

KEYS = 8  # kinds of passes whose calls are remembered

Step = tuple[Callable[..., Any], list[Any]]
Setters = dict[int, Callable[[Any], None]]  # by the operand's place


class Call:
    """A prepared call: its steps, in order, fill `result`. `numbers`: how to change those operands that are one."""

    __slots__ = ("ids", "numbers", "operands", "result", "steps", "what")

    def __init__(self, steps: Iterable[Step], result: Any = None, numbers: Setters | None = None) -> None:
        self.steps, self.result, self.numbers = tuple(steps), result, numbers or {}
        self.what: Any = None
        self.operands: tuple[Any, ...] = ()
        self.ids: tuple[int, ...] = ()  # of the operands, which are kept: the same id is the same object

    def __call__(self) -> Any:
        """Make it."""
        for function, args in self.steps:
            function(*args)
        return self.result

    def take(self, operands: tuple[Any, ...]) -> None:
        """Remember the operands."""
        self.operands, self.ids = operands, tuple(map(id, operands))


def same_memory(old: Any, new: Any) -> bool:
    """Whether two arrays are views of the same numbers."""
    return (
        type(old) is type(new)
        and hasattr(old, "strides")
        and old.shape == new.shape
        and old.strides == new.strides
        and old.dtype == new.dtype
        and address(old) == address(new)
    )


class Pass:
    """What is remembered of one kind of pass: its calls, and what `replayed` was given, made, and with which steps."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.given: tuple[Any, ...] = ()
        self.made: Any = None
        self.steps: tuple[Step, ...] | None = None  # None: not known to be the same each time
        self.length = 0  # in calls


class Remembered:
    """Makes calls, each as it is remembered, or prepared anew."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.generation = 0
        self.passes: dict[Any, Pass] = {}
        self.under_way = Pass()
        self.done = 0  # calls made in it
        self.news = 0  # calls so far that were not as they had been: prepared anew, or with another number
        self.arena: list[list[Array]] = []  # arena[i]: the flat memory of the i-th call
        self.scratch: list[Array] = []  # what a call needs while it runs: all share it

    def begin(self, *key: Any) -> None:
        """From the arena's start again."""
        if key not in self.passes and len(self.passes) >= KEYS:
            self.passes.clear()
        self.under_way = self.passes.setdefault(key, Pass())
        self.generation += 1
        self.done = 0

    def do(self, what: Any, prepare: Callable[..., Call], *operands: Any) -> Any:
        """Make a call, as it is remembered or else prepared: prepare(memory, what, *operands).

        what: the operation and all that is no operand, the very same object each time.
        """
        i, calls = self.done, self.under_way.calls
        if i < len(calls):
            call = calls[i]
            if call.what is what and (call.ids == tuple(map(id, operands)) or self._fits(call, operands)):
                self.done = i + 1
                for function, args in call.steps:  # as `call()`, which takes longer
                    function(*args)
                return call.result
        call = prepare(self._memory(i), what, *operands)
        call.what = what
        call.take(operands)
        calls[i : i + 1] = [call]
        self.news += 1
        self.done = i + 1  # not of a call that could not be prepared: places would move
        return call()

    def _fits(self, call: Call, operands: tuple[Any, ...]) -> bool:
        """Whether the operands are the same memory as before; the call takes over the numbers."""
        if len(call.operands) != len(operands):
            return False
        for i, (old, new) in enumerate(zip(call.operands, operands, strict=True)):
            if old is not new:
                if i in call.numbers and isinstance(new, NUMBERS):
                    if old != new:
                        call.numbers[i](new)  # if another operand does not fit, a new call takes this one's place
                        self.news += 1
                elif not same_memory(old, new):
                    return False
        call.take(operands)  # the next call may well bring the same objects again
        return True

    def replayed(self, given: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """make(); or the very calls that it made the last two times it was given these objects, and what it made.

        It stands once in a pass, before it at most `new`. The caller promises that `make` computes by calls of these
        kernels alone, and that which calls these are depends on nothing but `given`. What is written into the arrays
        among these may differ each time.
        """
        p = self.under_way
        same = len(p.given) == len(given) and all(a is b for a, b in zip(p.given, given, strict=True))
        if same and p.steps is not None:
            for function, args in p.steps:
                function(*args)
            self.done = p.length
            return p.made
        news, begin, p.steps, p.given = self.news, self.done, None, given
        p.made = make()
        if same and self.news == news:
            p.steps = tuple(step for call in p.calls[begin : self.done] for step in call.steps)
            p.length = self.done
        return p.made

    def new_memory(self, size: int) -> Array:
        """So many bytes: (size,), of uint8."""
        return get_backend().zeros(size, np.uint8)

    def _memory(self, i: int) -> "Memory":
        """Hands out the arrays of the i-th call."""
        while len(self.arena) <= i:
            self.arena.append([])
        return Memory(self, self.arena[i])


class Memory:
    """The memory of a call that is being prepared: `memory(3, 4)` is its next array, (3, 4)."""

    def __init__(self, owner: Remembered, flat: list[Array]) -> None:
        self.owner, self.flat = owner, flat
        self.taken = self.taken_for_now = 0

    def __call__(self, *shape: int, dtype: Any = None) -> Array:
        """An array for a result, or for what a result is read from later."""
        self.taken += 1
        return self._next(self.flat, self.taken - 1, shape, dtype)

    def for_now(self, *shape: int, dtype: Any = None) -> Array:
        """An array that means nothing once the call is done: the next call writes over it."""
        self.taken_for_now += 1
        return self._next(self.owner.scratch, self.taken_for_now - 1, shape, dtype)

    def _next(self, flat: list[Array], j: int, shape: tuple[int, ...], dtype: Any) -> Array:
        dtype = np.dtype(self.owner.dtype if dtype is None else dtype)
        size = math.prod(shape) * dtype.itemsize
        if j == len(flat):
            flat.append(self.owner.new_memory(size))
        if flat[j].size < size:
            flat[j] = self.owner.new_memory(size)
        return flat[j][:size].view(dtype).reshape(shape)
