"""A memory of prepared calls, and an arena for their results: so that nothing is allocated from the second pass on.

The i-th call of a pass gets the arrays that the i-th call of the pass before got, if they fit. With it goes all that
was worked out for it (shapes, views, the compiled loop). It is used again only if the operation is the same and every
operand is the very same memory, which is looked at in every call: nothing that is remembered can be out of date. A
number may be another each time. (Only an array object that is given another shape in place, which NumPy discourages, is
taken for what it was.)
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.backend import Array, get_backend
from tinyvae.kernels.domain import NUMBERS, address

KEYS = 8  # kinds of passes whose calls are remembered

Step = tuple[Callable[..., Any], list[Any]]


class Call:
    """A prepared call: `function(*args)` fills `result`. `numbers`: how to change those operands that are one."""

    __slots__ = ("args", "function", "ids", "numbers", "operands", "result", "what")

    def __init__(
        self, function: Callable[..., Any], args: list[Any], result: Any = None,
        numbers: dict[int, Callable[[list[Any], Any], None]] | None = None,
    ) -> None:  # fmt: skip
        self.function, self.args, self.result, self.numbers = function, args, result, numbers or {}
        self.what: Any = None
        self.operands: tuple[Any, ...] = ()
        self.ids: tuple[int, ...] = ()  # of the operands, which are kept: the same id is the same object

    def fits(self, what: Any, operands: tuple[Any, ...]) -> bool:
        """Whether it is the same operation on the same memory; takes over the numbers."""
        if self.what != what or len(self.operands) != len(operands):
            return False
        other_numbers = False
        for i, old in enumerate(self.operands):
            new = operands[i]
            if old is not new:
                if i in self.numbers and isinstance(new, NUMBERS):
                    other_numbers = other_numbers or old != new
                elif not same_memory(old, new):
                    return False
        if other_numbers:
            for i, put in self.numbers.items():
                put(self.args, operands[i])
        self.take(operands)  # the next call may well bring the same objects again
        return True

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


def walk(*steps: Step) -> None:
    """Call one after the other."""
    for function, args in steps:
        function(*args)


class Remembered:
    """Makes calls, each as it is remembered, or prepared anew."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.generation = 0
        self.passes: dict[Any, list[Call]] = {}
        self.calls: list[Call] = []  # of the pass under way
        self.done = 0  # calls made in it
        self.arena: list[list[Array]] = []  # arena[i]: the flat memory of the i-th call
        self.scratch: list[Array] = []  # what a call needs while it runs: all share it

    def begin(self, *key: Any) -> None:
        """From the arena's start again."""
        if key not in self.passes and len(self.passes) >= KEYS:
            self.passes.clear()
        self.calls = self.passes.setdefault(key, [])
        self.generation += 1
        self.done = 0

    def do(self, what: Any, prepare: Callable[..., Call], *operands: Any) -> Any:
        """Make a call, as it is remembered or else prepared: prepare(memory, what, *operands)."""
        i, calls = self.done, self.calls
        if i < len(calls):
            call = calls[i]
            if (call.what is what and call.ids == tuple(map(id, operands))) or call.fits(what, operands):
                self.done = i + 1
                call.function(*call.args)
                return call.result
        call = prepare(self._memory(i), what, *operands)
        call.what = what
        call.take(operands)
        calls[i : i + 1] = [call]
        self.done = i + 1  # not of a call that could not be prepared: places would move
        call.function(*call.args)
        return call.result

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
