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


class Body(NamedTuple):
    """The lines that compute a loop's results from its inputs, and the results, as text.

    `once`: lines before the loop, whose numbers are the same in all of it, and `kept`: those that the other lines read.
    LLVM would make two loops of each condition on such a number, and two of each of these: minutes for a long formula.
    """

    lines: list[str]
    results: str
    once: list[str]
    kept: list[str]


def body_of(loop: Loop, dtype: str, single: frozenset[str] = frozenset()) -> Body:
    """The text. single: inputs that are one number."""
    names: dict[int, str] = {}
    same: set[int] = set()  # numbers made of single ones alone
    read: dict[str, None] = {}  # those of them that others read

    def name(n: Number, kind: str, by: list[str] | None = None) -> str:
        if n.op == "constant":
            number = f"{'-' if n.args[0] < 0 else ''}INFINITY" if math.isinf(n.args[0]) else repr(n.args[0])
            number = "NAN" if math.isnan(n.args[0]) else number
            return f"{'float64' if kind == DOUBLE or dtype == 'float64' else 'float32'}({number})"
        text = f"in_{n.args[0]}" if n.op == "input" else names[n.index]
        if n.index in same and by is not once and n.op != "input":
            read[text] = None
        return f"float64({text})" if kind == DOUBLE and n.kind != DOUBLE else text

    once: list[str] = []
    lines: list[str] = []
    for n in loop.program:
        if all(a.op == "constant" or (a.op == "input" and a.args[0] in single) or a.index in same for a in n.args):
            same.add(n.index)
        into = once if n.index in same else lines
        kinds = [a.kind for a in n.args]
        kind = DOUBLE if DOUBLE in (n.kind, *kinds) else n.kind
        args = [name(a, kind if a.kind != BOOL else BOOL, into) for a in n.args]
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
        into.append(f"{names[n.index]} = {text}")
    results = [name(n, n.kind) for part in loop.results for n in part]
    return Body(lines, f"({', '.join(results)},)", once, [*read])


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
    one_number = (Operand.NUMBER, Operand.CELL)
    single = [name for name, (operand, _) in zip(loop.inputs, operands, strict=False) if operand in one_number]
    lines, results, once, kept = body_of(loop, dtype, frozenset(single))
    given = dict(zip(loop.inputs, values, strict=False))
    calls = ", ".join(f"r{i}" for i in range(outputs + along + over))
    assign = [f"{values[count + i]} {'+=' if into else '='} r{i}" for i in range(outputs)]
    assign += [f"total{i} += r{outputs + i}" for i in range(along)]
    assign += [f"c{i}[j] += r{outputs + along + i}" for i in range(over)]
    indent = lambda block, depth: "".join(f"{'    ' * depth}{line}\n" for line in block)
    return (
        "from numba import njit\nfrom numpy import float32, float64\n\n"
        "from tinyvae.kernels.numba_words import *\n\n\n"
        + (f"@exact\ndef once({', '.join(f'in_{name}' for name in single)}):\n" if kept else "")
        + (indent([*once, f"return ({', '.join(kept)},)"], 1) + "\n\n" if kept else "")
        + f"@exact\ndef numbers({', '.join([*(f'in_{name}' for name in loop.inputs), *kept])}):\n"
        + indent([*lines, f"return {results}"], 1)
        + "\n\n@njit(fastmath={'contract', 'nsz', 'reassoc'}, error_model='numpy', nogil=True)\n"
        f"def loop({', '.join([*arguments, *sums, *columns])}):\n"
        + indent([f"{c}[:] = 0" for c in columns], 1)
        + indent([f"({', '.join(kept)},) = once({', '.join(given[name] for name in single)})"] if kept else [], 1)
        + indent(["for i in range(rows):"], 1)
        + indent([*per_row, *(f"total{i} = {dtype}(0)" for i in range(along))], 2)
        + indent(["for j in range(cols):"], 2)
        + indent([f"({calls},) = numbers({', '.join([*values[:count], *kept])})", *assign], 3)
        + indent([f"s{i}[i] = total{i}" for i in range(along)], 2)
    )


@cache
def compiled_loop(loop: Loop, dtype: str, operands: tuple[Place, ...], into: bool) -> Callable[..., None]:
    """The function, ready to be called; Numba compiles it when it is called first."""
    return module_of(text_of(loop, dtype, operands, into)).loop
