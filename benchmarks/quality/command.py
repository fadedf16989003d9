"""What each model reaches, and what it is good for: losses and uses, measured on MNIST.

Each part trains through `tinyvae train`'s own code, measures by the functions that the other commands call, and
writes a JSON file at once; at the end benchmarks/QUALITY.md and its charts are written from these files. Runs that
are complete are used again, a stopped one is gone on with. All parts take about an hour on two cores. Set
OPENBLAS_NUM_THREADS=1: with other numbers of threads sums are rounded otherwise, and losses differ a little.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.output import RESULTS
from benchmarks.quality import page
from benchmarks.quality.runs import Workshop
from tinyvae import blas
from tinyvae.errors import UsageError
from tinyvae.training.files import write_text

HELP = "what each model reaches, and what it is good for: losses and uses, on MNIST"
PAGE = Path(__file__).parents[1] / "QUALITY.md"
PICTURES = Path("figures") / "quality"  # beside the page


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `quality`."""
    parser.add_argument(
        "--parts", nargs="+", choices=page.PARTS, metavar="NAME", help=f"of {', '.join(page.PARTS)} (default: all)"
    )
    parser.add_argument("--data-dir", type=Path, help="the folder with MNIST's four files, or to download them to")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/quality"),
        metavar="DIR",
        help="where runs are kept (default: runs/quality)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a first look: small digits, two epochs, a temporary folder"
    )
    parser.add_argument(
        "--report-only", action="store_true", help="measure nothing, write the page from what was measured"
    )


def run(args: argparse.Namespace) -> int:
    """Measure the parts, write the page; the exit code."""
    results, sheet, out = RESULTS, PAGE, args.out
    if args.quick:
        folder = Path(tempfile.mkdtemp(prefix="tinyvae-quality-"))
        results, sheet, out = folder / "results", folder / "QUALITY.md", folder / "runs"
        results.mkdir()
    elif args.data_dir is not None and not args.data_dir.is_dir():
        raise UsageError(f"--data-dir {args.data_dir}: there is no such folder")
    pictures = sheet.parent / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    if not args.report_only:
        shop = Workshop(out, args.data_dir, args.quick)
        described = machine.describe()
        for name in args.parts or page.PARTS:
            measure(name, shop, results, pictures, described)
    print(f"{sheet}: {page.write(results, sheet, pictures)} parts")
    return 0


def measure(name: str, shop: Workshop, results: Path, pictures: Path, described: dict[str, Any]) -> None:
    """One part: its numbers are on the disk when it is done."""
    print(f"{name}: {page.PARTS[name].TITLE}", flush=True)
    openblas = blas.loaded()
    document = {
        "command": "quality", "part": name, "machine": described, "threads": openblas.threads if openblas else None,
        "results": page.PARTS[name].run(shop, pictures),
    }  # fmt: skip
    write_text(page.path_of(results, name), json.dumps(document, indent=1) + "\n")
