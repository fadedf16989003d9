"""`tinyvae restore`: what a trained model makes of damaged test rows."""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tinyvae.commands import loading
from tinyvae.errors import DataError, TinyvaeError, UsageError
from tinyvae.training import streams
from tinyvae.training.data.dataset import evenly_spread
from tinyvae.training.data.scale import column_moments
from tinyvae.training.files import write_atomically
from tinyvae.uses import restoring
from tinyvae.uses.masks import Mask, add_noise, parse_mask
from tinyvae.uses.restoring import Line
from tinyvae.uses.run_rows import as_trained

SUMMARY = "fill in missing pixels, or take noise off, and compare with the truth"
DESCRIPTION = """\
Damage test rows of a run, restore them with its model, and print how far from the truth that is: the root mean squared
error for each number that was missing and, for a Bernoulli, the cross-entropy in nats; beside them, the same for simple
rules that need no model. After +- stands the standard error over the rows.

Missing numbers are filled in by a Markov chain that encodes, draws and decodes, and holds what is known fast (Rezende
et al. 2014, appendix F), averaged over 10 chains for each row. A noisy row is encoded and decoded: noise leaves nothing
that is known for certain. The encoder has seen no noisy rows in training, so a simple rule can do better there. Of more
than 1,000 test rows, 1,000 are taken, evenly spread."""
EXAMPLES = """\
examples:
  tinyvae restore runs/digits-20250101-120000 --mask half --out half.png
  tinyvae restore runs/digits-20250101-120000 --mask box:2,2,4,4 --steps 50
  tinyvae restore runs/digits-20250101-120000 --mask random:0.8 --out numbers.npz
  tinyvae restore runs/digits-20250101-120000 --mask noise --out noise.png
  tinyvae restore runs/people --mask gaps --out filled.npz                 what is missing in the data itself"""

