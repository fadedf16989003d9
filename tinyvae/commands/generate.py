"""`tinyvae generate`: new data from a trained model, as a picture or as numbers."""

import argparse
import io
from pathlib import Path

import numpy as np

from tinyvae.backend import to_host
from tinyvae.commands import loading
from tinyvae.errors import TinyvaeError, UsageError
from tinyvae.model.labels import label_typed
from tinyvae.model.steering import PATHS, every_label, interpolate, listed
from tinyvae.training import streams
from tinyvae.training.files import write_atomically
from tinyvae.uses.run_rows import as_trained

SUMMARY = "samples, interpolations, other labels and the latent plane, as a picture or as numbers"
DESCRIPTION = """\
Decode new points of a run's latent space: N samples from the prior, a path between two test rows, or (with two latent
dimensions) the whole plane. What is written is the mean of p(x|z); --draw writes draws of x instead.

A run that was trained with --conditional makes what --label asks for: one of the labels that its training rows have.
Without it samples take these in turn, --manifold takes the first, and --interpolate the test row's own. --style decodes
the z of test rows with every label: a handwriting, ten digits."""
EXAMPLES = """\
examples:
  tinyvae generate runs/digits-20250101-120000 --n 64 --out samples.png
  tinyvae generate runs/digits-20250101-120000 --n 1000 --draw --out samples.npy
  tinyvae generate runs/digits-20250101-120000 --interpolate 0 7 --path sphere --out path.png
  tinyvae generate runs/conditional --label 7 --n 20 --out sevens.png
  tinyvae generate runs/conditional --style 0 1 2 3 --out styles.png"""

