"""Every method of the kernels' contract, on every kernels file, in float32 and float64, beside the readable one.

See `kernel_cases` for how often each is done. Bounds are numbers of roundings times the sums of absolute terms: a sum
of n products has n + 1 roundings of them, in either order (Higham 2002, section 3.1).
"""

import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import FACTORS, SEEDS, ULP, assert_within, eps_of, normals, sizes

from contracts.kernel_cases import KINDS, LAYOUTS, check, kernels_of, poison
from tinyvae.formula import double, exp, formula, isnan, maximum, where
from tinyvae.kernels.contract import Kernels, Lookup, Rows, Window
from tinyvae.kernels.reference import Reference
from tinyvae.loop import Loop
from tinyvae.ops.activations import ACTIVATIONS, LINEAR

KIND, LAYOUT = st.sampled_from(KINDS), st.sampled_from(LAYOUTS)
ACTIVATION = st.sampled_from(list(ACTIVATIONS.values()))
DRAWS = st.integers(1, 4)
STEEPEST = 1.2  # slope of an activation: gelu's is 1.13
METHODS = {name for name, f in vars(Kernels).items() if inspect.isfunction(f) and not name.startswith("_")}
LAST = KINDS[0]  # for explicit examples
EACH_KIND = pytest.mark.parametrize("kind", KINDS, ids=" ".join)


# -------------------------------------------------------------------------------------------------------- the contract


@EACH_KIND
def test_kernels_have_the_methods_of_the_contract_with_the_same_signatures(kind: Any) -> None:
    k = kernels_of(kind)
    assert len(METHODS) >= 18
    for name in METHODS:
        expected, found = (inspect.signature(getattr(of, name)) for of in (Kernels, type(k)))
        assert list(found.parameters.values()) == list(expected.parameters.values()), name
    assert (k.name, k.dtype, k.xp) == (kind[0], np.dtype(kind[1]), np)


def test_every_method_is_compared_here() -> None:
    source = inspect.getsource(inspect.getmodule(test_every_method_is_compared_here) or object)
    assert [name for name in METHODS if f"k.{name}(" not in source] == []


@EACH_KIND
def test_a_pass_begins_and_its_arrays_are_apart(kind: Any) -> None:
    k = kernels_of(kind)
    generation = k.generation
    k.begin("arrays", 1)
    assert k.generation == generation + 1
    copy = k.map(Loop([one]), a=np.ones((1, 1), kind[1]))
    arrays = [k.new(2, 300), k.new(2, 300), *k.halves(k.new(3, 4)), k.new(1), copy]
    for i, a in enumerate(arrays):
        assert a.dtype == kind[1]
        a[...] = i
    assert [set(a.reshape(-1).tolist()) for a in arrays] == [{i} for i in range(6)]
    assert [a.shape for a in arrays[:4]] == [(2, 300), (2, 300), (3, 2), (3, 2)]


@EACH_KIND
def test_zeros_are_zeros_in_every_pass_and_a_pass_may_be_repeated(kind: Any) -> None:
    k, a = kernels_of(kind), np.ones((2, 3), kind[1])
    given = object()

    def made() -> Any:
        zeros = k.zeros(2, 3)
        kept = zeros.copy()
        k.map(Loop([one]), a=a, into=(zeros,))
        return zeros if kept.any() else k.map(Loop([one]), a=zeros)

    for i in range(5):
        a[...] = i
        k.begin("zeros")
        assert k.replayed((given,), made).tolist() == a.tolist()
        assert k.new(1).shape == (1,)


# ---------------------------------------------------------------------------------------------------------------- loops


@formula
def one(a):
    return a


@formula
def all_kinds(a, v, row, column, number, cell):
    return a * row + v * column + number * cell


@formula
def with_lookup(a, v, label):
    return a * v - label, label + v


@formula
def in_steps(a, row, column):
    first = a * row
    second = where(first > 0, 1.0, 0.0) * first
    third = second + column
    return first, second, third, third * a


@formula
def in_float64(a, column):
    return double(a) * column + a


