"""The pictures of a run. Each function returns a matplotlib Figure; `write_figures` makes all that fit the data.

Colours: Paul Tol's "muted" scheme, told apart under colour blindness; labels are also written where the points lie.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from tinyvae.backend import to_host
from tinyvae.model.description import Description
from tinyvae.model.steering import every_label, interpolate, listed
from tinyvae.model.vae import VAE
from tinyvae.training import streams
from tinyvae.training.data import Dataset
from tinyvae.training.data.dataset import Part
from tinyvae.training.drawing import Axes, Figure, own_style
from tinyvae.training.files import make_folder, write_atomically
from tinyvae.training.metrics import Row

FOLDER = "figures"
COLOURS = ("#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499", "#777777")
TRAIN, HELD_OUT = COLOURS[0], COLOURS[6]
WORDS = {"valid": "held out", "train": "trained on"}
MANIFOLD = 15  # images along each side
DPI = 150


def names(a: Description, image_shape: tuple[int, ...] | None) -> list[str]:
    """The pictures that a run of this model has, in the order a reader wants them."""
    plane = a.data_dim == 2  # the data itself can be drawn
    wanted = {
        "loss": True,
        "data_and_samples": plane,
        "reconstructions": True,
        "samples": not plane,
        "labels": not plane and a.classes > 0 and image_shape is not None,
        "interpolation": True,
        "latent": True,
        "manifold": a.latent_dim == 2 and not plane,
    }
    return [name for name, is_wanted in wanted.items() if is_wanted]


def path_of(run: Path, name: str) -> Path:
    """Where a picture of a run is kept."""
    return run / FOLDER / f"{name}.png"


def write_figures(run: Path, model: VAE, dataset: Dataset, rows: list[Row], seed: int = 0) -> list[Path]:
    """Draw every picture that fits the data into run/figures; the paths, in the order a reader wants them."""
    known = _labels(model, dataset.y_train, slice(None))  # (rows,)
    occurring = None if known is None else np.unique(known)  # (labels,): no picture is of a label that nobody has
    first = 0 if occurring is None else occurring[0]
    makers: dict[str, Callable[[], Figure]] = {
        "loss": lambda: loss_curves(rows),
        "data_and_samples": lambda: data_and_samples(model, dataset, seed),
        "reconstructions": lambda: reconstructions(model, dataset),
        "samples": lambda: samples(model, dataset.image_shape, 64, seed, occurring),
        "labels": lambda: labels(model, dataset, occurring),
        "interpolation": lambda: interpolation(model, dataset),
        "latent": lambda: latent_space(model, dataset),
        "manifold": lambda: manifold(model, dataset.image_shape, first),
    }
    make_folder(run / FOLDER)
    paths = []
    for name in names(model.architecture, dataset.image_shape):
        if name == "loss" and not rows:
            continue  # a run whose metrics.csv was lost
        save_figure(makers[name](), path_of(run, name))
        paths.append(path_of(run, name))
    return paths


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG as a whole or not at all."""
    with own_style():
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=DPI, backend="agg"))


