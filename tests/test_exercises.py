"""The exercises, checked: stubs fail, the library passes, planted mistakes are told for what they are."""

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import assert_within

import tinyvae
from tinyvae.exercises import bugs, catalogue, solutions
from tinyvae.exercises.catalogue import FOLDER, GRADES, file_of
from tinyvae.exercises.judge import TRUTH, judge, search
from tinyvae.exercises.learner import Failure, Found, exercise_of, load
from tinyvae.exercises.task import FunctionTask, PropertyTask
from tinyvae.exercises.tasks import TASKS
from tinyvae.ops.normalization import EPSILON, batch_norm_forward

TUTORIALS = (
    "01_from_autoencoder_to_vae", "02_dense_layer", "03_likelihoods", "04_gaussian_kl", "05_reparameterization",
    "06_whole_backward", "07_checking_gradients", "08_adam", "09_training_and_looking", "10_property_based_testing",
    "11_museum_of_wrong_vaes", "12_convolution", "13_faster",
)  # fmt: skip
FUNCTIONS = [task for task in TASKS.values() if isinstance(task, FunctionTask)]
PROPERTIES = [task for task in TASKS.values() if isinstance(task, PropertyTask)]
EACH = pytest.mark.parametrize("name", TASKS)
EACH_FUNCTION = pytest.mark.parametrize("task", FUNCTIONS, ids=lambda task: task.name)
EACH_PROPERTY = pytest.mark.parametrize("task", PROPERTIES, ids=lambda task: task.name)


def task_of(name: str) -> FunctionTask:
    task = TASKS[name]
    assert isinstance(task, FunctionTask)
    return task


def failure_of(name: str, function: Callable[..., Any]) -> Failure:
    failure = judge(TASKS[name], function, shrink=False).failure
    assert failure is not None
    return failure


# ------------------------------------------------------------------------------------------------ texts and stubs


def test_there_are_enough_of_both_kinds_and_each_has_a_text_a_stub_and_a_judge() -> None:
    assert len(FUNCTIONS) >= 15
    assert len(PROPERTIES) >= 8
    assert set(catalogue.names()) == set(TASKS)
    assert len(catalogue.names()) == len(TASKS)  # unique
    expected = {file_of(name) for name in TASKS} | {file_of(name).replace(".py", ".toml") for name in TASKS}
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} == expected | {"README.md"}


@EACH
def test_the_text_is_whole_and_tells_the_truth(name: str) -> None:
    exercise, task = catalogue.load(name), TASKS[name]
    assert exercise.function() is task.solution
    assert exercise.kind == ("function" if isinstance(task, FunctionTask) else "property")
    assert exercise.tutorial in TUTORIALS
    assert exercise.grade in GRADES
    assert len(exercise.hints) >= 2
    assert len(set(exercise.hints)) == len(exercise.hints)
    for text in (exercise.title, *exercise.hints):
        assert text == text.strip() != ""
        assert text.isascii()
    assert exercise.place().startswith("tinyvae/")
    assert exercise.derivation().startswith("tutorials/")


def function_in(path: Path) -> ast.FunctionDef:
    [function] = [
        node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
    ]
    return function


@EACH
def test_the_stub_is_the_solution_without_its_body(name: str) -> None:
    exercise, task = catalogue.load(name), TASKS[name]
    stub = load(exercise.stub, task.solution)
    assert exercise_of(exercise.stub) == name
    assert stub.__name__ == task.solution.__name__
    assert inspect.signature(stub) == inspect.signature(task.solution)
    docstring = inspect.getdoc(task.solution) or ""
    for blank, instead in exercise.blanks.items():
        assert docstring.count(blank) == 1, blank
        docstring = docstring.replace(blank, instead)
    assert inspect.getdoc(stub) == docstring
    body = function_in(exercise.stub).body
    assert len(body) == 2  # the docstring, and
    assert isinstance(body[1], ast.Raise)


@EACH
def test_the_stub_fails(name: str) -> None:
    task = TASKS[name]
    verdict = judge(task, load(catalogue.load(name).stub, task.solution), shrink=False)
    assert verdict.holds == ()
    assert verdict.failure is not None
    assert "nothing is written yet" in verdict.failure.says