def matrices(seed: int, rows: int, cols: int, K: int) -> dict[str, Any]:
    """Operands of every kind for a loop over (rows K, cols)."""
    a, v, row, column, label = normals(seed, (rows * K, cols), (rows, cols), (cols,), (rows, 1), (3, cols))
    labels = np.random.default_rng(seed).integers(0, 3, rows)
    known = {"cell": normals(seed + 1, (1,))[0], "number": 0.37, "table": label, "labels": labels}
    return {"a": a, "v": v, "row": row, "column": column, **known}


LOOPS = {
    "outputs": Loop([all_kinds]),
    "sums": Loop(sums=[all_kinds, in_float64]),
    "columns": Loop(columns=[in_float64, all_kinds]),
    "all": Loop([all_kinds, one], sums=[one, in_float64], columns=[one, all_kinds]),
    "lookup": Loop([with_lookup], sums=[with_lookup]),
    "steps": Loop(sums=[in_steps], columns=[in_float64]),
}
SIZES = st.one_of(sizes(2), st.sampled_from([(1, 1), (1, 7), (7, 1), (75, 900), (1, 70_001), (700, 64), (2, 32_771)]))


@given(SEEDS, SIZES, DRAWS, KIND, LAYOUT, st.sampled_from(list(LOOPS)))
@example(0, (75, 900), 3, LAST, "left half", "all")
@example(0, (75, 900), 3, ("numpy", "float64"), "left half", "all")
@example(0, (5, 3), 1, ("numpy", "float32"), "whole", "steps")
@example(0, (1, 70_001), 1, ("numpy", "float64"), "whole", "columns")
@example(0, (1, 3), 4, ("numpy", "float32"), "right half", "lookup")
@example(0, (3, 2), 4, LAST, "right half", "lookup")
@example(0, (3, 2), 1, LAST, "right half", "outputs")
def test_map(seed: int, shape: tuple[int, int], K: int, kind: Any, layout: str, name: str) -> None:
    loop, (rows, cols) = LOOPS[name], shape
    given = matrices(seed, rows, cols, K)

    def calls(k: Kernels, g: dict[str, Any]) -> list[Any]:
        g = {**g, "label": Lookup(g["table"], g["labels"])}
        made = k.map(loop, **{name: g[name] for name in loop.inputs})
        return list(made) if isinstance(made, tuple) else [made]

    def bounds(g: dict[str, Any]) -> list[Any]:
        outputs, along, over = loop.counts
        each = magnitude(g, K)
        return outputs * [8 * each] + along * [(cols + 9) * each.sum(1)] + over * [(rows * K + 9) * each.sum(0)]

    check(kind, calls, given, bounds, layout)


def magnitude(g: dict[str, Any], K: int) -> np.ndarray:
    """As large as any number on the way to a result of these loops: (rows K, cols)."""
    a, v, row, column = (np.abs(g[name]) for name in ("a", "v", "row", "column"))
    v, column, label = (np.repeat(m, K, 0) for m in (v, column, np.abs(g["table"])[g["labels"]]))
    return (
        (a + 1) * a * row + a * (v + 2 * column + 1) + column + v * (column + 1) + label + abs(g["number"] * g["cell"])
    )


@given(SEEDS, SIZES, DRAWS, KIND, LAYOUT)
@example(0, (75, 900), 1, LAST, "left half")
def test_map_into_arrays_that_are_given(seed: int, shape: tuple[int, int], K: int, kind: Any, layout: str) -> None:
    rows, cols = shape
    shapes = (rows * K, cols), (rows * K,), (cols,)
    given = {**matrices(seed, rows, cols, K), **dict(zip(("o", "s", "c"), normals(seed + 2, *shapes), strict=True))}
    loop = Loop([all_kinds], sums=[one], columns=[in_float64])

    def calls(k: Kernels, g: dict[str, Any]) -> list[Any]:
        made = k.map(loop, out=(g["o"],), sums=(g["s"],), columns=(g["c"],), **{n: g[n] for n in loop.inputs})
        assert [np.may_share_memory(m, g[n]) for m, n in zip(made, "osc", strict=True)] == 3 * [True]
        return [g["o"], g["s"], g["c"]]

    def bounds(g: dict[str, Any]) -> list[Any]:
        each = magnitude(g, K)
        return [8 * each, (cols + 9) * each.sum(1), (rows * K + 9) * each.sum(0)]

    check(kind, calls, given, bounds, layout, written="osc")


