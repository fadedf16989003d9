"""What is asserted of a tutorial's text: links, names, commands, formulas that GitHub renders, closing sections."""

import ast
import contextlib
import io
import os
import re
import shlex
from pathlib import Path
from unittest import mock

from tutorial_tools import FOLDER, ORDER, Tutorial

import tinyvae.commands

# What GitHub's MathJax knows and the tutorials use. Another one is added here, after a look at the rendered page.
COMMANDS = set(re.findall(r"\w+", """
    frac tfrac dfrac sqrt sum prod int partial nabla infty log ln exp max min tanh sinh cosh arg det lim sup
    left right big Big bigl bigr Bigl Bigr cdot cdots ldots dots times odot pm le leq ge geq ne neq approx sim
    simeq equiv propto ll gg to rightarrow Rightarrow leftarrow mapsto in notin subset cup cap top mid parallel
    Vert vert lVert rVert lfloor rfloor lceil rceil mathrm mathbf mathbb mathcal mathbin text hat bar tilde
    underbrace overbrace boxed quad qquad circ forall langle rangle star ast begin end alpha beta gamma delta
    epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi varphi chi psi omega Delta
    Sigma Phi Psi Omega Theta Lambda Gamma ell prime lvert rvert tag bmod
"""))  # fmt: skip
ENVIRONMENTS = {"aligned", "cases", "pmatrix", "bmatrix", "matrix", "array"}
PUNCTUATED = {"\\\\", "\\,", "\\;", "\\:", "\\!", "\\ ", "\\|"}  # in a math fence; inline Markdown eats the backslash


def check_formulas(tutorial: Tutorial) -> None:
    """Formulas are such as GitHub renders: fences for display, `$` alone where Markdown leaves it alone."""
    name = tutorial.path.name
    for block in tutorial.of("math"):
        check_latex(block.text, f"{name}:{block.line}", display=True)
        assert "$" not in block.text, f"{name}:{block.line}: a dollar sign in a math fence"
        assert not re.search(r"^\s*$", block.text.strip("\n"), re.MULTILINE), f"{name}:{block.line}: an empty line"
    for number, whole in enumerate(tutorial.prose.splitlines(), 1):
        line = re.sub(r"`[^`]*`", lambda match: "c" * len(match[0]), whole)
        where = f"{name}:{number}"
        assert "$$" not in line, f"{where}: display formulas stand in math fences"
        parts = line.split("$")
        assert len(parts) % 2, f"{where}: a dollar sign without its partner on the line"
        for place in range(1, len(parts), 2):
            before, formula, after = parts[place - 1], parts[place], parts[place + 1]
            assert formula.strip() == formula != "", f"{where}: spaces inside the dollars of ${formula}$"
            assert before[-1:] in ("", " ", "(", "-", '"', "["), f"{where}: ${formula}$ needs a space before it"
            assert after[:1] in ("", " ", ".", ",", ";", ":", ")", "?", "!", "-", '"', "'", "]"), (
                f"{where}: ${formula}$ touches {after[:1]!r}"
            )
            assert not re.search(r"\\[^A-Za-z]", formula), f"{where}: Markdown eats the backslash in ${formula}$"
            assert not re.search(r"[*<>`]", formula), f"{where}: Markdown may read a sign in ${formula}$"
            assert not re.search(r"[^A-Za-z0-9]_", formula), (
                f"{where}: the _ after a bracket in ${formula}$ can start emphasis: use a math fence"
            )
            assert not (line.lstrip().startswith("|") and "|" in formula), f"{where}: | ends a table's cell: \\mid"
            check_latex(formula, where, display=False)


def check_latex(latex: str, where: str, display: bool) -> None:
    """Known commands; brackets, \\left and \\right, \\begin and \\end in pairs."""
    depth = 0
    for token in re.findall(r"\\[A-Za-z]+|\\.|[{}]", latex, re.DOTALL):
        if token.startswith("\\"):
            known = token[1:] in COMMANDS or (display and (token in PUNCTUATED or token == "\\\n"))
            assert known, f"{where}: {token!r} is not among the commands that are used here"
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0, f"{where}: a brace closes too early in {latex!r}"
    assert depth == 0, f"{where}: braces do not balance in {latex!r}"
    lefts, rights = len(re.findall(r"\\left\b", latex)), len(re.findall(r"\\right\b", latex))
    assert lefts == rights, f"{where}: {lefts} \\left and {rights} \\right in {latex!r}"
    begins, ends = (re.findall(rf"\\{word}\{{(\w+)\}}", latex) for word in ("begin", "end"))
    assert sorted(begins) == sorted(ends), f"{where}: \\begin and \\end differ in {latex!r}"
    assert set(begins) <= ENVIRONMENTS, f"{where}: an environment that is not used here: {begins}"


