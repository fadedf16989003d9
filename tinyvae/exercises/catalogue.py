"""The exercises' texts: a TOML file and a stub for each, in `tutorials/exercises/` of the repository.

The TOML holds `title`, `tutorial` (the name of one, without .md), `section` (the heading in it to read), `grade`
(easy, medium, hard), `kind` (function, property), `solution` ("module:name"), `hints`, and `blanks`: what the stub's
docstring leaves out of the solution's.
Needs no Hypothesis.
"""

import importlib
import inspect
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tinyvae.errors import TinyvaeError, UsageError

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FOLDER = REPOSITORY / "tutorials" / "exercises"
GRADES = ("easy", "medium", "hard")


@dataclass(frozen=True)
class Exercise:
    """An exercise as its text tells it."""

    name: str
    title: str
    tutorial: str
    section: str
    grade: str
    kind: str
    solution: str
    hints: tuple[str, ...]
    blanks: dict[str, str]

    @property
    def file(self) -> str:
        """The name of its file, the stub's and the learner's."""
        return file_of(self.name)

    @property
    def stub(self) -> Path:
        """What a learner starts from."""
        return FOLDER / self.file

    def function(self) -> Callable[..., Any]:
        """The solution; of a formula, its lines."""
        module, _, name = self.solution.partition(":")
        found = getattr(importlib.import_module(module), name)
        return getattr(found, "function", found)

    def place(self) -> str:
        """Where the solution stands: "tinyvae/ops/gaussian.py, line 47"."""
        function = self.function()
        file = Path(inspect.getsourcefile(function) or "").relative_to(REPOSITORY)
        return f"{file.as_posix()}, line {inspect.getsourcelines(function)[1]}"

    def derivation(self) -> str:
        """Where it is derived: the tutorial, and its section."""
        return f'tutorials/{self.tutorial}.md, section "{self.section}"'


def file_of(name: str) -> str:
    """kl-backward -> kl_backward.py."""
    return name.replace("-", "_") + ".py"


def names() -> tuple[str, ...]:
    """All exercises, by tutorial, then from easy to hard, then forwards before backwards.

    Raises TinyvaeError where tinyvae is not run from a copy of its repository.
    """
    if not FOLDER.is_dir():
        raise TinyvaeError(
            "the exercises lie in tutorials/exercises of the repository, which is not here: clone it, "
            'and there: python -m pip install -e ".[test]"'
        )
    found = [_load(path) for path in FOLDER.glob("*.toml")]
    order = lambda e: (e.tutorial, e.kind, GRADES.index(e.grade), e.name.endswith("backward"), e.name)
    return tuple(e.name for e in sorted(found, key=order))


def load(name: str) -> Exercise:
    """The exercise called `name` (or of that file name). Raises UsageError, naming those that are spelled alike."""
    known = names()
    name = name.removesuffix(".py").replace("_", "-").lower()
    if name not in known:
        alike = get_close_matches(name, known)
        meant = f"did you mean {' or '.join(alike)}?" if alike else "see: tinyvae exercises list"
        raise UsageError(f"there is no exercise called {name!r}; {meant}")
    return _load(FOLDER / file_of(name).replace(".py", ".toml"))


def _load(path: Path) -> Exercise:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    hints, blanks = tuple(content.pop("hints")), content.pop("blanks", {})
    return Exercise(name=path.stem.replace("_", "-"), hints=hints, blanks=blanks, **content)
