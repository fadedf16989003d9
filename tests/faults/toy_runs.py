"""A toy `tinyvae train`, for the trials to be tried on: --bug plants a fault in how it writes. `python -m toy_runs`.

Its training counts the steps; the rest is what a run needs: a temporary file, fsync, a rename, the last two kept.
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save


def write(path: Path, content: bytes, bug: str) -> None:
    """Write a file, atomically and durably."""
    temporary = path if bug == "writes in place" else path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        if bug != "forgets to fsync the file":
            sync(temporary)
        temporary.replace(path)
    except BaseException:
        if bug != "leaves its temporary file":
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise
    if bug != "forgets the last fsync":
        sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def last_whole(run: Path) -> int:
    """The newest step that can be read, or 0."""
    for path in sorted(run.glob("step-*.safetensors"), reverse=True):
        with contextlib.suppress(SafetensorError):
            load(path.read_bytes())
            return int(path.name[5:8])
    return 0


def train(run: Path, epochs: int, bug: str) -> None:
    """Count on from the last whole checkpoint."""
    for folder in (*reversed(run.parents), run):
        if not folder.exists():
            folder.mkdir()
            if bug != "forgets to fsync the parent":
                sync(folder.parent)
    for leftover in run.glob(".*"):
        leftover.unlink()
    done = last_whole(run)
    rows = (run / "metrics.csv").read_text().splitlines()[1 : done + 1] if done else []
    if len(rows) != done:
        raise OSError(0, "lacks rows", str(run / "metrics.csv"))
    for step in range(done + 1, epochs + 1):
        rows.append(f"{step},{step * step}")
        write(run / "metrics.csv", "\n".join(["epoch,loss", *rows, ""]).encode(), bug)
        if bug == "deletes the old one first":
            prune(run, kept=0)
        write(run / f"step-{step:03d}.safetensors", save({"step": np.full(3, step)}), bug)
        prune(run, kept=2)
    prune(run, kept=2)


def prune(run: Path, kept: int) -> None:
    """Delete all but the last ones."""
    names = sorted(path.name for path in run.glob("step-*"))
    for name in names[: len(names) - kept]:
        (run / name).unlink()


def main() -> int:
    """Parse, train; a failure is one line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--bug", type=lambda word: word.replace("-", " "), default="")
    args = parser.parse_args()
    run = args.out or args.resume
    try:
        if args.resume and not last_whole(run):
            raise FileNotFoundError(0, "there is no checkpoint", str(run))
        train(run, 3, args.bug)
    except OSError as error:
        if args.bug == "shows a traceback":
            raise
        if args.bug != "swallows errors":
            print(f"{run}: {'bad luck' if args.bug == 'tells another cause' else error}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