@given(SEEDS, SIZES, DRAWS, KIND, LAYOUT)
@example(0, (700, 64), 4, ("numpy", "float32"), "right half")
@example(0, (1, 5), 3, LAST, "whole")
def test_outputs_of_k_rows_are_added_to_one(seed: int, shape: tuple[int, int], K: int, kind: Any, layout: str) -> None:
    rows, cols = shape
    given = {**matrices(seed, rows, cols, K), **dict(zip("pq", normals(seed + 2, shape, shape), strict=True))}
    loop = Loop([all_kinds, in_float64], sums=[one])

    def calls(k: Kernels, g: dict[str, Any]) -> list[Any]:
        *_, sums = k.map(loop, into=(g["p"], g["q"]), **{n: g[n] for n in loop.inputs})
        return [g["p"], g["q"], sums]

    def bounds(g: dict[str, Any]) -> list[Any]:
        each = magnitude(g, K)
        added = each.reshape(rows, K, cols).sum(1)
        return [(K + 9) * (added + np.abs(g[n])) for n in "pq"] + [(cols + 9) * each.sum(1)]

    check(kind, calls, given, bounds, layout, written="pq")


@formula
def chosen(a, b):
    return where(isnan(b), 0.0, b), where(a > 0, 1.0, 0.0) * b, where(a > b, a, 0.5)


@formula
def swapped(a, b):
    return b, a, a + b


@formula
def twice(a, b):
    return a * b, a * b, a - 1


IN_PLACE = {"chosen": chosen, "swapped": swapped, "twice": twice}


@given(SEEDS, sizes(2), KIND, LAYOUT, st.sampled_from(list(IN_PLACE)), st.permutations("abc"), st.booleans())
@example(0, (2, 3), ("numpy", "float32"), "left half", "chosen", list("bca"), False)
@example(0, (2, 3), ("numpy", "float64"), "whole", "swapped", list("acb"), True)
@example(0, (2, 3), ("reference", "float64"), "whole", "swapped", list("acb"), False)
@example(0, (2, 3), ("numpy", "float64"), "whole", "twice", list("cab"), False)
def test_outputs_may_be_the_inputs_themselves(
    seed: int, shape: Any, kind: Any, layout: str, name: str, places: list[str], summed: bool
) -> None:
    """And of an input that is overwritten, sums may be wanted too."""
    loop = Loop([IN_PLACE[name]], *[[one], [one]] if summed else [])
    given = dict(zip("abc", normals(seed, shape, shape, shape), strict=True))

    def calls(k: Kernels, g: dict[str, Any]) -> list[Any]:
        made = k.map(loop, a=g["a"], b=g["b"], out=[g[n] for n in places])
        return [*(g[n] for n in places), *made[3:]]

    def bounds(g: dict[str, Any]) -> list[Any]:
        each, a = 4 * (np.abs(g["a"]) + 1) * (np.abs(g["b"]) + 1), np.abs(g["a"])
        return [each, each, each, *([shape[1] * a.sum(1), shape[0] * a.sum(0)] if summed else [])]

    check(kind, calls, given, bounds, layout, written="abc")


WRONG = {  # operands of a + b, and what is said
    "columns": ({"a": np.ones((2, 3)), "b": np.ones((2, 2))}, "does not fit a loop over"),
    "rows": ({"a": np.ones((4, 3)), "b": np.ones((3, 3))}, "does not fit a loop over"),
    "a row": ({"a": np.ones((4, 3)), "b": np.ones(4)}, "does not fit a loop over"),
    "no rows": ({"a": np.ones((4, 3)), "b": np.ones((0, 3))}, "does not fit a loop over"),
    "three dimensions": ({"a": np.ones((4, 3)), "b": np.ones((1, 4, 3))}, "does not fit a loop over"),
    "two K": ({"a": np.ones((2, 3)), "b": np.ones((4, 3)), "out": [np.ones((8, 3))]}, "matrices of 2, 4 rows"),
    "a narrow table": ({"a": np.ones((2, 3)), "b": Lookup(np.ones((4, 1)), np.array([0, 1]))}, "does not fit a loop"),
    "out": ({"a": np.ones((2, 3)), "b": 1.0, "out": [np.ones((2, 2))]}, "does not fit a loop over"),
    "into": ({"a": np.ones((4, 3)), "b": 1.0, "into": [np.ones((3, 3))]}, "does not fit a loop over"),
    "into a row": ({"a": np.ones((4, 3)), "b": 1.0, "into": [np.ones(3)]}, "does not fit a loop over"),
    "too few": ({"a": np.ones((4, 3)), "b": 1.0, "out": []}, r"arrays were given|zip\(\)"),
    "too many": ({"a": np.ones((4, 3)), "b": 1.0, "sums": [np.ones(4)]}, r"arrays were given|zip\(\)"),
}  # fmt: skip


