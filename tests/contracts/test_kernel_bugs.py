"""Wrong lines planted in every kernels file, each with the test that must fail under it."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "numba", reason="Numba is not installed, so its kernels were not tested: python -m pip install 'tinyvae[numba]'"
)
from kernels import test_reference, test_remembered
from strategies import sampled

from contracts import kernel_cases, test_kernels
from tinyvae.formula import Formula
from tinyvae.kernels import domain, ends, numba_loops, numba_text, numpy_loops, prepared, reference, remembered

NUMPY = ("numpy", "float32")
SHAPES = test_kernels.test_shapes_that_do_not_fit_are_refused_before_anything_is_written
PLACES = test_kernels.test_outputs_may_be_the_inputs_themselves
MAP, INTO = test_kernels.test_map, test_kernels.test_outputs_of_k_rows_are_added_to_one
CONVOLUTIONS, CHANGING = test_kernels.test_convolutions, test_kernels.test_an_image_that_changes_within_a_pass_is_seen
LEFT_OVER = test_kernels.test_what_is_to_be_added_is_forgotten_when_another_pass_begins
COMES_BACK = test_remembered.test_a_number_that_comes_back_is_not_taken_for_the_one_between
SAME_PLACE = test_remembered.test_another_array_at_the_same_place_is_another
FREED = test_remembered.test_memory_that_is_freed_and_used_again_is_another_array
ANOTHER_ORDER = test_remembered.test_calls_in_another_order_under_one_key_are_prepared_anew
REFUSED = test_remembered.test_a_call_that_is_refused_leaves_no_place_of_its_own
ARENA = test_remembered.test_calls_of_a_pass_have_memory_of_their_own_which_the_next_pass_has_again
BY_HEART = test_remembered.test_a_pass_that_was_the_same_twice_is_made_again_without_its_code
OTHERS = test_remembered.test_other_objects_numbers_and_calls_are_asked_for
BEHIND = test_remembered.test_what_changes_behind_the_same_objects_is_not_known_until_it_has_been_the_same_twice
BETWEEN = test_remembered.test_passes_in_between_that_are_larger_or_fail_change_nothing

# file, what is wrong, the line, what stands there instead, the test that must notice, its arguments
BUGS: list[tuple[Any, str, str, str, Any, tuple[Any, ...]]] = [
    (domain, "K is not looked at", "if len(heights) > 1:", "if len(heights) > 9:", SHAPES, (NUMPY, "two K")),
    (domain, "a narrow table", "widths = (cols,) if", "widths = (1, cols) if", SHAPES, (NUMPY, "a narrow table")),
    (ends, "the label is forgotten", "return a + b + v", "return a + b",
     test_reference.test_products_and_what_is_at_their_ends, ()),
    (reference, "results are no copies", "[whole(a).copy() for a in each]", "[whole(a) for a in each]", PLACES, ()),
    (reference, "K rows in another order", "reshape(target.shape[0], -1, cols).sum(axis=1)",
     "reshape(-1, target.shape[0], cols).sum(axis=0)", test_reference.test_a_loop_is_the_formula_of_each_number, ()),
    (reference, "shared weights lose", "dW += x.T @ da", "dW -= x.T @ da", test_reference.test_gradients_and_sums, ()),
    (remembered, "a number comes back", "        call.take(operands)  # the next call", "        # the next call",
     COMES_BACK, ("numpy",)),
    (remembered, "strides are not compared", "and old.strides == new.strides", "", SAME_PLACE, ("numpy",)),
    (remembered, "the address is not compared", "and address(old) == address(new)", "", FREED, ("numba",)),
    (remembered, "the operation is not compared", "if call.what is what and (call", "if (call",
     ANOTHER_ORDER, ("numpy", "float64")),
    (remembered, "a refused call takes a place", "        call = prepare(self._memory(i)",
     "        self.done = i + 1\n        call = prepare(self._memory(i)", REFUSED, ("numpy",)),
    (remembered, "all calls share memory", "Memory(self, self.arena[i])", "Memory(self, self.arena[0])", ARENA, ()),
    (remembered, "a result is where the next call works", "return self._next(self.flat, self.taken - 1,",
     "return self._next(self.owner.scratch, self.taken - 1,", ARENA, ()),
    (remembered, "an operand is not compared", "call.ids == tuple(map(id, operands))", "len(call.ids) == len(operands)",
     SAME_PLACE, ("numpy",)),
    (remembered, "a pass is known before it was the same twice", "if same and self.news == news:", "if same:",
     BEHIND, ("numpy",)),
    (remembered, "what a pass is given is not compared", "all(a is b for a, b in zip(p.given, given, strict=True))",
     "True", OTHERS, ("numpy",)),
    (remembered, "another number is no news", "                        self.news += 1", "                        pass",
     BEHIND, ("numba",)),
    (remembered, "after a pass known by heart comes its first place", "            self.done = p.length", "",
     BY_HEART, ("numpy",)),
    (remembered, "a pass that failed is known", "news, begin, p.steps, p.given = self.news, self.done, None, given",
     "news, begin, p.given = self.news, self.done, given", BETWEEN, ("numpy",)),
    (prepared, "an array is frozen", "(self.xp.copyto, [copy, a])]", "(self.xp.copyto, [copy, a.copy()])]",
     CONVOLUTIONS, ()),
    (prepared, "a slope of what flows back", '{"dy": dy, "y": below.y, "a"', '{"dy": dy, "y": dy, "a"',
     test_kernels.test_back_and_end, ()),
    (prepared, "old patches are served", "        self._taken(x, window)\n        rows = self.do",
     "        old = self._taken(x, window)\n        rows = old if old is not None else self.do", CHANGING, (NUMPY,)),
    (prepared, "left over for the next pass", "        self.later.clear()\n        self.patched.clear()",
     "        self.patched.clear()", LEFT_OVER, (NUMPY,)),
    (numpy_loops, "a choice in place", 'and not (n.op == "where" and position == 1)', "", PLACES, ()),
    (numpy_loops, "outputs that swap", "for before, _ in copies[:i])", "for before, _ in copies[:0])", PLACES, ()),
    (numpy_loops, "a register is free too soon", "last.update({n.index: len(self.program) for n in part})", "pass",
     MAP, ()),
    (numpy_loops, "blocks share the first rows", "a[rows.start // self.K : rows.stop // self.K, None, columns]",
     "a[: (rows.stop - rows.start) // self.K, None, columns]", MAP, ()),
    (numpy_loops, "columns begin with what was there", "[(_fill, [c]) for c in job.columns]", "[]", MAP, ()),
    (numpy_loops, "beside the image is what was there", "[(_fill, [padded]), (np.copyto, [inner, x",
     "[(np.copyto, [inner, x", CONVOLUTIONS, ()),
    (numpy_loops, "a constant of float64 in float32", "row and self.width > 1 else (), dtype)",
     "row and self.width > 1 else (), self.dtype)",
     test_kernels.test_constants_of_float64_keep_their_digits, (NUMPY,)),
    (prepared, "the largest of groups is their sum", '"group_max": np.maximum', '"group_max": np.add',
     test_kernels.test_the_largest_and_the_sum_of_groups, ()),
    (prepared, "groups of one width", "np.repeat(np.arange(len(groups)), groups)",
     "np.arange(sum(groups)) * len(groups) // sum(groups)", test_kernels.test_the_largest_and_the_sum_of_groups, ()),
    (numba_text, "a sum begins at 1", 'f"total{i} = {dtype}(0)"', 'f"total{i} = {dtype}(1)"', MAP, ()),
    (numba_text, "into is written", "'+=' if into else '='", "'='", INTO, ()),
    (numba_text, "a label for each row", "[labels{i}[i // K{i}]]", "[labels{i}[i % labels{i}.size]]", MAP, ()),
    (numba_loops, "a half is frozen", "return np.lib.stride_tricks.as_strided(a, (a.shape[0], wide), a.strides)",
     "return np.ascontiguousarray(a)", MAP, ()),
    (numba_loops, "two arrays are one", "and same_memory(arrays[j], a)]",
     "and getattr(arrays[j], 'shape', 0) == a.shape]", MAP, ()),
    (numba_loops, "patches end early", "ix < 0 or ix >= width:", "ix < 0 or ix >= width - 1:", CONVOLUTIONS, ()),
    (numba_loops, "fold goes on", "        y[b] = 0\n", "", CONVOLUTIONS, ()),
    (numba_loops, "a draw's gradient goes astray", "table[labels[i // K]]", "table[labels[i % labels.size]]",
     test_kernels.test_scatter, ()),
]  # fmt: skip


def same_code(a: Any, b: Any) -> bool:
    return signature_of(a) == signature_of(b)


def signature_of(f: Any) -> Any:
    """What a function does: its code, its constants, and the same of the functions in it."""
    code = getattr(f, "py_func", f)
    code = getattr(code, "__code__", code)
    inner = [signature_of(c) if hasattr(c, "co_code") else c for c in code.co_consts]
    return code.co_code, code.co_names, inner


def is_function(f: Any) -> bool:
    return isinstance(f, types.FunctionType) or hasattr(f, "py_func")


def of_class(method: Any, cls: type) -> Any:
    """The method, whose `super()` is that of the class."""
    for name, cell in zip(method.__code__.co_freevars, method.__closure__ or (), strict=True):
        if name == "__class__":
            cell.cell_contents = cls
    return method


def plant(module: Any, old: str, new: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the functions that the new line changes in the place of those of the package."""
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1, "the line is not there, or not once"
    file = folder / "bugged.py"
    file.write_text(source.replace(old, new), encoding="utf-8")
    bugged = types.ModuleType(module.__name__)
    monkeypatch.setitem(sys.modules, "bugged", bugged)
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), bugged.__dict__)
    changed = 0
    for name, right in list(vars(module).items()):
        wrong: Any = vars(bugged).get(name)
        if isinstance(right, type) and right.__module__ == module.__name__:
            for attribute, method in list(vars(right).items()):
                if is_function(method) and not same_code(method, vars(wrong)[attribute]):
                    monkeypatch.setattr(right, attribute, of_class(vars(wrong)[attribute], right))
                    changed += 1
        elif is_function(right) and right.__module__ == module.__name__ and not same_code(right, wrong):
            for user in [m for n, m in sys.modules.items() if n.startswith("tinyvae")]:
                if getattr(user, name, None) is right:
                    monkeypatch.setattr(user, name, wrong)
            changed += 1
        elif isinstance(right, Formula) and not same_code(right.function, wrong.function):
            monkeypatch.setattr(right, "function", wrong.function)
            changed += 1
    assert changed == 1, f"{changed} functions differ"


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing that was prepared before the bug, or under it, is used."""
    forgotten = (kernel_cases.MADE.clear, numba_text.compiled_loop.cache_clear, ends.forward_end.cache_clear)
    for forget in forgotten:
        forget()
    yield
    for forget in forgotten:
        forget()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("bug", sampled(BUGS, 3), ids=lambda bug: f"{bug[0].__name__.rpartition('.')[2]}: {bug[1]}")
def test_the_named_test_notices_the_bug(bug: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, old, new, killer, args = bug
    plant(module, old, new, tmp_path, monkeypatch)
    try:
        killer(*args)
    except (AssertionError, ExceptionGroup, pytest.fail.Exception):  # Hypothesis may find several ways to fail
        return
    raise AssertionError(f"{killer.__name__} does not notice")