def test_stubs_and_texts_name_their_exercise_and_no_solution() -> None:
    for name in TASKS:
        text = catalogue.load(name).stub.read_text(encoding="utf-8")
        assert f"tinyvae exercises check {name}\n" in text
        assert f"tutorials/{catalogue.load(name).tutorial}.md" in text
        assert "return" not in text


def test_the_tutorials_name_only_exercises_that_there_are() -> None:
    for path in sorted((catalogue.REPOSITORY / "tutorials").glob("*.md")):
        for name in re.findall(r"exercises (?:start|check|hint|show) ([a-z][a-z0-9-]+)", path.read_text("utf-8")):
            assert name in TASKS, f"{path.name} names {name}"


# ------------------------------------------------------------------------------------------------- write the function


@EACH_FUNCTION
def test_each_typical_mistake_is_found_and_told(task: FunctionTask) -> None:
    assert len(task.mistakes) >= 3
    for mistake in task.mistakes:
        failure = judge(task, mistake.wrong, shrink=False).failure
        assert failure is not None, mistake.says
        assert failure.look == mistake.says
        assert failure.lines[0][0] == "must hold"
        assert [label.split()[0] for label, _ in failure.lines[-2:]] == ["expected", "got"]
        assert failure.lines[-2][1] != failure.lines[-1][1]


def kl_backward(dkl: Any, mu: Any, logvar: Any) -> tuple[Any, Any]:
    return dkl * mu, dkl * (0.5 * np.expm1(logvar))


def dense_backward(dy: Any, x: Any, W: Any) -> tuple[Any, Any, Any]:
    return dy @ W.T, x.T @ dy, dy.sum(axis=0)


def changed(function: Callable[..., Any], index: int, change: Callable[[Any], Any]) -> Callable[..., Any]:
    def wrong(**arguments: Any) -> Any:
        results = list(function(**arguments))
        results[index] = change(results[index])
        return tuple(results)

    return wrong


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: -r, "-1 times"), (lambda r: 2 * r, "twice"), (lambda r: r / 2, "half"),
        (lambda r: 0 * r, "always 0"),
        (lambda r: 3 * r, "3 times the right one"), (lambda r: r + 0.25, "off by 0.25 everywhere"),
        (lambda r: r / len(r), "divided by the number of rows"), (lambda r: r * len(r), "times the number of rows"),
        (lambda r: r / r.shape[1], "mean over the columns"), (lambda r: r * r.shape[1], "times their number"),
        (lambda r: r.T.copy(), "transposed"), (lambda r: r.sum(axis=0), "summed that should have stayed"),
        (lambda r: r[None], "a sum over the rows is missing"), (lambda r: r * np.inf, "not finite"),
    ],
)  # fmt: skip
def test_a_transformation_of_the_right_answer_is_named(change: Callable[[Any], Any], says: str, index: int) -> None:
    with np.errstate(invalid="ignore"):
        failure = failure_of("kl-backward", changed(kl_backward, index, change))
    assert says in failure.look
    assert failure.says.startswith(("dmu", "dlogvar")[index])


def test_swapped_outputs_a_missing_cotangent_and_the_wrong_axis_are_named() -> None:
    swapped = lambda dkl, mu, logvar: kl_backward(dkl, mu, logvar)[::-1]
    assert failure_of("kl-backward", swapped).look == "it is what dlogvar should be: are dmu and dlogvar swapped?"
    without = lambda dkl, mu, logvar: (mu.copy(), 0.5 * np.expm1(logvar) + 0 * dkl)
    assert "only where dkl is 1" in failure_of("kl-backward", without).look
    axis = lambda dy, x, W: (*dense_backward(dy, x, W)[:2], dy.sum(axis=1))
    failure = failure_of("dense-backward", axis)
    assert failure.says.startswith("db has shape")
    assert failure.look == "it was summed over the wrong axis"


