"""`tinyvae gradcheck`: every hand-written gradient against finite differences."""

import argparse

from rich.console import Console
from rich.table import Table

from tinyvae.checking.models import check_models
from tinyvae.checking.operations import check_operations
from tinyvae.errors import UsageError

SUMMARY = "check every hand-written gradient against finite differences"
DESCRIPTION = """\
Check every operation, and whole models of every kind on the reference and the NumPy kernels, in float64 against central
differences. (The Numba and CUDA kernels compute in float32 alone: the test suite compares them with the reference.)

The tolerance is derived from the round-off and the truncation of each difference, not chosen. Exit code 1 if a gradient
is wrong. To check a function of your own, see tinyvae.gradcheck."""
EXAMPLES = """\
examples:
  tinyvae gradcheck
  tinyvae gradcheck --seed 7          other numbers, other directions"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draws inputs and directions (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Check, print the table; 1 if a gradient is wrong."""
    if args.seed < 0:
        raise UsageError(f"--seed must be at least 0, not {args.seed}")
    console = Console(highlight=False, soft_wrap=True)
    groups = [("operations", check_operations(args.seed))]
    groups += [(f"models, {kernels} kernels", check_models(kernels, args.seed)) for kernels in ("reference", "numpy")]
    table = Table(box=None, pad_edge=False)
    for column in ("gradient", "error", "tolerance", "verdict"):
        is_text = column in ("gradient", "verdict")
        table.add_column(column, justify="left" if is_text else "right", no_wrap=True, min_width=None if is_text else 9)
    total, wrong = 0, []
    for title, checks in groups:
        table.add_row(f"[bold]{title}[/bold]")
        for check in checks:
            total += 1
            wrong += [] if check.passed else [check]
            colour = "green" if check.passed else "bold red"
            verdict = f"[{colour}]{check.verdict}[/{colour}] {check.note}"
            table.add_row(f"  {check.name}", f"{check.error:.1e}", f"{check.tolerance:.1e}", verdict)
    console.print(table)
    if wrong:
        console.print(f"{len(wrong)} of {total} gradients are WRONG: {', '.join(check.name for check in wrong)}")
        return 1
    console.print(f"all {total} gradients agree with finite differences")
    return 0
