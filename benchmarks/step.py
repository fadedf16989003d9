"""A training step of tinyvae and of its peers, side by side.

Before any time is printed, the losses of 20 steps on the same weights, batches and noise must agree. Then every
candidate runs in a process of its own, in turns, for several rounds; a round's number is the median of its steps.
Convolutions, batch normalization, labels and the importance-weighted bound are measured for tinyvae alone.

--beside DIR measures another checkout of tinyvae beside this one, and no peers: see benchmarks/beside.py.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from statistics import median
from typing import Any

from benchmarks import beside
from benchmarks.agreement import STEPS, compare, expected_on
from benchmarks.candidates import CANDIDATES, INSTALL, OURS, Candidate, Entry
from benchmarks.candidates.ours import Ours
from benchmarks.output import Save, Table, microseconds, times_ours, without_paths
from benchmarks.processes import ChildError, Children, ask_once
from benchmarks.rounds import ratio, summary
from benchmarks.shapes import SHAPES, Shape, given_batches

HELP = "a training step of tinyvae and of its peers (PyTorch, JAX), side by side"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `step`, and of nothing else."""
    parser.add_argument(
        "--shapes",
        nargs="+",
        choices=SHAPES,
        default=list(SHAPES),
        metavar="SHAPE",
        help=f"some of: {', '.join(SHAPES)}",
    )
    add_candidates(parser)
    parser.add_argument("--steps", type=positive, default=400, help="timed steps in a round (default: 400)")
    beside.add_options(parser, positive)


def add_candidates(parser: argparse.ArgumentParser) -> None:
    """Who takes part."""
    parser.add_argument(
        "--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES), metavar="NAME",
        help=f"some of: {', '.join(map(repr, CANDIDATES))} ({OURS!r} always takes part)",
    )  # fmt: skip


def positive(text: str) -> int:
    """A whole number, at least 1, from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, not {text!r}")
    return int(text)


# --------------------------------------------------------------------------------------------- in a candidate's process


def losses(candidate: str, shape: dict[str, Any], backend: str, tf32: bool) -> dict[str, Any]:
    """The losses of the given batches; from a step that draws its own, also what is expected on what it drew."""
    s = Shape.from_dict(shape)
    built = CANDIDATES[candidate].build(s, backend, tf32)
    if isinstance(built, Ours) and built.draws_on_device():
        own, batches = built.drawn_losses(STEPS)
        return {"losses": own, "expected": expected_on(s, batches)}
    return {"losses": built.given_losses(given_batches(s, STEPS))}


def times(candidate: str, shape: dict[str, Any], backend: str, tf32: bool, steps: int) -> dict[str, float | None]:
    """Seconds: of the median step, and (on a GPU) of a step where nobody waits."""
    built = build(candidate, Shape.from_dict(shape), backend, tf32)
    durations = built.step_times(warmup=max(10, steps // 8), steps=steps)
    if backend == "numpy":  # where nothing waits; jax scan has no single steps
        return {"step": median(durations) if durations else built.throughput(steps), "throughput": None}
    return {"step": median(durations) if durations else None, "throughput": built.throughput(steps)}


@cache
def build(candidate: str, shape: Shape, backend: str, tf32: bool) -> Candidate:
    """The candidate; a process that is kept builds it once for all rounds."""
    return CANDIDATES[candidate].build(shape, backend, tf32)


# --------------------------------------------------------------------------------------------- in the command's process


def present(names: Sequence[str], backend: str) -> tuple[list[Entry], dict[str, str]]:
    """The candidates that can take part, ours first, and why others cannot."""
    chosen = [entry for entry in CANDIDATES.values() if entry.name in (OURS, *names) and backend in entry.backends]
    left_out = {e.name: f"{e.library} is not installed: {INSTALL}" for e in chosen if e.missing()}
    return [e for e in chosen if e.name not in left_out], left_out


def measurable(shapes: Sequence[Shape], tf32: bool) -> list[Shape]:
    """Those of the shapes that tinyvae's step takes; the others are named."""
    for shape in shapes:
        if tf32 and not shape.is_plain:
            print(f"left out: {shape.name} (TF32 is for dense layers and the ELBO)")
    return [shape for shape in shapes if shape.is_plain or not tf32]


def able(entries: list[Entry], shape: Shape) -> list[Entry]:
    """Those of the candidates that train such a model; the others are named."""
    others = [entry.name for entry in entries if not entry.takes(shape)]
    if others:
        print(f"{shape.name}: left out: {', '.join(others)} (dense layers and the ELBO alone)")
    return [entry for entry in entries if entry.takes(shape)]


