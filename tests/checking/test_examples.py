"""Examples of a part are made from what its fields say, and of a part that they cannot guess they say so."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

from tinyvae import likelihoods
from tinyvae.checking import examples
from tinyvae.layers import Dense, Layer
from tinyvae.objectives.objective import Objective
from tinyvae.ops.activations import ACTIVATIONS, LINEAR, Activation


@dataclass(frozen=True)
class Sort(Objective):
    """One option of each kind; three and no beta do not go together."""

    which: Literal["one", "three"] = "one"
    beta: float = 0.0
    draws: int = 1
    sorted: bool = False
    rows: int | None = None

    def __post_init__(self) -> None:
        if self.which == "three" and not self.beta:
            raise ValueError("three needs a beta")
        if self.draws < 1:
            raise ValueError("draws")


def test_each_value_of_each_option_is_there_and_what_is_refused_comes_with_others() -> None:
    found = examples.examples(Sort)
    assert found[0] == Sort()
    assert {part.which for part in found} == {"one", "three"}
    assert {part.sorted for part in found} == {False, True}
    assert {part.draws for part in found} >= {1, 2, 3}
    assert {part.beta for part in found} >= {0.0, *examples.NUMBERS}
    assert {part.rows for part in found} >= {None, 1, 2, 3}
    assert len({examples.text(part) for part in found}) == len(found)


def test_examples_are_the_same_at_each_call_and_others_with_another_seed() -> None:
    texts = lambda seed: [examples.text(layer) for layer in examples.all_layers(seed)]
    assert texts(0) == texts(0)
    assert texts(0) != texts(1)


@dataclass(frozen=True, eq=False)
class Mine(Layer):
    """With an option of which nobody can guess what it is."""

    inputs: int
    shape: dict[str, Any]

    @property
    def width(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inputs


def test_what_cannot_be_guessed_is_said() -> None:
    with pytest.raises(
        TypeError, match="Mine: the checks cannot guess what its option shape may be: give it a default"
    ):
        examples.examples(Mine)


def test_one_activation_of_each_kind() -> None:
    found = examples.one_of_each_kind()
    assert LINEAR in found
    kinds = {(a.kinked, a.reads_a) for a in found if a is not LINEAR}
    assert kinds == {(a.kinked, a.reads_a) for a in ACTIVATIONS.values() if a is not LINEAR}
    assert all(isinstance(a, Activation) for a in found)


@pytest.mark.parametrize("name", likelihoods.names())
def test_data_is_what_the_likelihood_allows(name: str) -> None:
    likelihood = likelihoods.likelihood(name)
    x = examples.data(likelihood, np.random.default_rng(0), 20, 3)
    assert x.shape == (20, 3)
    likelihood.check(float(x.min()), float(x.max()), bool((x == np.floor(x)).all()))
    likelihood.check_rows(x)


def test_a_layer_among_the_options_has_the_name_of_its_kind() -> None:
    assert examples.text(Dense(3, 4, "tanh")) == "dense:inputs=3,width=4,f=tanh"
    tied = next(layer for layer in examples.all_layers() if layer.shares())
    assert examples.text(tied).startswith("tied:of=dense,inputs=")
    assert list(examples.inside(tied)) == ["dense"]
