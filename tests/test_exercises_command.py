"""`tinyvae exercises`, as a learner has it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import run

from tinyvae.errors import TinyvaeError
from tinyvae.exercises import catalogue, progress, worker
from tinyvae.exercises.catalogue import FOLDER

ROOT = Path(__file__).parent.parent
RIGHT = "    return dkl * mu, dkl * (0.5 * np.expm1(logvar))\n"
TWICE = "    return 2 * dkl * mu, dkl * np.expm1(logvar)\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own; checks run in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker, "check", worker.judged)
    return tmp_path


def write(folder: Path, body: str, name: str = "my_exercises/kl_backward.py") -> Path:
    stub = (FOLDER / "kl_backward.py").read_text(encoding="utf-8")
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(stub.replace("    raise NotImplementedError\n", body), encoding="utf-8")
    return path


def test_from_start_to_done(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("exercises", "start", "kl-backward") == 0
    path = here / "my_exercises" / "kl_backward.py"
    assert path.read_bytes() == (FOLDER / "kl_backward.py").read_bytes()
    assert "tutorials/04_gaussian_kl.md" in capsys.readouterr().out

    assert run("exercises", "check", "kl-backward") == 1
    assert "nothing is written yet" in capsys.readouterr().out

    write(here, TWICE)
    assert run("exercises", "check", "kl_backward.py") == 1  # as the file is called
    out = capsys.readouterr().out
    assert re.search(r"^fails  (dmu|dlogvar) is wrong$", out, flags=re.MULTILINE)
    assert re.search(r"^    must hold +dmu and dlogvar are the slopes of sum\(dkl KL\)$", out, flags=re.MULTILINE)
    assert "look   it is twice the right one" in out
    assert out.index("expected d") < out.index("got d")
    assert out.endswith("A hint: tinyvae exercises hint kl-backward\n")

    write(here, RIGHT)
    assert run("exercises", "check", "kl-backward") == 0
    out = capsys.readouterr().out
    assert out.count("holds") == 4
    assert "kl-backward is done." in out
    assert "tinyvae/ops/gaussian.py, line " in out
    assert progress.read(here / "my_exercises") == {"kl-backward": progress.Record(checks=3, passed=True)}

    assert run("exercises", "list") == 0
    out = capsys.readouterr().out
    assert "  kl-backward               easy    done   the KL divergence, backward\n" in out
    assert f"1 of {len(catalogue.names())} done." in out
    for name in catalogue.names():
        assert f"  {name} " in out

    assert run("exercises", "show", "kl-backward") == 0  # it has passed: no hint need be taken
    assert "def kl_backward(" in capsys.readouterr().out


def test_what_the_function_prints_is_shown_in_a_few_lines(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "    for i in range(9):\n        print('[bold]', i)\n" + TWICE)
    assert run("exercises", "check", "kl-backward") == 1
    out = capsys.readouterr().out
    assert "it prints  [bold] 4\n" in out
    assert "[bold] 5" not in out
    assert "and 4 more lines" in out


def test_an_error_is_two_lines_of_the_learners_own_and_no_traceback(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(here, "    return dkl * muu, logvar\n")
    number = 1 + path.read_text().splitlines().index("    return dkl * muu, logvar")
    assert run("exercises", "check", "kl-backward") == 1
    captured = capsys.readouterr()
    assert re.search(rf"^    line {number} +return dkl \* muu, logvar\n    NameError +name 'muu' is not defined$",
                     captured.out, flags=re.MULTILINE)  # fmt: skip
    assert "Traceback" not in captured.out + captured.err


def test_start_overwrites_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(here, RIGHT)
    before = path.read_bytes()
    assert run("exercises", "start", "kl-backward") == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert path.read_bytes() == before


def test_hints_come_one_by_one_are_remembered_and_then_the_solution_is_shown(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hints = catalogue.load("kl-backward").hints
    arguments = ("kl-backward", "--dir", "mine")
    for number, hint in enumerate(hints, 1):
        assert run("exercises", "show", *arguments) == 1
        assert "left: tinyvae exercises hint kl-backward" in capsys.readouterr().err
        assert run("exercises", "hint", *arguments) == 0
        assert capsys.readouterr().out == f"hint {number} of {len(hints)}: {hint}\n"
    assert run("exercises", "hint", *arguments) == 0
    assert "That is all." in capsys.readouterr().out
    assert run("exercises", "show", *arguments) == 0
    out = capsys.readouterr().out
    assert "dkl * (0.5 * expm1(logvar))" in out
    assert "derived in  tutorials/04_gaussian_kl.md" in out
    assert progress.read(here / "mine")["kl-backward"] == progress.Record(hints=len(hints), shown=True)
    assert run("exercises", "show", "kl-forward", "--now") == 0
    assert "def kl_forward(" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["check", "kl-backward"], 1, "begin with: tinyvae exercises start kl-backward"),
        (["check", "kl-backwards"], 2, "did you mean kl-backward"),
        (["start", "kl-backward", "--dir", "file"], 1, "cannot be written"),
        (["list", "--dir", "broken"], 1, "broken/progress.json: is no record of progress"),
        (["hint", "nothing-like-it"], 2, "see: tinyvae exercises list"),
    ],
)
def test_a_mistake_has_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], argv: list[str], code: int, says: str
) -> None:
    (here / "file").write_text("")
    (here / "broken").mkdir()
    (here / "broken" / "progress.json").write_text("[1]")
    assert run("exercises", *argv) == code
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_without_the_repository_or_hypothesis_it_says_what_to_do(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(worker, "find_spec", lambda name: None)
    with pytest.raises(TinyvaeError, match="pip install hypothesis"):
        worker.check("kl-backward", here / "kl_backward.py")
    monkeypatch.setattr(catalogue, "FOLDER", here / "nowhere")
    assert run("exercises", "list") == 1
    err = capsys.readouterr().err
    assert "clone it" in err
    assert err.count("\n") == 1


def headings(path: Path) -> list[str]:
    """Those outside of code, where # begins a comment."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", catalogue.names())
