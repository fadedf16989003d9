"""What is wrong with a damaged row: numbers that are missing, or noise."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvae.backend import as_generator

NOISE_SHARE = 0.25  # of the pixels that noise changes


@dataclass(frozen=True)
class Mask:
    """What is missing: see `parse_mask`."""

    kind: str  # "noise", "gaps", "half", "random" or "box"
    numbers: tuple[float, ...] = ()

    def observed(self, rows: int, data_dim: int, image_shape: tuple[int, ...] | None, rng: Any) -> np.ndarray:
        """True where a number is known, False where it is missing: (rows, data).

        Raises ValueError for a box without an image, or not within it, and for "noise", which leaves nothing missing.
        """
        observed = np.ones((rows, data_dim), dtype=bool)
        if self.kind == "random":
            return as_generator(rng).random((rows, data_dim)) >= self.numbers[0]
        if self.kind == "gaps":
            return observed
        if self.kind == "half" and image_shape is None:
            observed[:, (data_dim + 1) // 2 :] = False
        elif self.kind == "half":
            assert image_shape is not None
            observed.reshape(rows, *image_shape)[:, :, (image_shape[1] + 1) // 2 :] = False
        elif self.kind == "box":
            top, left, height, width = map(int, self.numbers)
            if image_shape is None:
                raise ValueError("a box needs images, and the data has none: use half or random:P")
            if top + height > image_shape[0] or left + width > image_shape[1]:
                raise ValueError(
                    f"the box reaches to row {top + height} and column {left + width}, "
                    f"outside of the image of {image_shape[0]} x {image_shape[1]} pixels"
                )
            observed.reshape(rows, *image_shape)[:, top : top + height, left : left + width] = False
        else:
            raise ValueError("noise leaves nothing missing: see add_noise")
        return observed


def parse_mask(text: str) -> Mask:
    """The mask that a text names.

    half                        the right half of each image; of other rows, the second half of the columns
    random:P                    each number with probability P, 0 < P <= 1
    box:TOP,LEFT,HEIGHT,WIDTH   a box of pixels, counted from 0
    gaps                        nothing: only what is missing in the data itself
    noise                       nothing is missing, everything is uncertain: see `add_noise`

    Raises ValueError for anything else.
    """
    kind, colon, rest = text.partition(":")
    if text in ("half", "noise", "gaps"):
        return Mask(text)
    if kind == "random" and colon:
        try:
            share = float(rest)
        except ValueError:
            share = float("nan")
        if not 0 < share <= 1:
            raise ValueError(f"random:P needs a probability P above 0 and at most 1, not {rest!r}")
        return Mask(kind, (share,))
    if kind == "box" and colon:
        words = rest.split(",")
        if len(words) != 4 or not all(word.isascii() and word.isdecimal() and len(word) < 10 for word in words):
            raise ValueError(f"box:TOP,LEFT,HEIGHT,WIDTH needs four whole numbers, at least 0, not {rest!r}")
        top, left, height, width = map(int, words)
        if not height or not width:
            raise ValueError(f"box:TOP,LEFT,HEIGHT,WIDTH needs a height and a width of at least 1, not {rest!r}")
        return Mask(kind, (top, left, height, width))
    raise ValueError(f"must be half, gaps, noise, random:P or box:TOP,LEFT,HEIGHT,WIDTH, not {text!r}")


def add_noise(x: np.ndarray, spread: np.ndarray, rng: Any, counts: bool = False) -> tuple[np.ndarray, str]:
    """Noisy rows, and in words what was done to them.

    Only 0s and 1s: each is flipped with probability 1/4. In [0, 1]: each becomes a uniform random number with
    probability 1/4. Other numbers: Gaussian noise is added whose standard deviation is `spread`, that of the column;
    counts stay counts, rounded and at least 0.

    x (rows, data), spread (data,) -> (rows, data)
    """
    rng = as_generator(rng)
    chosen = rng.random(x.shape) < NOISE_SHARE  # (rows, data)
    if ((x == 0) | (x == 1)).all():
        return np.where(chosen, 1 - x, x), f"{NOISE_SHARE:.0%} of the pixels flipped"
    if x.min() >= 0 and x.max() <= 1:
        return np.where(chosen, rng.random(x.shape), x), f"{NOISE_SHARE:.0%} of the pixels replaced by random numbers"
    noisy, what = x + spread * rng.standard_normal(x.shape), "Gaussian noise of one standard deviation of each column"
    return (np.maximum(np.round(noisy), 0), f"{what} added, rounded to counts") if counts else (noisy, f"{what} added")