def check_links(tutorial: Tutorial) -> None:
    """Files are there; a name in backticks that links to Python is defined there; an anchor is a heading there."""
    name = tutorial.path.name
    for text, target in re.findall(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", tutorial.prose):
        if re.match(r"https?://", target):
            continue
        relative, _, anchor = target.partition("#")
        file = (tutorial.path.parent / relative).resolve() if relative else tutorial.path
        assert file.exists(), f"{name}: the link [{text}]({target}) leads nowhere"
        assert file.is_relative_to(FOLDER.parent), f"{name}: the link [{text}]({target}) leaves the repository"
        if (code := re.fullmatch(r"`([\w.]+)`", text)) and file.suffix == ".py":
            assert code[1] in defined(file), f"{name}: {code[1]} is not defined in {relative}"
        if anchor:
            source = tutorial.text if file == tutorial.path else file.read_text(encoding="utf-8")
            assert anchor in anchors(source), f"{name}: {target}: no such heading: {sorted(anchors(source))}"


def defined(file: Path) -> set[str]:
    """The functions, classes, methods (as Class.method and method) and names of a module."""
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            names |= methods | {f"{node.name}.{method}" for method in methods}
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                names.add(target.id)
    return names


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def check_commands(tutorial: Tutorial) -> None:
    """Every `python -m tinyvae` in an sh fence is parsed as it stands: subcommand, options, and the options' values."""
    for block in tutorial.of("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if match := re.search(r"-m tinyvae(?:\.(train)\b| (\w+))(.*)", line):
                check_command([match[1] or match[2], *shlex.split(match[3], comments=True)], f"{line!r}")


def check_command(words: list[str], where: str) -> None:
    output = io.StringIO()
    code: object = None
    environment = mock.patch.dict(os.environ)  # `train` sets BLAS up first thing
    with environment, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            tinyvae.commands.main([*words, "--help"])  # the words before --help are parsed, and nothing runs
        except SystemExit as stopped:
            code = stopped.code
    said = output.getvalue()
    assert code == 0, f"{where}: {said.strip().splitlines()[-1]}"
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{option.split('=')[0]}(?![\w-])", said), f"{where}: no option {option}"


def check_closing(tutorial: Tutorial) -> None:
    """It opens with title, question and needs; it ends with what was proved, exercises, and its neighbours."""
    name, text = tutorial.path.stem, tutorial.text
    place = ORDER.index(name)
    assert re.match(r"# \S.*\n\n\S", text), "a title and a paragraph come first"
    assert re.search(r"^Needs: .+\. About \d+ minutes\.$", text, re.MULTILINE), "the line 'Needs: ... About N minutes.'"
    headings = re.findall(r"^## (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    assert headings[-2:] == ["What this proved", "Exercises"], f"the last sections are {headings[-2:]}"
    proved = text.split("## What this proved")[1].split("## Exercises")[0]
    assert re.search(r"^- ", proved, re.MULTILINE), "what this proved: no bullets"
    exercises = re.findall(r"python -m tinyvae exercises start ([a-z0-9-]+)", text.split("## Exercises")[1])
    assert exercises, "no exercise is named: python -m tinyvae exercises start NAME"
    for exercise in exercises:
        assert (FOLDER / "exercises" / f"{exercise.replace('-', '_')}.py").is_file(), (
            f"no exercise is called {exercise}"
        )
    last = text.rstrip().splitlines()[-1]
    neighbours = [f"Previous: [{ORDER[place - 1]}]({ORDER[place - 1]}.md)"] if place else []
    neighbours += [f"Next: [{ORDER[place + 1]}]({ORDER[place + 1]}.md)"] if place + 1 < len(ORDER) else []
    for neighbour in neighbours:
        target = neighbour.rsplit("(", 1)[1]
        word = neighbour.split(":")[0]
        assert re.search(rf"{word}: \[[^\]]+\]\({re.escape(target)}", last), f"the last line has no {neighbour}"
