"""beta-TC-VAE (Chen et al. 2018, equation 4): the KL in three parts, of which the total correlation is weighed by beta.

    loss = mean over the rows of  nll + [log q(z|x) - log q(z)]                 what z tells of x
                                      + beta [log q(z) - sum_j log q(z_j)]      total correlation
                                      + [sum_j log q(z_j) - log p(z)]           each dimension's KL

At beta = 1 that is nll + log q(z|x) - log p(z): the ELBO with the KL at the one draw of z instead of its mean.

q(z) is the mean of q(z|x) over the data set. From a batch of n of its N rows (minibatch-weighted sampling, their
equation S3), with g_imj = log q(z_ij|x_m) = -((z_ij - mu_mj)^2 e^-s_mj + s_mj) / 2, s = logvar, where log 2 pi is left
away since every difference above has it on both sides:

    log q(z_i) ~ log (1 / n N) sum_m exp sum_j g_imj        log q(z_ij) ~ log (1 / n N) sum_m exp g_imj

N only moves the loss by a constant, (beta - 1) (latent - 1) log n N. With the shares P_im, the softmax over m of
sum_j g_imj, and R_imj, that of g_imj,

    d loss / d g_imj = ((beta - 1) (P_im - R_imj) + [i = m]) / n

    u_imj = (z_ij - mu_mj) e^(-s_mj / 2)     dg/dmu = u e^(-s/2)     dg/dz = -u e^(-s/2)     dg/ds = (u^2 - 1) / 2

and -log p(z) = sum_j z_j^2 / 2 hands z_ij / n to z. This is array code: each call makes arrays of shape
(n, n, latent).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tinyvae.backend import Array
from tinyvae.kernels.contract import Kernels, kept
from tinyvae.objectives.objective import Objective, Partials, Posterior, Terms
from tinyvae.ops.gaussian import kl_forward

FAR = 1e18  # |u| beyond it is cut off: its square is finite in float32 too, and e^-u^2 is 0 long before


@dataclass(frozen=True)
class BetaTC(Objective):
    """beta-TC-VAE, of one draw for each row; the kl beside the loss is the ELBO's.

    beta   weight of the total correlation
    rows   of the data set; training fills it in. None: as many as the batch has
    """

    beta: float = 6.0
    rows: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for an impossible option."""
        if not 0 <= self.beta < float("inf"):
            raise ValueError(f"beta must be at least 0 and finite, not {self.beta}")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows must be at least 1, not {self.rows}")

    def on(self, rows: int) -> "BetaTC":
        """On a data set of so many rows, if it has not been said already."""
        return replace(self, rows=rows) if self.rows is None else self

    def forward(self, k: Kernels, nll: Array, q: Posterior) -> tuple[Terms, Callable[[], Partials]]:
        """See the top of this file. Raises ValueError for more than one draw."""
        if q.draws != 1:
            raise ValueError(f"beta-tc takes one draw of z for each row, not {q.draws}")
        xp, n = k.xp, q.mu.shape[0]
        root = xp.exp(-0.5 * q.logvar)  # (n, latent): e^(-s/2), one over sigma
        u = xp.clip((q.z[:, None] - q.mu) * root, -FAR, FAR)  # (n, n, latent): of z_i from mu_m
        g = -0.5 * (u * u + q.logvar)  # (n, n, latent)
        joint = g.sum(axis=2)  # (n, n)
        log_q, P = _log_sum(xp, joint)  # (n,) and (n, n)
        log_q_each, R = _log_sum(xp, g)  # (n, latent) and (n, n, latent)
        own = xp.arange(n)
        log_ratio = joint[own, own] + 0.5 * (q.z * q.z).sum(axis=1)  # (n,): log q(z|x) - log p(z)
        log_nN = math.log(n) + math.log(self.rows or n)
        correlation = log_q - log_nN - (log_q_each - log_nN).sum(axis=1)  # (n,)
        loss = nll + log_ratio + (self.beta - 1) * correlation
        kl = kl_forward(q.mu, q.logvar).sum(axis=1)
        terms = Terms(*(kept(k, a.mean().reshape(1)) for a in (loss, nll, kl)))

        def backward() -> Partials:
            dg = ((self.beta - 1) / n) * (P[:, :, None] - R)  # (n, n, latent)
            dg[own, own] += 1 / n
            du = dg * u * root  # (n, n, latent)
            dlogvar = (dg * (0.5 * (u * u - 1))).sum(axis=0)
            dz = q.z / n - du.sum(axis=1)
            return Partials(kept(k, du.sum(axis=0)), kept(k, dlogvar), z=kept(k, dz))

        return terms, backward


def _log_sum(xp: Any, a: Array) -> tuple[Array, Array]:
    """log sum_m e^a and its slope, the shares e^a / sum_m e^a: over axis 1."""
    w = a - a.max(axis=1, keepdims=True)
    xp.exp(w, out=w)
    total = w.sum(axis=1, keepdims=True)
    return (a.max(axis=1) + xp.log(total[:, 0])), w / total
