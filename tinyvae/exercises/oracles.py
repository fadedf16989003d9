"""Expected answers that owe nothing to the answer under test: slopes by central differences, and careful sums."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.checking.finite_differences import EPS, ROUND_OFF, H
from tinyvae.exercises.task import Answer, exactly


def slopes(terms: Callable[..., Any], *points: np.ndarray) -> list[Answer]:
    """d sum(terms) / d each entry of each point, with a tolerance that is derived: see `tinyvae.gradcheck`.

    terms(*points) -> an array whose sum is the loss. The points are perturbed in place and put back.
    """
    points = tuple(np.array(p, dtype=np.float64) for p in points)
    size = float(np.abs(terms(*points)).sum())
    answers = []
    for point in points:
        value, tolerance = np.zeros(point.shape), np.zeros(point.shape)
        flat = point.reshape(-1)
        for i in range(flat.size):
            near, far = (_difference(terms, points, flat, i, h) for h in (H, 2 * H))
            value.flat[i] = near
            tolerance.flat[i] = ROUND_OFF * EPS * (size + 1) / H + (2 / 3) * abs(far - near)
        answers.append(Answer(value, tolerance))
    return answers


def _difference(terms: Callable[..., Any], points: Any, flat: np.ndarray, i: int, h: float) -> float:
    origin = flat[i]
    flat[i] = above = origin + h
    up = terms(*points)
    flat[i] = below = origin - h
    down = terms(*points)
    flat[i] = origin
    return float(np.sum(up - down)) / (above - below)


def close(value: Any, roundings: float = 100.0) -> Answer:
    """An answer that is right up to `roundings` times eps of its own size, and of 1."""
    value = np.asarray(value, dtype=np.float64)
    return exactly(value, roundings * EPS * (1 + np.abs(value)))