@own_style()
def loss_curves(rows: list[Row]) -> Figure:
    """Loss, nll and kl after every epoch, of the rows to train on and of those held out."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    epochs = [row.epoch for row in rows]
    shown = [row for row in rows if row.epoch > len(rows) // 20] or rows  # the first epochs would flatten the rest
    parts = [("train", "train", TRAIN, "-"), ("valid", "held out", HELD_OUT, "--")]
    if any(row.valid_loss is None for row in rows):
        parts = parts[:1]
    for axes, name, title in zip(
        figure.subplots(1, 3),
        ("loss", "nll", "kl"),
        ("loss: what is minimized", "nll: how badly x is rebuilt", "kl: what z may tell about x"),
        strict=True,
    ):
        for part, label, colour, style in parts:
            values = [getattr(row, f"{part}_{name}") for row in rows]
            axes.plot(epochs, values, style, color=colour, label=label, marker="o" if len(rows) <= 20 else None, ms=3)
        low, high = _limits([getattr(row, f"{part}_{name}") for row in shown for part, *_ in parts])
        cut = " (the first ones lie outside)" if len(shown) < len(rows) else ""
        axes.set(title=title, xlabel=f"epoch{cut}", ylabel="nats per datum", ylim=(low, high))
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    return figure


@own_style()
def reconstructions(model: VAE, dataset: Dataset, n: int = 12) -> Figure:
    """Rows, and below each the mean of p(x|z) at z = mu: what survives the way through the latent space."""
    part = dataset.held_out()
    n = min(n, len(part.x))
    rows = _spread(part, n)
    x, known = dataset.values(part.x[rows]), _labels(model, part.y, rows)  # (n, data), (n,)
    y = to_host(model.decode(model.encode(x, known)[0], known))  # (n, data)
    if dataset.image_shape is None:
        return _compare_vectors(_alike(model, x), _alike(model, y), WORDS[part.name], _unit(model))
    figure = Figure(figsize=(9, 1.9), layout="constrained")
    axes = figure.subplots(2, n, squeeze=False)
    for row, images in zip(axes, (x, y), strict=True):
        for ax, image in zip(row, images, strict=True):
            _show(ax, image, dataset.image_shape, ink_of(model, np.concatenate([x, y])))
    axes[0][0].set_ylabel("data")
    axes[1][0].set_ylabel("decoded")
    figure.suptitle(
        f"Images {WORDS[part.name]} and their reconstructions, decoded from the mean of q(z|x)", fontsize=10
    )
    return figure


@own_style()
def samples(
    model: VAE, image_shape: tuple[int, ...] | None, n: int, seed: int, labels: np.ndarray | None = None
) -> Figure:
    """Means of p(x|z) for z drawn from the prior; a conditional model's in one column for each of `labels` (labels,),
    or for each that there can be."""
    rng, classes = np.random.default_rng([seed, streams.SAMPLES]), model.architecture.classes
    if not classes:
        x = to_host(model.sample(n, rng))  # (n, data)
        return sheet_of(model, x, image_shape, f"{n} samples: the decoder's mean at z drawn from N(0, I)")
    labels = np.array(model.labels or range(classes)) if labels is None else labels
    n = max(1, n // len(labels)) * len(labels)
    x = to_host(model.sample(n, rng, y=labels[np.arange(n) % len(labels)]))  # (n, data)
    title = f"Samples: the decoder's mean at z drawn from N(0, I); columns: labels {listed(labels)}"
    return sheet_of(model, x, image_shape, title, columns=len(labels))


@own_style()
def labels(model: VAE, dataset: Dataset, labels: np.ndarray | None = None, n: int = 8) -> Figure:
    """Images (left), and each one's z decoded with every label of a conditional model, or with each of `labels`
    (labels,)."""
    part = dataset.held_out()
    assert part.y is not None
    assert dataset.image_shape is not None
    rows = _spread(part, min(n, len(part.x)))
    x = dataset.values(part.x[rows])  # (n, data)
    labels = np.array(model.labels or range(model.classes)) if labels is None else labels
    z, y = every_label(model, x, part.y[rows], labels)  # (n * labels, latent), (n * labels,)
    decoded = to_host(model.decode(z, y)).reshape(len(rows), len(labels), -1)  # (n, labels, data)
    blank = np.full((len(rows), 1, x.shape[1]), np.nan)
    images = np.concatenate([x[:, None], blank, decoded], axis=1)  # (n, 2 + labels, data)
    title = f"Left: images {WORDS[part.name]}. Then the z of each, decoded with the labels {listed(labels)}"
    return sheet_of(model, images.reshape(-1, x.shape[1]), dataset.image_shape, title, 2 + len(labels))


def ink_of(model: VAE, x: np.ndarray) -> tuple[float, float]:
    """The values that are drawn white and black: the ends of where x can lie, else the smallest and largest of x."""
    return model.likelihood.interval or (float(np.nanmin(x)), float(np.nanmax(x)))


def sheet_of(
    model: VAE, x: np.ndarray, image_shape: tuple[int, ...] | None, title: str, columns: int | None = None
) -> Figure:
    """`sheet` of what a model has made: its ink, and columns of numbers as the model knows their size."""
    if image_shape is None:
        return _strips(_alike(model, x), title, unit=_unit(model))
    return sheet(x, image_shape, title, columns, ink_of(model, x))


@own_style()
def sheet(
    x: np.ndarray,
    image_shape: tuple[int, ...] | None,
    title: str,
    columns: int | None = None,
    ink: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """Rows of x (n, data): images side by side, or one strip of colours for each row."""
    if image_shape is None:
        return _strips(x, title)
    h, w, *colours = image_shape
    columns = columns or max(1, min(len(x), round((len(x) * h / w) ** 0.5)))  # about as wide as high
    lines = -(-len(x) // columns)
    blank = 1.0 if colours else np.nan  # a gap of one pixel between images
    canvas = np.full((lines * (h + 1) - 1, columns * (w + 1) - 1, *colours), blank)
    for i, image in enumerate(x):
        top, left = i // columns * (h + 1), i % columns * (w + 1)
        canvas[top : top + h, left : left + w] = _ready(image, image_shape, ink)
    shape = canvas.shape[0] / canvas.shape[1]
    figure = Figure(figsize=(5, 5 * min(max(shape, 0.1), 3) + 0.4), layout="constrained")
    axes = figure.subplots()
    aspect = "equal" if 0.1 <= shape <= 3 else "auto"
    axes.imshow(canvas, cmap="gray_r", vmin=ink[0], vmax=ink[1], aspect=aspect)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9)
    return figure


def interpolation_path(model: VAE, x: np.ndarray, y: np.ndarray | None, steps: int) -> np.ndarray:
    """The decoder's mean along the straight line between the mu of two rows.  x (2, data), y (2,) -> (steps, data).

    A conditional model decodes all of it with the first row's label.
    """
    mu = to_host(model.encode(x, y)[0])  # (2, latent)
    return to_host(model.decode(interpolate(mu[0], mu[1], steps), None if y is None else np.repeat(y[0], steps)))


@own_style()
def interpolation(model: VAE, dataset: Dataset, pairs: int = 5, steps: int = 9) -> Figure:
    """Straight lines in the latent space between rows, decoded; at both ends the rows themselves."""
    part = dataset.held_out()
    if model.architecture.classes:
        chosen = _same_label_pairs(part, pairs)  # the label says which digit: z is left to say how it is written
    else:
        chosen = _spread(part, min(2 * pairs, len(part.x) // 2 * 2))
    x = dataset.values(part.x[chosen])  # (2 pairs, data)
    lines = []
    for i in range(0, len(x), 2):
        path = interpolation_path(model, x[i : i + 2], _labels(model, part.y, chosen[i : i + 2]), steps)
        lines.append(np.concatenate([x[i : i + 1], path, x[i + 1 : i + 2]]))
    if dataset.data_dim == 2:
        figure = Figure(figsize=(5, 4.5), layout="constrained")
        axes = figure.subplots()
        for line, colour in zip(lines, COLOURS, strict=False):
            axes.plot(*line[1:-1].T, "-", color=colour)
            axes.plot(*line[[0, -1]].T, "o", color=colour)
        axes.set(
            title=f"Points {WORDS[part.name]} (dots); decoded lines between their mu",
            xlabel="x1",
            ylabel="x2",
            aspect="equal",
        )
        return figure
    if dataset.image_shape is None:
        title = f"Between rows {WORDS[part.name]} (first and last of a block), decoded"
        return _strips(_alike(model, np.concatenate(lines)), title, steps + 2, _unit(model))
    figure = Figure(figsize=(9, 0.82 * len(lines) + 0.7), layout="constrained")
    axes = figure.subplots(len(lines), steps + 2, squeeze=False)
    for row, line in zip(axes, lines, strict=True):
        for ax, image in zip(row, line, strict=True):
            _show(ax, image, dataset.image_shape, ink_of(model, np.concatenate(lines)))
    axes[0][0].set_title("data", fontsize=9)
    axes[0][-1].set_title("data", fontsize=9)
    axes[0][steps // 2 + 1].set_title("decoded, on a straight line between the two mu", fontsize=9)
    return figure


@own_style()
def latent_space(model: VAE, dataset: Dataset, limit: int = 5000) -> Figure:
    """mu of rows, coloured by label; in more than two dimensions, along the two in which mu varies most."""
    part = dataset.held_out()
    x, y = part.x[:limit], part.y
    known = _labels(model, y, slice(limit))
    mu = to_host(model.encode(dataset.values(x), known)[0]).astype("float64")  # (rows, latent)
    if mu.shape[1] == 1:
        points, names = np.column_stack([mu[:, 0], np.arange(len(mu))]), ("mu", "row")
    elif mu.shape[1] == 2:
        points, names = mu, ("mu, dimension 1", "mu, dimension 2")
    else:
        centred = mu - mu.mean(axis=0)
        _, s, vt = np.linalg.svd(centred, full_matrices=False)  # principal directions: rows of vt
        share = 100 * s**2 / max(float((s**2).sum()), 1e-30)
        points = centred @ vt[:2].T  # (rows, 2)
        names = tuple(f"principal direction {i + 1} of mu ({share[i]:.0f}% of its variance)" for i in (0, 1))
    figure = Figure(figsize=(6.5, 5.5), layout="constrained")
    axes = figure.subplots()
    size = 16 if len(points) < 1000 else 6
    if y is None or len(np.unique(y)) > len(COLOURS):
        axes.scatter(*points.T, s=size, color=TRAIN, alpha=0.5, linewidths=0)
    else:
        for label, colour in zip(np.unique(y), COLOURS, strict=False):
            cloud = points[y[:limit] == label]
            if not len(cloud):
                continue
            axes.scatter(*cloud.T, s=size, color=colour, alpha=0.6, linewidths=0)
            box = {"boxstyle": "circle,pad=0.2", "fc": "white", "ec": colour, "lw": 1.5}
            axes.annotate(str(label), np.median(cloud, axis=0), ha="center", va="center", fontsize=10, bbox=box)
    axes.set(title=f"Where the encoder puts {len(points):,} rows {WORDS[part.name]}", xlabel=names[0], ylabel=names[1])
    if mu.shape[1] > 1:
        axes.set_aspect("equal", adjustable="datalim")  # so that a direction that carries nothing looks thin
    axes.grid(alpha=0.3)
    return figure


def manifold_points() -> np.ndarray:
    """z on a 15 x 15 grid of equal steps in probability under the prior, from the top left.  -> (225, 2)."""
    quantiles = [NormalDist().inv_cdf((i + 0.5) / MANIFOLD) for i in range(MANIFOLD)]
    return np.array([(a, b) for b in reversed(quantiles) for a in quantiles])


@own_style()
def manifold(model: VAE, image_shape: tuple[int, ...] | None, label: Any = 0) -> Figure:
    """The decoder's mean over the whole of a two-dimensional latent space (Kingma & Welling 2014, figure 4); a
    conditional model's with this label."""
    z, conditional = manifold_points(), model.architecture.classes > 0  # (225, 2)
    x = to_host(model.decode(z, np.full(len(z), label) if conditional else None))  # (225, data)
    title = "The plane of z, decoded" + (f" with label {label}" if conditional else "")
    figure = sheet_of(model, x, image_shape, title, MANIFOLD)
    if image_shape is not None:
        label_manifold(figure, image_shape)
    return figure