def test_the_counter_example_is_as_small_as_it_gets() -> None:
    failure = judge(task_of("kl-backward"), changed(kl_backward, 0, lambda dmu: 2 * dmu)).failure
    assert failure is not None
    arrays = [text.split("  shape ") for label, text in failure.lines if label in ("dkl", "mu", "logvar")]
    assert [shape for _, shape in arrays] in (["(1, 2)"] * 3, ["(2, 1)"] * 3)  # the two sizes differ
    numbers = [float(n) for text, _ in arrays for n in re.findall(r"[-.0-9]+", text)]
    assert sorted(numbers) == [0, 0, 0, 0, 0.125, 0.125]


def test_an_error_nobody_foresaw_is_still_said_to_be_wrong_and_where() -> None:
    for above, look in ((0.1, "work this case out by hand"), (3.0, r"right in \d+ of \d+ other cases")):
        odd = changed(kl_backward, 1, lambda r, above=above: np.where(r > above, r + 1e-6, r))
        failure = failure_of("kl-backward", odd)
        assert failure.says == "dlogvar is wrong"
        assert re.search(look, failure.look)


@pytest.mark.parametrize(
    ("body", "says", "look"),
    [
        ("pass", "it returns nothing", "return dmu, dlogvar"),
        ("return dkl * mu", "it returns one value; it must return 2: dmu, dlogvar", ""),
        ("return (dkl * mu,) * 3", "it returns 3 values", ""),
        ("return (dkl * mu).tolist(), mu", "dmu is a list and no array", "np.array"),
        ("return None, mu", "dmu is None", ""),
        ("return np.float32(1) * mu.astype('f'), mu", "dmu has dtype float32", "dtype of its own"),
        ("return (dkl * mu).astype(int), mu", "dmu has dtype int64", "dtype of its own"),
        ("mu *= dkl; return mu, mu", "it changes its argument mu", "in place"),
        ("logvar[0] = 1.0; return mu, mu", "it changes its argument logvar", "make a new array"),
        ("return np.random.random(mu.shape), mu", "two calls with the same arguments", ""),
        ("return dkl * muu, mu", "it stops with an error", ""),
        ("import sys; sys.exit(3)", "it stops with an error", ""),
        ("raise KeyboardInterrupt", "it stops with an error", ""),
        ("return 1, mu", "dmu has shape (); it must have shape", "a factor that is an array is missing"),
        ("return {'dmu': mu, 'dlogvar': mu}", "it returns one value", "end it with: return dmu, dlogvar"),
        ("return mu[:, None], mu", "dmu has shape", "or a [:, None] too much"),
        ("return mu if mu > 0 else dkl, mu", "it stops with an error", "np.where decides for each"),
        ("return mu^2, mu", "it stops with an error", "y**2"),
        ("return mu + np.zeros((2, 99)), mu", "it stops with an error", "from the right"),
        ("return mu @ np.zeros((99, 2)), mu", "it stops with an error", "the inner sizes are equal"),
        ("return kl_backward(dkl, mu, logvar)", "it calls itself without end", ""),
        ("return x @ 1", "it stops with an error", ""),
    ],
)
def test_each_way_of_going_wrong_has_a_line(tmp_path: Path, body: str, says: str, look: str) -> None:
    path = tmp_path / "kl_backward.py"
    path.write_text(f"import numpy as np\n\n\ndef kl_backward(dkl, mu, logvar):\n    {body}\n")
    task = task_of("kl-backward")
    failure = judge(task, load(path, task.solution), path, shrink=False).failure
    assert failure is not None
    assert says in failure.says
    assert look in failure.look
    if "error" in failure.says:
        assert failure.lines[0] == ("line 5", body)
        errors = ("NameError", "SystemExit", "KeyboardInterrupt", "ValueError", "TypeError")
        assert failure.lines[1][0] in errors


def test_a_buffer_that_is_handed_out_twice_and_float64_in_float32_are_found() -> None:
    out = np.zeros((2, 100))

    def buffered(dz: Any, logvar: Any, eps: Any) -> Any:
        views = [row[: dz.size].reshape(dz.shape) for row in out]
        views[0][...], views[1][...] = dz, dz * eps * (0.5 * np.exp(0.5 * logvar))
        return tuple(views)

    assert failure_of("reparameterize-backward", buffered).says.startswith("the result of an earlier call changes")
    wide = lambda dkl, mu, logvar: tuple(1.0 * np.float64(1) * r for r in kl_backward(dkl, mu, logvar))
    failure = failure_of("kl-backward", wide)
    assert failure.says == "dmu has dtype float64 where all arrays are float32"