@EACH_KIND
@pytest.mark.parametrize("name", WRONG)
def test_shapes_that_do_not_fit_are_refused_before_anything_is_written(kind: Any, name: str) -> None:
    operands, said = WRONG[name]
    with pytest.raises(ValueError, match=said):
        kernels_of(kind).map(Loop([formula(lambda a, b: a + b)]), **of_dtype(operands, kind[1]))


def of_dtype(operands: Any, dtype: str) -> Any:
    if isinstance(operands, dict):
        return {name: of_dtype(a, dtype) for name, a in operands.items()}
    if isinstance(operands, Lookup):
        return Lookup(operands.table.astype(dtype), operands.labels)
    if isinstance(operands, list):
        return [of_dtype(a, dtype) for a in operands]
    return operands.astype(dtype) if isinstance(operands, np.ndarray) else operands


@EACH_KIND
def test_operands_of_another_kind_are_refused(kind: Any) -> None:
    k, loop, right = kernels_of(kind), Loop([formula(lambda a, b: a + b)]), np.ones((2, 3), kind[1])
    other = "float64" if kind[1] == "float32" else "float32"
    floats = Lookup(right, np.zeros(2, kind[1]))
    for wrong in (right.astype(other), right.astype(int), [1.0], None, "1", 1j, floats, np.True_):
        with pytest.raises(TypeError, match="must be"):
            k.map(loop, a=right, b=wrong)
    with pytest.raises(TypeError, match="must be"):
        k.map(loop, a=right, b=1.0, out=[right.astype(other)])
    with pytest.raises(TypeError, match="not both"):
        k.map(loop, a=right, b=1.0, out=[right.copy()], into=[right.copy()])


@EACH_KIND
def test_a_number_may_come_in_any_of_its_forms(kind: Any) -> None:
    k, a = kernels_of(kind), np.ones((1, 2), kind[1])
    for number in (2, 2.0, np.float32(2), np.float64(2), np.int64(2), np.array(2.0, kind[1]), np.full(1, 2.0, kind[1])):
        k.begin("a number")
        assert k.map(Loop([formula(lambda a, b: a + b)]), a=a, b=number).tolist() == [[3, 3]], type(number)
    k.begin("a number")
    assert k.map(Loop([formula(lambda a, b: a + b)]), a=a, b=True).tolist() == [[2, 2]]


@EACH_KIND
def test_a_formula_that_reads_nothing_and_results_that_are_inputs_or_constants(kind: Any) -> None:
    k, a = kernels_of(kind), np.array([[1, 2], [3, 4]], kind[1])
    k.begin("nothing")
    (made,) = [k.map(Loop([formula(lambda: 3.0)]), out=[np.zeros((2, 2), kind[1])])]
    assert made.tolist() == [[3, 3], [3, 3]]
    each = Loop([formula(lambda a: (a, 5.0, a))], sums=[formula(lambda a: 2.0)], columns=[one])
    first, second, third, sums, columns = k.map(each, a=a)
    assert (first.tolist(), second.tolist(), third.tolist()) == (a.tolist(), [[5, 5], [5, 5]], a.tolist())
    assert (sums.tolist(), columns.tolist()) == ([4, 4], [4, 6])
    first[...] = 0  # a copy
    assert a.tolist() == [[1, 2], [3, 4]]
    assert third.tolist() == [[1, 2], [3, 4]]


@EACH_KIND
def test_constants_of_float64_keep_their_digits(kind: Any) -> None:
    k, a = kernels_of(kind), np.array([[1, 3]], kind[1])
    third = Loop([formula(lambda a: (double(a) - 1 / 3) * 3 - (a * 3.0 - 1) + maximum(double(a) * 1e9, 0.1) * 1e-30)])
    assert np.abs(k.map(third, a=a)).max() < 1e-14  # 1 / 3 in float32 is off by 1e-8


