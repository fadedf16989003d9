"""Batch normalization, and then the activation: y = f(scale h + shift). Derived in `ops.normalization`; tutorial 12."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from tinyvae.formula import Formula, formula
from tinyvae.kernels.contract import Kernels, Rows
from tinyvae.kernels.ends import COLUMN_SUMS
from tinyvae.layers.layer import Backward, Context, Layer, Param, Views
from tinyvae.loop import Loop
from tinyvae.ops.activations import Activation, activation
from tinyvae.ops.normalization import batch_norm_da, inverse_root, normalized, running_average, scaled_and_shifted


@formula
def square_around(a, m):
    """(a - m)^2."""
    return (a - m) * (a - m)


@formula
def times(a, factor):
    """a factor."""
    return a * factor


@formula
def root_of_share(squares, factor):
    """r from the sum of squares."""
    return inverse_root(squares * factor)


@formula
def da_times_h(da, a, m, r):
    """da h."""
    return da * normalized(a, m, r)


@formula
def itself(da):
    """da."""
    return da


@formula
def through(da, a, m, r, scale, dscale, dshift, share):
    """The gradient before the normalization."""
    return batch_norm_da(da, normalized(a, m, r), r, scale, dscale, dshift, share)


SQUARES = Loop(columns=[square_around])
TIMES, ROOT, ROOT_OF_SHARE = Loop([times]), Loop([inverse_root]), Loop([root_of_share])
SUMS, THROUGH, MOVED = Loop(columns=[da_times_h, itself]), Loop([through]), Loop([running_average])


@cache
def _activated(f: Activation) -> Loop:
    y = Formula(
        lambda *n: f.forward(scaled_and_shifted(*n)), inputs=scaled_and_shifted.inputs, name=f"{f.name} of norm"
    )
    return Loop([scaled_and_shifted, y] if f.reads_a else [y])


@dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """y = f(scale h + shift), h = the columns of x at mean 0 and variance 1; columns are channels, or dense outputs.

    x (rows, inputs), seen as (rows places, columns) -> (rows, inputs). In training by the batch's own mean and
    variance, else by their running averages. These are moved on in the backward pass, which is gone once in a training
    step, and not in the forward pass, which may be only a look. Raises ValueError if inputs are no multiple of columns.
    """

    replayed: ClassVar = True

    inputs: int
    columns: int
    f: str | Activation = "linear"

    def __post_init__(self) -> None:
        if self.columns < 1 or self.inputs % self.columns:
            raise ValueError(f"batch normalization of {self.columns} columns cannot take {self.inputs} numbers a row")

    @property
    def width(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As many as it takes."""
        return self.inputs

    def params(self) -> Iterator[Param]:
        """bias (the shift), scale, and the running statistics, all (columns,)."""
        shape = (self.columns,)
        yield Param("bias", shape, 0.0)
        yield Param("scale", shape, 1.0)
        yield Param("running_mean", shape, 0.0, trainable=False)
        yield Param("running_var", shape, 1.0, trainable=False)

    def forward(self, k: Kernels, p: Views, x: Rows, context: Context) -> tuple[Rows, Backward]:
        """The columns' mean and squares, one pass each; then h, y and f in a third. Back: the sums, then da_below."""
        f = activation(self.f)
        a = x.y.reshape(-1, self.columns)  # (rows places, columns)
        n = a.shape[0]
        if context.training:
            m = k.map(TIMES, a=k.map(COLUMN_SUMS, a=a), factor=1 / n).reshape(-1)
            squares = k.map(SQUARES, a=a, m=m)  # (columns,)
            r = k.map(ROOT_OF_SHARE, squares=squares, factor=1 / n).reshape(-1)
        else:
            m, squares, r = p["running_mean"], None, k.map(ROOT, v=p["running_var"]).reshape(-1)
        made = k.map(_activated(f), a=a, m=m, r=r, scale=p["scale"], shift=p["bias"])
        y = Rows(made[1], f, made[0]) if f.reads_a else Rows(made, f)

        def backward(da, g):
            if squares is None:
                raise RuntimeError("the way back through batch normalization begins with a forward pass in training")
            da, dscale, dshift = da.reshape(a.shape), g["scale"], g["bias"]
            k.map(SUMS, da=da, a=a, m=m, r=r, columns=(dscale, dshift))
            given = {"scale": p["scale"], "dscale": dscale, "dshift": dshift, "share": 1 / n}
            dx = k.map(THROUGH, da=da, a=a, m=m, r=r, **given)
            mean, var = (p[name].reshape(1, -1) for name in ("running_mean", "running_var"))
            k.map(MOVED, average=mean, new=m, out=(mean,))
            if n > 1:  # a single row knows nothing of the variance
                unbiased = k.map(TIMES, a=squares, factor=1 / (n - 1))  # algorithm 2 of the paper
                k.map(MOVED, average=var, new=unbiased, out=(var,))
            return k.end(dx.reshape(x.y.shape), x)

        return y.reshape(*x.y.shape), backward