@own_style()
def label_manifold(figure: Figure, image_shape: tuple[int, ...]) -> None:
    """Write the values of z beside the grid that `sheet` drew of `manifold_points`."""
    (h, w), axes, quantiles = image_shape[:2], figure.axes[0], manifold_points()[:MANIFOLD, 0]
    shown = range(0, MANIFOLD, 2)
    axes.set_xticks([i * (w + 1) + w / 2 for i in shown], [f"{quantiles[i]:.1f}" for i in shown])
    axes.set_yticks([i * (h + 1) + h / 2 for i in shown], [f"{-quantiles[i]:.1f}" for i in shown])
    axes.set(xlabel="z, dimension 1", ylabel="z, dimension 2")
    axes.tick_params(length=0)


@own_style()
def data_and_samples(model: VAE, dataset: Dataset, seed: int, limit: int = 5000) -> Figure:
    """For data in the plane: the training points beside as many draws from the model, noise of p(x|z) included."""
    x = dataset.values(dataset.x_train[:limit])  # (rows, 2)
    n = len(x)
    rng = np.random.default_rng([seed, streams.SAMPLES])
    z = rng.standard_normal((n, model.architecture.latent_dim))
    known = _labels(model, dataset.y_train, slice(n))
    means, drawn = to_host(model.decode(z, known)), to_host(model.draw(z, rng, known))  # (rows, 2) each
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    clouds = [
        (x, f"{n} training points"),
        (drawn, f"{n} draws of x from the model"),
        (means, "the same z without noise: means of p(x|z)"),
    ]
    everything = np.concatenate([x, drawn])
    for axes, (cloud, title) in zip(figure.subplots(1, 3, sharex=True, sharey=True), clouds, strict=True):
        axes.scatter(*cloud.T, s=10, alpha=0.6, color=TRAIN if cloud is x else HELD_OUT, linewidths=0)
        axes.set(title=title, xlabel="x1", xlim=_limits(everything[:, 0]), ylim=_limits(everything[:, 1]))
        axes.title.set_fontsize(9)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("x2")
    return figure