@EACH_KIND
def test_strides_of_every_kind_are_read_as_numpy_reads_them(kind: Any) -> None:
    k, loop = kernels_of(kind), Loop([formula(lambda a, b: a * b)], sums=[one], columns=[one])
    a = np.arange(24, dtype=kind[1]).reshape(4, 6)
    row = np.arange(12, dtype=kind[1])
    windows = np.lib.stride_tricks.sliding_window_view(row, 6)[:4]
    views = [a, a[::-1], a[:, ::-1], np.asfortranarray(a), np.broadcast_to(a[:1], (4, 6)), a.repeat(2, 0)[::2], windows,
             np.arange(48, dtype=kind[1]).reshape(4, 12)[:, ::2], np.broadcast_to(a[0, 0], (4, 6))]  # fmt: skip
    for view in views:
        for _ in range(2):
            k.begin("strides")
            value, sums, columns = k.map(loop, a=view, b=row[::2])
            assert value.tolist() == (view * row[::2]).tolist()
            assert sums.tolist() == view.sum(axis=1).tolist()
            assert columns.tolist() == view.sum(axis=0).tolist()


# ------------------------------------------------------------------------------------------------------------- products


@given(SEEDS, sizes(3), KIND, LAYOUT, ACTIVATION, st.booleans(), st.sampled_from([0, 1, 3]), st.booleans())
@example(0, (1, 2, 3), LAST, "whole", ACTIVATIONS["elu"], True, 1, False)
@example(0, (5, 3, 1), LAST, "left half", ACTIVATIONS["gelu"], False, 3, True)
def test_product(seed: int, shape: Any, kind: Any, layout: str, f: Any, bias: bool, K: int, tied: bool) -> None:
    rows, fan_in, fan_out = shape
    n = rows * max(K, 1)
    x, W, b, V = normals(seed, (n, fan_in), (fan_out, fan_in) if tied else (fan_in, fan_out), (fan_out,), (4, fan_out))
    given = {"x": x, "W": W, "b": b, "V": V, "labels": np.random.default_rng(seed).integers(0, 4, rows)}
    weight = lambda W: W.T if tied else W

    def calls(k: Kernels, g: dict[str, Any]) -> list[Any]:
        label = Lookup(g["V"], g["labels"]) if K else None
        made = k.product(g["x"], weight(g["W"]), g["b"] if bias else None, f, label)
        assert made.f is f
        assert (made.a is not None) >= f.reads_a
        return [made.y, made.a if f.reads_a else made.y]

    def bounds(g: dict[str, Any]) -> list[Any]:
        a = np.abs(g["x"]) @ np.abs(weight(g["W"])) + np.abs(g["b"])
        a = a + (np.repeat(np.abs(g["V"])[g["labels"]], K, 0) if K else 0) + 1
        return 2 * [STEEPEST * (2 * (fan_in + 4) + 6 * ULP) * a]

    check(kind, calls, given, bounds, layout)


@given(SEEDS, sizes(3), KIND, LAYOUT, ACTIVATION, st.booleans())
@example(0, (1, 2, 3), LAST, "whole", ACTIVATIONS["relu"], True)
def test_back_and_end(seed: int, shape: Any, kind: Any, layout: str, f: Any, tied: bool) -> None:
    rows, fan_in, fan_out = shape
    da, W, a = normals(seed, (rows, fan_out), (fan_out, fan_in) if tied else (fan_in, fan_out), (rows, fan_in))
    weight = lambda W: W.T if tied else W
    given = {"da": da, "W": W, "a": a, "y": f.forward(a), "dy": normals(seed + 1, (rows, fan_in))[0]}

    def calls(k: Kernels, g: dict[str, Any]) -> list[Any]:
        below = Rows(g["y"], f, g["a"] if f.reads_a else None)
        made, dy = k.back(g["da"], weight(g["W"]), below), k.end(g["dy"], below)
        assert dy is g["dy"] or np.may_share_memory(dy, g["dy"])
        assert k.back(g["da"], weight(g["W"]), Rows(g["y"], None)) is None
        assert k.end(g["dy"], Rows(g["y"], None)) is None
        return [made, dy]

    def bounds(g: dict[str, Any]) -> list[Any]:
        slope = 1 + np.abs(g["y"]) + np.abs(g["a"]) + np.exp(np.abs(g["y"]))  # of numbers that are no y of f too
        dx = np.abs(g["da"]) @ np.abs(weight(g["W"])).T
        return [STEEPEST * (fan_out + 4 * ULP) * dx * slope, STEEPEST * 4 * ULP * np.abs(g["dy"]) * slope]

    check(kind, calls, given, bounds, layout, written=["dy"])