def agree(
    children: Children, entries: list[Entry], left_out: dict[str, str], shape: Shape, backend: str, tf32: bool
) -> dict[str, float]:
    """The largest share of its tolerance that each candidate needs; a peer that cannot run at all is left out.

    Raises DisagreementError.
    """
    shape_ = asdict(shape)
    truth = ask_once("agreement.expected", ours=False, shape=shape_)
    shares = {}
    for entry in entries:
        if not entry.agrees:
            continue
        for precise in [True, False] if tf32 else [True]:  # first in float32, whatever is measured
            request = {"candidate": entry.name, "shape": shape_, "backend": backend, "tf32": not precise}
            try:
                answer = children.ask(entry.name, "step.losses", ours=entry.ours, **request)
            except ChildError as error:
                if entry.library is None:
                    raise
                left_out[entry.name] = f"does not run here: {without_paths(str(error))}"
                print(f"  left out: {entry.name} ({left_out[entry.name]})", flush=True)
                break
            shares[entry.name] = compare(entry.name, answer["losses"], answer.get("expected", truth), tf32=not precise)
    return shares


def run(args: argparse.Namespace, save: Save) -> dict[str, Any]:
    """Measure; the results as JSON values. Raises UsageError for options that do not go together."""
    beside.check_options(args)
    if args.beside:
        return beside.run(args, [SHAPES[name] for name in args.shapes], save)
    entries, left_out = present(args.candidates, args.backend)
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})")
    results: dict[str, Any] = {
        "backend": args.backend, "tf32": args.tf32, "kernels": ask_once("machine.kernels_here", ours=True,
        backend=args.backend), "steps": args.steps, "left_out": left_out, "shapes": {},
    }  # fmt: skip
    with Children(args.backend, args.tf32) as children:
        for shape in measurable([SHAPES[name] for name in args.shapes], args.tf32):
            results["shapes"][shape.name] = run_shape(children, shape, able(entries, shape), left_out, args)
            entries = [entry for entry in entries if entry.name not in left_out]
            save(results)
    return results


def run_shape(
    children: Children, shape: Shape, entries: list[Entry], left_out: dict[str, str], args: argparse.Namespace
) -> dict[str, Any]:
    """First the agreement, then the rounds."""
    print(f"{shape.name}: do the losses of {STEPS} steps agree?", flush=True)
    shares = agree(children, entries, left_out, shape, args.backend, args.tf32)
    for name, share in shares.items():
        print(f"  {name}: yes, within {100 * share:.0f}% of what rounding allows")
    rounds: dict[str, list[dict[str, float | None]]] = {e.name: [] for e in entries if e.name not in left_out}
    for i in range(args.rounds):
        print(f"{shape.name}: round {i + 1} of {args.rounds}", flush=True)
        for name, found in rounds.items():
            answer = children.ask(
                name, "step.times", ours=CANDIDATES[name].ours, candidate=name, shape=asdict(shape),
                backend=args.backend, tf32=args.tf32, steps=args.steps,
            )  # fmt: skip
            found.append(answer)
    return {"flops": shape.flops(), "parameters": shape.parameters(), "agreement": shares, "rounds": rounds}


def column(rounds: list[dict[str, float | None]], key: str) -> list[float]:
    """One kind of time in all rounds; empty where it was not measured."""
    return [value for value in (r[key] for r in rounds) if value is not None]


def tables(results: dict[str, Any]) -> list[Table]:
    """For each shape: the step (on a GPU also where nobody waits)."""
    if "beside" in results:
        return beside.tables(results)
    kinds = {"step": "waiting for each", "throughput": "waiting only for the last"}
    kinds = {"step": ""} if results["backend"] == "numpy" else kinds
    precision = ", TF32" if results["tf32"] else ""
    found = []
    for name, shape in results["shapes"].items():
        for key, words in kinds.items():
            rows = [_row(candidate, shape, key) for candidate in shape["rounds"]]
            note = f" ({words})" if words else ""
            title = f"{name}{precision}: {shape['flops'] / 1e6:,.0f} MFLOP of products, µs a step{note}"
            header = ("", "median", "min to max of the rounds", "time over tinyvae's", "GFLOP/s")
            found.append(Table(title, header, [row for row in rows if row]))
    return found


def _row(candidate: str, shape: dict[str, Any], key: str) -> tuple[str, ...]:
    theirs, ours = column(shape["rounds"][candidate], key), column(shape["rounds"][OURS], key)
    if not theirs:
        return ()
    s = summary(theirs)
    compared = "1" if candidate == OURS else times_ours(ratio(theirs, ours))
    return (candidate, *microseconds(s), compared, f"{shape['flops'] / s.median / 1e9:,.0f}")
