"""What independent columns have: a model that knows each column by itself, and nothing of how columns go together.

Each column has its own distribution of the likelihood's kind, by maximum likelihood over the rows to learn from: what
the decoder would say of all rows alike, and a parameter of its own for each column. A VAE that is worse than this has
learned nothing, or something wrong. For a Gaussian it is sum_j (log(2 pi e var_j)) / 2 on its own rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae import kernels as kernel_files
from tinyvae.backend import get_backend
from tinyvae.likelihoods.likelihood import Likelihood

ROWS = 2000  # to learn from: a column has one number or two
GOLDEN = (np.sqrt(5) - 1) / 2
STEPS = 50  # of the search: 0.618^50 of where it began
WIDEST = 20.0  # of a logarithm


def independent_nll(likelihood: Likelihood, learned_from: np.ndarray, x: np.ndarray) -> np.ndarray:
    """-log p of each row under independent columns, in nats: (rows, data), NaN where not observed -> (rows,).

    Both in the units that the likelihood computes in.
    """
    total = np.zeros(len(x))
    few = learned_from[np.linspace(0, len(learned_from) - 1, min(len(learned_from), ROWS)).round().astype(int)]
    with np.errstate(all="ignore"):  # what overflows ends as infinity
        for of, columns in likelihood.members(x.shape[1]):
            total += _one_kind(of.shared().apart(), few[:, columns], x[:, columns])
    return total


def _one_kind(of: Likelihood, few: np.ndarray, x: np.ndarray) -> np.ndarray:
    data_dim = x.shape[1]
    own = {p.name: np.full(p.shape, p.start if not callable(p.start) else 0.0) for p in of.own(data_dim)}
    said = of.start(few)
    if said is None:
        low, high = np.nanmin(few, axis=0, initial=0), np.nanmax(few, axis=0, initial=0)
        said = _lowest(lambda o: _columns(of, own, o, few), low, high)
    for name, value in own.items():
        ends = np.full(value.shape, -WIDEST), np.full(value.shape, WIDEST)
        if value.shape == (data_dim,):
            own[name] = _lowest(lambda s, n=name: _columns(of, {**own, n: s}, said, few), *ends)
    k: Any = kernel_files.select("reference", get_backend("numpy"), "float64")[1]()
    k.begin()
    return np.array(of.loss(k, own, np.tile(said, (len(x), 1)), np.ascontiguousarray(x), missing=True))


def _columns(of: Likelihood, own: dict[str, np.ndarray], said: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The loss of each column, (data,), where the decoder says the same of all rows."""
    given = of.inputs(own, said[None], x, of.nll)
    return np.nansum(of.nll(*given.values()), axis=0)


def _lowest(f: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where f is the lowest between these ends, by golden sections, for all columns at once."""
    low, high = low.astype("float64"), high.astype("float64")
    a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_a, at_b = f(a), f(b)
    for _ in range(STEPS):
        left = at_a <= at_b
        low, high = np.where(left, low, a), np.where(left, b, high)
        new = np.where(left, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
        at_new = f(new)
        a, b, at_a, at_b = (
            np.where(left, new, b), np.where(left, a, new), np.where(left, at_new, at_b), np.where(left, at_a, at_new),
        )  # fmt: skip
    return (low + high) / 2
