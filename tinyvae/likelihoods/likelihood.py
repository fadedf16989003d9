"""What the decoder's numbers mean: p(x|z), one file each. What is public takes and gives x in the data's units.

A likelihood of independent numbers is written as formulas (`tinyvae.formula`) of one number x, of what the decoder says
of it (its `outputs`, by name), and of parameters of the likelihood's own:

    nll        -log p(x|z), in nats
    slopes     backward_of(nll, *outputs): d nll / d each output, times dnll
    own_slopes backward_of(nll, *own): d nll / d each own parameter, times dnll; None if it has none

The rest follows: the loss of a row is the sum over its numbers, slopes are made in the pass that makes the loss. x that
is NaN was not observed: it adds nothing to the loss, has no slope, and the encoder sees 0 in its place.

Numbers that are not independent, or not of one kind, have no such formulas. Their likelihood says `by_rows`, and has
`loss`, `slope`, `forward` and `encoded` of its own.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tinyvae.backend import Array, array_module, to_host
from tinyvae.formula import Formula, formula, isnan, where
from tinyvae.kernels.contract import Kernels
from tinyvae.layers.layer import Param, Views
from tinyvae.loop import Loop

Slopes = Callable[[Array | None, Views], Array]  # each row's weight (rows, 1), gradients -> d loss / d output


@formula
def weighted(slope, weight):
    """slope weight."""
    return slope * weight


@formula
def observed(x):
    """x, or 0 where it was not observed."""
    return where(isnan(x), 0.0, x)


WEIGHTED, WEIGHTED_SUM, WEIGHTED_COLUMNS = Loop([weighted]), Loop(sums=[weighted]), Loop(columns=[weighted])
OBSERVED = Loop([observed])


@dataclass(frozen=True)
class Likelihood:
    """The base of every likelihood. Its fields are its options."""

    outputs: ClassVar[tuple[str, ...]] = ()
    nll: ClassVar[Formula]
    slopes: ClassVar[Formula]
    own_slopes: ClassVar[Formula | None] = None
    encoder_input: ClassVar[Formula | None] = None  # what the encoder sees of x; None: x itself
    replayed: ClassVar[bool] = False  # see `Layer`
    by_rows: ClassVar[bool] = False  # whether it has passes of its own over whole rows, and no formulas of one number
    captured: ClassVar[str | None] = None  # its kernel in kernels.cu, where the captured step on a GPU has one
    scale_matters: ClassVar[bool] = False  # whether data far from unit size trains badly: real x, no counts or pixels
    interval: ClassVar[tuple[float, float] | None] = None  # where x lies, if that is bounded
    discrete: ClassVar[bool] = False  # whether e^-nll is a probability; else it is a density
    step: ClassVar[float] = 1.0  # from one value of a discrete x to the next
    bits: ClassVar[bool] = False  # whether bits for each dimension mean anything: all values of a pixel are known
    bytes: ClassVar[str] = "pixels"  # what bytes as data are: pixels (x = byte / 255), counts or codes (x = byte)

    # --------------------------------------------------------------------------------------------------- what differs

    def output_width(self, data_dim: int) -> int:
        """How many numbers the decoder must make for so many columns. Raises ValueError if these cannot be."""
        return len(self.outputs) * data_dim

    def some_columns(self, wanted: int) -> int:
        """A number of columns that can be: `wanted`, or the next that its options allow."""
        return wanted

    def own(self, data_dim: int) -> Iterator[Param]:
        """Parameters of its own, one (1,) or one for each column (data,)."""
        return iter(())

    def fixed(self) -> dict[str, float]:
        """Inputs of the formulas that are set by an option."""
        return {}

    def check(self, smallest: float, largest: float, whole: bool | None = None) -> None:
        """Raises ValueError, with what to do, if no x between these can come from p(x|z).

        whole: all x are whole numbers (None: not known).
        """

    def real(self, data_dim: int) -> np.ndarray:
        """Which columns are real numbers whose place and size it learns, (data,) truth values: data can be brought to
        mean 0 and standard deviation 1 there. None where a size is fixed: that is in the units of the data."""
        return np.full(data_dim, self.scale_matters and not self.fixed())

    def check_rows(self, x: Array) -> None:
        """Raises ValueError, with what to do, if rows x (rows, data), NaN where not observed, cannot come from p(x|z)
        although their smallest and largest number can.
        """

    def shared(self) -> "Likelihood":
        """The same, without a number of its own for each x: for so few rows that these could be copied."""
        return self

    def apart(self) -> "Likelihood":
        """The same, with a parameter of its own for each column where it has one for all: for columns without a unit in
        common.
        """
        return self

    def members(self, data_dim: int) -> "list[tuple[Likelihood, slice]]":
        """The likelihoods that it is made of, and the columns of each: itself, of all."""
        return [(self, slice(0, data_dim))]

    def start(self, x: np.ndarray) -> np.ndarray | None:
        """What the decoder should say of x (rows, columns; NaN where not observed) before it has learned anything else:
        (outputs columns,), such as the mean of each column. None: 0 will do.
        """
        return None

    def mean(self, p: Views, output: Array) -> Array:
        """E[x|z]: (rows, outputs data) -> (rows, data)."""
        raise NotImplementedError

    def draw(self, p: Views, output: Array, rng: np.random.Generator) -> np.ndarray:
        """A draw of x from p(x|z), on the host: output (rows, outputs data) -> (rows, data)."""
        raise NotImplementedError

    def information(self, p: Views, output: Array) -> Array:
        """Fisher's information of each output, E[(d nll / d output)^2] over x from p(x|z), as output."""
        raise NotImplementedError

    def curvature(self, p: Views, output: Array, J: Array) -> Array:
        """J F J^T of each row, where F is Fisher's information of all outputs together; here only their own.

        J (rows, latent, outputs data), float64 -> (rows, latent, latent)
        """
        J = J * array_module(output).sqrt(self.information(p, output).astype("float64"))[:, None]
        return J @ J.transpose(0, 2, 1)

    # ------------------------------------------------------------------------------------------------- what is the same

    def observed(self, x: Array) -> Array:
        """Which numbers of x (rows, data) have a part in the loss."""
        return ~array_module(x).isnan(x)

    def unseen(self, x: Array) -> Array:
        """Which outputs are of numbers that were not observed: (rows, data) -> (rows, outputs data)."""
        return array_module(x).concatenate([~self.observed(x)] * len(self.outputs), axis=1)

    def parts(self, output: Array) -> dict[str, Array]:
        """What the decoder says, by name: views (rows, data) on output (rows, outputs data)."""
        if len(self.outputs) == 1:
            return {self.outputs[0]: output}
        width = output.shape[1] // len(self.outputs)
        return {name: output[:, i * width : (i + 1) * width] for i, name in enumerate(self.outputs)}

    def inputs(self, p: Views, output: Array, x: Array, *formulas: Formula) -> dict[str, Any]:
        """What the formulas read, by name, but for dnll."""
        every = {**p, **self.fixed(), **self.parts(output), "x": x}
        return {name: every[name] for f in formulas for name in f.inputs if name in every}

    def bits_per_dimension(self, nats: float, data_dim: int) -> float:
        """nats of a row / (data_dim log 2), for a likelihood of which `bits` says that it means anything."""
        return nats / (data_dim * math.log(2))

    def encoded(self, k: Kernels, x: Array, missing: bool = False) -> Array:
        """What the encoder sees: (rows, data) -> (rows, data)."""
        if missing:
            x = k.map(OBSERVED, x=x)
        return x if self.encoder_input is None else k.map(_seen(self.encoder_input), x=x)

    def loss(self, k: Kernels, p: Views, output: Array, x: Array, missing: bool = False) -> Array:
        """-log p(x|z) of each row, in nats: output (rows, outputs data), x (rows / K, data) -> (rows,)."""
        return k.map(_loss(self.nll, missing), **self.inputs(p, output, x, self.nll))

    def slope(self, k: Kernels, p: Views, output: Array, x: Array, missing: bool = False) -> tuple[Array, Array]:
        """The loss of each row (rows,), and its slope by what the decoder says, as output."""
        doutput = k.new(*output.shape)
        loop = _loss_and_slopes(self.nll, self.slopes, None, (), (), missing)
        given = self.inputs(p, output, x, self.nll, self.slopes)
        return k.map(loop, dnll=1.0, out=[*self.parts(doutput).values()], **given)[-1], doutput

    def forward(
        self, k: Kernels, p: Views, output: Array, x: Array, each: float, missing: bool = False
    ) -> tuple[Array, Slopes]:
        """The loss of each row (rows,), and the way back: each row's slope, times `each` and its weight."""
        own = self.own_slopes
        names = () if own is None else own.wrt
        shared = tuple(name for name in names if p[name].size == 1)  # its gradient is a sum along the row, too
        apart = tuple(name for name in names if p[name].size > 1)
        doutput = k.new(*output.shape)
        parts = [*self.parts(doutput).values()]
        matrices = [k.new(*parts[0].shape) for _ in apart]
        loop = _loss_and_slopes(self.nll, self.slopes, own, shared, apart, missing)
        given = self.inputs(p, output, x, self.nll, self.slopes, *(() if own is None else (own,)))
        made = k.map(loop, dnll=each, out=[*parts, *matrices], **given)
        nll, *sums = made[len(parts) + len(matrices) :]  # (rows,) each

        def backward(weight: Array | None, g: Views) -> Array:
            for name, slope in zip(shared, sums, strict=True):
                along = 1.0 if weight is None else weight.reshape(1, -1)
                k.map(WEIGHTED_SUM, slope=slope.reshape(1, -1), weight=along, sums=(g[name],))
            for name, slope in zip(apart, matrices, strict=True):
                k.map(WEIGHTED_COLUMNS, slope=slope, weight=1.0 if weight is None else weight, columns=(g[name],))
            return doutput if weight is None else k.map(WEIGHTED, slope=doutput, weight=weight, out=(doutput,))

        return nll, backward

    # ------------------------------------------------------------------------------------------------------- all pairs

    def factors(self, p: Views, output: Array, x: Array) -> "Factors | None":
        """log p of a number x as a sum of products, where it is one: then all pairs are matrix products.

        None: it is not, and every pair is worked out. x holds no NaN.
        """
        return None

    def log_p_of_pairs(self, p: Views, output: Array, x: Array) -> Array:
        """log p(x_i|z_j) of every row of x under every row of the output, in nats and in float64; NaN adds nothing.

        output (M, outputs data), x (rows, data) -> (rows, M).
        """
        xp = array_module(output)
        wide = lambda a: a.astype("float64")
        p, output, x = {name: wide(a) for name, a in p.items()}, wide(output), wide(x)
        seen = self.observed(x)  # (rows, data)
        x = xp.where(seen, x, 0)
        factors = self.factors(p, output, x)
        if factors is None:
            return self._pairs(p, output, x, seen)
        whole = bool(to_host(seen.all()))
        found = factors.of_output.sum(axis=1) if whole else seen @ factors.of_output.T  # (M,), or (rows, M)
        found = found + (factors.of_x * seen).sum(axis=1, keepdims=True)
        for of_x, of_output in factors.products:
            found = found + (of_x * seen) @ of_output.T
        return found

    def _pairs(self, p: Views, output: Array, x: Array, seen: Array) -> Array:
        found = [
            -(self.nll(*self.inputs(p, output, row, self.nll).values()) * known).sum(axis=1)  # (M,)
            for row, known in zip(x, seen, strict=True)
        ]
        return array_module(output).stack(found)