@given(SEEDS, sizes(3), KIND, LAYOUT, st.booleans(), st.booleans())
def test_gradient_and_column_sums(seed: int, shape: Any, kind: Any, layout: str, bias: bool, add: bool) -> None:
    rows, fan_in, fan_out = shape
    names, shapes = ("x", "da", "dW", "db"), [(rows, fan_in), (rows, fan_out), (fan_in, fan_out), (fan_out,)]
    given = dict(zip(names, normals(seed, *shapes), strict=True))

    def calls(k: Kernels, g: dict[str, Any]) -> list[Any]:
        k.gradient(g["x"], g["da"], g["dW"], g["db"] if bias else None, add=add)
        if add:
            g["dW"][...] = -g["dW"]  # its owner writes what it has
        k.finish()
        if not bias:
            k.column_sums(g["da"], g["db"])
        k.finish()  # nothing is left to be added
        return [g["dW"], g["db"]]

    def bounds(g: dict[str, Any]) -> list[Any]:
        x, da = np.abs(g["x"]), np.abs(g["da"])
        return [2 * (rows + 3) * (x.T @ da + np.abs(g["dW"])), 2 * (rows + 1) * da.sum(0)]

    check(kind, calls, given, bounds, layout, written=["dW", "db"])


@EACH_KIND
def test_what_is_to_be_added_is_forgotten_when_another_pass_begins(kind: Any) -> None:
    k, x, dW = kernels_of(kind), np.ones((2, 3), kind[1]), np.zeros((3, 3), kind[1])
    k.begin("left over")
    k.gradient(x, x, dW, add=True)
    k.begin("left over")
    k.finish()
    assert not dW.any()


@given(SEEDS, sizes(2), DRAWS, KIND, LAYOUT, st.sampled_from(["uint8", "int32", "int64"]))
def test_scatter(seed: int, shape: Any, K: int, kind: Any, layout: str, of: str) -> None:
    rows, cols = shape
    labels = np.random.default_rng(seed).integers(0, 5, rows).astype(of)
    given = {"labels": labels, **dict(zip(("da", "table"), normals(seed, (rows * K, cols), (6, cols)), strict=True))}

    def calls(k: Kernels, g: dict[str, Any]) -> list[Any]:
        k.scatter(g["labels"], g["da"], g["table"])
        return [g["table"]]

    def bounds(g: dict[str, Any]) -> list[Any]:
        return [2 * (rows * K + 1) * np.abs(g["da"]).sum(0)]  # (cols,)

    check(kind, calls, given, bounds, layout, written=["table"])


# --------------------------------------------------------------------------------------------------------- convolutions


@st.composite
def windows(draw: Any) -> Window:
    """With remainders, without, and windows that hang over the edge."""
    height, width, channels = draw(st.integers(2, 8)), draw(st.integers(2, 8)), draw(st.sampled_from([1, 1, 2, 3]))
    kernel = draw(st.integers(1, 4))
    window = Window(height, width, channels, kernel, draw(st.integers(1, 3)), draw(st.integers(0, kernel - 1)))
    assume(min(window.down, window.across) >= 1)
    return window


