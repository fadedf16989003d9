"""A loop's text for Numba.

The formulas become one function of single numbers with exact arithmetic; around it stands the loop over rows and
columns, whose sums may be taken in several lanes at once.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from tinyvae.kernels.numba_kept import module_of
from tinyvae.kernels.operands import Operand
from tinyvae.loop import BOOL, DOUBLE, Loop, Number


class Place(NamedTuple):
    """An operand, and which one before it is the same memory: named once, so that a loop in place is a vector loop."""

    kind: Operand
    same_as: int | None = None


SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
SIGNS |= {"greater": ">", "greater_equal": ">=", "less": "<", "less_equal": "<="}
WORDS_OF_EACH = ("exp", "expm1", "log", "log1p", "tanh", "sqrt")  # exp32 and exp64, ...


def body_of(loop: Loop, dtype: str) -> tuple[list[str], str]:
    """The lines that compute a loop's results from its inputs, and the results, as text."""
    names: dict[int, str] = {}

    def name(n: Number, kind: str) -> str:
        if n.op == "constant":
            number = f"{'-' if n.args[0] < 0 else ''}INFINITY" if math.isinf(n.args[0]) else repr(n.args[0])
            number = "NAN" if math.isnan(n.args[0]) else number
            return f"{'float64' if kind == DOUBLE or dtype == 'float64' else 'float32'}({number})"
        text = f"in_{n.args[0]}" if n.op == "input" else names[n.index]
        return f"float64({text})" if kind == DOUBLE and n.kind != DOUBLE else text

    lines = []
    for n in loop.program:
        kinds = [a.kind for a in n.args]
        kind = DOUBLE if DOUBLE in (n.kind, *kinds) else n.kind
        args = [name(a, kind if a.kind != BOOL else BOOL) for a in n.args]
        if n.op in SIGNS:
            text = f"{args[0]} {SIGNS[n.op]} {args[1]}"
        elif n.op == "negative":
            text = f"-{args[0]}"
        elif n.op == "double":
            text = args[0]
        elif n.op == "isnan":
            text = f"{args[0]} != {args[0]}"
        elif n.op in WORDS_OF_EACH:
            word = "log1p_unit" if _is_log1p_of_at_most_one(n) else n.op
            text = f"{word}{'64' if kind == DOUBLE or dtype == 'float64' else '32'}({args[0]})"
        else:
            text = f"{n.op}({', '.join(args)})"
        names[n.index] = f"t{len(names)}"
        lines.append(f"{names[n.index]} = {text}")
    results = [name(n, n.kind) for part in loop.results for n in part]
    return lines, f"({', '.join(results)},)"


def _is_log1p_of_at_most_one(n: Number) -> bool:
    """log1p(e^-|a|), which the Bernoulli and softplus are made of: of an argument in 0..1, where half the work does."""
    of = [n]
    for op in ("log1p", "exp", "negative", "abs"):
        if of[-1].op != op:
            return False
        of.append(of[-1].args[0])
    return True


def text_of(loop: Loop, dtype: str, operands: tuple[Place, ...], into: bool) -> str:
    """A module with the function `loop(rows, cols, *operands, *sums, *columns)`."""
    outputs, along, over = loop.counts
    arguments, per_row, values = ["rows", "cols"], [], []
    for i, (operand, same_as) in enumerate(operands):
        a = f"a{i}"
        if same_as is not None:
            values.append(values[same_as])
        elif operand == Operand.NUMBER:
            arguments.append(a)
            values.append(a)
        elif operand == Operand.CELL:
            arguments.append(a)
            values.append(f"{a}[0]")
        elif operand == Operand.ROW:
            arguments.append(a)
            values.append(f"{a}[j]")
        elif operand == Operand.LOOKUP:
            arguments += [a, f"labels{i}", f"K{i}"]
            per_row.append(f"x{i} = {a}[labels{i}[i // K{i}]]")
            values.append(f"x{i}[j]")
        elif operand == Operand.COLUMN:
            arguments += [a, f"K{i}"]
            per_row.append(f"x{i} = {a}[i // K{i}, 0]")
            values.append(f"x{i}")
        else:
            arguments += [a, f"K{i}"]
            per_row.append(f"x{i} = {a}[i // K{i}]")
            values.append(f"x{i}[j]")
    count = len(loop.inputs)
    sums, columns = [f"s{i}" for i in range(along)], [f"c{i}" for i in range(over)]
    lines, results = body_of(loop, dtype)
    calls = ", ".join(f"r{i}" for i in range(outputs + along + over))
    assign = [f"{values[count + i]} {'+=' if into else '='} r{i}" for i in range(outputs)]
    assign += [f"total{i} += r{outputs + i}" for i in range(along)]
    assign += [f"c{i}[j] += r{outputs + along + i}" for i in range(over)]
    indent = lambda block, depth: "".join(f"{'    ' * depth}{line}\n" for line in block)
    return (
        "from numba import njit\nfrom numpy import float32, float64\n\n"
        "from tinyvae.kernels.numba_words import *\n\n\n"
        f"@exact\ndef numbers({', '.join(f'in_{name}' for name in loop.inputs)}):\n"
        + indent([*lines, f"return {results}"], 1)
        + "\n\n@njit(fastmath={'contract', 'nsz', 'reassoc'}, error_model='numpy', nogil=True)\n"
        f"def loop({', '.join([*arguments, *sums, *columns])}):\n"
        + indent([f"{c}[:] = 0" for c in columns], 1)
        + indent(["for i in range(rows):"], 1)
        + indent([*per_row, *(f"total{i} = {dtype}(0)" for i in range(along))], 2)
        + indent(["for j in range(cols):"], 2)
        + indent([f"({calls},) = numbers({', '.join(values[:count])})", *assign], 3)
        + indent([f"s{i}[i] = total{i}" for i in range(along)], 2)
    )


@cache
def compiled_loop(loop: Loop, dtype: str, operands: tuple[Place, ...], into: bool) -> Callable[..., None]:
    """The function, ready to be called; Numba compiles it when it is called first."""
    return module_of(text_of(loop, dtype, operands, into)).loop
