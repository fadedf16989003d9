"""Mixed: a table whose columns are of different kinds. p(x|z) is the product of its members' p over their own columns.

    mixed:columns=gaussian*2+bernoulli*1+categorical*4+negative-binomial*3

The first two columns are real numbers, then comes one of 0s and 1s, then a group of four one-hot columns, then three
counts. The decoder makes all numbers of the first member, then those of the next. The loss is the sum of the members';
slopes, means, draws and parameters lie side by side. A member without a `*` has all columns that are left.

A member may have an option of its own, as in `gaussian:sigma=predicted*2`. Where it has none, columns of real numbers
have a sigma or a scale each: height and weight have no unit in common.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tinyvae import likelihoods, parts
from tinyvae.backend import Array, array_module, to_host
from tinyvae.formula import formula
from tinyvae.kernels.contract import Kernels
from tinyvae.layers.layer import Param, Views
from tinyvae.likelihoods.likelihood import Likelihood, Slopes
from tinyvae.loop import Loop


@formula
def itself(a):
    """a."""
    return a


COPY = Loop([itself])


class Member(NamedTuple):
    """A likelihood, and how many columns are its own; None: those that are left."""

    name: str
    likelihood: Likelihood
    columns: int | None


class Place(NamedTuple):
    """Where a member's numbers stand: in x, and in what the decoder says."""

    likelihood: Likelihood
    columns: slice
    output: slice
    prefix: str  # of its own parameters' names


@lru_cache
def members_of(text: str) -> tuple[Member, ...]:
    """The members that the text names. Raises ValueError."""
    found = []
    for said in text.split("+"):
        kind, star, count = said.partition("*")
        name = kind.partition(":")[0]
        if name not in likelihoods.names() or name == parts.name_of(Mixed):
            others = ", ".join(n for n in likelihoods.names() if n != parts.name_of(Mixed))
            raise ValueError(
                f"columns must be KIND*COUNT with + between them, where KIND is one of {others}, not {said!r}"
            )
        if star and not (count.isdecimal() and int(count) > 0):
            raise ValueError(f"columns: {said!r} must end in * and how many columns there are, at least 1")
        likelihood = likelihoods.likelihood(kind)
        found.append(Member(name, likelihood if ":" in kind else likelihood.apart(), int(count) if star else None))
    if sum(member.columns is None for member in found) > 1:
        raise ValueError(f"columns={text}: only one kind can have the columns that are left; give the others a *COUNT")
    return tuple(found)


