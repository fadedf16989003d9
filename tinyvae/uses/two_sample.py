r"""Were two samples drawn from one distribution? The energy distance, and its permutation test.

For independent X, X' ~ P and Y, Y' ~ Q, with |.| the Euclidean length,

    D(P, Q) = 2 E|X - Y| - E|X - X'| - E|Y - Y'|   >= 0,   and 0 only if P = Q

(Szekely & Rizzo 2013, "Energy statistics: a class of statistics based on distances"). With samples x_1..x_n and
y_1..y_m in the place of P and Q (a V-statistic: the zeros |x_i - x_i| count):

    D = 2/(n m) sum |x_i - y_j| - 1/n^2 sum |x_i - x_j| - 1/m^2 sum |y_i - y_j|   =   - w' A w

where A holds the distances between all n + m rows, and w is 1/n at the rows of x and -1/m at those of y. D has the
unit of the data. It does not change if both samples are moved or turned together, and it scales with them. In one
dimension it is twice the integral of (F - G)^2, the squared difference of the distribution functions.

Under "P = Q" any n of the n + m rows could have been x. So the p-value is the share of shuffled splits that are at
least as far apart as the real one, the real one among them (Phipson & Smyth 2010, "Permutation p-values should never be
zero"): at most a share alpha of all such tests then says p <= alpha.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyvae.backend import as_generator
from tinyvae.model.description import checked_count

BLOCK = 50  # permutations done at once; between them, progress is told


class TwoSample(NamedTuple):
    """What a permutation test found."""

    distance: float  # the energy distance, in the unit of the data
    p_value: float  # probability of a distance at least as large if both samples have one distribution


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """D between samples x (n, data) and y (m, data). Needs 8 (n + m)^2 bytes three times over.

    Raises ValueError if they are not two matrices of one width, with at least one row each, all finite.
    """
    rows = _pooled(x, y)
    w = _weights(len(x), len(y))  # (n + m,)
    return max(0.0, float(-w @ _distances(rows) @ w))  # it is never negative but by round-off


def permutation_test(
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator | int,
    permutations: int = 999,
    progress: Callable[[int], None] = lambda done: None,
) -> TwoSample:
    """The energy distance between x (n, data) and y (m, data), and its p-value.

    rng, a generator or a seed, shuffles the rows; the p-value is a multiple of 1 / (permutations + 1). progress is
    called with the number of permutations done. Raises ValueError as `energy_distance` does, and for fewer than one
    permutation.
    """
    permutations, rng = checked_count("permutations", permutations), as_generator(rng)
    rows = _pooled(x, y)
    A, w = _distances(rows), _weights(len(x), len(y))  # (n + m, n + m), (n + m,)
    real = float(-w @ A @ w)
    # Splits that are alike but for the order of the sum count as alike: w'Aw has about N roundings per term.
    round_off = len(w) * np.finfo(np.float64).eps * float(np.abs(w) @ A @ np.abs(w))
    at_least = 0
    for done in range(0, permutations, BLOCK):
        count = min(BLOCK, permutations - done)
        W = rng.permuted(np.tile(w, (count, 1)), axis=1)  # (count, n + m): each row a shuffled w
        shuffled = -np.einsum("ij,ij->i", W @ A, W)  # (count,)
        at_least += int((shuffled >= real - round_off).sum())
        progress(done + count)
    return TwoSample(max(0.0, real), (1 + at_least) / (1 + permutations))


def save_overlay(path: Path, data: np.ndarray, samples: np.ndarray) -> None:
    """A PNG at `path` of data (n, 2) and samples (m, 2) on top of each other, in two colours.

    The points are drawn in one shuffled order, so that neither colour covers the other.
    Raises OSError if the picture cannot be written, ValueError if these are no points of the plane.
    """
    from tinyvae.training.drawing import Figure, own_style  # here: matplotlib takes a while, and the statistics do
    from tinyvae.training.figures import HELD_OUT, TRAIN, save_figure  # without it

    points = _pooled(data, samples)  # (n + m, 2)
    if points.shape[1] != 2:
        raise ValueError(f"points of the plane are needed, (rows, 2), not {data.shape} and {samples.shape}")
    colours = np.repeat([TRAIN, HELD_OUT], [len(data), len(samples)])  # (n + m,)
    order = np.random.default_rng(0).permutation(len(points))
    with own_style():
        figure = Figure(figsize=(5.6, 5.2), layout="constrained")
        axes = figure.subplots()
        axes.scatter(*points[order].T, s=8, c=colours[order].tolist(), alpha=0.5, linewidths=0)
        for label, colour in (
            (f"{len(data):,} points of data", TRAIN),
            (f"{len(samples):,} draws of the model", HELD_OUT),
        ):
            axes.plot([], [], "o", ms=5, color=colour, label=label)
        axes.set(title="Data and samples, one over the other", xlabel="x1", ylabel="x2", aspect="equal")
        axes.legend(loc="upper left", fontsize=9)
        axes.grid(alpha=0.3)
        save_figure(figure, path)


def _weights(n: int, m: int) -> np.ndarray:
    """1/n for each of the first n rows, -1/m for each of the other m.  -> (n + m,)"""
    return np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])


def _distances(rows: np.ndarray) -> np.ndarray:
    """|a - b| for all pairs of rows.  (N, data) -> (N, N).

    From differences, not from |a|^2 + |b|^2 - 2 ab: a common shift then costs no digits.
    """
    squares = np.zeros((len(rows), len(rows)))
    for column in rows.T:  # (N,)
        squares += np.square(column[:, None] - column[None, :])
    return np.sqrt(squares, out=squares)


def _pooled(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Both samples as one matrix (n + m, data), or ValueError."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or 0 in (len(x), len(y)):
        raise ValueError(f"two samples of one width are needed, (n, data) and (m, data), not {x.shape} and {y.shape}")
    rows = np.concatenate([x, y])
    if not np.isfinite(rows).all():
        raise ValueError("the samples hold NaN or infinite values")
    return rows
