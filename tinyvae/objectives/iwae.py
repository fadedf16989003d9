"""The importance-weighted bound (Burda et al. 2016, equation 8), and three estimators of its gradient.

    log w_k = -nll_k + log p(z_k) - log q(z_k|x)        loss = -mean over the rows of log (1/K) sum_k w_k
    d loss / d log w_k = -s_k / n,    s_k = w_k / sum_j w_j

The derivation of log p - log q at z = mu + sigma eps is in `ops.importance`: (eps^2 + logvar - z^2) / 2 summed.

    estimator   d nll     dz                                         directly to logvar
    iwae        s / n     decoder's + s z / n                        -s / 2n
    stl         s / n     decoder's + s (z - eps / sigma) / n        0
    dreg        s / n     s (decoder's) + s^2 (z - eps / sigma) / n  0

`iwae` is the derivative of the loss. The others are no derivatives: they leave away terms whose mean is 0, and so their
noise. `stl` (Roeder et al. 2017, "Sticking the landing") holds q's own parameters still in log q; at K > 1 that is
biased (Tucker et al. 2019, section 4), so it is for K = 1. `dreg` (Tucker et al. 2019, equation 8) gives the encoder's
gradient a second factor s; the decoder's is that of `iwae`. Holding q's parameters still, d(-log q)/dz = eps / sigma.
It takes the rows of the decoder to be independent, which they are not under batch normalization.

A draw whose share of 1 is less than half of float64's last digit is left out: its gradient could change no digit of the
sum. Kept, it would be multiplied down to float32's subnormal numbers (below 1e-38), over which CPUs take many times as
long: early in training such draws are common, and whole products would wait for them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from tinyvae.backend import Array
from tinyvae.formula import exp, formula, log, where
from tinyvae.kernels.contract import Kernels
from tinyvae.loop import Loop
from tinyvae.objectives.objective import Objective, Partials, Posterior, Terms
from tinyvae.ops.gaussian import kl_forward
from tinyvae.ops.importance import log_prior_over_q, log_prior_over_q_slopes

Estimator = Literal["iwae", "stl", "dreg"]
ESTIMATORS = get_args(Estimator)
NEGLIGIBLE = 2.0**-54  # of a share: a quarter of float64's eps


@formula
def less(log_ratio, nll):
    """log w."""
    return log_ratio - nll


@formula
def relative(log_w, largest):
    """w over the largest of the row."""
    return exp(log_w - largest)


@formula
def share_of(w, total):
    """s; 0 if it is NEGLIGIBLE."""
    s = w / total
    return where(s < NEGLIGIBLE, 0, s)


@formula
def minus_bound(largest, total, log_K):
    """-log (1/K) sum_k w_k."""
    return -(largest + log(total) - log_K)


@formula
def weighted_by(a, factor):
    """a factor."""
    return a * factor


@formula
def slopes_of_loss(share, z, each):
    """dz and dlogvar of -s (log p - log q) / n."""
    return log_prior_over_q_slopes(-share * each, z)


@formula
def slope_with_q_still(share, z, eps, logvar, each):
    """dz of -s (log p - log q) / n where q's own parameters are held still."""
    return each * share * (z - eps * exp(-0.5 * logvar))


LOG_RATIO, LOG_W, RELATIVE, SHARE = Loop(sums=[log_prior_over_q]), Loop([less]), Loop([relative]), Loop([share_of])
ROW_TOTAL, BOUND, KL = Loop(sums=[formula(lambda w: w)]), Loop([minus_bound]), Loop([kl_forward])
WEIGHTED, SLOPES, SLOPE = Loop([weighted_by]), Loop([slopes_of_loss]), Loop([slope_with_q_still])


@dataclass(frozen=True)
class IWAE(Objective):
    """Minus the importance-weighted bound; nll and kl beside it are those of the ELBO on the same draws.

    draws       of z for each row, K
    estimator   of the gradient: iwae, dreg (less noise for the encoder) or stl (K = 1)
    """

    replayed: ClassVar = True

    draws: int = 5
    estimator: Estimator = "iwae"

    def __post_init__(self) -> None:
        """Raises ValueError for an impossible option."""
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1, not {self.draws}")
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}, not {self.estimator!r}")
        if self.estimator == "stl" and self.draws > 1:
            raise ValueError(f"estimator stl is biased with {self.draws} draws: take dreg, or draws=1")

    @property
    def samples(self) -> int:
        """K."""
        return self.draws

    def formula(self) -> str:
        """In words."""
        return "minus the importance-weighted bound"

    @property
    def is_derivative(self) -> bool:
        """The estimator iwae is."""
        return self.estimator == "iwae"

    def check(self, has_batch_norm: bool) -> None:
        """Raises ValueError for DReG with batch normalization."""
        if has_batch_norm and self.estimator == "dreg":
            raise ValueError("estimator dreg needs independent rows, which batch normalization mixes: take iwae")

    def forward(self, k: Kernels, nll: Array, q: Posterior) -> tuple[Terms, Callable[[], Partials]]:
        """See the top of this file."""
        n, K = q.mu.shape[0], q.draws
        log_ratio = k.map(LOG_RATIO, z=q.z, logvar=q.logvar, eps=q.eps)  # (n K,)
        log_w = k.map(LOG_W, log_ratio=log_ratio.reshape(n, K), nll=nll.reshape(n, K))
        largest = k.row_max(log_w)  # (n, 1)
        w = k.map(RELATIVE, log_w=log_w, largest=largest)
        total = k.map(ROW_TOTAL, w=w).reshape(n, 1)
        bound = k.total(k.map(BOUND, largest=largest, total=total, log_K=math.log(K)))
        kl = k.map(KL, mu=q.mu, logvar=q.logvar)  # for the record
        means = [(bound, n), (k.total(nll), n * K), (k.total(kl), n)]
        terms = Terms(*(k.map(WEIGHTED, a=a, factor=1 / count).reshape(1) for a, count in means))
        share = k.map(SHARE, w=w, total=total).reshape(n * K, 1)

        def backward() -> Partials:
            dnll = k.map(WEIGHTED, a=share, factor=1 / n)  # (n K, 1)
            if self.estimator == "iwae":
                dz, dlogvar = k.map(SLOPES, share=share, z=q.z, each=1 / n)
                return Partials(None, dlogvar, dnll, dz)
            dz = k.map(SLOPE, share=share, z=q.z, eps=q.eps, logvar=q.logvar, each=1 / n)
            if self.estimator == "stl":
                return Partials(None, None, dnll, dz)
            return Partials(None, None, dnll, k.map(WEIGHTED, a=dz, factor=share), share)

        return terms, backward
