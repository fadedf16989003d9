"""Importance weights as they come: their mean, its error and their tail, in memory that does not grow with K."""

import math
from typing import Any, NamedTuple

import numpy as np

from tinyvae.backend import Array, to_host
from tinyvae.ops import pareto


class Summary(NamedTuple):
    """What K weights of each row say, (rows,) each, on the host: see `estimates.LogLikelihood`."""

    log_p: np.ndarray
    standard_error: np.ndarray
    effective: np.ndarray
    pareto_k: np.ndarray


class WeightSums:
    """Sums of w and w^2, relative to the largest w so far, and the largest of the weights, for each row."""

    def __init__(self, xp: Any, rows: int, samples: int) -> None:
        self.xp, self.samples, self.seen = xp, samples, 0
        self.largest = xp.full(rows, -math.inf)  # (rows,): log w
        self.total, self.squares = xp.zeros(rows), xp.zeros(rows)
        tail = pareto.tail_length(samples)
        self.kept = tail + 1 if tail else 0  # the tail, and the cutoff below it
        self.tail = xp.full((rows, 2 * self.kept), -math.inf)  # log w: new ones on the left, the largest on the right

    def add(self, log_w: Array) -> None:
        """One more weight of each row: log w (rows,), in nats, float64."""
        xp = self.xp
        new = xp.maximum(self.largest, log_w)
        shrink = xp.where(self.largest == new, 1.0, xp.exp(self.largest - new))
        w = xp.where(log_w == -math.inf, 0.0, xp.exp(log_w - new))  # also where no weight has been more than 0
        self.total = self.total * shrink + w
        self.squares = self.squares * shrink * shrink + w * w
        self.largest = new
        if self.kept:
            place = self.seen % self.kept
            self.tail[:, place] = log_w
            if place == self.kept - 1:
                self.tail = xp.sort(self.tail, axis=1)
        self.seen += 1

    def summary(self) -> Summary:
        """What the weights say, once all have been added."""
        xp, K = self.xp, self.samples
        log_p = self.largest + xp.log(self.total / K)
        spread = xp.maximum(self.squares - self.total * self.total / K, 0) / max(K - 1, 1)  # the variance of w
        error = xp.sqrt(spread * K) / self.total
        log_p = xp.where(xp.isnan(log_p), -math.inf, log_p)  # its numbers have left the range of floating point
        rows = log_p.shape[0]
        return Summary(
            to_host(log_p),
            to_host(error) if K > 1 else np.full(rows, math.nan),
            to_host(self.total * self.total / self.squares),
            pareto.tail_shape(to_host(xp.sort(self.tail, axis=1)[:, self.kept :])),
        )
