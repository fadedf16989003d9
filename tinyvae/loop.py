"""The compiler of formulas: what one pass over a matrix must compute, as a list of operations, each noted once.

A formula is called with `Number`s, which note in a `Trace` what is done to them. There is no optimizer: only what two
formulas share is computed once, and what nobody reads is left out. The kernels write their loops from the list.
"""

import linecache
import traceback
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.formula import Formula, FormulaError

REAL, DOUBLE, BOOL = "real", "double", "bool"  # the kinds of a Number: the loop's own precision, float64, a condition


class Number:
    """A number of a loop, and how it is made: `op` of `args`. An input has its name in `args`, a constant its value."""

    __slots__ = ("args", "index", "kind", "op", "trace")
    __array_ufunc__ = None  # NumPy's scalars leave arithmetic to us

    def __init__(self, trace: "Trace", op: str, args: tuple[Any, ...], kind: str, index: int) -> None:
        self.trace, self.op, self.args, self.kind, self.index = trace, op, args, kind, index

    def __repr__(self) -> str:  # of its arguments only the places: all of them written out could be endless
        places = (f"number {a.index}" if isinstance(a, Number) else repr(a) for a in self.args)
        return f"{self.op}({', '.join(places)})"

    def __bool__(self) -> bool:
        raise FormulaError("no choice can be made on a number: write where(condition, a, b), maximum or minimum")

    def __float__(self) -> float:
        raise FormulaError("a number of a formula has no value yet: take exp, log, ... from tinyvae.formula")

    def __eq__(self, other: object) -> Any:
        raise FormulaError("== is no word of a formula: use >, >=, < or <=")

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def note(self, op: str, *args: Any) -> "Number":
        """The number that is `op` of `args`, one of which is this."""
        return self.trace.note(op, *args)

    def __pow__(self, power: Any) -> "Number":
        if isinstance(power, Number) or power not in (2, 3):
            raise FormulaError(f"** {power} is no word of a formula: write products, or exp(power * log(x))")
        square = self.note("multiply", self, self)
        return square if power == 2 else self.note("multiply", square, self)

    def __pos__(self) -> "Number":
        return self

    def __neg__(self) -> "Number":
        return self.note("negative", self)

    def __abs__(self) -> "Number":
        return self.note("abs", self)


def _operator(name: str, swapped: bool = False) -> Callable[[Number, Any], Any]:
    def method(self: Number, other: Any) -> Any:
        return self.note(name, *((other, self) if swapped else (self, other)))

    return method


