"""A loop's text for Numba: what stands in it, that it compiles whatever a formula holds, and that it is vectorized."""

import math
import types
from typing import Any

import numpy as np
import pytest
from strategies import assert_within

pytest.importorskip(
    "numba", reason="Numba is not installed, so its kernels were not tested: python -m pip install 'tinyvae[numba]'"
)
from tinyvae.formula import digamma, double, exp, formula, isnan, lgamma, log1p, maximum, minimum, sqrt, tanh, where
from tinyvae.kernels.numba_loops import NumbaKernels
from tinyvae.kernels.numba_text import Place, body_of, compiled_loop, text_of
from tinyvae.kernels.operands import Operand
from tinyvae.kernels.reference import Reference
from tinyvae.likelihoods.bernoulli import bernoulli_nll, bernoulli_nll_backward
from tinyvae.loop import Loop
from tinyvae.ops.adam import adam_update

MATRIX = Place(Operand.MATRIX)


def lines(f: Any, dtype: str = "float32") -> list[str]:
    return body_of(Loop([formula(f)]), dtype)[0]


def test_each_number_is_a_line_in_the_loops_own_precision() -> None:
    assert lines(lambda a, b: exp(a) * 2 + b) == [
        "t0 = exp32(in_a)", "t1 = t0 * float32(2.0)", "t2 = t1 + in_b",
    ]  # fmt: skip
    assert lines(lambda a: exp(a), "float64") == ["t0 = exp64(in_a)"]
    assert lines(lambda a: double(a) + a) == ["t0 = float64(in_a)", "t1 = t0 + float64(in_a)"]
    assert lines(lambda a: where(double(a) > 0.1, a, 0)) == [
        "t0 = float64(in_a)", "t1 = t0 > float64(0.1)", "t2 = where(t1, in_a, float32(0.0))",
    ]  # fmt: skip


def test_what_is_made_of_single_numbers_alone_stands_before_the_loop() -> None:
    """Conditions on it would each make two loops of one: LLVM took minutes for this formula."""
    f = lambda a, s: a * where(exp(s) > 0.5, exp(-s), 2 + s) + s
    body = body_of(Loop([formula(f)]), "float32", frozenset("s"))
    assert body.once[-1] == "t5 = where(t1, t3, t4)"
    assert body.kept == ["t5"]
    assert body.lines == ["t6 = in_a * t5", "t7 = t6 + in_s"]

    def long(a, s):
        for _ in range(12):
            s = maximum(minimum(exp(-s), 2.0), -log1p(abs(s))) + where(isnan(double(s)), 0.0, s)
        return a * s, double(s)

    a, s = np.full((2, 3), 2, "f4"), np.array([0.3], "f4")
    loop = Loop([formula(long)], sums=[formula(long)])
    made = NumbaKernels("float32").map(loop, a=a, s=s)
    for got, truth in zip(made, Reference(np, "float32").map(loop, a=a, s=s), strict=True):
        assert_within(got, truth, 1e-4 * np.abs(truth))
    assert "once(a1[0])" in text_of(loop, "float32", (MATRIX, Place(Operand.CELL), MATRIX, MATRIX), False)
    assert "once(a1)" in text_of(loop, "float32", (MATRIX, Place(Operand.NUMBER), MATRIX, MATRIX), False)