def test_shapes_that_are_swapped_or_broadcast_are_told() -> None:
    order = lambda dy, x, W: (x.T @ dy, dy @ W.T, dy.sum(axis=0))
    assert failure_of("dense-backward", order).look == "that is the shape of dW: are the two swapped?"
    column = lambda x, W, b: x @ W + b[:, None] if len(x) == 1 else x @ W + b
    assert failure_of("dense-forward", column).look.startswith("broadcasting made it larger")
    assert failure_of("central-difference", lambda f, p, u, h: [[1.0]] * np.ones((1, 1))).look.startswith("one number")


def test_the_number_of_columns_is_not_that_of_a_cotangent_with_one() -> None:
    def mean(dbound: Any, log_w: Any) -> Any:
        w = np.exp(log_w - log_w.max(axis=1, keepdims=True))
        return dbound * w / w.sum(axis=1, keepdims=True) / log_w.shape[1]

    assert failure_of("bound-backward", mean).look.startswith("a mean over the columns where a sum is meant")


def test_what_does_not_vanish_with_the_cotangent_is_told_so() -> None:
    failure = judge(task_of("tanh-backward"), lambda dy, y: dy + (1 - y * y)).failure
    assert failure is not None
    assert failure.look == "dy is 0 here and it is not: the chain rule multiplies all of it by dy"


def test_other_outputs_that_are_wrong_are_named() -> None:
    failure = failure_of("kl-backward", lambda dkl, mu, logvar: (-dkl * mu, dkl + logvar))
    assert failure.lines[1] in (("also wrong", "dlogvar"), ("also wrong", "dmu"))


def test_defaults_that_are_written_into_adam_are_found() -> None:
    def fixed(p: Any, g: Any, m: Any, v: Any, t: int, lr: float, **_: float) -> Any:
        return other_adam(p, g, m, v, t, lr)

    assert "are arguments" in failure_of("adam-step", fixed).look


def test_what_is_0_is_shown_as_0_and_not_as_the_oracles_rounding() -> None:
    failure = judge(task_of("kl-backward"), lambda dkl, mu, logvar: (dkl * mu, dkl * (0.5 * np.exp(logvar)))).failure
    assert failure is not None
    assert "e-" not in failure.lines[-2][1]


def test_what_the_function_prints_in_the_failing_case_is_kept() -> None:
    def chatty(dkl: Any, mu: Any, logvar: Any) -> Any:
        print("mu is", mu.shape)
        return 2 * dkl * mu, kl_backward(dkl, mu, logvar)[1]

    assert re.fullmatch(r"mu is \(\d, \d\)\n", failure_of("kl-backward", chatty).printed)


