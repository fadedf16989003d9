"""The files of a run that are damaged, missing, or no files at all: one line, and a remedy that helps."""

import os
import shutil
from pathlib import Path

import pytest
from hostile import resumed
from running import run


@pytest.fixture
def copy(small_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(small_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "rows",
    [
        "1,inf,1,1,1,1,1,1,1", "1,0,nan,1,1,1,1,1,1", "1,0,1,1,1,1,1,1,1.5", "1,0,1,1,1,1,1,1,-1", "1", "1,,,,,,,,",
        "x,0,1,1,1,1,1,1,1", "1,0,1,1,1,1,1,1,1,1,1", "9" * 200_000, "\x00", "3,0,1,1,1,1,1,1,1",
        "1e400,0,1,1,1,1,1,1,1",
    ],
)  # fmt: skip
def test_a_damaged_table_is_one_line_and_a_remedy(copy: Path, rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = copy / "metrics.csv"
    head = table.read_text().partition("\n")[0]
    table.write_text(f"{head}\n{rows}\n")
    assert resumed(copy) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "metrics.csv" in error
    assert "move it away" in error
    table.unlink()
    assert resumed(copy) == 0  # the remedy helps


@pytest.mark.parametrize("content", ["", "x", "[]", "[" * 100_000, '{"history": 3}', "\x00", '{"a": NaN}'])
def test_a_damaged_configuration_is_one_line_and_a_remedy(
    copy: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "config.json").write_text(content)
    assert resumed(copy) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "config.json" in error
    (copy / "config.json").unlink()
    assert resumed(copy) == 0


@pytest.mark.parametrize("name", ["step-000000006.safetensors", "metrics.csv", "config.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "huge"])
def test_only_regular_files_of_a_sane_size_are_read(
    copy: Path, name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(copy.rglob(name))
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(1 << 42)  # a hole of four terabytes
    for older in copy.rglob("step-000000003.safetensors"):
        older.unlink()
    assert resumed(copy) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name in error


def test_a_name_in_a_message_does_not_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", tmp_path / "\x1b[2Jgone\n") == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert error.count("\n") == 1
