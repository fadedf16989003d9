"""The time of tinyvae's step while one thing doubles: the batch, the width, the depth, or the rows of the data set.

It must grow as the arithmetic does. The exponent k is that of time ~ FLOP^k: 1 where the cost of a FLOP stays the same,
below 1 where small sizes pay for overhead. Rows cost no arithmetic, so there time ~ rows^k must have k = 0.
"""

import argparse
from dataclasses import asdict, replace
from typing import Any

from benchmarks.candidates import OURS
from benchmarks.output import Save, Table
from benchmarks.processes import Children
from benchmarks.rounds import exponent, summary
from benchmarks.shapes import SHAPES, Shape
from benchmarks.step import column, positive

HELP = "a step's time against batch, width, depth and rows: it must grow as the arithmetic does"
BASE = SHAPES["784-400-20"]
SERIES: dict[str, list[Shape]] = {
    "batch": [replace(BASE, name=str(n), batch=n) for n in (64, 128, 256, 512, 1024)],
    "width": [replace(BASE, name=str(n), hidden=(n,)) for n in (128, 256, 512, 1024, 2048)],
    "depth": [replace(BASE, name=str(n), hidden=(256,) * n) for n in (1, 2, 4, 8)],
    "rows": [replace(BASE, name=f"{n:,}", rows=n) for n in (7_680, 15_360, 30_720, 61_440, 122_880)],
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `scaling`, and of nothing else."""
    parser.add_argument(
        "--series",
        nargs="+",
        choices=SERIES,
        default=list(SERIES),
        metavar="SERIES",
        help=f"some of: {', '.join(SERIES)}",
    )
    parser.add_argument("--steps", type=positive, default=100, help="timed steps in a round (default: 100)")


def run(args: argparse.Namespace, save: Save) -> dict[str, Any]:
    """Measure; the results as JSON values. On a GPU the time is that of a step where nobody waits."""
    key = "throughput" if args.backend == "cupy" else "step"
    found: dict[str, Any] = {
        series: [
            {"size": shape.name, "flops": shape.flops(), "rows": shape.rows, "seconds": []} for shape in SERIES[series]
        ]
        for series in args.series
    }
    points = [
        (point, shape) for series in args.series for point, shape in zip(found[series], SERIES[series], strict=True)
    ]
    results = {"backend": args.backend, "tf32": args.tf32, "series": found}
    with Children(args.backend, args.tf32) as children:
        for i in range(args.rounds):
            print(f"round {i + 1} of {args.rounds}", flush=True)
            for point, shape in points:
                answer = children.ask(
                    OURS, "step.times", ours=True, candidate=OURS, shape=asdict(shape), backend=args.backend,
                    tf32=args.tf32, steps=args.steps,
                )  # fmt: skip
                point["seconds"] += column([answer], key)
            save(results)
    return results


def fitted(series: str, points: list[dict[str, Any]]) -> float:
    """The exponent of the time's growth: with the arithmetic, or with the rows."""
    x = [point["rows" if series == "rows" else "flops"] for point in points]
    return exponent(x, [summary(point["seconds"]).median for point in points])


def tables(results: dict[str, Any]) -> list[Table]:
    """For each series: the time beside the arithmetic, both also over the first of the series."""
    found = []
    for series, points in results["series"].items():
        first, rows = points[0], []
        for point in points:
            s = summary(point["seconds"])
            grown = s.median / summary(first["seconds"]).median
            rows.append((
                point["size"], f"{s.median * 1e6:,.0f}", f"{s.low * 1e6:,.0f} to {s.high * 1e6:,.0f}",
                f"{point['flops'] / 1e6:,.0f}", f"{grown:.2f}", f"{point['flops'] / first['flops']:.2f}",
                f"{point['flops'] / s.median / 1e9:,.0f}",
            ))  # fmt: skip
        k = f"time ~ {'rows' if series == 'rows' else 'FLOP'}^{fitted(series, points):.2f}"
        precision = ", TF32" if results["tf32"] else ""
        title = f"{series}{precision}: µs a step of tinyvae, {k}"
        header = (series, "median", "min to max", "MFLOP", "time grew by", "arithmetic grew by", "GFLOP/s")
        found.append(Table(title, header, rows))
    return found
