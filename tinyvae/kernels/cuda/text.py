"""A loop's text for CUDA: one kernel, from its program and the kinds of its operands. Compiled behind common.cu.

    outputs          a thread for each number
    added (`into`)   a thread for each number of the target, which takes in its K rows, in order
    sums             `width` threads along a row: a warp's where rows are short, else the block's
    columns          `width` threads beside each other, at most a warp's, and the others of the block below them

A loop that has both sums and columns is two kernels (see `cuda_loops`). Sums over long rows and tall columns are made
in parts of `part` numbers, one block each, which `add_parts` adds in order: every sum has one order, on every GPU.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from tinyvae.kernels.cuda.launch import source
from tinyvae.kernels.operands import Operand
from tinyvae.loop import BOOL, DOUBLE, Loop, Number

TYPES = {BOOL: "bool", DOUBLE: "double"}  # of a number; else float
SIGNS = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "greater": ">", "greater_equal": ">=", "less": "<",
    "less_equal": "<=",
}  # fmt: skip
OWN_WORDS = ("maximum", "minimum")  # in common.cu, for float and for double


class Place(NamedTuple):
    """An operand, whether each of its rows serves several of the loop, and which one before it is the same memory."""

    kind: Operand
    shared: bool = False
    same_as: int | None = None


@cache
def text_of(loop: Loop, places: tuple[Place, ...], into: bool) -> str:
    """A source with the kernel `loop(*operands, *sums, [part, width], [K], rows, cols)`.

    Operand i is `a<i>`; a matrix has its rows `ld<i>` apart, `K<i>` rows of the loop to one if they are shared, and a
    lookup has `labels<i>`. Of a loop with columns, these are its only results.
    """
    return source("common.cu") + "\n" + _Kernel(loop, places, into).text()


class _Kernel:
    def __init__(self, loop: Loop, places: tuple[Place, ...], into: bool) -> None:
        self.loop, self.places, self.into = loop, places, into
        self.outputs, self.sums, self.columns = loop.results
        self.names: dict[int, str] = {}  # of what is computed

    def text(self) -> str:
        """The comment, the signature and the body."""
        if self.columns:
            body = self._columns()
        elif self.sums:
            body = self._rows()
        else:
            body = self._added() if self.into else self._each()
        said = re.sub(r"[^\w ,.()-]", "", repr(self.loop), flags=re.ASCII)
        arguments = [argument for i in range(len(self.places)) for argument in self._arguments(i)]
        arguments += [f"float* sums{i}" for i in range(len(self.sums) + len(self.columns))]
        arguments += ["int part", "int width"] if self.sums or self.columns else []
        arguments += ["int K"] if self.into else []
        head = f'// {said}\nextern "C" __global__ void loop({", ".join([*arguments, "int rows", "int cols"])}) {{\n'
        return head + "".join(f"    {line}\n" for line in body) + "}\n"

    # ------------------------------------------------------------------------------------------------------- operands

    def _arguments(self, i: int) -> Iterator[str]:
        kind, shared, same_as = self.places[i]
        if same_as is not None:
            return
        if kind == Operand.NUMBER:
            yield f"float a{i}"
            return
        inputs = len(self.loop.inputs)
        written = i >= inputs or any(place.same_as == i for place in self.places[inputs:])
        yield f"{'' if written else 'const '}float* a{i}"
        if kind in (Operand.MATRIX, Operand.COLUMN, Operand.LOOKUP):
            yield f"int ld{i}"
        if kind == Operand.LOOKUP:
            yield f"const long long* labels{i}"
        if shared:
            yield f"int K{i}"

    def _value(self, i: int) -> str:
        """Operand i at (row, column)."""
        kind, shared, same_as = self.places[i]
        if same_as is not None:
            return self._value(same_as)
        row = f"row / K{i}" if shared else "row"
        if kind == Operand.NUMBER:
            return f"a{i}"
        if kind == Operand.CELL:
            return f"a{i}[0]"
        if kind == Operand.ROW:
            return f"a{i}[column]"
        if kind == Operand.LOOKUP:
            return f"a{i}[labels{i}[{row}] * ld{i} + column]"
        line = f"(long long)({row}) * ld{i}"
        return f"a{i}[{line}]" if kind == Operand.COLUMN else f"a{i}[{line} + column]"

    # ------------------------------------------------------------------------------------------------------- numbers

    def _name(self, n: Number, kind: str) -> str:
        """A number, as one of that kind reads it."""
        if n.op == "constant":
            return _constant(n.args[0], kind)
        name = f"x{self.loop.inputs.index(n.args[0])}" if n.op == "input" else self.names[n.index]
        return f"(double){name}" if kind == DOUBLE and n.kind != DOUBLE else name

    def _numbers(self) -> Iterator[str]:
        """What is read, and what is made of it."""
        results = (*self.outputs, *self.sums, *self.columns)
        read = {a.args[0] for n in self.loop.program for a in n.args if isinstance(a, Number) and a.op == "input"}
        read |= {n.args[0] for n in results if n.op == "input"}
        for i, name in enumerate(self.loop.inputs):
            if name in read:
                yield f"const float x{i} = {self._value(i)};{_comment(name)}"
        for n in self.loop.program:
            kind = DOUBLE if DOUBLE in (n.kind, *(a.kind for a in n.args)) else n.kind
            args = [self._name(a, BOOL if a.kind == BOOL else kind) for a in n.args]
            self.names[n.index] = f"t{len(self.names)}"
            yield f"const {TYPES.get(n.kind, 'float')} {self.names[n.index]} = {_operation(n.op, args, kind)};"

    def _stores(self) -> Iterator[str]:
        """The outputs, where they belong."""
        for i, n in enumerate(self.outputs):
            yield f"{self._value(len(self.loop.inputs) + i)} = {self._name(n, n.kind)};"

    def _totals(self, of: list[Number]) -> tuple[list[str], list[str]]:
        """For every sum: its beginning, and what is added to it."""
        begin = [f"{TYPES.get(n.kind, 'float')} s{i} = 0;" for i, n in enumerate(of)]
        return begin, [f"s{i} += {self._name(n, n.kind)};" for i, n in enumerate(of)]

    # --------------------------------------------------------------------------------------------------------- bodies

    def _each(self) -> list[str]:
        return [
            "const unsigned size = (unsigned)rows * cols;",
            "for (unsigned n = blockIdx.x * THREADS + threadIdx.x; n < size; n += gridDim.x * THREADS) {",
            "    const int row = n / cols, column = n % cols;",
            *_indented([*self._numbers(), *self._stores()]),
            "}",
        ]

    def _added(self) -> list[str]:
        numbers = list(self._numbers())
        begin, adds = self._totals(self.outputs)
        targets = [f"a{i}[(long long)group * ld{i} + column]" for i in range(len(self.loop.inputs), len(self.places))]
        return [
            "const unsigned size = (unsigned)(rows / K) * cols;",
            "for (unsigned n = blockIdx.x * THREADS + threadIdx.x; n < size; n += gridDim.x * THREADS) {",
            "    const int group = n / cols, column = n % cols;",
            *_indented(begin),
            "    for (int row = group * K; row < (group + 1) * K; row++) {",
            *_indented(_indented([*numbers, *adds])),
            "    }",
            *_indented([f"{target} += s{i};" for i, target in enumerate(targets)]),
            "}",
        ]

    def _rows(self) -> list[str]:
        numbers = list(self._numbers())
        begin, adds = self._totals(self.sums)
        return [
            "const int row = blockIdx.x * (THREADS / width) + threadIdx.x / width;",
            "if (row >= rows) return;  // a whole warp",
            "const int first = blockIdx.y * part, last = cols - first < part ? cols : first + part;",
            *begin,
            "for (int column = first + threadIdx.x % width; column < last; column += width) {",
            *_indented([*numbers, *self._stores(), *adds]),
            "}",
            *(f"const float total{i} = width > WARP ? block_sum(s{i}) : lanes_sum(s{i});" for i in range(len(begin))),
            "if (threadIdx.x % width != 0) return;",
            *(f"sums{i}[(long long)blockIdx.y * rows + row] = total{i};" for i in range(len(begin))),
        ]

    def _columns(self) -> list[str]:
        numbers = list(self._numbers())
        begin, adds = self._totals(self.columns)
        return [
            "const int column = blockIdx.x * width + threadIdx.x % width;",
            "const int first = blockIdx.y * part, last = rows - first < part ? rows : first + part;",
            *begin,
            "for (int row = first + threadIdx.x / width; row < last && column < cols; row += THREADS / width) {",
            *_indented([*numbers, *adds]),
            "}",
            *(f"const float total{i} = strided_sum(s{i}, width);" for i in range(len(begin))),
            "if (threadIdx.x >= width || column >= cols) return;",
            *(f"sums{i}[(long long)blockIdx.y * cols + column] = total{i};" for i in range(len(begin))),
        ]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _comment(name: str) -> str:
    """The input's name: in C++ itself it might be a keyword, and need not be ASCII."""
    return f"  // {name}" if name.isascii() and name.isidentifier() else ""


def _constant(value: float, kind: str) -> str:
    single = kind != DOUBLE
    if single:
        with np.errstate(over="ignore"):
            value = float(np.float32(value))
    if value != value or abs(value) == float("inf"):
        bits = "0x7fc00000" if value != value else "0x7f800000" if value > 0 else "0xff800000"
        return f"__int_as_float({bits})" if single else f"(double)__int_as_float({bits})"
    text = f"{value!r}{'f' if single else ''}"
    return f"({text})" if text.startswith("-") else text


def _operation(op: str, args: list[str], kind: str) -> str:
    if op in SIGNS:
        return f"{args[0]} {SIGNS[op]} {args[1]}"
    if op == "where":
        return f"{args[0]} ? {args[1]} : {args[2]}"
    if op == "negative":
        return f"-{args[0]}"
    if op == "double":
        return args[0]
    if op == "isnan":
        return f"{args[0]} != {args[0]}"
    word = "fabs" if op == "abs" else op
    return f"{word}{'' if kind == DOUBLE or op in OWN_WORDS else 'f'}({', '.join(args)})"
