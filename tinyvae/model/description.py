"""What a model is, apart from its numbers: its layers by name, its likelihood, and the labels it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from tinyvae import parts
from tinyvae.backend import to_host
from tinyvae.layers.layer import Layer, Param
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.model.params import Shapes


class Named(NamedTuple):
    """A layer and the name that its parameters begin with. Batch normalization has the name of the layer before it."""

    name: str
    layer: Layer


@dataclass(frozen=True)
class Description:
    """The base of `Architecture` (the usual models, by a few numbers) and `Composed` (layers one by one)."""

    data_dim: int
    latent_dim: int
    likelihood: Likelihood
    classes: int

    def plain_activation(self) -> str | None:
        """The name of the activation of all hidden layers, if these are dense and there is nothing else: what the
        captured step on a GPU is made for. Else None."""
        return None

    def options(self) -> dict[str, Any]:
        """What a run says of its model, by the names of the command's options."""
        return {
            "latent": self.latent_dim, "likelihood": parts.text_of(self.likelihood), "conditional": self.classes > 0,
            "hidden": (),
        }  # fmt: skip

    def halves(self) -> tuple[list[Named], list[Named]]:
        """The layers of the encoder and of the decoder."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        raise NotImplementedError

    def as_arguments(self) -> str:
        """As the arguments of a call of `VAE`."""
        raise NotImplementedError

    def params(self) -> list[tuple[str, Param]]:
        """All parameters by their whole names, in the order of the flat buffer."""
        encoder, decoder = self.halves()
        found = [(f"{name}.{p.name}", p) for name, layer in (*encoder, *decoder) for p in layer.params()]
        found += [(f"likelihood.{p.name}", p) for p in self.likelihood.own(self.data_dim)]
        names = [name for name, _ in found]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two parameters are called {twice}")
        return found

    def shapes(self) -> Shapes:
        """The name and shape of every parameter, in the order of the flat buffer."""
        return {name: p.shape for name, p in self.params()}

    @property
    def has_batch_norm(self) -> bool:
        """Whether something in it keeps running statistics: then the rows of a batch are not independent."""
        return any(not p.trainable for _, p in self.params())

    def check_labels(self, y: Any, rows: int) -> None:
        """Raises ValueError if a conditional model gets no labels y (rows,) in 0..classes-1, or another model any."""
        if not self.classes:
            if y is not None:
                raise ValueError("the model is not conditional: it takes no labels y")
            return
        if y is None:
            raise ValueError(f"the model is conditional: it needs labels y, whole numbers from 0 to {self.classes - 1}")
        if getattr(y, "shape", None) != (rows,) or y.dtype.kind not in "iu":
            raise ValueError(f"labels must be {rows} whole numbers, one for each row, not {_kind(y)}")
        low, high = int(to_host(y.min())), int(to_host(y.max()))
        if low < 0 or high >= self.classes:
            raise ValueError(
                f"labels must lie in 0..{self.classes - 1}, as in training, but they reach from {low} to {high}"
            )

    def check_support(self, smallest: float, largest: float, whole: bool | None = None) -> None:
        """Raises ValueError if data between these two numbers is impossible under the likelihood (NaN always is).

        whole: all of it are whole numbers (None: not known).
        """
        if not (abs(smallest) < float("inf") and abs(largest) < float("inf")):
            raise ValueError("the data holds NaN or infinite values")
        self.likelihood.check(smallest, largest, whole)

    def check_values(self, x: np.ndarray) -> None:
        """`check_support` of numbers at hand, NaN where not observed; of rows (rows, data) also
        `Likelihood.check_rows`. Raises ValueError, also if nothing was observed."""
        known = x[~np.isnan(x)]
        if not known.size:
            raise ValueError("the data holds NaN alone: no number was observed")
        whole = bool((known == np.floor(known)).all()) if self.likelihood.discrete else None
        self.check_support(float(known.min()), float(known.max()), whole)
        if x.ndim == 2:
            self.likelihood.check_rows(x)


def check_widths(encoder: Sequence[Named], decoder: Sequence[Named], likelihood: Likelihood) -> tuple[int, int]:
    """data_dim and latent_dim of a model of these layers. Raises ValueError where two do not fit together."""
    if not encoder or not decoder:
        raise ValueError("a model needs at least one layer in its encoder and one in its decoder")
    head = encoder[-1].layer.width
    if head % 2:
        raise ValueError(f"{encoder[-1].name} makes mu and logvar: its width must be even, not {head}")
    data_dim, width = encoder[0].layer.inputs, encoder[0].layer.inputs
    for half, begins in ((encoder, data_dim), (decoder, head // 2)):
        width = begins
        for name, layer in half:
            if min(layer.inputs, layer.width) < 1:
                raise ValueError(f"{name} must take and make at least 1 number, not {layer.inputs} and {layer.width}")
            if layer.inputs != width:
                raise ValueError(f"{name} takes {layer.inputs} numbers, but what comes before it makes {width}")
            width = layer.width
    needed = likelihood.output_width(data_dim)
    if width != needed:
        raise ValueError(
            f"{decoder[-1].name} makes {width} numbers, but the likelihood needs {' and '.join(likelihood.outputs)} "
            f"for each of {data_dim}: {needed}"
        )
    return data_dim, head // 2


def checked_count(name: str, count: Any) -> int:
    """A width, or a number of rows, draws or steps. Raises ValueError unless it is a whole number, at least 1."""
    if isinstance(count, (bool, np.bool_)) or not isinstance(count, Integral) or count < 1:
        raise ValueError(f"{name} must be a whole number, at least 1, not {count!r}")
    return int(count)


def _kind(y: Any) -> str:
    return f"{y.dtype} {y.shape}" if hasattr(y, "dtype") else type(y).__name__
