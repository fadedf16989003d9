"""Tables for the terminal and for Markdown, and the files that results are kept in."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rounds import Summary
from tinyvae.errors import UsageError

Save = Callable[[dict[str, Any]], None]  # stores the results so far, so that a run cut short is not lost
PARTIAL = ".partial"  # ends the name of a file that is not complete
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Table:
    """A title, a header and rows of text. The first column is set to the left, the others to the right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """For the terminal."""
        widths = [max(len(row[i]) for row in (self.header, *self.rows)) for i in range(len(self.header))]
        lines = []
        for row in (self.header, *self.rows):
            first, *others = [
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join((first, *others)).rstrip())
        return "\n".join([self.title, "-" * len(lines[0]), *lines])

    def markdown(self) -> str:
        """For a document."""
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        lines = [f"| {' | '.join(row)} |" for row in (self.header, rule, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines])


def microsecond(seconds: float) -> str:
    """Whole microseconds, and tenths where there are few."""
    return f"{seconds * 1e6:,.0f}" if seconds >= 1e-4 else f"{seconds * 1e6:.1f}"


def microseconds(s: Summary) -> tuple[str, str]:
    """The median, and the range, of a time in seconds."""
    return microsecond(s.median), f"{microsecond(s.low)} to {microsecond(s.high)}"


def times_ours(s: Summary) -> str:
    """A ratio with its range."""
    return f"{s.median:.2f} ({s.low:.2f} to {s.high:.2f})"


def without_paths(text: str) -> str:
    """The text with `...` for each absolute path: where files lie on this machine is nobody's business."""
    return re.sub(r"(?<![\w.])(?:/|[A-Za-z]:\\)[^\s'\",:;)]+", "...", text)


def partial(path: Path) -> Path:
    """Where the results of a run lie that has not come to its end."""
    return path.with_name(path.name + PARTIAL)


def check_writable(path: Path) -> None:
    """Raises UsageError if no file can be written there."""
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial(path).touch()
        partial(path).unlink()
    except OSError as error:
        raise UsageError(f"--json {path}: cannot be written ({error.strerror or error})") from error


def write_result(path: Path, document: dict[str, Any], *, complete: bool) -> None:
    """One JSON file for one run of one command; what is there already is replaced by a complete one alone."""
    partial(path).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if complete:
        partial(path).replace(path)
