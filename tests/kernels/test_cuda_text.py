"""Loops as CUDA kernels, on the stand-in: every kind of operand in every form, at odd shapes, exactly as in float64."""

import contextlib
from typing import Any

import fake_cuda
import numpy as np
import pytest
from cuda_on_cpu import loops
from cuda_on_cpu.loops import CASES, FORMS, KINDS
from fake_cupy import DeviceArray, FakeCupy
from fake_cupy import fake_for_a_module as fake_for_a_module
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS

from tinyvae.formula import Formula, exp, formula, isnan, lgamma, log, maximum, minimum, where
from tinyvae.kernels.cuda.launch import signatures
from tinyvae.kernels.cuda.text import Place, text_of
from tinyvae.kernels.cuda_loops import DEPTH, PART
from tinyvae.kernels.operands import Operand
from tinyvae.loop import Loop

GROUPS = st.sampled_from((2, 3, 5, 11, 70))
COLUMNS = st.sampled_from((2, 3, 7, 31, 32, 33, 257))
DRAWS = st.sampled_from((1, 3))
LONG: loops.Kinds = ("row", "shared matrix", "number")
SHAPES = [
    (2, 2 * PART + 1, 1), (1, PART + 300, 1), (6, PART, 3), (128 * DEPTH + 5, 2, 1), (8 * DEPTH + 1, 33, 1), (1, 1, 1),
    (70, 1, 1), (3, 1, 3),
]  # fmt: skip


@pytest.fixture(scope="module")
def k(fake: FakeCupy) -> loops.Guarded:
    """All loops of the cases are compiled at once."""
    kernels = loops.Guarded(fake)
    with fake_cuda.noting() as codes:
        every = [(form, kinds, 3 * K, 4, K) for form, kinds in CASES for K in (1, 3)]
        for case in every + [(form, LONG, *shape) for form in FORMS for shape in SHAPES]:
            with contextlib.suppress(AssertionError):  # nothing is computed yet
                loops.check_loop(kernels, *case, 0)
    fake_cuda.compile_together(codes)
    return loops.Guarded(fake)


def test_every_kind_is_in_every_form() -> None:
    assert {(form, kind) for form, kinds in CASES for kind in kinds} == {(f, kind) for f in FORMS for kind in KINDS}
    assert {(at, kind) for _, kinds in CASES for at, kind in enumerate(kinds)} == {
        (at, kind) for at in range(3) for kind in KINDS
    }


@given(SEEDS, st.sampled_from(CASES), GROUPS, COLUMNS, DRAWS)
def test_a_loop_is_exactly_what_float64_makes_of_it(
    k: loops.Guarded, seed: int, case: tuple[str, loops.Kinds], groups: int, cols: int, K: int
) -> None:
    loops.check_loop(k, *case, groups * K, cols, K, seed)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rows", "cols", "K"), SHAPES)
def test_long_rows_and_tall_columns_go_in_parts(k: loops.Guarded, form: str, rows: int, cols: int, K: int) -> None:
    loops.check_loop(k, form, LONG, rows, cols, K, seed=1)


def test_a_sum_has_the_same_bits_in_every_order_of_the_threads(k: loops.Guarded) -> None:
    """Ordinary numbers, whose sums round: the stand-in draws another order for each launch."""
    rng = np.random.default_rng(0)
    m, a = (DeviceArray(rng.standard_normal((2 * 8 * DEPTH + 9, 40)).astype("f4")) for _ in range(2))
    both = loops.loop_of("all")
    first, second = ([r._host.copy() for r in k.map(both, a=a, b=1.5, c=a, m=m)] for _ in range(2))
    assert all(np.array_equal(x, y) for x, y in zip(first, second, strict=True))
    long = [k.squared_norm(DeviceArray(m._host.reshape(-1)))._host.copy() for _ in range(3)]
    assert long[0] == long[1] == long[2]


# ---------------------------------------------------------------------------------------------------------------- words


@formula
def words(new, default, float_, σ):
    """Names that C++ has for itself, and one that it cannot read."""
    return new + default * float_ - σ


@formula
def choices(a, b):
    """What NaN does to each word."""
    return maximum(a, b), minimum(a, b), where(isnan(a), -2.5, a), where(a > b, 1.0, 0.0), abs(a)


@formula
def infinite(a):
    """Constants that C++ has no letters for."""
    return where(a > 0, float("inf"), -float("inf")), where(a > 0, float("nan"), 0.1), maximum(a, 1e300)


@formula
def deep(a):
    """In float64: in float32 it would lose five digits."""
    return lgamma(a + 1e5) - lgamma(a + 99_999) - log(a + 99_999)


def mapped(k: loops.Guarded, f: Formula, *arrays: Any) -> list[np.ndarray]:
    moved: list[Any] = [DeviceArray(np.array([a], "f4")) for a in arrays]
    given = dict(zip(f.inputs, moved, strict=True))
    made = k.map(Loop([f]), **given)
    return [a._host[0] for a in (made if isinstance(made, tuple) else (made,))]


def test_names_are_no_matter_to_the_compiler(k: loops.Guarded) -> None:
    assert mapped(k, words, [1, 2], [3, 4], [5, 6], [7, 8])[0].tolist() == [9, 18]
    strange = Formula(lambda x: -(-0.5 * x) - -1.5, inputs=("x",), name="*/ \\\n#error")
    assert mapped(k, strange, [2.0])[0].tolist() == [2.5]
    assert "#error" not in text_of(Loop([strange]), (Place(Operand.MATRIX),) * 2, False)


def test_nan_stays_nan_and_infinity_infinity(k: loops.Guarded) -> None:
    a, b = [np.nan, 1, np.nan, 2, -3], [1, np.nan, np.nan, 3, 1]
    largest, smallest, filled, above, size = mapped(k, choices, a, b)
    assert np.array_equal(largest, np.maximum(a, b), equal_nan=True)
    assert np.array_equal(smallest, np.minimum(a, b), equal_nan=True)
    assert filled.tolist() == [-2.5, 1, -2.5, 2, -3]
    assert above.tolist() == [0, 0, 0, 0, 0]
    assert np.array_equal(size, np.abs(a), equal_nan=True)
    ends, none, most = mapped(k, infinite, [1, -1])
    assert ends.tolist() == [np.inf, -np.inf]
    assert np.array_equal(none, np.array([np.nan, 0.1], np.float32), equal_nan=True)
    assert most.tolist() == [np.inf, np.inf]


def test_double_goes_on_in_float64(k: loops.Guarded) -> None:
    a = [1, 10, 1e4]
    assert np.abs(mapped(k, deep, a)[0]).max() < 1e-6  # log Gamma(x + 1) = log Gamma(x) + log x


def test_what_nobody_reads_is_left_out(k: loops.Guarded) -> None:
    f = Formula(lambda a, b: exp(a) * 0 + a, inputs=("a", "b"), name="f")
    text = text_of(Loop([f]), (Place(Operand.MATRIX),) * 3, False)
    assert "a1[" not in text
    assert mapped(k, f, [1, 2], [3, 4])[0].tolist() == [1, 2]


def test_pointers_are_const_unless_they_are_written() -> None:
    f, matrix = Formula(lambda a, b: a + b, inputs=("a", "b"), name="f"), Place(Operand.MATRIX)

    def kinds(*places: Place) -> list[str]:
        return [kind for kind, name in signatures(text_of(Loop([f]), places, False))["loop"] if name[0] == "a"]

    assert kinds(matrix, matrix, matrix) == ["const float*", "const float*", "float*"]
    assert kinds(matrix, matrix, Place(Operand.MATRIX, same_as=1)) == ["const float*", "float*"]
