"""The evidence lower bound (Kingma & Welling 2014, equation 10), with beta (Higgins et al. 2017) and free bits.

    loss = mean nll + beta sum_j charged_j        charged_j = max(free_bits, mean KL_j)

    dnll = 1 / n        dKL_ij = beta / n where the mean of KL_j is above free_bits, else 0

A dimension below its allowance costs a constant, so nothing pushes it to collapse (Kingma et al. 2016, the paper on
inverse autoregressive flow, with one group per dimension). The KL is in closed form: see `ops.gaussian`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from tinyvae.backend import Array
from tinyvae.formula import formula, maximum, where
from tinyvae.kernels.contract import Kernels
from tinyvae.loop import Loop
from tinyvae.objectives.objective import Objective, Partials, Posterior, Terms
from tinyvae.ops.gaussian import kl_backward, kl_forward


@formula
def loss_of(nll, kl, beta, nll_share, share):
    """A row's part of the loss."""
    return nll_share * nll + beta * (share * kl)


@formula
def nll_of(nll, nll_share):
    """A row's part of the mean nll."""
    return nll_share * nll


@formula
def kl_of(kl, share):
    """A row's part of the mean KL."""
    return share * kl


@formula
def charged(kl, share, free_bits):
    """What a dimension costs, from the sum of its KL over the rows."""
    return maximum(share * kl, free_bits)


@formula
def slope_of_charged(kl, share, free_bits, beta):
    """d loss / d KL of each row."""
    return where(share * kl > free_bits, beta * share, 0.0)


@formula
def with_charge(nll, charge, beta):
    """The loss of free bits."""
    return nll + beta * charge


KL = Loop(outputs=[kl_backward], sums=[kl_forward])
MEANS = Loop(sums=[loss_of, nll_of, kl_of])
NLL_MEAN, KL_MEAN, ROW_SUMS = Loop(sums=[nll_of]), Loop(sums=[kl_of]), Loop(sums=[formula(lambda nll: nll)])
KL_OF_COLUMNS, KL_BACKWARD = Loop(columns=[kl_forward]), Loop([kl_backward])
CHARGE, SLOPE, CHARGED = Loop(sums=[charged]), Loop([slope_of_charged]), Loop([with_charge])


@dataclass(frozen=True)
class ELBO(Objective):
    """Minus the evidence lower bound.

    beta          weight of the KL
    beta_warmup   epochs in which beta rises to that from 0, in a straight line
    free_bits     KL that each latent dimension has free of charge, in nats
    draws         of z for each row, over which nll is averaged
    """

    replayed: ClassVar = True

    beta: float = 1.0
    beta_warmup: float = 0
    free_bits: float = 0.0
    draws: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for an impossible option."""
        for name in ("beta", "beta_warmup", "free_bits"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, not {getattr(self, name)}")
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1, not {self.draws}")

    @property
    def samples(self) -> int:
        """K."""
        return self.draws

    def sides(self, q: Posterior) -> Array | None:
        """Which dimensions are above their allowance."""
        return kl_forward(q.mu, q.logvar).mean(axis=0) > self.free_bits if self.free_bits else None  # (latent,)

    def at(self, epochs: float) -> "ELBO":
        """With beta on its way."""
        if not self.beta_warmup:
            return self
        return replace(self, beta=self.beta * min(1.0, epochs / self.beta_warmup), beta_warmup=0)

    def measured(self) -> "ELBO":
        """Without free bits, and with all of beta."""
        return replace(self, beta_warmup=0, free_bits=0.0)

    @property
    def captured(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """With one draw."""
        return self.draws == 1

    def formula(self) -> str:
        """nll + beta kl."""
        return f"nll + {self.beta:g} kl"

    def numbers(self) -> tuple[float, ...]:
        """beta."""
        return (self.beta,)

    def forward(self, k: Kernels, nll: Array, q: Posterior) -> tuple[Terms, Callable[[], Partials]]:
        """See the top of this file."""
        if self.free_bits:
            return self._charged(k, nll, q)
        n = q.mu.shape[0]
        dmu, dlogvar, kl = k.map(KL, dkl=self.beta / n, mu=q.mu, logvar=q.logvar)  # kl: (n,)
        if q.draws > 1:
            nll = k.map(ROW_SUMS, nll=nll.reshape(n, -1))
        terms = k.map(MEANS, nll=nll, kl=kl, beta=self.beta, nll_share=1 / (n * q.draws), share=1 / n)
        return Terms(*terms), lambda: Partials(dmu, dlogvar)

    def _charged(self, k: Kernels, nll: Array, q: Posterior) -> tuple[Terms, Callable[[], Partials]]:
        share = 1 / q.mu.shape[0]
        kl = k.map(KL_OF_COLUMNS, mu=q.mu, logvar=q.logvar)  # (latent,): sums over the rows
        charge = k.map(CHARGE, kl=kl, share=share, free_bits=self.free_bits)  # (1,)
        nll_mean = k.map(NLL_MEAN, nll=nll, nll_share=1 / len(nll))
        kl_mean = k.map(KL_MEAN, kl=kl, share=share)
        loss = k.map(CHARGED, nll=nll_mean, charge=charge, beta=self.beta).reshape(1)

        def backward() -> Partials:
            dkl = k.map(SLOPE, kl=kl, share=share, free_bits=self.free_bits, beta=self.beta).reshape(-1)  # (latent,)
            return Partials(*k.map(KL_BACKWARD, dkl=dkl, mu=q.mu, logvar=q.logvar))

        return Terms(loss, nll_mean, kl_mean), backward
