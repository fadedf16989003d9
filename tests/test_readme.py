"""The README's Python runs as written, its commands exist, its pictures and links are there."""

import re
from pathlib import Path

import pytest

import tinyvae.commands

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_the_python_blocks_run_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    assert len(blocks("python")) == 4
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert capsys.readouterr().out.rstrip().endswith("ok")  # the gradient check that it prints


def test_every_option_in_the_commands_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line for block in blocks("") for line in block.splitlines() if "-m tinyvae" in line]
    assert len(commands) >= 7
    for line in commands:
        name = re.search(r"-m tinyvae[. ](\w+)", line)
        assert name is not None, line
        with pytest.raises(SystemExit) as caught:
            tinyvae.commands.main([name[1], "--help"])
        assert caught.value.code == 0
        known = capsys.readouterr().out
        for option in re.findall(r"--[a-z-]+", line):
            assert option in known, line


def test_links_and_pictures_are_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert targets
    for target in targets:
        assert "://" in target or (ROOT / target).is_file(), target


def test_the_readme_speaks_of_both_commands_first() -> None:
    assert TEXT.index("python -m pip install -e . && python -m tinyvae.train") < TEXT.index("python -m pytest")
    assert 'python -m pip install -e ".[test]" && python -m pytest' in TEXT