ROWS = 1000
DRAWN = 12
MASKS = (
    "what is hidden: half (the right half of each image; of other rows, the second half of the columns), gaps "
    "(nothing: what is missing in the data itself is filled in), "
    "random:P (each number with probability P), box:TOP,LEFT,HEIGHT,WIDTH (pixels, counted from 0), or noise (nothing; "
    "0s and 1s are flipped, or numbers in [0, 1] replaced by random ones, with probability 1/4; to other numbers "
    "Gaussian noise is added, with the standard deviation of the column)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options."""
    loading.add_arguments(parser)
    parser.add_argument("--mask", required=True, metavar="MASK", help=MASKS)
    parser.add_argument(
        "--steps", type=int, default=restoring.STEPS, metavar="N",
        help=f"steps of a chain; the second half of them is averaged (default: {restoring.STEPS})",
    )  # fmt: skip
    parser.add_argument("--n", type=int, default=DRAWN, metavar="N", help=f"how many rows to draw (default: {DRAWN})")
    parser.add_argument(
        "--out", type=Path, metavar="FILE",
        help="a .png picture of the first N rows; or all of them as .npz: row, x, given (NaN: missing), restored and, "
        "for missing numbers, draw: the last draw of the last chain",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draws the mask and z (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Damage, restore, compare, print, draw."""
    if args.out is not None and args.out.suffix not in (".png", ".npz"):
        raise UsageError(f"--out must end in .png or .npz, not {args.out.name!r}")
    if args.out is not None and not args.out.parent.is_dir():  # before the work, not after
        raise TinyvaeError(f"{args.out}: cannot be written (there is no such folder); choose another --out")
    for name, smallest in (("steps", 1), ("n", 1), ("seed", 0)):
        if getattr(args, name) < smallest:
            raise UsageError(f"--{name} must be at least {smallest}, not {getattr(args, name)}")
    try:
        mask = parse_mask(args.mask)
    except ValueError as error:
        raise UsageError(f"--mask {error}") from error
    trained = loading.open_run(args)
    dataset = trained.dataset(args.data_dir)
    image_shape = dataset.image_shape
    chosen = evenly_spread(len(dataset.x_test), ROWS)  # (rows,)
    x = as_trained(dataset.x_test[chosen], dataset.scale, trained.config)  # (rows, data)
    truth = x
    y = dataset.y_test[chosen] if trained.model.architecture.classes and dataset.y_test is not None else None
    mean, spread = column_moments(dataset)  # (data,) each
    rng = np.random.default_rng([args.seed, streams.NOISE])
    if mask.kind == "noise":
        given, what = add_noise(x, spread, rng, trained.model.likelihood.discrete)  # (rows, data)
        restored = {"restored": restoring.denoise(trained.model, given, rng, y=y)}
        estimates = {"VAE": restored["restored"], "as given": given, "training mean": np.tile(mean, (len(x), 1))}
        if image_shape is not None:
            estimates["3 x 3 mean"] = restoring.blurred(given, image_shape)
        counted = np.zeros(x.shape, dtype=bool)  # (rows, data): nothing is known for certain
    else:
        gaps = np.isnan(x)  # (rows, data): nobody knows what is there
        observed = _observed(mask, x, image_shape, rng) & ~gaps
        result = _fill_in(args, trained, x, observed, mean, rng, y)
        restored = {"restored": result.estimate, "draw": result.draw}
        hidden = (~observed & ~gaps).mean()
        given, what = np.where(observed, x, np.nan), f"{hidden:.0%} of the numbers hidden"
        if gaps.any():
            what += f", {gaps.mean():.0%} missing in the data: these are filled in, and nobody knows how well"
        estimates = {"VAE": result.estimate, "training mean": np.where(observed, x, mean)}
        counted = observed | gaps
    bounded = trained.model.likelihood.interval is not None  # then what they say are probabilities
    lines: list[Line] = []
    if not counted.all():
        standard = trained.model.standard
        if standard is not None:  # dollars and years are compared in standard deviations of each column
            estimates, x = {n: standard.inward(a) for n, a in estimates.items()}, standard.inward(x)
            what += "; errors in standard deviations of each column"
        lines = restoring.compare(estimates, x, counted, ("VAE", "training mean") if bounded else ())
    _print(args, f"{len(x):,} of {len(dataset.x_test):,} test rows, {what}", lines)
    if args.out is not None:
        _write(args, trained, {"row": chosen, "x": truth, "given": given, **restored}, image_shape)
        print(args.out)
    return 0


def _observed(mask: Mask, x: np.ndarray, image_shape: tuple[int, ...] | None, rng: np.random.Generator) -> np.ndarray:
    try:
        observed = mask.observed(len(x), x.shape[1], image_shape, rng) & ~np.isnan(x)
    except ValueError as error:
        raise UsageError(f"--mask: {error}") from error
    if observed.all():
        raise DataError(f"--mask leaves nothing missing in {x.shape[0]} rows of {x.shape[1]} numbers; choose another")
    return observed


def _fill_in(
    args: argparse.Namespace, trained: loading.Trained, x: np.ndarray, observed: np.ndarray, mean: np.ndarray,
    rng: np.random.Generator, y: np.ndarray | None,
) -> restoring.Restored:  # fmt: skip
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{restoring.CHAINS} chains of {args.steps} steps", total=len(x))
        return restoring.fill_in(
            trained.model, x, observed, mean, rng, args.steps, y=y,
            progress=lambda rows: bar.update(task, completed=rows),
        )  # fmt: skip


def _print(args: argparse.Namespace, what: str, lines: list[Line]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("", "root mean squared error", "cross-entropy, nats"):
        table.add_column(name, justify="right" if name else "left", header_style="")
    for line in lines:
        entropy = line.cross_entropy
        table.add_row(
            line.name,
            f"{line.rmse.value:.4f} +- {line.rmse.standard_error:.4f}",
            f"{entropy.value:.4f} +- {entropy.standard_error:.4f}" if entropy else "",
        )
    if lines and all(line.cross_entropy is None for line in lines):
        table.columns.pop()
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    console.print(f"{args.run_dir}: {what}", markup=False)
    if lines:
        console.print(table)


def _write(
    args: argparse.Namespace, trained: loading.Trained, arrays: dict[str, np.ndarray],
    image_shape: tuple[int, ...] | None,
) -> None:  # fmt: skip
    try:
        if args.out.suffix == ".npz":
            write_atomically(args.out, lambda file: np.savez(file, allow_pickle=False, **arrays))
            return
        from tinyvae.training import figures  # matplotlib takes a while to load
        from tinyvae.uses import pictures

        truth, given, restored = (arrays[name][: args.n] for name in ("x", "given", "restored"))
        title = f"Test rows of {args.run_dir.name}, --mask {args.mask}: restored is the mean of p(x|z) over many z"
        ink = figures.ink_of(trained.model, truth)
        figures.save_figure(pictures.restoration(truth, given, restored, image_shape, title, ink), args.out)
    except OSError as error:
        raise TinyvaeError(
            f"{args.out}: cannot be written ({error.strerror or error}); choose another --out"
        ) from error
