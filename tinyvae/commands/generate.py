"""`tinyvae generate`: new data from a trained model, as a picture or as numbers."""

import argparse
from pathlib import Path

import numpy as np

from tinyvae.backend import to_host
from tinyvae.commands import loading
from tinyvae.errors import TinyvaeError, UsageError
from tinyvae.training import streams
from tinyvae.training.files import write_atomically

SUMMARY = "samples, interpolations and the latent plane, as a picture or as numbers"
DESCRIPTION = """\
Decode new points of a run's latent space: N samples from the prior, a straight line between two test rows, or (with two
latent dimensions) the whole plane. What is written is the mean of p(x|z); --draw writes draws of x instead."""
EXAMPLES = """\
examples:
  tinyvae generate runs/digits-20250101-120000 --n 64 --out samples.png
  tinyvae generate runs/digits-20250101-120000 --n 1000 --draw --out samples.npy
  tinyvae generate runs/digits-20250101-120000 --interpolate 0 7 --out line.png"""

STEPS = 11  # images in an interpolation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options."""
    loading.add_arguments(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--n", type=int, default=64, metavar="N", help="how many samples from the prior (default: 64)")
    what.add_argument(
        "--interpolate", type=int, nargs=2, metavar=("I", "J"), help=f"{STEPS} steps from test row I to J"
    )
    what.add_argument("--manifold", action="store_true", help="a 15 x 15 grid over the plane of a two-dimensional z")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="a .png picture, or .npy numbers (n, data)"
    )
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
    z, title, columns = _latents(args, trained)
    rng = np.random.default_rng([args.seed, streams.NOISE])
    x = to_host(trained.model.draw(z, rng) if args.draw else trained.model.decode(z))  # (n, data)
    try:
        if args.out.suffix == ".npy":
            write_atomically(args.out, lambda temporary: _write_npy(temporary, x))
        else:
            from tinyvae.training import figures  # matplotlib takes a while to load

            shape = trained.checkpoint.run["image_shape"]
            ink = figures.ink_of(trained.model, x)
            figure = figures.sheet(x, shape and (shape[0], shape[1]), title, columns, ink)
            if args.manifold and shape:
                figures.label_manifold(figure, (shape[0], shape[1]))
            figures.save_figure(figure, args.out)
    except OSError as error:
        raise TinyvaeError(
            f"{args.out}: cannot be written ({error.strerror or error}); choose another --out"
        ) from error
    print(args.out)
    return 0


def _latents(args: argparse.Namespace, trained: loading.Trained) -> tuple[np.ndarray, str, int | None]:
    """The points z (n, latent) to decode, the picture's title and its number of columns."""
    model = trained.model
    if args.manifold:
        if model.architecture.latent_dim != 2:
            raise UsageError(f"--manifold needs a two-dimensional z, but this run has {model.architecture.latent_dim}")
        from tinyvae.training import figures

        return figures.manifold_points(), "The plane of z, decoded", figures.MANIFOLD
    if args.interpolate:
        dataset = trained.dataset(args.data_dir)
        rows = len(dataset.x_test)
        for i in args.interpolate:
            if not 0 <= i < rows:
                raise UsageError(f"--interpolate needs test rows from 0 to {rows - 1}, not {i}")
        mu = to_host(model.encode(dataset.values(dataset.x_test[args.interpolate]))[0])  # (2, latent)
        t = np.linspace(0, 1, STEPS)[:, None]  # (steps, 1)
        i, j = args.interpolate
        return (1 - t) * mu[0] + t * mu[1], f"from test row {i} to test row {j}, decoded", STEPS
    rng = np.random.default_rng([args.seed, streams.SAMPLES])
    z = rng.standard_normal((args.n, model.architecture.latent_dim))
    return z, f"{args.n} samples: {'draws of x' if args.draw else 'means of p(x|z)'} at z from N(0, I)", None


def _write_npy(path: Path, x: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, x)
