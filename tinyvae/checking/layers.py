"""The contract of a layer, and the gradients of every layer in the folder.

    check_layer(Residual(400, 64))

Its gradients are compared with finite differences, for each kind of layer below it; its numbers, with those of the
reference kernels on all others. A small instance shows all that a large one would.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tinyvae import layers
from tinyvae.checking.agreement import Numbers, assert_right, check_agreement, check_left_alone, checked_name
from tinyvae.checking.examples import all_layers, one_of_each_kind, text
from tinyvae.checking.finite_differences import Check, Report, gradcheck
from tinyvae.checking.kinks import Watching
from tinyvae.checking.replay import check_replayed
from tinyvae.kernels.contract import Kernels, Rows
from tinyvae.kernels.reference import Reference
from tinyvae.layers.layer import Bound, Context, Layer, Param, forward
from tinyvae.ops.activations import LINEAR, Activation

ROWS, DRAWS = 6, 3  # of labels each serves two rows in the second case
BELOW: tuple[Activation | None, ...] = (None, *(a for a in one_of_each_kind() if not a.kinked))
LARGEST = 10_000  # numbers in a layer that is checked


def layer_checks(seed: int = 0) -> Iterator[Check]:
    """One Check for each tensor of each example of each layer, named "layer: tensor"."""
    below = one_of_each_kind()[0]
    for layer in all_layers(seed):
        for check in gradients(layer, below, seed):
            yield replace(check, name=f"{text(layer)}: {check.name}")


def gradients(layer: Layer, below: Activation | None, seed: int = 0) -> Report:
    """Finite differences of <c, y> with a random c, by the parameters, and by what was before the activation below."""
    case = _Case(layer, np.random.default_rng(seed))
    given = case.given(below)
    grads = case.run(Reference(np, "float64"), given, below)
    k = Watching()

    def loss() -> np.ndarray:
        k.begin()
        y = k.run(case.bound(given), case.rows_below(k, given, below), case.context(given))
        return given["c"] * y

    checked = {name: a for name, a in given.items() if name in case.learned or (name == "x" and below is not None)}
    return gradcheck(loss, checked, {n: grads[f"d{n}"] for n in checked}, kinks=k.found, seed=seed, elementwise=16)


def check_layer(layer: Layer) -> None:
    """Raises AssertionError or ValueError with one line: what the layer does not keep."""
    name = checked_name(layer, Layer, layers)
    _check_says(layer, name)
    case = _Case(layer, np.random.default_rng(0))
    for below in BELOW:
        on = f"{name}, on {'data' if below is None else below.name}"
        _check_pass(case, below, on)
        assert_right(gradients(layer, below), on)
        run = lambda k, given, below=below: case.run(k, given, below)
        check_agreement(run, case.given(below), case.given(below, seed=1), on)
    _check_holds_nothing(case, name)
    _check_rows_are_alone(case, name)
    _check_second_backward(case, name)
    check_replayed(layer, name)


class _Case:
    """A layer with all that a pass of it is given."""

    def __init__(self, layer: Layer, rng: np.random.Generator) -> None:
        self.layer, self.params = layer, {p.name: p for p in layer.params()}
        shared = {f"{at}.{p.name}": p for at, other in layer.shares().items() for p in other.params()}
        self.shared = set(shared)
        self.params |= shared
        self.learned = [name for name, p in self.params.items() if p.trainable]
        self.seed = int(rng.integers(2**31))
        self.each = DRAWS if layer.classes() else 1  # rows that share a label

    def given(self, below: Activation | None, seed: int = 0) -> Numbers:
        """x before the activation below, the cotangent c of y, labels, and parameters, none of which is 0."""
        rng = np.random.default_rng((self.seed, seed))
        given: Numbers = {
            "x": rng.standard_normal((ROWS, self.layer.inputs)),
            "c": rng.standard_normal((ROWS, self.layer.width)),
        }
        if self.layer.classes():
            given["labels"] = rng.integers(0, self.layer.classes(), ROWS // self.each)
        for name, p in self.params.items():
            a = np.asarray(p.start(rng) if callable(p.start) else p.start + np.zeros(p.shape), dtype=np.float64)
            given[name] = a + (0.3 if p.trainable else 0.1) * rng.uniform(0.1, 1, p.shape)
        return given

    def context(self, given: Numbers, training: bool = True) -> Context:
        return Context(training, given.get("labels"))

    def rows_below(self, k: Kernels, given: Numbers, below: Activation | None) -> Rows:
        """What the layer below made: y = f(a)."""
        if below is None:
            return Rows(given["x"], below)
        a = given["x"]
        y = k.new(*a.shape)
        y[...] = below.forward(a)
        return Rows(y, below, a if below.reads_a else None)

    def bound(self, given: Numbers, g: Numbers | None = None) -> list[Bound]:
        return [Bound(self.layer, {name: given[name] for name in self.params}, g or {})]

    def run(self, k: Kernels, given: Numbers, below: Activation | None) -> Numbers:
        """Forward and backward on these kernels: y, and every gradient."""
        g = self.gradients_before(k)
        p = {name: given[name] for name in self.params}  # where a running statistic moves
        y, back = self.layer.forward(k, p, self.rows_below(k, given, below), self.context(given))
        kept = y.y.copy()
        c = k.new(*given["c"].shape)
        c[...] = given["c"]
        d = back(k.end(c, y), g)
        k.finish()
        found = {"y": kept, **{f"d{name}": g[name] for name in self.learned}}
        found |= {name: p[name] for name in self.params if name not in self.learned}  # as they are now
        return found if below is None else {**found, "dx": d}

    def gradients_before(self, k: Kernels) -> Numbers:
        """NaN, which must be overwritten; 0 for those of another layer, which are added to."""
        g = {name: k.new(*p.shape) for name, p in self.params.items()}
        for name, a in g.items():
            a.fill(0.0 if name in self.shared else np.nan)
        return g


def _check_says(layer: Layer, name: str) -> None:
    """What the layer says of itself."""
    for what in ("inputs", "width"):
        size = getattr(layer, what)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name}: {what} must be a whole number, at least 1, not {size!r}")
    params = list(layer.params())
    if sum(int(np.prod(p.shape)) for p in params) + layer.inputs + layer.width > LARGEST:
        raise ValueError(f"{name}: check a smaller one, of less than {LARGEST:,} numbers")
    names = [p.name for p in params]
    if len(set(names)) < len(names):
        raise ValueError(f"{name}: two parameters have one name, among {', '.join(names)}")
    for p in params:
        _check_start(p, name)


def _check_start(p: Param, name: str) -> None:
    drawn = p.start(np.random.default_rng(0)) if callable(p.start) else p.start
    if callable(p.start) and np.shape(drawn) != p.shape:
        raise ValueError(f"{name}: {p.name} starts in the shape {np.shape(drawn)}, but has {p.shape}")
    if not np.isfinite(drawn).all():
        raise ValueError(f"{name}: {p.name} starts with numbers that are not finite")


def _check_pass(case: _Case, below: Activation | None, name: str) -> None:
    """Shapes, what is written and what is left alone."""
    k, given = Reference(np, "float64"), case.given(below)
    g, x = case.gradients_before(k), case.rows_below(k, given, below)
    p = {key: given[key] for key in case.params}
    read = {"x": x.y, **({} if x.a is None else {"a": x.a}), **p}
    found: list[Any] = []
    check_left_alone(read, lambda: found.append(case.layer.forward(k, p, x, case.context(given))), f"{name}: forward")
    y, back = found[0]
    assert isinstance(y, Rows), f"{name}: forward must return Rows, not {type(y).__name__}"
    assert isinstance(y.f, Activation), f"{name}: forward must say the activation that made y, not {y.f!r}"
    shape = (ROWS, case.layer.width)
    assert y.y.shape == shape, f"{name}: y has shape {y.y.shape}, not {shape}"
    if y.f.reads_a:
        assert y.a is not None, f"{name}: the slope of {y.f.name} reads a, which forward must hand on beside y"
        np.testing.assert_array_equal(y.f.forward(y.a), y.y, err_msg=f"{name}: y is not {y.f.name} of the a beside it")
    learned = {"x": x.y, **{key: p[key] for key in case.learned}}
    da = k.end(given["c"].copy(), y)
    check_left_alone(learned, lambda: found.append(back(da, g)), f"{name}: backward")
    k.finish()
    for key in case.learned:
        assert np.isfinite(g[key]).all(), f"{name}: backward does not overwrite the gradient of {key}"
    for key in set(case.params) - set(case.learned):
        assert np.isnan(g[key]).all(), f"{name}: backward writes a gradient of {key}, which gets none"
    if below is not None:
        shape = getattr(found[1], "shape", None)
        assert shape == x.y.shape, f"{name}: backward returns the shape {shape}, not {x.y.shape} as x"


def _check_holds_nothing(case: _Case, name: str) -> None:
    """A pass within another changes nothing for that: results belong to the pass, not to the layer."""
    below = one_of_each_kind()[0]
    outer, inner = case.given(below), case.given(below, seed=1)
    expected = case.run(Reference(np, "float64"), outer, below)
    k = Reference(np, "float64")
    g = case.gradients_before(k)
    y, back = case.layer.forward(k, case.bound(outer)[0].p, case.rows_below(k, outer, below), case.context(outer))
    case.run(Reference(np, "float64"), inner, below)
    d = back(k.end(outer["c"].copy(), y), g)
    k.finish()
    for key, a in {"dx": d, **{f"d{key}": g[key] for key in case.learned}}.items():
        same = np.array_equal(a, expected[key])
        assert same, f"{name}: holds results between calls: {key} is another after a pass of other numbers in between"


def _check_rows_are_alone(case: _Case, name: str) -> None:
    """Outside of training a row's y does not depend on the other rows: chunks of any size may be worked on."""
    given = case.given(LINEAR)
    few = {**given, "x": given["x"][: case.each]}
    if "labels" in given:
        few["labels"] = given["labels"][:1]
    y = [
        case.layer.forward(k, case.bound(g)[0].p, Rows(g["x"], LINEAR), case.context(g, training=False))[0].y
        for g, k in ((given, Reference(np, "float64")), (few, Reference(np, "float64")))
    ]
    off = float(np.abs(y[0][: case.each] - y[1]).max())
    assert off <= 1e-12 * (1 + np.abs(y[0]).max()), f"{name}: outside of training y depends on other rows, by {off:.1e}"


def _check_second_backward(case: _Case, name: str) -> None:
    """Through `layers.layer.forward`, which every model goes through."""
    k, given = Reference(np, "float64"), case.given(LINEAR)
    bound = case.bound(given, case.gradients_before(k))
    y, back = forward(k, bound, Rows(given["x"], LINEAR), case.context(given))
    back(np.zeros_like(y))
    try:
        back(np.zeros_like(y))
    except RuntimeError:
        return
    raise AssertionError(f"{name}: a second backward pass is not refused")