@pytest.mark.parametrize(
    ("content", "says", "line"),
    [
        ("def kl_backward(mu logvar):\n    pass\n", "is not Python yet", ("line 1", "def kl_backward(mu logvar):")),
        ("x = 1\n", "defines no function called kl_backward", None),
        ("kl_backward = 3\n", "defines no function called kl_backward", None),
        ("def kl_backward(mu, logvar):\n    pass\n", "takes (mu, logvar); it must take (dkl, mu, logvar)", None),
        ("import numpyy\n", "imports numpyy, which is not installed", ("line 1", "import numpyy")),
        ("x = 1\ny = x / 0\n", "stops with an error while it is read", ("line 2", "y = x / 0")),
        ("raise SystemExit\n", "stops with an error while it is read", ("line 1", "raise SystemExit")),
        ("from tinyvae.ops.gaussian import kl_backward\n", "takes kl_backward from tinyvae", None),
        ("from tinyvae.ops.gaussian import *\n", "takes kl_backward from tinyvae", None),
        ("import tinyvae.ops.gaussian as g\nkl_backward = g.kl_backward\n", "takes kl_backward from tinyvae", None),
        ("x = '\x00'\n", "is", None),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_has_a_line(
    tmp_path: Path, content: str, says: str, line: tuple[str, str] | None
) -> None:
    path = tmp_path / "kl_backward.py"
    path.write_text(content)
    with pytest.raises(Found) as caught:
        load(path, task_of("kl-backward").solution)
    assert says in caught.value.failure.says
    assert str(path) in caught.value.failure.says or "it must take" in says
    if line is not None:
        assert caught.value.failure.lines[0] == line


def test_a_missing_file_and_one_that_is_no_text_have_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"\xff\xfe\x00")
    for name, says in (("a.py", "no text in UTF-8"), ("b.py", "cannot be read (No such file")):
        with pytest.raises(Found, match=re.escape(says)):
            load(tmp_path / name, task_of("kl-backward").solution)


# ---------------------------------------------------------------------------- right, and written in another way


def sigmoid(l: Any) -> Any:
    return 1 / (1 + np.exp(-l))


def other_adam(p: Any, g: Any, m: Any, v: Any, t: int, lr: float, beta1: float = 0.9, beta2: float = 0.999,
               epsilon: float = 1e-8) -> Any:  # fmt: skip
    m, v = m + (1 - beta1) * (g - m), v + (1 - beta2) * (g**2 - v)
    rate, root = lr / (1 - beta1**t), (1 - beta2**t) ** 0.5
    return p - rate * m / (v**0.5 / root + epsilon), m, v


def other_batch_norm(dy: Any, h: Any, v: Any, scale: Any) -> Any:
    """The chain rule step by step, through v and then through m."""
    n, dh, r = len(dy), dy * scale, 1 / np.sqrt(v + EPSILON)
    centred = h / r
    dv = (dh * centred).sum(axis=0) * -(r**3) / 2
    dm = -(dh * r).sum(axis=0)
    return dh * r + dv * 2 * centred / n + dm / n, np.einsum("nc,nc->c", dy, h), dy.sum(axis=0)


def other_conv2d(dy: Any, x: Any, W: Any, stride: int, pad: int) -> Any:
    """Window by window."""
    k = W.shape[0]
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    dpadded, dW = np.zeros_like(padded), np.zeros_like(W)
    for i in range(dy.shape[1]):
        for j in range(dy.shape[2]):
            here = np.s_[:, i * stride : i * stride + k, j * stride : j * stride + k]
            dpadded[here] += np.einsum("no,abco->nabc", dy[:, i, j], W)
            dW += np.einsum("nabc,no->abco", padded[here], dy[:, i, j])
    return dpadded[:, pad : pad + x.shape[1], pad : pad + x.shape[2]], dW, dy.sum(axis=(0, 1, 2))


def other_conv_transpose2d(x: Any, W: Any, b: Any, shape: Any, stride: int, pad: int) -> Any:
    blank = np.zeros((len(x), *shape, W.shape[2]), dtype=x.dtype)
    return other_conv2d(x, blank, W, stride, pad)[0] + b


def other_elbo(x: Any, eps: Any, W1: Any, b1: Any, W2: Any, b2: Any, W3: Any, b3: Any) -> Any:
    n = len(eps)
    h = np.tanh(x @ W1 + b1)
    mu, s = np.split(h @ W2 + b2, 2, axis=1)
    sigma = np.exp(s / 2)
    z = mu + sigma * eps
    l = z @ W3 + b3
    loss = (np.logaddexp(0, l) - x * l).sum() / n + (mu**2 + sigma**2 - 1 - s).sum() / (2 * n)
    dl = (sigmoid(l) - x) / n
    dz = dl @ W3.T
    dhead = np.hstack([dz + mu / n, dz * eps * sigma / 2 + (sigma**2 - 1) / (2 * n)])
    da = dhead @ W2.T / np.cosh(x @ W1 + b1) ** 2
    return [float(loss), x.T @ da, da.sum(0), h.T @ dhead, dhead.sum(0), z.T @ dl, dl.sum(0)]


def other_check(terms: Any, p: Any, g: Any, u: Any, h: float) -> Any:
    slopes = [(np.sum(terms(p + k * h * u)) - np.sum(terms(p - k * h * u))) / (2 * k * h) for k in (1, 2)]
    rounding = 30 * np.finfo(float).eps * np.abs(terms(p)).sum() / h
    return abs(np.dot(g, u) - slopes[0]), rounding + 2 * abs(slopes[0] - slopes[1]) / 3


OTHERS: dict[str, Callable[..., Any]] = {
    "dense-forward": lambda x, W, b: np.einsum("ni,ij->nj", x, W) + b[None],
    "dense-backward": lambda dy, x, W: [np.dot(dy, W.T), np.dot(dy.T, x).T, np.ones(len(x), x.dtype) @ dy],
    "relu-backward": lambda dy, y: np.where(y == 0, 0, dy),
    "tanh-backward": lambda dy, y: dy * (1 - y) * (1 + y),
    "sigmoid-backward": lambda dy, y: dy * (y - y**2),
    "softplus-backward": lambda dy, y: -dy * np.expm1(-y),
    "elu-backward": lambda dy, y: np.where(y > 0, dy, dy * y + dy),
    "bernoulli-nll": lambda logits, x: np.sum(np.logaddexp(0, logits) - x * logits, axis=1),
    "bernoulli-nll-backward": lambda dnll, logits, x: dnll * (sigmoid(logits) - x),
    "gaussian-nll-backward": lambda dnll, mean, logvar, x: (
        dnll * (mean - x) / np.exp(logvar), dnll / 2 - dnll * (x - mean) ** 2 / np.exp(logvar) / 2),
    "kl-forward": lambda mu, logvar: -0.5 * (1 + logvar - mu**2 - np.exp(logvar)),
    "kl-backward": lambda dkl, mu, logvar: (dkl * mu, dkl * (np.exp(logvar) - 1) / 2),
    "reparameterize-forward": lambda mu, logvar, eps: mu + eps * np.sqrt(np.exp(logvar)),
    "reparameterize-backward": lambda dz, logvar, eps: (dz, dz * eps * np.exp(logvar / 2) / 2),
    "free-bits-backward": lambda dcharged, kl, free_bits: np.where(
        kl.mean(0) > free_bits, dcharged / len(kl), 0).astype(kl.dtype),
    "bound-backward": lambda dbound, log_w: dbound / np.exp(log_w[:, None] - log_w[:, :, None]).sum(2),
    "elbo-backward": other_elbo,
    "central-difference": lambda f, p, u, h: 0.5 / h * (f(p + u * h) - f(p - u * h)),
    "directional-check": other_check,
    "adam-step": other_adam,
    "clip-scale": lambda norm2, max_norm: 1 if norm2 <= max_norm**2 else max_norm / norm2**0.5,
    "conv2d-backward": other_conv2d,
    "conv-transpose2d-forward": other_conv_transpose2d,
    "batch-norm-backward": other_batch_norm,
}  # fmt: skip


def test_there_is_another_way_for_each() -> None:
    assert set(OTHERS) == {task.name for task in FUNCTIONS}


@pytest.mark.parametrize("name", OTHERS)
def test_a_right_function_that_is_written_in_another_way_passes(name: str) -> None:
    assert judge(TASKS[name], OTHERS[name]).failure is None


# ------------------------------------------------------------------------------------------------- write the property


def looks_on(implementation: Any, **inputs: Any) -> None:
    """Runs, and asserts nothing that could fail."""
    names = [name for name in inputs if isinstance(inputs[name], np.ndarray)]
    try:
        implementation(*(inputs[name] for name in names))
    except Exception:
        assert True


@EACH_PROPERTY
def test_each_bug_is_killed_by_the_reference_alone_and_survives_a_property_that_says_nothing(
    task: PropertyTask,
) -> None:
    assert 2 <= len(task.bugs) <= 5

    def killed(by: Callable[..., Any], wrong: Callable[..., Any], examples: int) -> bool:
        def body(case: dict[str, Any]) -> None:
            try:
                by(wrong, **{k: v.copy() if isinstance(v, np.ndarray) else v for k, v in case.items()})
            except Exception as error:
                raise Found(Failure("killed")) from error

        with np.errstate(all="ignore"):
            return search(task.cases, body, examples, shrink=False) is not None

    for bug in task.bugs:
        assert killed(task.solution, bug.wrong, task.examples), bug.says
        assert not killed(looks_on, bug.wrong, 5), bug.says


@EACH_PROPERTY
def test_a_property_that_says_nothing_or_too_much_is_rejected(task: PropertyTask) -> None:
    verdict = judge(task, looks_on, shrink=False)
    assert verdict.holds == (TRUTH,)
    assert verdict.failure is not None
    assert verdict.failure.says == f"a wrong implementation survives: number 1 of {len(task.bugs)}"
    assert not any(bug.says in str(verdict.failure) for bug in task.bugs)  # told once it is killed

    def no(implementation: Any, **inputs: Any) -> None:
        looks_on(implementation, **inputs)
        raise AssertionError("no")

    failure = judge(task, no, shrink=False).failure
    assert failure is not None
    assert failure.says == "it does not hold for the library's function, which is right"


def test_a_property_that_returns_its_verdict_or_never_asks_is_told_so() -> None:
    for property_, says in (
        (lambda implementation, mu, logvar: bool(np.all(implementation(mu, logvar) >= 0)), "it returns True"),
        (lambda implementation, mu, logvar: None, "it never calls implementation"),
    ):
        assert says in failure_of("kl-is-never-negative", property_).says


def test_a_property_without_an_assert_is_told_so_and_one_that_is_false_sees_what_came(tmp_path: Path) -> None:
    path = tmp_path / "kl_is_never_negative.py"
    head = "import numpy as np\n\n\ndef kl_is_never_negative(implementation, mu, logvar):\n    "
    task = TASKS["kl-is-never-negative"]
    for body, look, label in (
        ("np.allclose(implementation(mu, logvar), 0)", "it asserts nothing", None),
        ("np.testing.assert_array_less(-1, implementation(mu, logvar))", "what is wrong with it is told", None),
        ("np.testing.assert_array_less(0.0, implementation(mu, logvar))", "is it true at all?", "it returned"),
    ):
        path.write_text(head + body + "\n")
        failure = judge(task, load(path, task.solution), path, shrink=False).failure
        assert failure is not None
        assert look in failure.look
        if label:
            assert failure.lines[-1][0] == label
            assert "Mismatched elements" in dict(failure.lines)["AssertionError"]


def test_kl_at_least_0_alone_is_too_little_and_the_killed_ones_are_named() -> None:
    def weak(implementation: Any, mu: Any, logvar: Any) -> None:
        kl = implementation(mu, logvar)
        assert np.all(kl >= -1e-9)
        assert np.all(np.abs(kl[(mu == 0) & (logvar == 0)]) < 1e-9)

    failure = failure_of("kl-is-never-negative", weak)
    assert failure.says == "a wrong implementation survives: number 3 of 5"
    assert failure.lines == tuple(("killed", bug.says) for bug in bugs.KL_NONNEGATIVE.bugs[:2])


def test_a_gradient_check_with_a_cotangent_of_ones_lets_the_wrong_ones_pass() -> None:
    def ones(implementation: Any, a: Any, scale: Any, seed: int) -> None:
        _, h, _, v = batch_norm_forward(a, scale, 0 * scale)
        da, _, _ = implementation(np.ones_like(a), h, v, scale)
        assert tinyvae.gradcheck(lambda p: batch_norm_forward(p, scale, 0 * scale)[0], a, da)

    assert failure_of("random-cotangent", ones).says == "a wrong implementation survives: number 1 of 5"


# ----------------------------------------------------------------------------------------------------- the solutions


def test_the_small_vae_is_the_librarys_with_the_same_weights() -> None:
    rng = np.random.default_rng(0)
    x, eps = rng.uniform(size=(4, 5)), rng.standard_normal((4, 2))
    model = tinyvae.VAE(5, (3,), 2, decoder_hidden=(), activation="tanh", dtype="float64", kernels="reference")
    model.params.flat += 0.3 * rng.standard_normal(model.params.flat.shape)
    weights = [np.array(model.params[name]) for name in model.params]
    losses = model.loss_and_grad(x, eps)
    loss, *grads = solutions.elbo_gradients(x, eps, *weights)
    assert_within(loss, losses.loss, 1e-13)  # a hundred roundings of numbers below 5
    for name, grad in zip(model.params, grads, strict=True):
        assert_within(grad, model.grads[name], 1e-13)
