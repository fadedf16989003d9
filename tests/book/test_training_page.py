"""docs/training.md: its code runs from top to bottom, and its table names options that there are."""

import importlib.util
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from tinyvae.training.options import Training
from tinyvae.training.trainer import Trainer

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:<!-- needs: (\w+) -->\n\n)?```python\n(.*?)```", PAGE, re.DOTALL)
FIRST, *CALLBACKS = BLOCKS


def run(code: str, namespace: dict[str, object]) -> None:
    exec(compile(code, "training.md", "exec"), namespace)


@pytest.mark.parametrize(("needs", "code"), CALLBACKS, ids=[needs for needs, _ in CALLBACKS])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries that are shown
def test_a_callback_runs_as_it_stands(
    needs: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in {needs, re.findall(r"(?:from|import) (\w+)", code)[0]}:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: python -m pip install {module}")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    run(FIRST[1], namespace)
    run(code, namespace)


def test_the_first_block_needs_nothing_and_leaves_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, object] = {}
    assert FIRST[0] == ""
    run(FIRST[1], namespace)
    assert len(namespace["result"].history) == 5  # type: ignore[attr-defined]  # what the page made


def test_the_table_names_options_that_there_are_and_none_is_called_otherwise() -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    known = {f.name for f in fields(Training)} | set(inspect.signature(Trainer.__init__).parameters)
    assert named
    assert named <= known
