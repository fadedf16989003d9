"""Medians of rounds, and of their ratios. A machine's speed wanders; what is measured side by side wanders along."""

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Summary(NamedTuple):
    """The middle of the rounds, and how far they spread."""

    median: float
    low: float
    high: float


def summary(rounds: Sequence[float]) -> Summary:
    """Median, smallest and largest of the rounds."""
    return Summary(median(rounds), min(rounds), max(rounds))


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Summary:
    """The summary of the rounds' ratios, theirs over ours: not the ratio of the medians."""
    return summary([a / b for a, b in zip(theirs, ours, strict=True)])


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """k of the power law y = c x^k that fits best: the least-squares slope of log y over log x."""
    a, b = [math.log(v) for v in x], [math.log(v) for v in y]
    a_mean, b_mean = sum(a) / len(a), sum(b) / len(b)
    above = sum((p - a_mean) * (q - b_mean) for p, q in zip(a, b, strict=True))
    return above / sum((p - a_mean) ** 2 for p in a)
