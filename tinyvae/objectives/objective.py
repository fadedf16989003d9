"""What is minimized: a number made of what a pass of the model gives, and its slope by each of these.

An objective knows the loss nll of every draw, and the posterior q: mu, logvar, the noise eps and z. It does not know
the model: that z depends on mu and logvar, and nll on z, is for the VAE to know. It returns its partial derivatives as
if these were independent.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

from tinyvae import parts
from tinyvae.backend import Array
from tinyvae.kernels.contract import Kernels


class Posterior(NamedTuple):
    """q(z|x) of n rows, and K draws of z for each, those of a row side by side."""

    mu: Array  # (n, latent)
    logvar: Array  # (n, latent)
    eps: Array  # (n K, latent)
    z: Array  # (n K, latent)

    @property
    def draws(self) -> int:
        """K."""
        return self.z.shape[0] // self.mu.shape[0]


class Terms(NamedTuple):
    """Means over the n rows, in nats: arrays (1,). loss is what is minimized, nll and kl are shown beside it."""

    loss: Array
    nll: Array
    kl: Array


class Partials(NamedTuple):
    """d loss / d each of what the objective was given, the others held still. None: 0, but for nll."""

    mu: Array | None = None  # (n, latent); or (n K, latent), to be added up over a row's draws
    logvar: Array | None = None  # likewise
    nll: Array | None = None  # (n K, 1); None: 1 / n K each, the mean
    z: Array | None = None  # (n K, latent)
    z_scale: Array | None = None  # (n K, 1): what the decoder hands to z is multiplied by it; None: 1


@dataclass(frozen=True)
class Objective:
    """The base of every objective. Its fields are its options."""

    replayed: ClassVar[bool] = False  # see `Layer`
    captured: ClassVar[bool] = False  # whether the captured step on a GPU can minimize it

    @property
    def samples(self) -> int:
        """K: how many draws of z each row needs."""
        return 1

    @property
    def is_derivative(self) -> bool:
        """Whether the partials are the derivative of the loss. Else what reaches mu and logvar has the mean of that
        over the noise, and so is a gradient as well; the partial by nll, which the decoder gets, is the derivative.
        """
        return True

    def sides(self, q: Posterior) -> Array | None:
        """On which side of each of its kinks the loss is, as booleans: a finite difference across one means nothing.

        None: it has none.
        """

    def at(self, epochs: float) -> "Objective":
        """The objective after so many epochs of training (a fraction within one): for what changes on the way."""
        return self

    def on(self, rows: int) -> "Objective":
        """The objective on a data set of so many rows."""
        return self

    def measured(self) -> "Objective":
        """What is measured on data that is not trained on: the objective at the end of training, without what only
        training asks for."""
        return self

    def numbers(self) -> tuple[float, ...]:
        """Its numbers that change from step to step, for the captured step."""
        return ()

    def check(self, has_batch_norm: bool) -> None:
        """Raises ValueError if a model with batch normalization cannot be trained by it."""

    def forward(self, k: Kernels, nll: Array, q: Posterior) -> tuple[Terms, Callable[[], Partials]]:
        """nll (n K,), in nats, and q -> the loss, and its partial derivatives."""
        raise NotImplementedError

    def formula(self) -> str:
        """Its loss in a few words."""
        return parts.text_of(self)

    def describe(self) -> dict[str, Any]:
        """Its options by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
