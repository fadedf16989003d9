"""Categorical: groups of one-hot columns, from logits l. In each group exactly one x is 1, with probability softmax(l).

    nll = sum over groups of logsumexp(l) - l_hot = sum over columns of x (logsumexp(l of its group) - l)
    dnll/dl = softmax(l) - x                      Fisher's information of a group: diag(p) - p p^T

With M the largest logit of a group, logsumexp(l) = M + log sum e^(l - M): no e^ is larger than 1, and one of them is 1
(`tinyvae.ops.groups`). A group of which any number is NaN was not observed.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from tinyvae.backend import Array, array_module, to_host
from tinyvae.formula import Formula, exp, formula, isnan, log, where
from tinyvae.kernels.contract import Kernels
from tinyvae.layers.layer import Views
from tinyvae.likelihoods.likelihood import WEIGHTED, Factors, Likelihood, Slopes
from tinyvae.likelihoods.support import totals
from tinyvae.loop import Loop
from tinyvae.ops.groups import Groups, group_sum, log_sum_exp_forward, softmax, starts


@formula
def over_the_largest(logits, largest):
    """e^(l - M)."""
    return exp(logits - largest)


@formula
def categorical_nll(logits, largest, total, x):
    """x (M + log total - l), in nats; total: the sum of e^(l - M) over the group."""
    return x * ((largest - logits) + log(total))


@formula
def categorical_dlogits(dnll, share, total, x):
    """dlogits = dnll (softmax(l) - x); share: e^(l - M)."""
    return dnll * (share / total - x)


def _if_observed(f: Formula) -> Formula:
    """f, and 0 where a group was not observed: `seen` is the sum of its x, which is NaN then."""
    return Formula(
        lambda seen, *numbers: where(isnan(seen), 0.0, f(*numbers)), inputs=("seen", *f.inputs), name=f.__name__
    )


@formula
def known(seen, x):
    """x, or 0 where its group was not observed."""
    return where(isnan(seen), 0.0, x)


SHARE, KNOWN = Loop([over_the_largest]), Loop([known])
LOSS = {False: Loop(sums=[categorical_nll]), True: Loop(sums=[_if_observed(categorical_nll)])}
BOTH = {
    False: Loop([categorical_dlogits], [categorical_nll]),
    True: Loop([_if_observed(categorical_dlogits)], [_if_observed(categorical_nll)]),
}


@dataclass(frozen=True)
class Categorical(Likelihood):
    """One-hot columns.

    groups   the widths of groups of neighbouring columns, as in "3+4+2"; "10": all groups are that wide; "": one group
    """

    groups: str = ""

    outputs: ClassVar = ("logits",)
    replayed: ClassVar = True
    by_rows: ClassVar = True
    interval: ClassVar = (0.0, 1.0)
    discrete: ClassVar = True
    bytes: ClassVar = "codes"

    def __post_init__(self) -> None:
        """Raises ValueError for groups that are no widths."""
        self._said()

    def _said(self) -> Groups:
        try:
            said = tuple(int(width) for width in self.groups.split("+")) if self.groups else ()
        except ValueError:
            said = (0,)
        if min(said, default=1) < 1:
            raise ValueError(
                f"groups must be widths with + between them, as in 3+4+2, or one width, not {self.groups!r}"
            )
        return said

    def widths(self, data_dim: int) -> Groups:
        """Of all groups. Raises ValueError if the columns cannot be divided so."""
        first, *others = self._said() or (data_dim,)
        found = (first, *others) if others else (first,) * (data_dim // first)
        if sum(found) != data_dim:
            raise ValueError(
                f"groups={self.groups} of one-hot columns do not make the {data_dim} columns of the data: the widths "
                "must add up to that, or a single one must divide it"
            )
        return found

    def output_width(self, data_dim: int) -> int:
        """A logit for each column. Raises ValueError if the groups are no division of them."""
        return sum(self.widths(data_dim))

    def some_columns(self, wanted: int) -> int:
        """As the groups say."""
        first, *others = self._said() or (wanted,)
        return first + sum(others) if others else -(-wanted // first) * first

    # ---------------------------------------------------------------------------------------------------------- passes

    def _given(self, k: Kernels, output: Array, x: Array, missing: bool) -> dict[str, Any]:
        groups = self.widths(output.shape[1])
        largest = k.group_max(output, groups)
        share = k.map(SHARE, logits=output, largest=largest)
        given = {"logits": output, "largest": largest, "share": share, "total": k.group_sum(share, groups), "x": x}
        return {**given, "seen": k.group_sum(x, groups)} if missing else given

    def loss(self, k: Kernels, p: Views, output: Array, x: Array, missing: bool = False) -> Array:
        """-log p(x|z) of each row, in nats."""
        given = self._given(k, output, x, missing)
        return k.map(LOSS[missing], **{name: given[name] for name in LOSS[missing].inputs})

    def _both(self, k: Kernels, output: Array, x: Array, each: float, missing: bool) -> tuple[Array, Array]:
        given, doutput = self._given(k, output, x, missing), k.new(*output.shape)
        given["dnll"] = each
        made = k.map(BOTH[missing], out=(doutput,), **{name: given[name] for name in BOTH[missing].inputs})
        return made[1], doutput

    def slope(self, k: Kernels, p: Views, output: Array, x: Array, missing: bool = False) -> tuple[Array, Array]:
        """The loss of each row, and its slope."""
        return self._both(k, output, x, 1.0, missing)

    def forward(
        self, k: Kernels, p: Views, output: Array, x: Array, each: float, missing: bool = False
    ) -> tuple[Array, Slopes]:
        """The loss of each row, and the way back."""
        nll, doutput = self._both(k, output, x, each, missing)

        def backward(weight: Array | None, g: Views) -> Array:
            return doutput if weight is None else k.map(WEIGHTED, slope=doutput, weight=weight, out=(doutput,))

        return nll, backward

    def encoded(self, k: Kernels, x: Array, missing: bool = False) -> Array:
        """x, and 0s for a group that was not observed."""
        return k.map(KNOWN, seen=k.group_sum(x, self.widths(x.shape[1])), x=x) if missing else x

    def observed(self, x: Array) -> Array:
        """Whole groups."""
        return ~array_module(x).isnan(group_sum(x, self.widths(x.shape[1])))

    # ------------------------------------------------------------------------------------------------------------ data

    def check(self, smallest: float, largest: float, whole: bool | None = None) -> None:
        """Raises ValueError for what is no 0 or 1."""
        if smallest < 0 or largest > 1 or whole is False:
            raise ValueError(
                f"the data lies in [{smallest:g}, {largest:g}], but a categorical likelihood needs one-hot columns of "
                "0s and 1s; codes 0, 1, ..., n - 1 become n columns: x = np.eye(n)[codes]"
            )

    def check_rows(self, x: Array) -> None:
        """Raises ValueError unless each group of each row holds one 1 and else 0s, or NaN."""
        xp, groups = array_module(x), self.widths(x.shape[1])
        wrong = ((x != 0) & (x != 1) & ~xp.isnan(x)) | (xp.abs(group_sum(x, groups) - 1) > 0)  # (rows, data)
        if bool(to_host(wrong.any())):
            row, column = np.argwhere(to_host(wrong))[0]
            first, end = next((a, b) for a, b in pairwise(starts(groups)) if a <= column < b)
            held = ", ".join(f"{float(v):g}" for v in to_host(x[row, first:end])[:8])
            raise ValueError(
                f"columns {first} to {end - 1} of row {row} are {held}{', ...' if end - first > 8 else ''}, but a "
                "categorical likelihood needs one 1 among 0s in each group (groups=WIDTH+WIDTH+... says where these "
                "begin), or NaN where it was not observed"
            )

    def start(self, x: np.ndarray) -> np.ndarray:
        """The logarithm of how often each column is the hot one, with half a count more."""
        groups = self.widths(x.shape[1])
        total, count = totals(np.where(self.observed(x), x, np.nan))
        return np.log((total + 0.5) / (count + 0.5 * np.repeat(groups, groups)))

    def mean(self, p: Views, output: Array) -> Array:
        """softmax(l)."""
        return softmax(output, self.widths(output.shape[1]))

    def draw(self, p: Views, output: Array, rng: np.random.Generator) -> np.ndarray:
        """One-hot rows: hot is the largest of l + noise, where the noise is Gumbel's (Gumbel 1954)."""
        output = to_host(output)
        noisy, x = output + rng.gumbel(size=output.shape), np.zeros_like(output)
        for first, end in pairwise(starts(self.widths(output.shape[1]))):
            x[np.arange(len(x)), first + noisy[:, first:end].argmax(axis=1)] = 1
        return x

    def information(self, p: Views, output: Array) -> Array:
        """p (1 - p)."""
        probability = self.mean(p, output)
        return probability * (1 - probability)

    def curvature(self, p: Views, output: Array, J: Array) -> Array:
        """J (diag(p) - p p^T) J^T, of each group: the logits of a group go together."""
        probability = self.mean(p, output.astype("float64"))  # (rows, data)
        found = (J * probability[:, None]) @ J.transpose(0, 2, 1)
        for first, end in pairwise(starts(self.widths(output.shape[1]))):
            mean = (J[:, :, first:end] * probability[:, None, first:end]).sum(axis=2)  # (rows, latent)
            found = found - mean[:, :, None] * mean[:, None]
        return found

    def factors(self, p: Views, output: Array, x: Array) -> Factors:
        """x (l - logsumexp(l))."""
        log_p = output - log_sum_exp_forward(output, self.widths(output.shape[1]))
        return Factors([(x, log_p)], 0 * log_p, 0.0)
