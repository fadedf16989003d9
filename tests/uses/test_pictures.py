"""The picture of restored rows: truth, given and restored."""

import math
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from tinyvae.uses import pictures


def test_the_picture_shows_truth_given_and_restored_with_the_missing_in_colour() -> None:
    truth, restored = np.zeros((14, 6)), np.ones((14, 6))
    given_rows = truth.copy()
    given_rows[:, 5] = math.nan
    figure = pictures.restoration(truth, given_rows, restored, (2, 3), "title")
    (image,) = figure.axes[0].get_images()
    pixels: Any = np.asarray(image.get_array())
    coloured = np.argwhere(np.all(np.isclose(pixels, to_rgb(pictures.MISSING)), axis=2))
    assert len(coloured) == 14
    assert coloured[0].tolist() == [4, 2]  # below two lines of truth and a gap, the last pixel
    assert np.all(pixels[0:2, 0:3] == 1)  # 0 is white, 1 is black
    assert np.all(pixels[6:8, 0:3] == 0)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["truth", "given\n(coloured: missing)", "restored"] * 2  # twelve columns, so two bands


def test_rows_that_are_no_images_are_dots() -> None:
    x = np.arange(8.0).reshape(2, 4)
    given_rows = x.copy()
    given_rows[:, 2:] = math.nan
    axes = pictures.restoration(x, given_rows, x + 1, None, "title").axes[0]
    assert np.asarray(axes.collections[0].get_offsets()).tolist() == [[2, 3], [3, 4], [6, 7], [7, 8]]
    assert len(np.asarray(pictures.restoration(x, x, x, None, "t").axes[0].collections[0].get_offsets())) == 8