def test_the_section_to_read_is_there_and_its_tutorial_names_the_exercise_or_none_does(name: str) -> None:
    exercise = catalogue.load(name)
    tutorials = catalogue.REPOSITORY / "tutorials"
    assert exercise.section in headings(tutorials / f"{exercise.tutorial}.md")
    naming = [p.stem for p in tutorials.glob("*.md") if f"exercises start {name}\n" in p.read_text(encoding="utf-8")]
    assert exercise.tutorial in naming or not naming
    assert exercise.derivation() == f'tutorials/{exercise.tutorial}.md, section "{exercise.section}"'


# ------------------------------------------------------------------------------------------- in a process of its own


def test_in_a_process_of_its_own_the_verdict_is_the_same_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "    print('x' * 10**5)\n" + TWICE)
    holds, failure = worker.check("kl-backward", path)
    assert holds == ()
    assert failure is not None
    assert failure.look.startswith("it is twice the right one")
    assert failure == worker.judged("kl-backward", path)[1]
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["kl_backward.py"]


@pytest.mark.parametrize(
    ("body", "says", "line"),
    [
        ("    while True:\n        pass\n", "had not ended after 2 seconds", True),
        ("    import os\n    os._exit(0)\n", "the check ended with the process", False),
    ],
)
def test_a_file_that_never_ends_or_ends_the_process_has_a_line(
    tmp_path: Path, body: str, says: str, line: bool
) -> None:
    path = write(tmp_path, body)
    _, failure = worker.check("kl-backward", path, limit=2)
    assert failure is not None
    assert says in failure.says
    if line:
        number = 1 + path.read_text().splitlines().index("    while True:")
        assert failure.lines[0][0] in (f"line {number}", f"line {number + 1}")


def test_the_command_needs_no_hypothesis_to_be_imported() -> None:
    code = "import sys, tinyvae.commands.exercises; sys.exit('hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("body", "code"), [(RIGHT, 0), (TWICE, 1)])
def test_pytest_swaps_the_learners_file_in(tmp_path: Path, body: str, code: int) -> None:
    path = write(tmp_path, body)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_exercise_properties.py"]
    done = subprocess.run(
        [*command, "--exercise", str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "1 passed" in done.stdout or "it is twice the right one" in done.stdout


def test_commands_that_are_shown_can_be_pasted_and_the_next_exercise_is_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = catalogue.names()
    place = names.index("kl-backward")
    folder = here / "my own"
    assert run("exercises", "start", "KL_backward.py", "--dir", str(folder)) == 0
    assert f"check kl-backward --dir '{folder}'\n" in capsys.readouterr().out
    assert run("exercises", "show", "kl-backward", "--dir", str(folder)) == 1
    assert f"hint kl-backward --dir '{folder}';" in capsys.readouterr().err
    write(folder, RIGHT, "kl_backward.py")
    assert run("exercises", "check", "kl-backward", "--dir", str(folder)) == 0
    out = capsys.readouterr().out
    assert out.endswith(f"1 of {len(names)} done. Next: tinyvae exercises start {names[place + 1]} --dir '{folder}'\n")


def test_what_a_file_writes_to_stderr_is_not_taken_for_a_fault_of_the_check(tmp_path: Path) -> None:
    body = "    import os, sys\n    print('Traceback (most recent call last)', file=sys.stderr, flush=True)\n"
    body += "    os._exit(3)\n"
    _, failure = worker.check("kl-backward", write(tmp_path, body))
    assert failure is not None
    assert failure.says.startswith("the check ended with the process")
