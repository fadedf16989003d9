"""`tinyvae exercises`: list, start, check, hint, show."""

import argparse
import inspect
import shlex
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from tinyvae.errors import TinyvaeError
from tinyvae.exercises import catalogue, progress, worker
from tinyvae.exercises.catalogue import Exercise
from tinyvae.exercises.learner import Failure
from tinyvae.training.files import write_text

SUMMARY = "exercises that check themselves: write a gradient, or a property that kills wrong ones"
DESCRIPTION = """\
Exercises to the tutorials, of two kinds. Write the function: properties judge it, against finite differences and other
oracles. Write the property: it must hold for the library's function and kill wrong ones. Start one, edit its file,
check it: one failure is told at a time, as small as it gets."""
EXAMPLES = """\
examples:
  tinyvae exercises list
  tinyvae exercises start kl-backward
  tinyvae exercises check kl-backward
  tinyvae exercises hint kl-backward          the next hint
  tinyvae exercises show kl-backward          the solution, once all hints are used"""
DIRECTORY = "my_exercises"
PRINTED = 5  # lines of what the learner's function prints
STYLES = {"easy": "green", "medium": "yellow", "hard": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """list, start, check, hint and show."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, explained in (
        ("list", "all exercises, by tutorial, and what you have done"),
        ("start", "put an exercise's stub into your folder"),
        ("check", "judge your file: one failure at a time"),
        ("hint", "the next hint"),
        ("show", "the solution, and where it is derived"),
    ):
        sub = actions.add_parser(action, help=explained, description=explained[0].upper() + explained[1:] + ".")
        if action != "list":
            sub.add_argument("name", metavar="NAME", help="an exercise, as list shows them")
        sub.add_argument(
            "--dir", default=DIRECTORY, metavar="DIR", help=f"the folder of your files (default: {DIRECTORY})"
        )
        if action == "show":
            sub.add_argument("--now", action="store_true", help="without waiting for the hints to be used up")


def run(args: argparse.Namespace) -> int:
    """Do what was asked; the exit code."""
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    folder = Path(args.dir)
    if args.action == "list":
        return _list(console, folder)
    exercise = catalogue.load(args.name)
    if args.action == "start":
        return _start(console, folder, exercise)
    if args.action == "check":
        return _check(console, folder, exercise)
    if args.action == "hint":
        return _hint(console, folder, exercise)
    return _show(console, folder, exercise, args.now)


def _list(console: Console, folder: Path) -> int:
    records = progress.read(folder)
    exercises = [catalogue.load(name) for name in catalogue.names()]
    width = max(len(e.name) for e in exercises)
    for tutorial, group in groupby(exercises, key=lambda e: e.tutorial):
        console.print(Text(f"tutorials/{tutorial}.md", style="bold"))
        for exercise in group:
            record = records.get(exercise.name)
            mark = "done" if record and record.passed else "begun" if record or _began(folder, exercise) else ""
            console.print(Text.assemble(
                f"  {exercise.name:{width}}  ", (f"{exercise.grade:6}", STYLES[exercise.grade]),
                (f"  {mark:5}  ", "green" if mark == "done" else ""), exercise.title,
            ))  # fmt: skip
    console.print(f"\n{_count(folder)} Begin one with: tinyvae exercises start NAME", markup=False)
    return 0


def _count(folder: Path) -> str:
    names, records = catalogue.names(), progress.read(folder)
    return f"{sum(1 for name in names if name in records and records[name].passed)} of {len(names)} done."


def _next(folder: Path, exercise: Exercise) -> str:
    """The first exercise after this one that has not passed."""
    names, records = catalogue.names(), progress.read(folder)
    place = names.index(exercise.name)
    later = names[place + 1 :] + names[:place]
    left = [name for name in later if name not in records or not records[name].passed]
    return f" Next: tinyvae exercises start {left[0]}{_option(folder)}" if left else ""


def _began(folder: Path, exercise: Exercise) -> bool:
    return (folder / exercise.file).exists()


def _start(console: Console, folder: Path, exercise: Exercise) -> int:
    path = folder / exercise.file
    if path.exists():
        raise TinyvaeError(f"{path} is there already, and stays as it is; check it, or delete it to begin anew")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, exercise.stub.read_text(encoding="utf-8"))
    except OSError as error:
        raise TinyvaeError(f"{path}: cannot be written ({error.strerror or error})") from error
    _update(folder, exercise)
    console.print(f"{exercise.name} ({exercise.grade}): {exercise.title}\n", markup=False)
    console.print(f"  edit   {path}", markup=False)
    for action in ("check", "hint"):
        console.print(f"  {action:5}  tinyvae exercises {action} {exercise.name}{_option(folder)}", markup=False)
    console.print(f"  read   {exercise.derivation()}", markup=False)
    return 0


def _option(folder: Path) -> str:
    return "" if str(folder) == DIRECTORY else f" --dir {shlex.quote(str(folder))}"


def _check(console: Console, folder: Path, exercise: Exercise) -> int:
    path = folder / exercise.file
    if not path.is_file():
        begin = f"tinyvae exercises start {exercise.name}{_option(folder)}"
        raise TinyvaeError(f"{path} is not there; begin with: {begin}")
    with Console(stderr=True).status(f"checking {path}"):
        holds, failure = worker.check(exercise.name, path)
    record = _update(folder, exercise, checks=1, passed=failure is None)
    for says in holds:
        _labelled(console, "holds", says, "green")
    if failure is None:
        console.print(Text(f"\n{exercise.name} is done.", style="bold green"))
        console.print(f"The library's own: {exercise.place()}", markup=False)
        console.print(f"{_count(folder)}{_next(folder, exercise)}", markup=False)
        return 0
    _tell(console, failure)
    if record.hints < len(exercise.hints):
        console.print(f"\nA hint: tinyvae exercises hint {exercise.name}{_option(folder)}", markup=False)
    return 1


def _tell(console: Console, failure: Failure) -> None:
    """One failure: what, the evidence, where to look."""
    _labelled(console, "fails", failure.says, "bold red")
    width = max((len(label) for label, _ in failure.lines), default=0)
    for label, text in failure.lines:
        lines = text.splitlines() or [""]
        for i, line in enumerate(lines):
            console.print(f"    {label if i == 0 else '':{width}}  {line}".rstrip(), markup=False)
    printed = failure.printed.splitlines()
    for line in printed[:PRINTED]:
        _labelled(console, "    it prints", line, "dim")
    if len(printed) > PRINTED:
        console.print(f"    and {len(printed) - PRINTED} more lines", markup=False)
    if failure.look:
        _labelled(console, "look", failure.look, "bold yellow")


def _labelled(console: Console, label: str, text: str, style: str) -> None:
    console.print(Text.assemble((f"{label:5}", style), "  ", text))


def _hint(console: Console, folder: Path, exercise: Exercise) -> int:
    seen = progress.read(folder).get(exercise.name, progress.Record()).hints
    if seen >= len(exercise.hints):
        for number, hint in enumerate(exercise.hints, 1):
            console.print(f"{number}. {hint}", markup=False)
        console.print(f"\nThat is all. The solution: tinyvae exercises show {exercise.name}{_option(folder)}")
        return 0
    _update(folder, exercise, hints=1)
    console.print(f"hint {seen + 1} of {len(exercise.hints)}: {exercise.hints[seen]}", markup=False)
    return 0


def _show(console: Console, folder: Path, exercise: Exercise, now: bool) -> int:
    record = progress.read(folder).get(exercise.name, progress.Record())
    left = len(exercise.hints) - record.hints
    if left > 0 and not record.passed and not now:
        hints = "one hint is" if left == 1 else f"{left} hints are"
        hint = f"tinyvae exercises hint {exercise.name}{_option(folder)}"
        raise TinyvaeError(f"{hints} left: {hint}; or show it with --now")
    _update(folder, exercise, shown=not record.passed)
    source = inspect.getsource(exercise.function())
    console.print(Syntax("", "python", theme="ansi_dark").highlight(source))  # in the terminal's own colours
    console.print(f"stands in   {exercise.place()}", markup=False)
    console.print(f"derived in  {exercise.derivation()}", markup=False)
    return 0


def _update(
    folder: Path, exercise: Exercise, checks: int = 0, hints: int = 0, passed: bool = False, shown: bool = False
) -> progress.Record:
    """Add to the exercise's record. What has passed stays passed."""
    records = progress.read(folder)
    record = records.setdefault(exercise.name, progress.Record())
    record.checks += checks
    record.hints += hints
    record.passed |= passed
    record.shown |= shown
    progress.write(folder, records)
    return record