def test_the_logarithm_of_the_bernoulli_is_the_short_one_and_no_other_is() -> None:
    assert lines(lambda a: log1p(exp(-abs(a))))[-1] == "t3 = log1p_unit32(t2)"
    assert lines(lambda a: log1p(exp(abs(a))))[-1] == "t2 = log1p32(t1)"
    assert lines(lambda a: log1p(a)) == ["t0 = log1p32(in_a)"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_word_compiles_with_every_kind_of_constant(dtype: str) -> None:
    def every(a, b, c):
        real = where(a >= b, a, math.inf) / maximum(abs(b), 1e-5) - minimum(-a, -0.0) ** 3 + sqrt(tanh(c) ** 2)
        return real, where(isnan(a), math.nan, lgamma(abs(a) + 1)), digamma(abs(b) + 0.5), where(a < -math.inf, 1, 0)

    loop = Loop([formula(every)])
    rng = np.random.default_rng(0)
    given: dict[str, Any] = {name: rng.standard_normal((3, 5)).astype(dtype) for name in "abc"}
    truth = Reference(np, dtype).map(loop, **given)
    for got, expected in zip(NumbaKernels(dtype).map(loop, **given), truth, strict=True):
        finite = np.isfinite(expected)
        assert np.array_equal(got[~finite], expected[~finite], equal_nan=True)
        assert_within(got[finite], expected[finite], 32 * np.finfo(dtype).eps * (np.abs(expected[finite]) + 1))


def test_a_formula_of_many_shared_numbers_is_compiled_at_once() -> None:
    def squared_often(a):
        for _ in range(60):  # written out, each line is twice as long as the one before
            a = a * a
        return log1p(a)

    one = np.ones((1, 1), np.float32)
    assert NumbaKernels("float32").map(Loop([formula(squared_often)]), a=one)[0, 0] == np.float32(math.log(2))


def test_names_that_are_words_of_the_text_or_no_latin_letters_do_not_matter() -> None:
    names = ["i", "j", "rows", "cols", "a0", "t0", "total0", "float32", "exp32", "μ"]
    typed: dict[str, Any] = {}
    exec(f"def f({', '.join(names)}):\n    return {' + '.join(names)}\n", typed)
    given: dict[str, Any] = {name: np.full((2, 2), float(i), np.float32) for i, name in enumerate(names)}
    loop = Loop([formula(typed["f"])], sums=[formula(typed["f"])])
    value, sums = NumbaKernels("float32").map(loop, **given)
    assert value.tolist() == [[45, 45], [45, 45]]
    assert sums.tolist() == [90, 90]


def test_memory_that_is_read_and_written_has_one_name() -> None:
    loop = Loop([formula(lambda a, b: a + b)])
    text = text_of(loop, "float32", (MATRIX, MATRIX, Place(Operand.MATRIX, 0)), into=False)
    assert "def loop(rows, cols, a0, K0, a1, K1):" in text
    assert "x0[j] = r0" in text


def test_a_loop_is_compiled_once_for_operands_of_a_kind() -> None:
    loop = Loop([formula(lambda a: a + 1)])
    key = (loop, "float32", (MATRIX, MATRIX), False)
    assert compiled_loop(*key) is compiled_loop(*key)
    assert compiled_loop(Loop(loop.formulas[0]), *key[1:]) is compiled_loop(*key)  # of another loop with its text


NUMBER, FLAT = Operand.NUMBER, Operand.MATRIX
HOT = {  # the loop, and its operands
    "bernoulli": (Loop([bernoulli_nll_backward], sums=[bernoulli_nll]), [NUMBER, FLAT, FLAT]),
    "adam": (Loop([adam_update]), [FLAT, FLAT, FLAT, FLAT, NUMBER, NUMBER]),
}


@pytest.mark.parametrize("name", HOT)
def test_the_hot_loops_are_vectorized(name: str) -> None:
    """Scalar code would be right and ten times slower; no test of numbers would show it."""
    loop, inputs = HOT[name]
    outputs, along, _ = loop.counts
    places = tuple(Place(kind) for kind in (*inputs, *outputs * [Operand.MATRIX]))
    module = types.ModuleType("anew")  # code that was kept on disk cannot be looked at
    exec(text_of(loop, "float32", places, into=False), module.__dict__)
    args: list[Any]
    matrix, args = np.ones((4, 64), np.float32), [4, 64]
    for kind in (p.kind for p in places):
        args += [np.float32(1)] if kind == Operand.NUMBER else [matrix.copy(), 1]
    module.loop(*args, *(np.ones(4, np.float32) for _ in range(along)))
    (assembly,) = module.loop.inspect_asm().values()
    packed = sum(assembly.count(word) for word in ("mulps", "fmadd213ps", "fmla\t", "fmul\tv"))  # x86-64; ARM
    assert packed > 0, f"{name} has no vector multiplication"
