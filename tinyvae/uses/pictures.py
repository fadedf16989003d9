"""The picture of restored rows: what was true, what was given, what was made of it."""

import numpy as np

from tinyvae.training.drawing import Figure, colormaps, own_style, to_rgb
from tinyvae.training.figures import COLOURS, TRAIN

MISSING = COLOURS[5]  # sand: no shade of grey
LINES = ("truth", "given\n(coloured: missing)", "restored")
COLUMNS = 12
GAP = 1  # pixel between images


@own_style()
def restoration(
    truth: np.ndarray,
    given: np.ndarray,
    restored: np.ndarray,
    image_shape: tuple[int, ...] | None,
    title: str,
    ink: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """Three lines of images, twelve columns of them; of rows that are no images, a dot for each number restored.

    truth, given, restored (n, data), where `given` holds NaN for what is missing: it is drawn in a flat colour, and
    without images only these numbers are (all of them, if none is missing). ink: the values drawn white and black.
    """
    if image_shape is None:
        return _dots(truth, given, restored, title)
    h, w = image_shape[:2]
    band = 3 * (h + GAP) + 3 * GAP  # the height of three lines of images and the space below them
    bands = -(-len(truth) // COLUMNS)
    canvas = np.full((bands * band, COLUMNS * (w + GAP), 3), 1.0)  # red, green, blue
    shades = colormaps["gray_r"]
    for i, images in enumerate((truth, given, restored)):
        for j, image in enumerate(images.reshape(-1, *image_shape)):
            share = np.nan_to_num(np.clip((image - ink[0]) / ((ink[1] - ink[0]) or 1.0), 0, 1))  # (h, w), or (h, w, 3)
            coloured = share if image.ndim == 3 else shades(share)[..., :3]  # (h, w, 3)
            coloured[np.isnan(image).reshape(h, w, -1).any(axis=2)] = to_rgb(MISSING)
            top, left = j // COLUMNS * band + i * (h + GAP), j % COLUMNS * (w + GAP)
            canvas[top : top + h, left : left + w] = coloured
    figure = Figure(figsize=(9, 7.8 * canvas.shape[0] / canvas.shape[1] + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest")
    lines = LINES if np.isnan(given).any() else ("truth", "given", "restored")
    tops = [k * band + i * (h + GAP) for k in range(bands) for i in range(3)]
    axes.set_xticks([])
    axes.set_yticks([top + (h - 1) / 2 for top in tops], lines * bands)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10)
    return figure


def _dots(truth: np.ndarray, given: np.ndarray, restored: np.ndarray, title: str) -> Figure:
    known = ~np.isnan(truth)  # (n, data)
    missing = np.isnan(given) & known
    shown = missing if missing.any() else known
    x, y = truth[shown], restored[shown]
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    margin = 0.05 * (high - low) or 1.0
    limits = (float(low - margin), float(high + margin))
    axes.plot(limits, limits, color="#777777", lw=1)
    axes.scatter(x, y, s=12, color=TRAIN, alpha=0.6, linewidths=0)
    axes.set(xlabel="truth", ylabel="restored", xlim=limits, ylim=limits, aspect="equal")
    axes.set_title(title, fontsize=9, wrap=True)
    axes.grid(alpha=0.3)
    return figure
