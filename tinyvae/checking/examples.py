"""Small instances of a part, made from what its fields say: so whatever lies in a folder is checked, without a list.

An option that is a whole number gets small ones, a choice (`Literal`) each of its choices, an activation one of each
kind. What a part refuses with a ValueError is left out.
"""

import dataclasses
import itertools
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar

import numpy as np

from tinyvae import layers, objectives, parts
from tinyvae.layers.dense import Dense
from tinyvae.layers.layer import Layer
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.objectives.objective import Objective
from tinyvae.ops.activations import ACTIVATIONS, Activation

T = TypeVar("T")
COUNTS, NUMBERS = (0, 1, 2, 3), (0.3, 2.0)
IMAGES = (
    (5, 4, 3),
    (4, 7, 1),
    (3, 3, 2),
)  # odd and even sides, so that strides leave remainders; one and more channels
TRIES = 200


def all_layers(seed: int = 0) -> Iterator[Layer]:
    """Examples of every layer in the folder."""
    for cls in _classes(layers, Layer):
        yield from examples(cls, seed)


def all_objectives(seed: int = 0) -> Iterator[Objective]:
    """Examples of every objective in the folder."""
    for cls in _classes(objectives, Objective):
        yield from examples(cls, seed)


def _classes(folder: types.ModuleType, base: type[T]) -> list[type[T]]:
    return [parts.class_of(folder, base, name) for name in parts.names(folder, base)]


def examples(cls: type[T], seed: int = 0) -> list[T]:
    """The part with its defaults, and with each value of each option; where that needs others beside it, with these.

    Raises TypeError for an option of which it does not know what it may be, and that has no default.
    """
    rng = np.random.default_rng(seed)
    kinds = typing.get_type_hints(cls)
    fields = [f for f in dataclasses.fields(cls) if f.init]  # pyright: ignore[reportArgumentType]
    values = {f.name: _values(kinds[f.name], f, cls) for f in fields}
    needed = [f.name for f in fields if f.default is f.default_factory]
    found = {text(e): e for e in [_first(cls, {}, needed, values, rng)] if e is not None}
    for name, value in ((name, value) for name, each in values.items() for value in each):
        example = _first(cls, {name: value}, needed, values, rng)
        if example is not None:
            found.setdefault(text(example), example)
    return list(found.values())


def text(part: Any) -> str:
    """The part in a few words, for the name of a check."""
    return parts.text_of(part, {id(other): name for name, other in inside(part).items()})


def inside(part: Any) -> dict[str, Layer]:
    """Layers among its options, by a name."""
    return {type(v).__name__.lower(): v for v in vars(part).values() if isinstance(v, Layer)}


def one_of_each_kind() -> list[Activation]:
    """Of all activations none, a smooth one, a kinked one, and one whose slope reads a: what the kernels tell apart."""
    return list({(a.identity, a.kinked, a.reads_a): a for a in reversed(ACTIVATIONS.values())}.values())


def data(likelihood: Likelihood, rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Data that the likelihood allows, in float64: real numbers, counts, what lies in [0, 1], or else what it draws."""
    for x in (rng.standard_normal(shape), rng.poisson(3.0, shape).astype(float), rng.uniform(0, 1, shape)):
        try:
            likelihood.check(float(x.min()), float(x.max()), bool((x == np.floor(x)).all()))
            likelihood.check_rows(x)
        except ValueError:
            continue
        return x
    own = {p.name: np.full(p.shape, p.start(rng) if callable(p.start) else p.start) for p in likelihood.own(shape[-1])}
    return likelihood.draw(own, rng.standard_normal((*shape[:-1], likelihood.output_width(shape[-1]))), rng)


def _values(kind: Any, field: Any, cls: type) -> Sequence[Any]:
    options = [k for k in typing.get_args(kind) if k is not types.NoneType] or [kind]
    if typing.get_origin(kind) is Literal:
        return options
    if Activation in options:  # if it may be None, it says how weights start, which no pass asks
        return [] if types.NoneType in typing.get_args(kind) else [a.name for a in one_of_each_kind()]
    first = options[0]
    if typing.get_origin(kind) is tuple:
        return IMAGES
    if first is bool:
        return (False, True)
    if first is int:
        return COUNTS
    if first is float:
        return NUMBERS
    if isinstance(first, type) and issubclass(first, Layer):
        return (Dense(3, 4, "tanh"),)
    if field.default is field.default_factory:
        raise TypeError(
            f"{cls.__name__}: the checks cannot guess what its option {field.name} may be: give it a default"
        )
    return ()


def _first(
    cls: type[T], given: dict[str, Any], needed: list[str], values: dict[str, Sequence[Any]], rng: np.random.Generator
) -> T | None:
    """The part with what is given, drawing what is needed and at last the other options too, until it is accepted."""
    for attempt in itertools.count():
        drawn = needed if attempt < TRIES else list(values)
        try:
            chosen = {name: _draw(values[name], rng) for name in drawn if name not in given and values[name]}
            return _accepted(cls(**chosen, **given))
        except ValueError:
            if attempt == 2 * TRIES:
                return None
    return None


def _draw(values: Sequence[Any], rng: np.random.Generator) -> Any:
    return values[int(rng.integers(len(values)))]


def _accepted(part: T) -> T:
    """Raises ValueError for a layer without numbers."""
    if isinstance(part, Layer) and (min(part.inputs, part.width) < 1 or any(0 in p.shape for p in part.params())):
        raise ValueError("a layer without numbers")
    return part
