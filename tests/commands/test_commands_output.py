"""Whole processes: what comes out of them, and what happens if nobody takes it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from strategies import sampled

import tinyvae

TINY = "--hidden 4 --latent 2 --epochs 40 --batch-size 9 --backend numpy --no-figures"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    np.save(tmp_path / "own.npy", np.random.default_rng(0).uniform(0, 1, (30, 5)))
    return tmp_path


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line in bash, with `tinyvae` for the command, without colours forced or forbidden from outside."""
    environment = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE")}
    line = f'set -o pipefail; tinyvae() {{ "{sys.executable}" -m tinyvae "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run in it, called run."""
    folder = tmp_path_factory.mktemp("trained")
    np.save(folder / "own.npy", np.random.default_rng(0).uniform(0, 1, (30, 5)))
    assert shell(f"tinyvae train --data own.npy {TINY} --quiet --out run", folder).returncode == 0
    return folder


def check_run(folder: Path, epochs: int = 40) -> None:
    """The run is whole: every epoch measured, the last checkpoint there and readable, nothing unfinished."""
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + epochs
    assert tinyvae.load(folder).params.flat.size > 0
    assert [p for p in folder.rglob(".*")] == []


def test_the_module_trains_on_the_digits_that_ship(tmp_path: Path) -> None:
    done = shell(f'"{sys.executable}" -m tinyvae.train --epochs 2', tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-")
    check_run(folder, epochs=2)
    for line in [
        r"data: digits, 1,294 rows to train on, 144 rows held out, 359 rows to test on",
        r"model: 64 - 128 - \[8\] - 128 - 64, relu, bernoulli; 20,000 parameters".replace("20,000", r"[\d,]+"),
        r"machine: \w+, \w+ kernels, float32; seed 0",
        r"note: Bernoulli on grey values is binary cross-entropy.*",
        rf"run: runs/{folder.name}",
        r"  runs/.*/figures/samples\.png",
        rf"next: tinyvae evaluate runs/{folder.name}",
    ]:
        assert re.search(rf"^{line}$", done.stdout, re.MULTILINE), line
    assert re.search(r"^ +2 +\d+\.\d\d", done.stdout, re.MULTILINE)


def test_output_to_a_file_is_plain_text(here: Path) -> None:
    done = shell(f"tinyvae train --data own.npy {TINY} --out run > log 2> errors", here)
    assert done.returncode == 0
    log = (here / "log").read_bytes()
    assert b"\x1b" not in log
    assert b"\r" not in log
    assert log.count(b"\n") < 60
    assert (here / "errors").read_bytes() == b""


@pytest.mark.parametrize(
    "redirection", sampled([">&-", "| true", "| head -1", "> /dev/full", ">&- 2>&-", "< /dev/null >&- 2>&-"], 3)
)
def test_training_goes_on_when_nobody_takes_its_output(here: Path, redirection: str) -> None:
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = shell(f"tinyvae train --data own.npy {TINY} --out run {redirection}", here)
    assert (done.returncode, done.stderr) == (0, "")
    check_run(here / "run")


@pytest.mark.parametrize("command", ["evaluate run", "evaluate run --json", "generate run --out a.npy", "recipes list"])
def test_the_other_commands_say_in_one_line_that_their_output_is_lost(trained: Path, command: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = shell(f"tinyvae {command} > /dev/full", trained)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.returncode == 1


@pytest.mark.parametrize("command", sampled(["evaluate run", "evaluate run --json", "generate run --out a.npy"], 3))
def test_the_other_commands_end_quietly_when_nobody_reads_them(trained: Path, command: str) -> None:
    for redirection in ("| true", ">&-"):
        assert shell(f"tinyvae {command} {redirection}", trained).stderr.strip() == ""


def test_evaluate_leaves_stderr_alone_where_it_is_no_terminal(trained: Path) -> None:
    assert shell("tinyvae evaluate run", trained).stderr == ""


def test_names_are_printed_as_they_are(here: Path) -> None:
    done = shell(f"tinyvae train --data own.npy {TINY} --out :cat:", here)
    assert "run: :cat:\n" in done.stdout
    assert "next: tinyvae evaluate :cat:\n" in done.stdout


def test_a_name_beyond_the_encoding_of_the_output_is_no_failure(here: Path) -> None:
    assert shell(f"tinyvae train --data own.npy {TINY} --quiet --out grün", here).returncode == 0
    for command in ("evaluate grün", "generate grün --out grün.npy"):
        done = shell(f"PYTHONIOENCODING=ascii tinyvae {command}", here)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_gets_a_bar_and_its_cursor_back(here: Path) -> None:
    pty = pytest.importorskip("pty", reason="a pseudo-terminal is needed")
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "tinyvae", "train", "--data", "own.npy", *TINY.split(), "--out", "run"]
    process = subprocess.Popen(
        [*argv, "--epochs", "300"], cwd=here, stdout=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    )
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:  # how a pseudo-terminal says that the other side has gone
        pass
    os.close(ours)
    assert process.wait(60) == 0
    text = shown.decode()
    assert re.search(r"epoch \d+/300", text)
    assert "steps/s" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown after it was hidden
    assert "next: tinyvae evaluate run" in text
    check_run(here / "run", epochs=300)