STEPS = 11  # images in an interpolation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options."""
    loading.add_arguments(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--n", type=int, default=64, metavar="N", help="how many samples from the prior (default: 64)")
    what.add_argument(
        "--interpolate", type=int, nargs=2, metavar=("I", "J"), help=f"{STEPS} steps from test row I to J"
    )
    what.add_argument(
        "--style", type=int, nargs="+", metavar="I", help="test rows, and the z of each decoded with every label"
    )
    what.add_argument("--manifold", action="store_true", help="a 15 x 15 grid over the plane of a two-dimensional z")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="a .png picture, or .npy numbers (n, data)"
    )
    parser.add_argument(
        "--path", choices=PATHS, default="line", help="of --interpolate: straight, or along a sphere (default: line)"
    )
    parser.add_argument("--label", metavar="Y", help="of what a conditional run shall make")
    parser.add_argument("--draw", action="store_true", help="draw x from p(x|z) instead of writing its mean")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draws the samples (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Generate and write."""
    if args.out.suffix not in (".png", ".npy"):
        raise UsageError(f"--out must end in .png or .npy, not {args.out.name!r}")
    for name, smallest in (("n", 1), ("seed", 0)):
        if getattr(args, name) < smallest:
            raise UsageError(f"--{name} must be at least {smallest}, not {getattr(args, name)}")
    trained = loading.open_run(args)
    labels = _labels(args, trained)
    z, y, title, columns = _styles(args, trained, labels) if args.style else _latents(args, trained, labels)
    rng = np.random.default_rng([args.seed, streams.NOISE])
    x = to_host(trained.model.draw(z, rng, y) if args.draw else trained.model.decode(z, y))  # (n, data)
    try:
        if args.out.suffix == ".npy":
            write_atomically(args.out, lambda file: file.write(_npy(x)))
        else:
            from tinyvae.training import figures  # matplotlib takes a while to load

            shape = trained.record.image_shape
            figure = figures.sheet_of(trained.model, x, shape, title, columns)
            if args.manifold and shape:
                figures.label_manifold(figure, shape)
            figures.save_figure(figure, args.out)
    except OSError as error:
        raise TinyvaeError(
            f"{args.out}: cannot be written ({error.strerror or error}); choose another --out"
        ) from error
    print(args.out)
    return 0


def _npy(x: np.ndarray) -> bytes:
    """As bytes: NumPy writes to a file by C's means, and an error then has no cause."""
    content = io.BytesIO()
    np.save(content, x)
    return content.getvalue()


def _labels(args: argparse.Namespace, trained: loading.Trained) -> np.ndarray:
    """What a conditional run can be asked for: (labels,) ascending; of another run, none.

    Raises UsageError if what is asked for is not among them.
    """
    classes = trained.model.architecture.classes
    if not classes and (args.label is not None or args.style):
        option = "--style" if args.style else "--label"
        raise UsageError(f"{option} needs a run that was trained with --conditional: this one knows no labels")
    if args.label is not None and args.style:
        raise UsageError("--style decodes with every label: leave --label away")
    known = trained.labels(args.data_dir) if classes else None
    labels = np.array(trained.model.labels or range(classes)) if known is None else known
    if args.label is not None:
        try:
            args.label = label_typed(args.label, labels.tolist())
        except ValueError as error:
            wrong = f"--label must be one of the run's labels, {listed(labels)}, not {args.label}"
            raise UsageError(wrong) from error
    return labels


def _latents(
    args: argparse.Namespace, trained: loading.Trained, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, str, int | None]:
    """The points z (n, latent) to decode, with labels (n,) or None; the picture's title and its number of columns."""
    model = trained.model
    if args.manifold:
        if model.architecture.latent_dim != 2:
            raise UsageError(f"--manifold needs a two-dimensional z, but this run has {model.architecture.latent_dim}")
        from tinyvae.training import figures

        z = figures.manifold_points()  # (225, 2)
        if not len(labels):
            return z, None, "The plane of z, decoded", figures.MANIFOLD
        label = labels[0] if args.label is None else args.label
        return z, np.full(len(z), label), f"The plane of z, decoded with label {label}", figures.MANIFOLD
    if args.interpolate:
        x, own = _test_rows(args, trained, "--interpolate", args.interpolate, labels)  # (2, data), (2,)
        mu = to_host(model.encode(x, own)[0]).astype("float64")  # (2, latent)
        z = interpolate(mu[0], mu[1], STEPS, args.path)  # (steps, latent)
        i, j = args.interpolate
        title = f"from test row {i} to test row {j}, along a {args.path}, decoded"
        if own is None:
            return z, None, title, STEPS
        label = own[0] if args.label is None else args.label
        return z, np.full(len(z), label), f"{title} with label {label}", STEPS
    rng = np.random.default_rng([args.seed, streams.SAMPLES])
    z = rng.standard_normal((args.n, model.architecture.latent_dim))
    title = f"{args.n} samples: {'draws of x' if args.draw else 'means of p(x|z)'} at z from N(0, I)"
    if not len(labels):
        return z, None, title, None
    if args.label is not None:
        return z, np.full(args.n, args.label), f"{title}, label {args.label}", None
    return z, labels[np.arange(args.n) % len(labels)], f"{title}, labels {listed(labels)} in turn", len(labels)


def _styles(
    args: argparse.Namespace, trained: loading.Trained, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str, int]:
    """As `_latents`: the z of each row, as often as there are labels."""
    x, own = _test_rows(args, trained, "--style", args.style, labels)  # (rows, data), (rows,)
    assert own is not None
    z, y = every_label(trained.model, x, own, labels)  # (rows * labels, latent), (rows * labels,)
    title = f"the z of test rows {', '.join(map(str, args.style))}, with the labels {listed(labels)}"
    return z, y, title, len(labels)


def _test_rows(
    args: argparse.Namespace, trained: loading.Trained, option: str, rows: list[int], labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """These rows of the run's test set (rows, data), and their labels (rows,) if the run is conditional."""
    dataset = trained.dataset(args.data_dir)
    last = len(dataset.x_test) - 1
    for i in rows:
        if not 0 <= i <= last:
            raise UsageError(f"{option} needs test rows from 0 to {last}, not {i}")
    x = as_trained(dataset.x_test, dataset.scale, trained.config)[rows]  # (rows, data)
    if not len(labels) or dataset.y_test is None:
        return x, None
    y = dataset.y_test[rows]  # (rows,)
    for i, label in zip(rows, y, strict=True):
        if label not in labels:
            raise UsageError(f"{option}: test row {i} has the label {label}, which no training row has; choose another")
    return x, y
