"""`python -m benchmarks COMMAND`: parse, measure, print, store."""

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from benchmarks import check, kernels, machine, memory, report, scaling, step, train
from benchmarks.agreement import DisagreementError
from benchmarks.output import RESULTS, Table, check_writable, write_result
from benchmarks.processes import ChildError
from benchmarks.quality import command as quality
from tinyvae.backend import cupy_problem
from tinyvae.errors import TinyvaeError, UsageError

COMMANDS: dict[str, Any] = {
    "step": step, "kernels": kernels, "train": train, "scaling": scaling, "memory": memory, "check": check
}  # fmt: skip
ROUNDS = {"step": 7, "kernels": 3, "train": 3, "scaling": 3, "memory": 1, "check": 1}
QUICK = 2  # rounds
INTRO = """Measure tinyvae, beside its peers and beside what the machine can do.

Every candidate runs in a process of its own, in turns, several rounds: ratios within a round count, absolute times
wander. A benchmark measures defaults: OPENBLAS_* variables are removed from every process's environment, and tinyvae's
processes get those that `tinyvae train` chooses for this CPU. Peers: python -m pip install -e '.[bench]'
Leave the machine alone while it measures. See benchmarks/README.md."""


class Parser(argparse.ArgumentParser):
    """One line for a wrong argument, and exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> Parser:
    """One subcommand for each measurement."""
    raw = argparse.RawDescriptionHelpFormatter
    top = Parser(prog="python -m benchmarks", description=INTRO, formatter_class=raw)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        p = commands.add_parser(name, help=module.HELP, description=module.__doc__, formatter_class=raw)
        p.set_defaults(subparser=p)
        module.add_options(p)
        p.add_argument("--backend", choices=("numpy", "cupy"), default="numpy", help="default: numpy, the CPU")
        p.add_argument("--tf32", action="store_true", help="on a GPU: products in TF32 for all, not in float32")
        if name not in ("check", "memory"):
            p.add_argument("--rounds", type=step.positive, help=f"default: {ROUNDS[name]}")
            p.add_argument("--quick", action="store_true", help=f"{QUICK} rounds: a first look; not reported")
        if name != "check":
            p.add_argument(
                "--json", type=Path, metavar="FILE", help="where the numbers go (default: in benchmarks/results)"
            )
    p = commands.add_parser("quality", help=quality.HELP, description=quality.__doc__, formatter_class=raw)
    quality.add_options(p)
    p = commands.add_parser("report", help=report.HELP, description=report.__doc__, formatter_class=raw)
    report.add_options(p)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0; 1 if candidates disagree or a measurement fails; 2 if it was asked for wrongly; 130 on Ctrl-C."""
    args = parser().parse_args(arguments)
    try:
        if args.command == "report":
            report.run(args)
            return 0
        if args.command == "quality":
            return quality.run(args)
        check_device(args)
        return measure(args)
    except (DisagreementError, ChildError, OSError) as error:
        print(f"python -m benchmarks {args.command}: {error}", file=sys.stderr)
        return 1
    except TinyvaeError as error:
        print(f"python -m benchmarks {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"python -m benchmarks {args.command}: interrupted", file=sys.stderr)
        return 130


def check_device(args: argparse.Namespace) -> None:
    """Raises UsageError where the GPU cannot be had, or TF32 is asked of a CPU."""
    if args.tf32 and args.backend != "cupy":
        raise UsageError("--tf32 is for GPUs: add --backend cupy")
    problem = cupy_problem() if args.backend == "cupy" else None
    if problem:
        raise UsageError(problem)


def shown(args: argparse.Namespace) -> list[str]:
    """The command line as stored, from what was understood of it: options that are not as by default, no paths."""
    words = [args.command]
    for name, value in vars(args).items():
        if name in ("command", "subparser", "json") or value == args.subparser.get_default(name):
            continue
        values = [] if value is True else value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *("DIR" if isinstance(v, Path) else str(v) for v in values)]
    return words


def measure(args: argparse.Namespace) -> int:
    """Run the command, print its tables, store its numbers."""
    command = COMMANDS[args.command]
    arguments = shown(args)
    if not getattr(args, "rounds", None):
        args.rounds = QUICK if getattr(args, "quick", False) else ROUNDS[args.command]
    if args.command == "check":
        show(command.tables(command.run(args, lambda _: None)))
        return 0
    described = machine.describe()
    endings = "".join(f"-{word}" for word in ("beside", "tf32", "quick") if f"--{word}" in arguments)
    path = args.json or RESULTS / f"{args.command}-{machine.slug(described, args.backend)}{endings}.json"
    check_writable(path)
    document = {"command": args.command, "arguments": arguments, "machine": described}

    def save(results: dict[str, Any], complete: bool = False) -> None:
        write_result(path, document | {"results": results}, complete=complete)

    results = command.run(args, save)
    save(results, complete=True)
    show(command.tables(results))
    print(f"\n{path}")
    return 0


def show(tables: list[Table]) -> None:
    """Print them, each after an empty line."""
    for table in tables:
        print(f"\n{table.text()}")


if __name__ == "__main__":
    sys.exit(main())
