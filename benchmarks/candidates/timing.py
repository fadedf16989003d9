"""The loops that time a step, alike for all peers."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any


def step_times(
    step: Callable[[Any], Any], rows: Iterator[Any], wait: Callable[[Any], Any], warmup: int, steps: int
) -> list[float]:
    """Seconds of each step, with `wait` for its loss; the first `warmup` are left out."""
    times = []
    for _ in range(warmup + steps):
        began = time.perf_counter()
        wait(step(next(rows)))
        times.append(time.perf_counter() - began)
    return times[warmup:]


def throughput(step: Callable[[Any], Any], rows: Iterator[Any], wait: Callable[[Any], Any], steps: int) -> float:
    """Seconds per step of a long row of steps; only the last is waited for. The rows are made before."""
    first, *others = islice(rows, 1 + steps)
    loss = step(first)
    wait(loss)
    began = time.perf_counter()
    for each in others:
        loss = step(each)
    wait(loss)
    return (time.perf_counter() - began) / steps
