"""`tinyvae gradcheck`: every hand-written gradient against finite differences."""

import argparse
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tinyvae.backend import get_backend
from tinyvae.checking.finite_differences import Check
from tinyvae.errors import UsageError
from tinyvae.kernels import problem

SUMMARY = "check every hand-written gradient against finite differences"
DESCRIPTION = """\
Check every operation, activation, layer and objective, and whole models of every kind and of every likelihood, in
float64 against central differences: whatever lies in the package's folders. Models go through the reference and the
NumPy kernels, or through those that are asked for. (The CUDA kernels compute in float32 alone: the test suite compares
them with the reference.)

The tolerance is derived from the round-off and the truncation of each difference, not chosen. The verdict is "ok",
"WRONG", or "cannot tell" with the reason: the tolerance hides the gradient, or the loss crosses a kink. Exit code 1 if
a gradient is wrong, or if of one the check cannot tell. To check a function of your own, see tinyvae.gradcheck."""
EXAMPLES = """\
examples:
  tinyvae gradcheck
  tinyvae gradcheck --kernels numba   the models on compiled loops
  tinyvae gradcheck --seed 7          other numbers, other directions"""

KERNELS = ("reference", "numpy")
COLOURS = {"ok": "green", "WRONG": "bold red", "cannot tell": "bold yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options."""
    parser.add_argument(
        "--kernels", action="append", choices=("reference", "numpy", "numba"), metavar="NAME",
        help="check the models on reference, numpy or numba; may be repeated (default: reference and numpy)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draws inputs and directions (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Check, print the table; 1 unless every gradient is right."""
    if args.seed < 0:
        raise UsageError(f"--seed must be at least 0, not {args.seed}")
    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in ("gradient", "error", "tolerance", "verdict"):
        is_text = column in ("gradient", "verdict")
        table.add_column(column, justify="left" if is_text else "right", no_wrap=True, min_width=None if is_text else 9)
    total = 0
    failed: dict[str, list[str]] = {"WRONG": [], "cannot tell": []}
    for title, checks in _groups(args.kernels or KERNELS, args.seed):
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


def _groups(kernels: Sequence[str], seed: int) -> list[tuple[str, Iterator[Check]]]:
    """What is checked, under its title; nothing is looked at before it is asked for."""
    from tinyvae.checking import activations, layers, models, objectives, operations  # these make small models of all

    for name in kernels:
        if reason := problem(name, get_backend("numpy"), "float64"):
            raise UsageError(f"--kernels {name}: {reason}")
    return [
        ("operations", operations.check_operations(seed)),
        ("activations", activations.activation_checks(seed)),
        ("layers", layers.layer_checks(seed)),
        ("objectives", objectives.objective_checks(seed)),
        *((f"models, {name} kernels", models.check_models(name, seed)) for name in kernels),
    ]
