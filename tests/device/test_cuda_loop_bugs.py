"""Proof of teeth: bugs planted in the texts of loops, in what all kernels share and in the moves, each with its check.

A bug is a replacement in the source that the compiler is given; it must fit there. The checks are those of
tests/kernels/. What only reads out of bounds is for test_cuda_sanitizer.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fake_cuda
import numpy as np
import pytest
from cuda_on_cpu import loops
from fake_cupy import DeviceArray, FakeCupy, installed
from strategies import sampled

from tinyvae.formula import Formula, maximum
from tinyvae.kernels.contract import Window
from tinyvae.kernels.cuda_loops import DEPTH, PART
from tinyvae.loop import Loop

Check = Callable[[loops.Guarded], None]
MOST = Loop([Formula(lambda a, b: maximum(a, b), inputs=("a", "b"), name="most")])


@dataclass(frozen=True)
class Bug:
    name: str
    old: str
    new: str
    check: Check


def loop(form: str, kinds: loops.Kinds, rows: int, cols: int, K: int = 1) -> Check:
    return lambda k: loops.check_loop(k, form, kinds, rows, cols, K, seed=0)


def nan_stays(k: loops.Guarded) -> None:
    a, b = DeviceArray(np.array([[np.nan, 1]], "f4")), DeviceArray(np.array([[1, np.nan]], "f4"))
    assert np.isnan(k.map(MOST, a=a, b=b)._host).all()


RAGGED = ("matrix", "matrix", "matrix")
each, halves = loop("new", RAGGED, 70, 33), loop("halves", ("half", "half", "matrix"), 5, 33)
shared = loop("new", ("shared matrix", "shared column", "row"), 12, 33, 3)
looked = loop("new", ("shared lookup", "lookup", "cell"), 12, 33, 3)
added, rows = loop("into", RAGGED, 12, 33, 3), loop("sums", RAGGED, 33, 70)
long_rows, columns = loop("sums", RAGGED, 2, PART + 300), loop("columns", RAGGED, 70, 35)
tall, narrow = loop("columns", RAGGED, 8 * DEPTH + 9, 33), loop("columns", RAGGED, 700, 3)
in_place = loop("in place", RAGGED, 5, 300)
window = lambda k: loops.check_window(k, Window(9, 7, 2, 4, 2, 1), 2, 0)
labels = lambda k: loops.check_scatter(k, 33, 3, 4, "i8", 0)
largest = lambda k: loops.check_sums(k, 33, 33, 0)
pixels = lambda k: loops.check_gather(k, 33, 33, "u1", 0)

BUGS = [
    # races and barriers
    Bug("no barrier between the halves of a column's sum", "half /= 2) {\n        __syncthreads();", "half /= 2) {",
        columns),
    Bug("no barrier before the next sum of columns", "__syncthreads();  // everybody has read what", "//", columns),
    Bug("no barrier in the sum of a block", "parts[threadIdx.x / WARP] = a;\n    __syncthreads();",
        "parts[threadIdx.x / WARP] = a;", long_rows),
    Bug("no barrier after the sum of a block", "__syncthreads();  // everybody has read the parts", "//", long_rows),
    Bug("both halves of a column's sum are added to",
        "if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half]",
        "if (threadIdx.x < 2 * half) parts[threadIdx.x] += parts[(threadIdx.x + half) % (2 * half)]", narrow),
    Bug("a barrier for some", "const float total0 = strided_sum", "if (threadIdx.x < 99) __syncthreads();\n    "
        "const float total0 = strided_sum", columns),
    # the last of all
    Bug("the last number is left out", "n < size;", "n < size - 1;", each),
    Bug("the last column of a row", "cols - first < part ? cols :", "cols - first < part ? cols - 1 :", rows),
    Bug("the last row of a column", "rows - first < part ? rows :", "rows - first < part ? rows - 1 :", tall),
    Bug("the last block's columns", ">= width || column >= cols", ">= width || column >= cols - 1", columns),
    Bug("columns beyond the last", "threadIdx.x >= width || column >= cols", "threadIdx.x >= width", columns),
    Bug("rows beyond the last", "if (row >= rows) return;", "", rows),
    Bug("threads do not go on", "n += gridDim.x * THREADS", "n += 0x40000000", loop("new", RAGGED, 1100, 1000)),
    # K rows to one
    Bug("K is forgotten", "row / K0", "row % 4", shared),
    Bug("K of a column", "row / K1", "row / (K1 + 1)", shared),
    Bug("K of a lookup", "labels0[row / K0]", "labels0[row % 4]", looked),
    Bug("the K-th row is not added", "row < (group + 1) * K", "row < (group + 1) * K - 1", added),
    Bug("the target is overwritten", "] += s0;", "] = s0;", loop("into and all", RAGGED, 12, 33, 3)),
    # parts
    Bug("a long row begins anew in each part", "blockIdx.y * part, last = cols", "0, last = cols", long_rows),
    Bug("a tall column begins anew in each part", "blockIdx.y * part, last = rows", "0, last = rows", tall),
    Bug("all parts in one place", "(long long)blockIdx.y * cols + column", "column", tall),
    Bug("the last part is not added", "part < count; part++", "part < count - 1; part++", tall),
    Bug("parts lie otherwise", "parts[(long long)part * size + n]", "parts[(long long)n * count + part]", tall),
    Bug("rows of a block are one", "if (threadIdx.x % width != 0) return;", "if (threadIdx.x != 0) return;", rows),
    # operands
    Bug("rows of a half are as long as the loop", "* ld0", "* cols", halves),
    Bug("rows of a target are as long as the loop", "* ld4", "* cols", halves),
    Bug("a table's rows are as long as the loop", "* ld1", "* cols", looked),
    Bug("an input is read when an output lies on it", "] = t1;", "] = x3 - a2[n];", in_place),
    Bug("NaN is lost", "float maximum(float a, float b) { return a > b || a != a ? a : b; }",
        "float maximum(float a, float b) { return fmaxf(a, b); }", nan_stays),
    # moves
    Bug("the window has no pad", "* stride - pad + i", "* stride + i", window),
    Bug("beside the image is the next row", "&& across_image < width", "&& across_image <= width", lambda k:
        loops.check_window(k, Window(9, 8, 2, 4, 2, 1), 2, 0)),
    Bug("the window's steps are one", "place % across * stride", "place % across", window),
    Bug("a pixel takes windows beyond the last", "if (across_image - j >= across * stride) continue;", "", window),
    Bug("fold begins at the window's first pixel", "int i = y % stride", "int i = 0", window),
    Bug("labels of other rows", "labels[row / K] == label", "labels[row % (rows / K)] == label", labels),
    Bug("the largest is at least 0", "float most = a[0];", "float most = 0;", largest),
    Bug("the largest of half a row", "WARP / 2; distance > 0; distance /= 2)\n        most",
        "WARP / 4; distance > 0; distance /= 2)\n        most", largest),
    Bug("a group begins one column late", "begin = first[n % groups],", "begin = first[n % groups] + 1,", largest),
    Bug("a group's last column is left out", "column < end; column++) out", "column < end - 1; column++) out", largest),
    Bug("groups of the first row only", "(n / groups) * columns", "0 * columns", largest),
    Bug("pixels are not scaled", "+ n % columns] * scale;", "+ n % columns];", pixels),
    Bug("rows are not shuffled", "data[rows[n / columns] * columns", "data[(long long)(n / columns) * columns", pixels),
]  # fmt: skip


def planted(bug: Bug, seen: list[bool]) -> Any:
    """RawModule, with the bug in all sources that it fits into."""

    def module(*, code: str, options: tuple[str, ...]) -> fake_cuda.RawModule:
        seen.append(bug.old in code)
        return fake_cuda.RawModule(code=code.replace(bug.old, bug.new), options=options)

    return module


def test_each_bug_is_named_once() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS)


@pytest.mark.parametrize("bug", sampled(BUGS, 3), ids=lambda bug: bug.name)
def test_the_check_fails_under_the_bug_and_passes_without(bug: Bug) -> None:
    with installed() as fake:
        bug.check(loops.Guarded(fake))
        fake: FakeCupy = FakeCupy()
        seen: list[bool] = []
        fake.RawModule = planted(bug, seen)
        with pytest.raises((AssertionError, RuntimeError)) as failure:
            bug.check(loops.Guarded(fake))
        assert any(seen), "the bug fits nowhere"
    assert isinstance(failure.value, AssertionError) or "divergent barrier" in str(failure.value)