@given(SEEDS, windows(), st.integers(1, 4), st.sampled_from([1, 2, 5]), KIND, LAYOUT, ACTIVATION, st.booleans())
@example(0, Window(9, 7, 3, 4, 2, 1), 3, 2, LAST, "left half", ACTIVATIONS["gelu"], True)
@example(0, Window(5, 4, 1, 3, 3, 2), 2, 1, LAST, "right half", ACTIVATIONS["tanh"], False)
def test_convolutions(seed: int, w: Window, out: int, rows: int, kind: Any, layout: str, f: Any, bias: bool) -> None:
    places = w.down * w.across
    shapes = {"image": (rows, w.image), "places": (rows, places * out), "W": (w.patch, out), "b": (out,),
              "c": (w.channels,), "dW": (w.patch, out), "a": (rows, w.image), "d": (rows, places * out)}  # fmt: skip
    given = dict(zip(shapes, normals(seed, *shapes.values()), strict=True))

    def calls(k: Kernels, g: dict[str, Any]) -> list[Any]:
        y = k.convolve(g["image"], g["W"], g["b"] if bias else None, f, w)
        z = k.spread(g["places"], g["W"], g["c"] if bias else None, f, w)
        k.convolve_gradient(g["image"], g["places"], g["dW"], w)
        below, above = (Rows(f.forward(g[n]), f, g[n]) for n in ("a", "d"))
        dx = k.convolve_back(g["places"], g["W"], below, w)
        dz = k.spread_back(g["image"], g["W"], above, w)
        assert k.convolve_back(g["places"], g["W"], Rows(g["a"], None), w) is None
        assert k.spread_back(g["image"], g["W"], Rows(g["d"], None), w) is None
        return [y.y, z.y, g["dW"], dx, dz]

    def bounds(g: dict[str, Any]) -> list[Any]:
        k, m = Reference(np, "float64"), {name: np.abs(a) for name, a in g.items()}
        y = k.convolve(m["image"], m["W"], m["b"], LINEAR, w).y + 1
        z = k.spread(m["places"], m["W"], m["c"], LINEAR, w).y + 1
        dW = np.empty_like(m["dW"])
        k.convolve_gradient(m["image"], m["places"], dW, w)
        dx = k.convolve_back(m["places"], m["W"], Rows(m["a"], LINEAR), w)
        dz = k.spread_back(m["image"], m["W"], Rows(m["d"], LINEAR), w)
        ends = STEEPEST * (2 * (w.patch * out + 4) + 8 * ULP)
        assert dx is not None
        assert dz is not None
        return [ends * y, ends * z, 2 * (rows * places + 2) * dW, 2 * ends * dx, 2 * ends * dz]

    check(kind, calls, given, bounds, layout, written=["dW"])


@EACH_KIND
def test_an_image_that_changes_within_a_pass_is_seen(kind: Any) -> None:
    k, w, W = kernels_of(kind), Window(4, 4, 1, 2, 2, 0), np.ones((4, 1), kind[1])
    for _ in range(2):
        k.begin("changing")
        x = np.ones((1, 16), kind[1])
        found = []
        for _ in range(3):
            found.append(k.convolve(x, W, None, LINEAR, w).y.sum())
            x += 1
        assert found == [16, 32, 48]
        dW = np.zeros((4, 1), kind[1])
        k.convolve(x, W, None, LINEAR, w)
        k.convolve_gradient(x, np.ones((1, 4), kind[1]), dW, w)
        x *= 0
        k.convolve_gradient(x, np.ones((1, 4), kind[1]), dW, w)
        assert not dW.any()


# --------------------------------------------------------------------------------------------------------------- others


@given(SEEDS, SIZES, KIND, LAYOUT)
@example(0, (75, 900), LAST, "left half")
def test_row_max_and_total(seed: int, shape: Any, kind: Any, layout: str) -> None:
    def calls(k: Kernels, g: dict[str, Any]) -> list[Any]:
        return [k.row_max(g["a"]), k.total(g["a"])]

    check(kind, calls, {"a": normals(seed, shape)[0]}, lambda g: [0, g["a"].size * np.abs(g["a"]).sum()], layout)


@EACH_KIND
def test_the_largest_of_a_row_with_nan_is_nan(kind: Any) -> None:
    a = np.array([[1, np.nan, 3], [-np.inf, -2, -3]], kind[1])
    assert np.array_equal(kernels_of(kind).row_max(a), [[np.nan], [-2]], equal_nan=True)


