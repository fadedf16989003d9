"""Two checkouts of tinyvae, their steps measured in turns in one run: before a change, and after it.

Each step is measured in a fresh process that runs in its checkout and calls that checkout's `benchmarks.side`, so their
insides may differ. First the losses of 20 steps must agree: both draw weights, batches and noise from the same seeds.
Then come the rounds; in every second one the other checkout begins.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.agreement import STEPS, DisagreementError
from benchmarks.candidates import CANDIDATES
from benchmarks.output import Save, Table, microsecond, times_ours
from benchmarks.processes import HERE, Child, ChildError, Children
from benchmarks.rounds import ratio, summary
from benchmarks.shapes import Shape
from tinyvae.errors import UsageError

RELATIVE = 1e-4  # of a loss: both are in float32, and 20 steps have amplified how they round
SMALLEST = 1e-30  # size of a loss: two that are 0 agree
THIS, OTHER = "this", "other"


@dataclass(frozen=True)
class Side:
    """A checkout that is measured."""

    name: str
    folder: Path
    threads: int | None  # of OpenBLAS

    def ask(self, task: str, shape: Shape, kernels: str | None, steps: int) -> Any:
        """What its `benchmarks.side` answers, in a fresh process. Raises ChildError, which names the side."""
        request = {"shape": shape.to_dict(), "kernels": kernels, "steps": steps}
        with self._named(shape), Children("numpy", checkout=self.folder, threads=self.threads) as children:
            return children.ask(self.name, f"side.{task}", ours=True, **request)

    def peak(self, shape: Shape, kernels: str | None, steps: int) -> int:
        """The most memory, in bytes, that a fresh process has had after so many steps. Raises ChildError, likewise."""
        child = Child(ours=True, checkout=self.folder, threads=self.threads)
        try:
            with self._named(shape):
                child.ask("side.losses", shape=shape.to_dict(), kernels=kernels, steps=steps)
                return child.peak()
        except BaseException:
            child.process.kill()
            raise
        finally:
            child.close()

    @contextmanager
    def _named(self, shape: Shape) -> Iterator[None]:
        try:
            yield
        except ChildError as error:
            raise ChildError(f"{shape.name}, {self.name} checkout: {error}") from error


def add_options(parser: argparse.ArgumentParser, positive: Callable[[str], int]) -> None:
    """Who is measured beside this checkout, and how both are."""
    parser.add_argument(
        "--beside", type=Path, metavar="DIR", help="another checkout of tinyvae, measured in turns with this one"
    )
    parser.add_argument(
        "--kernels", choices=("numba", "numpy"), help="with --beside: of both (default: each side's fastest)"
    )
    parser.add_argument(
        "--blas-threads", type=positive, metavar="N", help="with --beside: OpenBLAS's threads (default: all cores)"
    )


def check_options(args: argparse.Namespace) -> None:
    """Raises UsageError for options that do not go together, or a folder that cannot be measured."""
    if args.beside is None:
        alone = {"--kernels": args.kernels, "--blas-threads": args.blas_threads}
        given = [option for option, value in alone.items() if value is not None]
        if given:
            raise UsageError(f"{given[0]} goes with --beside DIR: add that, or leave it out")
        return
    if args.backend != "numpy":
        raise UsageError("--beside measures on a CPU: leave --backend out")
    if getattr(args, "candidates", list(CANDIDATES)) != list(CANDIDATES):
        raise UsageError("--beside measures tinyvae alone: leave --candidates out")
    if not args.beside.is_dir():
        raise UsageError(f"--beside {args.beside}: there is no such folder")
    for file in ("tinyvae/__init__.py", "benchmarks/side.py"):
        if not (args.beside / file).is_file():
            raise UsageError(f"--beside {args.beside}: has no {file}, so it is no checkout that can be measured")


def both(args: argparse.Namespace) -> list[Side]:
    """This checkout and the other."""
    return [Side(THIS, HERE, args.blas_threads), Side(OTHER, args.beside.resolve(), args.blas_threads)]


def run(args: argparse.Namespace, shapes: list[Shape], save: Save) -> dict[str, Any]:
    """All shapes' losses, then their rounds; the results as JSON values. Raises DisagreementError."""
    sides = both(args)
    results: dict[str, Any] = {
        "beside": True, "kernels": args.kernels, "blas_threads": args.blas_threads, "steps": args.steps, "shapes": {},
    }  # fmt: skip
    for shape in shapes:
        this, other = (side.ask("losses", shape, args.kernels, STEPS)["losses"] for side in sides)
        share = difference(shape.name, this, other)
        print(f"{shape.name}: the losses of {STEPS} steps agree, to {share:.1e} of their size", flush=True)
        results["shapes"][shape.name] = {"difference": share, "rounds": {side.name: [] for side in sides}}
    for i in range(args.rounds):
        print(f"round {i + 1} of {args.rounds}", flush=True)
        for shape in shapes:
            for side in sides if i % 2 == 0 else reversed(sides):
                answer = side.ask("times", shape, args.kernels, args.steps)
                results["shapes"][shape.name]["rounds"][side.name].append(answer["step"])
        save(results)
    return results


def difference(name: str, this: list[float], other: list[float]) -> float:
    """The largest difference of two losses, as a share of their size. Raises DisagreementError above RELATIVE."""
    if not len(this) == len(other) == STEPS:
        raise DisagreementError(f"{name}: {len(this)} and {len(other)} losses, not {STEPS} each; no time is printed")
    shares = [abs(a - b) / max(abs(a), abs(b), SMALLEST) for a, b in zip(this, other, strict=True)]
    for step, share in enumerate(shares):
        if not share <= RELATIVE:  # NaN is not
            raise DisagreementError(
                f"{name}: the checkouts do not do the same work: the loss of step {step + 1} is {this[step]:.6f} here "
                f"and {other[step]:.6f} there; no time is printed"
            )
    return max(shares)


def tables(results: dict[str, Any]) -> list[Table]:
    """A line for each shape."""
    rows = []
    for name, shape in results["shapes"].items():
        this, other = shape["rounds"][THIS], shape["rounds"][OTHER]
        medians = (microsecond(summary(side).median) for side in (this, other))
        rows.append((name, *medians, times_ours(ratio(other, this))))
    header = ("", "this checkout", "the other", "other over this, by round")
    return [Table(f"µs a step, {how(results)}", header, rows)]


def how(results: dict[str, Any]) -> str:
    """What both were told."""
    kernels = f"{results['kernels']} kernels" if results["kernels"] else "each side's fastest kernels"
    threads = results["blas_threads"]
    return kernels + (f", OpenBLAS on {threads} thread{'s' * (threads > 1)}" if threads else "")
