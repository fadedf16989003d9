"""A dense layer that sees labels is a dense layer of [x, onehot]."""

from typing import Any

import numpy as np
import pytest
from planted import Plant, assert_killed, instead
from strategies import EVERY_FUSED, assert_within, eps_of, sampled

from layers.running import parameters, run
from tinyvae.kernels.contract import Kernels
from tinyvae.kernels.reference import Reference
from tinyvae.layers import Dense, Labelled

EVERY = ["reference", *EVERY_FUSED]
CLASSES, LABELS = 5, np.array([3, 0, 3, 1])  # nobody has 2 or 4
OFF = 200 * eps_of("float64")  # sums of less than 10 terms of size 10


def agrees(
    kernels: str = "reference", draws: int = 1, bias: bool = True, f: str = "tanh", kind: Any = np.int64
) -> None:
    """With `draws` rows to a label, side by side."""
    layer, plain = Labelled(3, 2, f, bias=bias, count=CLASSES), Dense(3 + CLASSES, 2, f, bias=bias)
    p, rng = parameters(layer), np.random.default_rng(1)
    rows = len(LABELS) * draws
    x, dy = rng.standard_normal((rows, 3)), rng.standard_normal((rows, 2))
    joined = np.hstack([x, np.eye(CLASSES)[np.repeat(LABELS, draws)]])
    expected = run(plain, joined, p, dy)
    got = run(layer, x, p, dy, labels=LABELS.astype(kind), kernels=kernels)
    assert_within(got.y, expected.y, OFF)
    assert_within(got.dx, expected.dx[:, :3], OFF)
    for name, a in expected.g.items():
        assert_within(got.g[name], a, OFF)
    assert not got.g["weight"][3 + np.array([2, 4])].any()


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernels", EVERY)
def test_it_is_a_dense_layer_of_x_and_the_one_hot_label(kernels: str, bias: bool, draws: int) -> None:
    agrees(kernels, draws, bias)


@pytest.mark.parametrize("f", ["linear", "relu", "swish"])
def test_whatever_the_activation(f: str) -> None:
    agrees(f=f)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("kernels", EVERY)
def test_labels_may_be_any_whole_numbers(kernels: str, kind: Any) -> None:
    agrees(kernels, kind=kind)


def test_where_the_labels_weights_are_0_they_change_nothing() -> None:
    layer = Labelled(3, 2, count=CLASSES)
    p = parameters(layer)
    p["weight"][3:] = 0
    x = np.random.default_rng(1).standard_normal((4, 3))
    np.testing.assert_array_equal(run(layer, x, p, labels=LABELS).y, run(layer, x, p, labels=LABELS[::-1]).y)


def test_without_labels_or_for_no_label_it_is_refused() -> None:
    layer = Labelled(3, 2, count=CLASSES)
    with pytest.raises(ValueError, match="a layer of this model needs labels y"):
        run(layer, np.zeros((4, 3)), parameters(layer))
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        Labelled(3, 2, count=0)


def changed_labels(change: Any) -> Plant:
    """The product sees other labels than those of the rows; so does the gradient."""
    forward = Labelled.forward
    return instead(
        Labelled, "forward", lambda self, k, p, x, context: forward(self, k, p, x, context._replace(
            labels=change(context.labels))))  # fmt: skip


def first_rows(k: Kernels, labels: Any, da: Any, table: Any) -> None:
    """One row for each label, and not the sum of them."""
    table[...] = 0
    table[labels] = da[: len(labels)]


BUGS = {
    "off by one": changed_labels(lambda y: (y + 1) % CLASSES),
    "those of the first row for all": changed_labels(lambda y: y * 0 + y[0]),
    "a row of the gradient in place of their sum": instead(Reference, "scatter", first_rows),
    "dx of the labels too": instead(
        Labelled, "forward", lambda self, k, p, x, context, true=Labelled.forward: (
            lambda y, back: (y, lambda da, g: (back(da, g), k.back(da, p["weight"][2:5], x))[1]))(
                *true(self, k, p, x, context))),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, BUGS[bug], agrees)