@given(SEEDS, st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 40), KIND, LAYOUT)
@example(0, [3, 1, 700, 2], 75, LAST, "left half")
@example(0, [10] * 20, 33, ("numpy", "float64"), "right half")
def test_the_largest_and_the_sum_of_groups(seed: int, widths: Any, rows: int, kind: Any, layout: str) -> None:
    groups = tuple(widths)

    def calls(k: Kernels, g: dict[str, Any]) -> list[Any]:
        return [k.group_max(g["a"], groups), k.group_sum(g["a"], groups)]

    def bounds(g: dict[str, Any]) -> list[Any]:
        return [0, max(groups) * Reference(np, "float64").group_sum(np.abs(g["a"]), groups)]

    check(kind, calls, {"a": normals(seed, (rows, sum(groups)))[0]}, bounds, layout)


@EACH_KIND
def test_a_group_with_nan_has_no_largest_and_others_have(kind: Any) -> None:
    k, a = kernels_of(kind), np.array([[1, np.nan, 3, -np.inf, -2]], kind[1])
    k.begin("test")
    assert np.array_equal(k.group_max(a, (1, 2, 2)), [[1, np.nan, np.nan, -2, -2]], equal_nan=True)
    assert np.array_equal(k.group_sum(a, (1, 2, 2)), [[1, np.nan, np.nan, -np.inf, -np.inf]], equal_nan=True)
    for wrong in ((1, 2), (5, 0), (), (3, 3)):
        with pytest.raises(ValueError, match=r"groups of .* columns do not fit"):
            k.group_sum(a, wrong)


@given(SEEDS, sizes(3), KIND, st.sampled_from(["uint8", "float32", "float64"]), st.sampled_from([1.0, 1 / 255]))
def test_gather(seed: int, shape: Any, kind: Any, of: str, scale: float) -> None:
    total, cols, n = shape
    rng = np.random.default_rng(seed)
    data, rows = rng.integers(0, 256, (total, cols)).astype(of), rng.integers(0, total, n)

    def calls(k: Kernels, g: dict[str, Any]) -> list[Any]:
        k.gather(data, g["rows"], scale, g["x"])
        return [g["x"]]

    bounds = lambda g: [4 * scale * data.astype(float)[g["rows"]]]
    check(kind, calls, {"rows": rows, "x": normals(seed, (n, cols))[0]}, bounds, written=["x"])


@given(SEEDS, st.sampled_from([1, 7, 1000, 70_001]), KIND)
def test_squared_norm(seed: int, size: int, kind: Any) -> None:
    calls = lambda k, g: [k.squared_norm(g["g"])]
    check(kind, calls, {"g": normals(seed, (size,))[0]}, lambda g: [size * (g["g"] ** 2).sum()])


# ---------------------------------------------------------------------------------------------------- passes in a row


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 6), FACTORS), min_size=2, max_size=12), KIND)
def test_passes_of_any_sizes_keys_and_numbers_in_any_order(passes: list[tuple[str, int, float]], kind: Any) -> None:
    """The same memory for all sizes: a batch is the first rows of one array, as a trainer's is."""
    k = kernels_of(kind)
    x, W, b = (a.astype(kind[1]) for a in normals(0, (6, 4), (4, 3), (3,)))
    loop = Loop([formula(lambda a, c: a * c)], sums=[formula(lambda a, c: exp(a * 0) * c)])
    for key, rows, number in passes:
        poison(k)
        k.begin(key)
        y = k.product(x[:rows], W, b, ACTIVATIONS["relu"]).y
        scaled, sums = k.map(loop, a=y, c=number)
        truth = np.maximum(x[:rows].astype(float) @ W + b, 0)
        assert_within(scaled, truth * number, 60 * eps_of(kind[1]) * abs(number) * (1 + np.abs(truth).max()))
        assert_within(sums, np.full(rows, 3 * number), 8 * eps_of(kind[1]) * abs(3 * number))


@pytest.mark.parametrize("name", ACTIVATIONS)
@EACH_KIND
def test_nan_goes_through_every_layer_so_that_a_diverging_run_is_seen(kind: Any, name: str) -> None:
    b = np.zeros(40, kind[1])
    b[::3] = np.nan
    k = kernels_of(kind)
    y = k.product(np.ones((1, 1), kind[1]), np.ones((1, 40), kind[1]), b, ACTIVATIONS[name]).y
    assert np.array_equal(np.isnan(y[0]), np.isnan(b))
