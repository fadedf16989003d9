"""The harness itself, without a time: every installed candidate computes the same losses at tiny shapes."""

import argparse
from typing import Any

from benchmarks.output import Save, Table
from benchmarks.processes import Children
from benchmarks.shapes import TINY
from benchmarks.step import able, add_candidates, agree, measurable, present

HELP = "no time: do the losses of all installed candidates agree, at tiny shapes?"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `check`, and of nothing else."""
    add_candidates(parser)


def run(args: argparse.Namespace, save: Save) -> dict[str, Any]:
    """Raises DisagreementError if two candidates differ."""
    entries, left_out = present(args.candidates, args.backend)
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})")
    shapes = {}
    with Children(args.backend, args.tf32) as children:
        for shape in measurable(TINY, args.tf32):
            print(f"{shape.name} ...", flush=True)
            taking_part = able(entries, shape)
            shapes[shape.name] = agree(children, taking_part, left_out, shape, args.backend, args.tf32)
            entries = [entry for entry in entries if entry.name not in left_out]
    return {"backend": args.backend, "tf32": args.tf32, "shapes": shapes, "left_out": left_out}


def tables(results: dict[str, Any]) -> list[Table]:
    """The largest difference of a loss from its float64 value, as a share of what rounding allows."""
    shapes = results["shapes"]
    names = list(dict.fromkeys(name for shares in shapes.values() for name in shares))
    rows = [(name, *(f"{100 * shares[name]:.0f}%" if name in shares else "-" for shares in shapes.values()))
            for name in names]  # fmt: skip
    title = "largest difference of a loss of 20 steps, as a share of what rounding allows"
    return [Table(title, ("", *shapes), rows)]
