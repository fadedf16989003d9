"""Pictures of the results, for a page's width. Colours that are told apart under colour blindness (Okabe and Ito)."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.candidates import AGAIN, CANDIDATES, OURS, PRODUCTS
from benchmarks.rounds import ratio, summary
from benchmarks.scaling import fitted
from benchmarks.step import column

DPI = 150
WIDTH = 9  # inches
COLOURS = ("#0072b2", "#56b4e9", "#e69f00", "#d55e00", "#cc79a7", "#009e73", "#000000", "#0072b2", "#999999")
RATIOS = (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 35, 50, 70, 100)  # where an axis has its marks
COLOUR = dict(zip(CANDIDATES, COLOURS, strict=True))


def draw(document: dict[str, Any]) -> Figure | None:
    """The picture of one command's results; None for a command that needs no picture."""
    makers = {"step": draw_step, "train": draw_train, "kernels": draw_kernels, "scaling": draw_scaling}
    make = makers.get(document["command"])
    return make(document["results"]) if make else None


def draw_step(results: dict[str, Any]) -> Figure:
    """For each shape, a dot for each candidate: its time over ours, with the range of the rounds."""
    key = "throughput" if results["backend"] == "cupy" else "step"
    shapes = results["shapes"]
    lines = max(len(shape["rounds"]) for shape in shapes.values())
    columns = min(2, len(shapes))
    rows = -(-len(shapes) // columns)
    figure = Figure(figsize=(WIDTH, 0.6 + rows * (0.7 + 0.26 * lines)), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, shape) in zip(grid, shapes.items(), strict=False):
        ours = column(shape["rounds"][OURS], key)
        names = [c for c in shape["rounds"] if c != OURS and column(shape["rounds"][c], key)]
        for i, c in enumerate(names):
            s = ratio(column(shape["rounds"][c], key), ours)
            axes.plot([s.low, s.high], [i, i], color=COLOUR[c], lw=2, alpha=0.6)
            axes.plot(s.median, i, "o" if c not in (AGAIN, PRODUCTS) else "D", color=COLOUR[c], ms=6)
            axes.annotate(
                f"{s.median:.2f}", (s.median, i), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0},
            )  # fmt: skip
        axes.axvline(1, color="#444444", lw=1)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.8)
        axes.set_title(f"{name}: tinyvae {summary(ours).median * 1e6:,.0f} µs", fontsize=10)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        marks = RATIOS if high / low < 20 else RATIOS[::2]
        axes.set_xticks([mark for mark in marks if low <= mark <= high])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(axis="x", alpha=0.3)
    for axes in grid[len(shapes) :]:
        axes.set_axis_off()
    figure.supxlabel("time over tinyvae's, logarithmic (1: as fast; right of it: slower)", fontsize=10)
    return figure


def draw_train(results: dict[str, Any]) -> Figure:
    """The test loss against the seconds of training, a line for each seed."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, curves in results["curves"].items():
        for i, curve in enumerate(curves):
            seconds, losses = zip(*curve, strict=True)
            style = "o-" if name == OURS else "s--"
            axes.plot(seconds, losses, style, color=COLOUR[name], ms=4, lw=1.3, alpha=0.8, label=None if i else name)
    axes.axhline(results["target"], color="#444444", lw=1, ls=":")
    axes.annotate(f"target {results['target']:g}", (0, results["target"]), xytext=(2, 3),
                  textcoords="offset points", fontsize=9)  # fmt: skip
    axes.set(xlabel="training time (s), evaluation not counted", ylabel="test loss (nats per digit)", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, title="a point an epoch, a line a seed")
    return figure


def draw_kernels(results: dict[str, Any]) -> Figure:
    """The time of each function: readable, fused, and the floor beside it."""
    rounds = results["rounds"]
    labels = [row["label"] for row in rounds[0]]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.3 * len(labels)), layout="constrained")
    axes = figure.subplots()
    for key, colour, marker, label in [
        ("reference", "#e69f00", "s", "readable formulas"),
        ("fused", "#0072b2", "o", f"{rounds[0][0]['kernels']} kernels"),
        ("floor", "#999999", "|", "floor: the plain products, or a copy of as many bytes"),
    ]:
        kinds = [key if key != "floor" else "products" if row["flops"] else "copy" for row in rounds[0]]
        medians = [summary([r[i][kind] for r in rounds]).median * 1e6 for i, kind in enumerate(kinds)]
        size = 14 if marker == "|" else 6
        axes.plot(
            medians, range(len(labels)), marker, color=colour, ms=size, mew=2 if marker == "|" else 1, label=label
        )
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("time of a call (µs, logarithmic)")
    axes.grid(axis="x", which="both", alpha=0.25)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3, fontsize=9)
    return figure


def draw_scaling(results: dict[str, Any]) -> Figure:
    """Time against arithmetic, and against the rows; beside each a line of the growth that the arithmetic has."""
    series = results["series"]
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    grid = figure.subplots(1, len(series), squeeze=False)[0]
    for axes, (name, points) in zip(grid, series.items(), strict=True):
        _draw_series(axes, name, points)
    grid[0].set_ylabel("time of a step (µs)")
    lines, labels = grid[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


def _draw_series(axes: Axes, name: str, points: list[dict[str, Any]]) -> None:
    by_rows = name == "rows"
    x = [point["rows"] if by_rows else point["flops"] / 1e6 for point in points]
    s = [summary(point["seconds"]) for point in points]
    medians = [p.median * 1e6 for p in s]
    errors = [[m - p.low * 1e6 for m, p in zip(medians, s, strict=True)],
              [p.high * 1e6 - m for m, p in zip(medians, s, strict=True)]]  # fmt: skip
    axes.errorbar(x, medians, errors, fmt="o-", color="#0072b2", ms=4, lw=1.3, label="measured (median, range)")
    expected = [medians[0] if by_rows else medians[-1] * value / x[-1] for value in x]
    axes.plot(x, expected, "--", color="#d55e00", lw=1.2, label="as the arithmetic")
    axes.set(xscale="log", yscale="log")
    if by_rows:
        axes.set_ylim(min(medians) / 3, max(medians) * 3)
    axes.set_title(f"{name}: exponent {fitted(name, points):.2f}", fontsize=10)
    axes.set_xlabel("rows of the data set" if by_rows else "products of a step (MFLOP)", fontsize=9)
    axes.set_xticks(x, [point["size"] if by_rows else f"{v:,.0f}" for v, point in zip(x, points, strict=True)],
                    fontsize=8, rotation=45)  # fmt: skip
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.25)