@own_style()
def _compare_vectors(x: np.ndarray, y: np.ndarray, which: str, unit: str) -> Figure:
    """Data against reconstruction, one dot for each number."""
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    low, high = _limits(np.concatenate([x.ravel(), y.ravel()]))
    axes.plot([low, high], [low, high], color="#777777", lw=1)
    axes.scatter(x.ravel(), y.ravel(), s=12, color=TRAIN, alpha=0.6, linewidths=0)
    axes.set(
        title=f"{len(x)} rows {which}, number by number", xlabel=f"data{unit}", ylabel="decoded from mu",
        xlim=(low, high), ylim=(low, high), aspect="equal",
    )  # fmt: skip
    axes.grid(alpha=0.3)
    return figure


def _alike(model: VAE, x: np.ndarray) -> np.ndarray:
    """Columns of one size, where the model knows how large they are: dollars and years are not drawn on one scale."""
    return x if model.standard is None else np.asarray(model.standard.inward(x))


def _unit(model: VAE) -> str:
    return "" if model.standard is None else ", in standard deviations of its column"


@own_style()
def _strips(x: np.ndarray, title: str, block: int | None = None, unit: str = "") -> Figure:
    """Rows of numbers as rows of colour; a line after every `block` rows."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(x, aspect="auto", cmap="viridis", interpolation="nearest")
    for end in range(block, len(x), block) if block else ():
        axes.axhline(end - 0.5, color="white", lw=2)
    axes.set(title=title, xlabel="column of x", ylabel="row")
    axes.title.set_fontsize(9)
    figure.colorbar(picture, ax=axes, label=f"value{unit}")
    return figure


def _ready(image: np.ndarray, shape: tuple[int, ...], ink: tuple[float, float]) -> np.ndarray:
    """An image as matplotlib draws it: grey values as they are, colours in [0, 1]."""
    image = image.reshape(shape)
    if len(shape) == 2:
        return image
    low, high = ink
    scaled = np.clip((image - low) / ((high - low) or 1), 0, 1)
    return np.where(np.isnan(scaled), 1.0, scaled)


def _show(axes: Axes, image: np.ndarray, shape: tuple[int, ...], ink: tuple[float, float]) -> None:
    """Ink on paper: the smaller of the two numbers is white, the larger black."""
    axes.imshow(_ready(image, shape, ink), cmap="gray_r", vmin=ink[0], vmax=ink[1])
    axes.set(xticks=[], yticks=[])


def _labels(model: VAE, y: np.ndarray | None, rows: np.ndarray | slice) -> np.ndarray | None:
    """The labels of these rows for a model that is conditional; else None."""
    return y[rows] if model.architecture.classes and y is not None else None


def _spread(part: Part, n: int) -> np.ndarray:
    """n of the rows, taking the labels in turn where there are some."""
    if part.y is None:
        return np.arange(n)
    order = np.argsort(part.y, kind="stable")
    ordered = part.y[order]
    rank = np.empty(len(order), dtype=int)  # how many rows of the same label came before
    rank[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return np.lexsort((part.y, rank))[:n]


def _same_label_pairs(part: Part, pairs: int) -> np.ndarray:
    """Two rows of one label, then two of the next: (2 pairs,), or fewer. Without such pairs, any two rows."""
    y = part.y
    assert y is not None
    found = [np.flatnonzero(y == label)[:2] for label in np.unique(y)]
    found = [rows for rows in found if len(rows) == 2][:pairs]
    return np.concatenate(found) if found else np.arange(2)


def _limits(values: np.ndarray | list[float]) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin
