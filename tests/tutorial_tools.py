"""What the tests of the tutorials share: a Markdown file as blocks, its run, its checks, and what is asserted of each.

A tutorial is a program. Its python blocks run top to bottom in one namespace, with tracebacks that point at the
Markdown's own lines; a text fence right after a block is what that block prints. A math fence has a name in a comment
before it (`<!-- math: kl -->`, or `<!-- math: kl_mu, kl_logvar -->` for two equations), and a hidden check is python in
a comment that only the tests run (`<!-- check`, lines, `-->`). `Checks` in tutorial_math.py says what a check can use.
"""

import contextlib
import io
import json
import math as numbers
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent.parent / "tutorials"
ORDER = (
    "01_from_autoencoder_to_vae", "02_dense_layer", "03_likelihoods", "04_gaussian_kl", "05_reparameterization",
    "06_whole_backward", "07_checking_gradients", "08_adam", "09_training_and_looking", "10_property_based_testing",
    "11_museum_of_wrong_vaes", "12_convolution", "13_faster",
)  # fmt: skip
FILES = [FOLDER / f"{name}.md" for name in ORDER if (FOLDER / f"{name}.md").is_file()]
LARGEST_RTOL = 0.1


@dataclass(frozen=True)
class Block:
    """A fence (`kind` is its language), or a comment: `check`, or `math-names`. `line` is its first line of text."""

    kind: str
    line: int
    text: str
    names: tuple[str, ...] = ()  # of a math fence: its equations'


@dataclass(frozen=True)
class Run:
    """What the blocks left behind: the namespace, what each printed (by its line), the numbers of each figure."""

    namespace: dict[str, Any]
    printed: dict[int, str]
    figures: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Tutorial:
    path: Path
    text: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def prose(self) -> str:
        """The text with fences, comments and `code` blanked out, its lines and columns kept."""
        blank = lambda match: re.sub(r"[^\n]", " ", match[0])
        text = re.sub(r"^```.*?^```$", blank, self.text, flags=re.MULTILINE | re.DOTALL)
        return re.sub(r"<!--.*?-->", blank, text, flags=re.DOTALL)

    def of(self, kind: str) -> list[Block]:
        return [block for block in self.blocks if block.kind == kind]


def read(path: Path, text: str | None = None) -> Tutorial:
    """Parse a tutorial; `text` stands in for the file's own (to see that a wrong one is noticed)."""
    text = path.read_text(encoding="utf-8") if text is None else text
    tutorial = Tutorial(path, text)
    lines = text.splitlines()
    names: tuple[str, ...] = ()
    at = 0
    while at < len(lines):
        start = at
        if fence := re.fullmatch(r"```([\w-]*)", lines[at]):
            at = _find(lines, at + 1, lambda line: line == "```", f"{path.name}:{start + 1}: the fence has no end")
            block = Block(fence[1], start + 2, "\n".join(lines[start + 1 : at]) + "\n", names)
            assert not names or fence[1] == "math", f"{path.name}:{start}: a math fence follows a name"
            tutorial.blocks.append(block)
            names = ()
        elif comment := re.fullmatch(r"<!-- math: ([a-z]\w*(?:, [a-z]\w*)*) -->", lines[at]):
            names = tuple(comment[1].split(", "))
        elif lines[at] == "<!-- check":
            at = _find(lines, at + 1, lambda line: line == "-->", f"{path.name}:{start + 1}: the check has no end")
            tutorial.blocks.append(Block("check", start + 2, "\n".join(lines[start + 1 : at]) + "\n"))
        else:
            assert not names or not lines[at].strip(), f"{path.name}:{at + 1}: a math fence follows a name"
            assert not lines[at].startswith(("```", "~~~", "    ```")), f"{path.name}:{at + 1}: what fence is this?"
            assert "<!--" not in lines[at], f"{path.name}:{at + 1}: a comment that no test knows"
        at += 1
    return tutorial


def _find(lines: list[str], at: int, wanted: Callable[[str], bool], missing: str) -> int:
    while at < len(lines):
        if wanted(lines[at]):
            return at
        at += 1
    raise AssertionError(missing)


# ------------------------------------------------------------------------------------------------------------- the run