@dataclass(frozen=True)
class Mixed(Likelihood):
    """Columns of different kinds.

    columns   which, from left to right: KIND*COUNT with + between them
    """

    columns: str = "gaussian"

    outputs: ClassVar = ("numbers",)
    replayed: ClassVar = True  # as all that lie in this folder
    by_rows: ClassVar = True
    bytes: ClassVar = "counts"

    def __post_init__(self) -> None:
        """Raises ValueError for columns that cannot be."""
        for member in members_of(self.columns):
            if member.columns is not None:
                member.likelihood.output_width(member.columns)

    @property
    def discrete(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """If all are."""
        return all(member.likelihood.discrete for member in members_of(self.columns))

    def places(self, data_dim: int) -> list[Place]:
        """Of each member. Raises ValueError if the columns do not add up to those of the data."""
        return _places(self.columns, data_dim)

    def output_width(self, data_dim: int) -> int:
        """All that the members need."""
        return self.places(data_dim)[-1].output.stop

    def some_columns(self, wanted: int) -> int:
        """Those that are said, and for a member that has what is left what it can have."""
        members = members_of(self.columns)
        said = sum(member.columns or 0 for member in members)
        left = [m.likelihood.some_columns(max(1, wanted - said)) for m in members if m.columns is None]
        return said + sum(left)

    def shared(self) -> "Mixed":
        """Of the members' own; one that has none keeps its words."""
        text = []
        for said, member in zip(self.columns.split("+"), members_of(self.columns), strict=True):
            own, star = member.likelihood.shared(), said.partition("*")[1:]
            text.append(said if own == member.likelihood else "".join((parts.text_of(own), *star)))
        return replace(self, columns="+".join(text))

    def own(self, data_dim: int) -> Iterator[Param]:
        """Those of the members, in front of each its kind and its place among them: gaussian.0.logvar."""
        for of, columns, _, prefix in self.places(data_dim):
            for p in of.own(columns.stop - columns.start):
                yield p._replace(name=f"{prefix}{p.name}")

    def _each(self, data_dim: int, *named: Any) -> Iterator[tuple[Any, ...]]:
        """Each member's place, and its own part of mappings from names."""
        for place in self.places(data_dim):
            of = [
                {name.removeprefix(place.prefix): a for name, a in views.items() if name.startswith(place.prefix)}
                for views in named
            ]
            yield (place, *of)

    # ---------------------------------------------------------------------------------------------------------- passes

    def loss(self, k: Kernels, p: Views, output: Array, x: Array, missing: bool = False) -> Array:
        """The sum of the members' losses of each row."""
        return _sum(k, [
            at.likelihood.loss(k, own, output[:, at.output], x[:, at.columns], missing)
            for at, own in self._each(x.shape[1], p)
        ])  # fmt: skip

    def slope(self, k: Kernels, p: Views, output: Array, x: Array, missing: bool = False) -> tuple[Array, Array]:
        """The loss of each row, and its slope."""
        doutput, losses = k.new(*output.shape), []
        for at, own in self._each(x.shape[1], p):
            nll, slope = at.likelihood.slope(k, own, output[:, at.output], x[:, at.columns], missing)
            k.map(COPY, a=slope, out=(doutput[:, at.output],))
            losses.append(nll)
        return _sum(k, losses), doutput

    def forward(
        self, k: Kernels, p: Views, output: Array, x: Array, each: float, missing: bool = False
    ) -> tuple[Array, Slopes]:
        """The loss of each row, and the members' ways back."""
        made = [
            (at, at.likelihood.forward(k, own, output[:, at.output], x[:, at.columns], each, missing))
            for at, own in self._each(x.shape[1], p)
        ]
        data_dim = x.shape[1]

        def backward(weight: Array | None, g: Views) -> Array:
            doutput = k.new(*output.shape)
            for (at, own), (_, (_, back)) in zip(self._each(data_dim, g), made, strict=True):
                k.map(COPY, a=back(weight, own), out=(doutput[:, at.output],))
            return doutput

        return _sum(k, [nll for _, (nll, _) in made]), backward

    def encoded(self, k: Kernels, x: Array, missing: bool = False) -> Array:
        """What each member says of its columns."""
        seen = k.new(*x.shape)
        for at in self.places(x.shape[1]):
            k.map(COPY, a=at.likelihood.encoded(k, x[:, at.columns], missing), out=(seen[:, at.columns],))
        return seen

    def observed(self, x: Array) -> Array:
        """As the members see it."""
        found = [at.likelihood.observed(x[:, at.columns]) for at in self.places(x.shape[1])]
        return array_module(x).concatenate(found, axis=1)

    def unseen(self, x: Array) -> Array:
        """As the members see it."""
        found = [at.likelihood.unseen(x[:, at.columns]) for at in self.places(x.shape[1])]
        return array_module(x).concatenate(found, axis=1)

    # ------------------------------------------------------------------------------------------------------------ data

    def check(self, smallest: float, largest: float, whole: bool | None = None) -> None:
        """Columns differ: see `check_rows`."""

    def check_rows(self, x: Array) -> None:
        """Raises ValueError for a column that its member cannot have made."""
        xp = array_module(x)
        for at in self.places(x.shape[1]):
            own = x[:, at.columns]
            unknown = xp.isnan(own)
            low, high = (float(to_host(a)) for a in _extent(xp, own, unknown))
            try:
                if low <= high:  # else nothing was observed
                    at.likelihood.check(low, high, bool(to_host(((own == xp.floor(own)) | unknown).all())))
                at.likelihood.check_rows(own)
            except ValueError as error:
                first, last, kind = at.columns.start, at.columns.stop - 1, parts.text_of(at.likelihood)
                raise ValueError(f"columns {first} to {last} ({kind}), counted from {first}: {error}") from error

    def members(self, data_dim: int) -> list[tuple[Likelihood, slice]]:
        """One after the other."""
        return [(at.likelihood, at.columns) for at in self.places(data_dim)]

    def real(self, data_dim: int) -> np.ndarray:
        """Those of the members."""
        return np.concatenate([of.real(at.stop - at.start) for of, at in self.members(data_dim)])

    def start(self, x: np.ndarray) -> np.ndarray:
        """Of each member; 0 where one does not mind."""
        found = []
        for at in self.places(x.shape[1]):
            start = at.likelihood.start(x[:, at.columns])
            found.append(np.zeros(at.output.stop - at.output.start) if start is None else start)
        return np.concatenate(found)

    def _from_members(self, p: Views, output: Array, what: str, *more: Any) -> list[Array]:
        data_dim = self._data_dim(output.shape[1])
        return [getattr(at.likelihood, what)(own, output[:, at.output], *more) for at, own in self._each(data_dim, p)]

    def mean(self, p: Views, output: Array) -> Array:
        """Of each member."""
        return array_module(output).concatenate(self._from_members(p, output, "mean"), axis=1)

    def draw(self, p: Views, output: Array, rng: np.random.Generator) -> np.ndarray:
        """Of each member, one after the other."""
        return np.concatenate(self._from_members(p, output, "draw", rng), axis=1)

    def information(self, p: Views, output: Array) -> Array:
        """Of each member."""
        return array_module(output).concatenate(self._from_members(p, output, "information"), axis=1)

    def curvature(self, p: Views, output: Array, J: Array) -> Array:
        """The sum of the members'."""
        data_dim = self._data_dim(output.shape[1])
        return sum(
            at.likelihood.curvature(own, output[:, at.output], J[:, :, at.output])
            for at, own in self._each(data_dim, p)
        )

    def log_p_of_pairs(self, p: Views, output: Array, x: Array) -> Array:
        """The sum of the members'."""
        found: Any = 0.0
        for at, own in self._each(x.shape[1], p):
            found = found + at.likelihood.log_p_of_pairs(own, output[:, at.output], x[:, at.columns])
        return found

    def _data_dim(self, width: int) -> int:
        """How many columns of data so many numbers of the decoder are for."""
        members = members_of(self.columns)
        said = sum(m.likelihood.output_width(m.columns) for m in members if m.columns is not None)
        left = [(width - said) // len(m.likelihood.outputs) for m in members if m.columns is None]
        return sum(m.columns or 0 for m in members) + sum(left)


@lru_cache
def _places(text: str, data_dim: int) -> list[Place]:
    members = members_of(text)
    said = sum(member.columns or 0 for member in members)
    left = data_dim - said
    if left < 0 or (left == 0) != all(member.columns is not None for member in members):
        raise ValueError(
            f"columns={text} are {said} columns{' and more' if left <= 0 else ''}, but the data has {data_dim}"
        )
    found, column, output = [], 0, 0
    for i, (name, likelihood, count) in enumerate(members):
        count = left if count is None else count
        width = likelihood.output_width(count)
        place = slice(column, column + count), slice(output, output + width)
        found.append(Place(likelihood, *place, f"{name}.{i}."))
        column, output = column + count, output + width
    return found


def _extent(xp: Any, x: Array, unknown: Array) -> tuple[Array, Array]:
    """The smallest and the largest number of those that are known."""
    return xp.where(unknown, xp.inf, x).min(), xp.where(unknown, -xp.inf, x).max()


def _sum(k: Kernels, losses: list[Array]) -> Array:
    """Of each row.  (rows,) each -> (rows,)"""
    total = losses[0]
    for nll in losses[1:]:
        k.map(COPY, a=nll.reshape(1, -1), into=(total.reshape(1, -1),))
    return total