for _symbol, _name in [("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("truediv", "divide")]:
    setattr(Number, f"__{_symbol}__", _operator(_name))
    setattr(Number, f"__r{_symbol}__", _operator(_name, swapped=True))
for _symbol, _name in [("gt", "greater"), ("ge", "greater_equal"), ("lt", "less"), ("le", "less_equal")]:
    setattr(Number, f"__{_symbol}__", _operator(_name))
PLACES = ("out", "into", "sums", "columns")  # arguments of `Kernels.map`
CONDITIONS = ("greater", "greater_equal", "less", "less_equal", "isnan")
_WORDS, _NUMPY = Formula.__call__.__code__.co_filename, str(Path(np.__file__).parent)


class Trace:
    """All numbers of a loop in the order in which they are made, each once: what two formulas share is made once."""

    def __init__(self) -> None:
        self.numbers: list[Number] = []
        self.known: dict[tuple[Any, ...], Number] = {}

    def note(self, op: str, *args: Any) -> Number:
        """The number that is `op` of `args`."""
        numbers = tuple(self.number(a) for a in args)
        for i, a in enumerate(numbers):
            if (a.kind == BOOL) != (op == "where" and i == 0):
                wrong = "a condition" if a.kind == BOOL else "no condition"
                raise FormulaError(f"{op} of {wrong}: the first argument of where is one, and no other")
        kind = BOOL if op in CONDITIONS else REAL
        if op == "double" or (kind == REAL and any(a.kind == DOUBLE for a in numbers)):
            kind = DOUBLE
        return self._once(op, numbers, kind, (op, *(a.index for a in numbers)))

    def number(self, a: Any) -> Number:
        """`a` itself, or a constant."""
        if isinstance(a, Number):
            if a.trace is not self:
                raise FormulaError("a number of another loop: a formula keeps none")
            return a
        if isinstance(a, (bool, np.bool_)) or not isinstance(a, (int, float, np.floating, np.integer)):
            raise FormulaError(f"a formula is made of single numbers, not of {type(a).__name__}")
        return self._once("constant", (float(a),), REAL, ("constant", float(a).hex()))

    def input(self, name: str) -> Number:
        """An input of the loop."""
        return self._once("input", (name,), REAL, ("input", name))

    def _once(self, op: str, args: tuple[Any, ...], kind: str, key: tuple[Any, ...]) -> Number:
        if key not in self.known:
            self.known[key] = Number(self, op, args, kind, len(self.numbers))
            self.numbers.append(self.known[key])
        return self.known[key]

    def results(self, f: Formula) -> list[Number]:
        """What the formula makes of inputs of its own names. Raises FormulaError with the line at fault."""
        try:
            value = f(*(self.input(name) for name in f.inputs))
            values = [self.number(v) for v in (value if isinstance(value, tuple) else (value,))]
            if any(v.kind == BOOL for v in values):
                raise FormulaError("the result is a condition: write where(condition, 1, 0)")
            return values
        except Exception as error:  # whatever the user's own code raises
            raise FormulaError(f"formula {f.__name__}: {error} ({_place(f, error)})") from error


def _place(f: Formula, error: Exception) -> str:
    """The line at fault: the last one that is the user's; or where the formula begins, if none raised the error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [(at.filename, at.lineno) for at in frames if at.filename not in (__file__, _WORDS)]
    own = [(file, line) for file, line in own if not file.startswith(_NUMPY)]
    code = getattr(f.function, "__code__", None)
    if code is not None:
        own.insert(0, (code.co_filename, code.co_firstlineno))
    file, line = own[-1] if own else ("a function without a text", 0)
    text = linecache.getline(file, line or 0).strip()
    return f"{file}, line {line}: {text}" if text else f"{file}, line {line}"


class Loop:
    """One pass over a matrix: results of formulas for every number, and sums of others along rows or over columns.

    The inputs of all formulas, by name, are the inputs of the loop: one name, one input. See `Kernels.map` for what may
    be passed.
    """

    def __init__(
        self, outputs: Sequence[Formula] = (), sums: Sequence[Formula] = (), columns: Sequence[Formula] = ()
    ) -> None:
        self.formulas = (tuple(outputs), tuple(sums), tuple(columns))
        self.inputs = tuple(dict.fromkeys(name for part in self.formulas for f in part for name in f.inputs))
        if not any(self.formulas):
            raise FormulaError("a loop needs a formula")
        for name in PLACES:
            if name in self.inputs:
                raise FormulaError(f"no input can be called {', '.join(PLACES)}: these say where results go")

    def __repr__(self) -> str:
        return f"loop of {', '.join(f.__name__ for part in self.formulas for f in part)}"

    @cached_property
    def results(self) -> tuple[list[Number], list[Number], list[Number]]:
        """For every number, along the rows, over the columns; from one trace. Raises FormulaError."""
        trace = Trace()
        for name in self.inputs:
            trace.input(name)
        outputs, sums, columns = ([r for f in part for r in trace.results(f)] for part in self.formulas)
        return outputs, sums, columns

    @cached_property
    def counts(self) -> tuple[int, int, int]:
        """How many results of each kind."""
        outputs, sums, columns = self.results
        return len(outputs), len(sums), len(columns)

    @cached_property
    def program(self) -> list[Number]:
        """What must be computed, in order, inputs and constants left out."""
        needed: set[int] = set()
        todo = [r for part in self.results for r in part]
        while todo:
            n = todo.pop()
            if n.index not in needed:
                needed.add(n.index)
                todo += [a for a in n.args if isinstance(a, Number)]
        numbers = next(r for part in self.results for r in part).trace.numbers
        return [n for n in numbers if n.index in needed and n.op not in ("input", "constant")]

    def on_arrays(self, given: dict[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """The formulas on arrays that broadcast: their results, none of them summed yet."""
        found: list[list[Any]] = []
        for part in self.formulas:
            values = [f(*(given[name] for name in f.inputs)) for f in part]
            found.append([v for value in values for v in (value if isinstance(value, tuple) else (value,))])
        return found[0], found[1], found[2]
