"""`tinyvae gradcheck`: every hand-written gradient against finite differences."""

import argparse

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tinyvae.checking.models import check_models
from tinyvae.checking.operations import check_operations
from tinyvae.errors import UsageError

SUMMARY = "check every hand-written gradient against finite differences"
DESCRIPTION = """\
Check every operation, and whole models of every kind on the reference and the NumPy kernels, in float64 against central
differences. (The Numba and CUDA kernels compute in float32 alone: the test suite compares them with the reference.)

The tolerance is derived from the round-off and the truncation of each difference, not chosen. The verdict is "ok",
"WRONG", or "cannot tell" with the reason: the tolerance hides the gradient, or the loss crosses a kink. Exit code 1 if
a gradient is wrong, or if of one the check cannot tell. To check a function of your own, see tinyvae.gradcheck."""
EXAMPLES = """\
examples:
  tinyvae gradcheck
  tinyvae gradcheck --seed 7          other numbers, other directions"""

COLOURS = {"ok": "green", "WRONG": "bold red", "cannot tell": "bold yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draws inputs and directions (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Check, print the table; 1 unless every gradient is right."""
    if args.seed < 0:
        raise UsageError(f"--seed must be at least 0, not {args.seed}")
    console = Console(highlight=False, soft_wrap=True)
    groups = [("operations", check_operations(args.seed))]
    groups += [(f"models, {kernels} kernels", check_models(kernels, args.seed)) for kernels in ("reference", "numpy")]
    table = Table(box=None, pad_edge=False)
    for column in ("gradient", "error", "tolerance", "verdict"):
        is_text = column in ("gradient", "verdict")
        table.add_column(column, justify="left" if is_text else "right", no_wrap=True, min_width=None if is_text else 9)
    total = 0
    failed: dict[str, list[str]] = {"WRONG": [], "cannot tell": []}
    for title, checks in groups:
        table.add_row(f"[bold]{title}[/bold]")
        for check in checks:
            total += 1
            if not check.passed:
                failed[check.verdict].append(check.name)
            colour = COLOURS[check.verdict]
            verdict = f"[{colour}]{check.verdict}[/{colour}] {escape(check.note)}"
            table.add_row(f"  {escape(check.name)}", f"{check.error:.1e}", f"{check.tolerance:.1e}", verdict)
    console.print(table)
    wrong, blind = failed["WRONG"], failed["cannot tell"]
    if wrong:
        console.print(f"{len(wrong)} of {total} gradients are WRONG: {', '.join(wrong)}", markup=False)
    if blind:
        console.print(f"of {len(blind)} of {total} gradients the check cannot tell: {', '.join(blind)}", markup=False)
    if wrong or blind:
        return 1
    console.print(f"all {total} gradients agree with finite differences")
    return 0