def execute(tutorial: Tutorial, block: Block, namespace: dict[str, Any]) -> None:
    """Run one block; a traceback shows the Markdown file and its line."""
    exec(compile("\n" * (block.line - 1) + block.text, str(tutorial.path), "exec"), namespace)


def run(tutorial: Tutorial, until: Callable[[Block, str], None] | None = None) -> Run:
    """Run the python blocks in an empty folder, figures into another, `from figures import save` as in tutorials/.

    `until` is called with each block and what it printed, and may raise.
    """
    namespace: dict[str, Any] = {"__name__": "tutorial"}
    printed: dict[int, str] = {}
    before, path, modules = Path.cwd(), list(sys.path), set(sys.modules)
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as figures:
        os.environ["TINYVAE_FIGURES"] = figures
        sys.path.insert(0, str(FOLDER))
        os.chdir(work)
        try:
            for block in tutorial.of("python"):
                output = io.StringIO()
                with contextlib.redirect_stdout(output):
                    execute(tutorial, block, namespace)
                printed[block.line] = output.getvalue()
                if until is not None:
                    until(block, output.getvalue())
        finally:
            os.chdir(before)
            sys.path[:] = path
            del os.environ["TINYVAE_FIGURES"]
            for name in {"figures"} & (set(sys.modules) - modules):
                del sys.modules[name]
        numbers = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in Path(figures).glob("*.json")}
    return Run(namespace, printed, numbers)


def check_outputs(tutorial: Tutorial, done: Run) -> None:
    """Every text fence is what the python block right before it printed, exactly."""
    last: Block | None = None
    for block in tutorial.blocks:
        if block.kind == "text":
            assert last is not None, f"line {block.line}: no python block is right before it"
            assert last.kind == "python", f"line {block.line}: no python block is right before it"
            got = done.printed[last.line]
            assert got.rstrip("\n") == block.text.rstrip("\n"), (
                f"{tutorial.path.name}:{block.line}: the text says\n{block.text}\n"
                f"and the block at line {last.line} prints\n{got}"
            )
        last = block


def check_figures(tutorial: Tutorial, done: Run) -> None:
    """Every picture of the text is made by its code, is committed, and shows the numbers that this run made."""
    shown = re.findall(r"!\[[^\]]+\]\(figures/(\w+)\.png\)", tutorial.prose)
    assert len(shown) == len(re.findall(r"!\[", tutorial.prose)), "a picture without a description, or not in figures/"
    assert sorted(shown) == sorted(done.figures), f"shown: {sorted(shown)}, made: {sorted(done.figures)}"
    for name in shown:
        assert name.startswith(tutorial.path.name[:3]), (
            f"{name}: the name of a figure begins with its tutorial's number"
        )
        assert (FOLDER / "figures" / f"{name}.png").is_file(), f"{name}.png is not there: run the tutorial"
        stored = json.loads((FOLDER / "figures" / f"{name}.json").read_text(encoding="utf-8"))
        rtol = float(stored.get("rtol", 1e-6))
        assert rtol <= LARGEST_RTOL, f"{name}: rtol {rtol} would hide a wrong number"
        same_numbers(name, done.figures[name], stored, rtol)


def same_numbers(where: str, got: Any, stored: Any, rtol: float) -> None:
    """Two values from JSON agree: words and whole numbers exactly, others up to rtol of the largest in their list."""
    if isinstance(stored, dict):
        assert isinstance(got, dict), where
        assert got.keys() == stored.keys(), f"{where}: {sorted(got)}, stored {sorted(stored)}"
        for key in stored:
            same_numbers(f"{where}.{key}", got[key], stored[key], rtol)
    elif isinstance(stored, list):
        assert isinstance(got, list), where
        assert len(got) == len(stored), f"{where}: {len(got)} values, stored {len(stored)}"
        if stored and all(isinstance(value, float | int) for value in stored):
            largest = max(abs(value) for value in stored)
            np.testing.assert_allclose(got, stored, rtol=0, atol=rtol * largest, err_msg=where)
        else:
            for place, (a, b) in enumerate(zip(got, stored, strict=True)):
                same_numbers(f"{where}[{place}]", a, b, rtol)
    elif isinstance(stored, float):
        assert numbers.isclose(got, stored, rel_tol=rtol), f"{where}: {got}, stored {stored}"
    else:
        assert got == stored, f"{where}: {got}, stored {stored}"
