"""Inputs drawn by Hypothesis.

Numbers lie on a grid of eighths, so that a counter-example shrinks to 0, 1 and the like and can be worked out by hand;
sizes that belong to different things differ, so that a transpose shows.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinyvae.exercises.task import Case

Draw = Callable[..., Any]


@cache  # a strategy is checked when it is first drawn from
def array(shape: tuple[int, ...], low: float = -2.0, high: float = 2.0, off: float = 0.0) -> Any:
    """Multiples of 1/8 in [low, high], plus `off` (so that 0, where a function may have a kink, is never met).

    One string of bytes holds them all, which is many times as fast as a draw for each number. Byte 0 is the smallest
    number, and so is what Hypothesis shrinks to.
    """
    grid = np.array(sorted(range(round(8 * low), round(8 * high) + 1), key=lambda n: (abs(n), -n))) / 8 + off
    size = math.prod(shape)
    place = lambda drawn: grid[np.frombuffer(drawn, dtype=np.uint8) % grid.size].reshape(shape)
    return st.binary(min_size=size, max_size=size).map(place)


@cache
def sizes(count: int, low: int = 1, high: int = 4) -> st.SearchStrategy[list[int]]:
    """`count` sizes, all different."""
    return st.lists(st.integers(low, high), min_size=count, max_size=count, unique=True)


def arrays(count: int, names: dict[str, str], low: float = -2.0, high: float = 2.0) -> st.SearchStrategy[Case]:
    """Arrays by name, of shapes made of `count` sizes: {"x": "ab", "b": "b"} is x (a, b) and b (b,).

    A capital letter stands for a size of 1, where broadcasting is meant: "aI" is (a, 1).
    """

    @st.composite
    def draw_case(draw: Draw) -> Case:
        size = dict(zip("abcdefg", draw(sizes(count)), strict=False)) | {"I": 1}
        return {name: draw(array(tuple(size[c] for c in letters), low, high)) for name, letters in names.items()}

    return draw_case()