class Factors(NamedTuple):
    """log p(x|o) of a number = sum of f(x) g(o) over the products + h(o) + c(x), where o is what the decoder says."""

    products: list[tuple[Array, Array]]  # f (rows, data), g (M, data)
    of_output: Array  # h (M, data)
    of_x: Any  # c (rows, data), or a number


def _where_observed(f: Formula) -> Formula:
    """f, and 0 where x was not observed."""

    def function(*numbers: Any) -> Any:
        given = dict(zip(f.inputs, numbers, strict=True))
        x = given["x"]
        value = f(*(observed(x) if name == "x" else number for name, number in given.items()))
        zero = lambda v: where(isnan(x), 0.0, v)
        return tuple(map(zero, value)) if isinstance(value, tuple) else zero(value)

    return Formula(function, inputs=f.inputs, name=f"{f.__name__} where observed")


@cache
def _seen(f: Formula) -> Loop:
    return Loop([f])


@cache
def _loss(nll: Formula, missing: bool) -> Loop:
    return Loop(sums=[_where_observed(nll) if missing else nll])


@cache
def _loss_and_slopes(
    nll: Formula, slopes: Formula, own: Formula | None, shared: tuple[str, ...], apart: tuple[str, ...], missing: bool
) -> Loop:
    """Out: the slopes of the outputs, and of own parameters that are `apart`. Sums: the loss, and those `shared`."""
    change = _where_observed if missing else lambda f: f
    of = lambda names: [] if own is None else [change(_one_of(own, name)) for name in names]
    return Loop([change(slopes), *of(apart)], [change(nll), *of(shared)])


def _one_of(own: Formula, name: str) -> Formula:
    if own.wrt == (name,):
        return own
    i = own.wrt.index(name)
    return Formula(lambda *numbers: own(*numbers)[i], inputs=own.inputs, name=f"{own.__name__}, {name}")
