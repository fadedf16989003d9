"""The notebooks are what `make_notebooks.py` makes of the tutorials, byte for byte, and run from start to end."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from tutorial_tools import FILES, FOLDER, read

TWINS = FOLDER / "notebooks"
_spec = importlib.util.spec_from_file_location("make_notebooks", FOLDER / "make_notebooks.py")
assert _spec is not None
assert _spec.loader is not None
make_notebooks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_notebooks)

EACH = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
# In a process of its own: what Jupyter's packages warn about is theirs, and nothing has to be ignored here.
EXECUTE = """
import sys, nbformat, nbclient
for path in sys.argv[1:]:
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": path.rpartition("/")[0]}})
    client.execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    print(path)
"""


@EACH
def test_the_twin_is_what_the_tutorial_makes(path: Path) -> None:
    twin = TWINS / f"{path.stem}.ipynb"
    made = make_notebooks.twin(path.read_text(encoding="utf-8"))
    assert twin.is_file(), "python tutorials/make_notebooks.py"
    assert twin.read_text(encoding="utf-8") == made, "python tutorials/make_notebooks.py"


def test_the_list_in_the_readme_is_of_all_tutorials_in_order() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    tutorials = {path.stem: path.read_text(encoding="utf-8") for path in FILES}
    assert readme == make_notebooks.listed(readme, tutorials), "python tutorials/make_notebooks.py"
    assert re.findall(r"^\| \[\d\d [^\]]+\]\((\w+)\.md\)", readme, re.MULTILINE) == [path.stem for path in FILES]


def test_no_twin_is_left_over() -> None:
    assert sorted(file.stem for file in TWINS.glob("*.ipynb")) == [path.stem for path in FILES]


@EACH
def test_the_twin_is_a_valid_notebook_with_the_same_code_and_formulas(path: Path) -> None:
    made = make_notebooks.twin(path.read_text(encoding="utf-8"))
    notebook = nbformat.reads(made, as_version=4)
    nbformat.validate(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code" and cell.source != make_notebooks.SETUP]
    tutorial = read(path)
    assert code == [block.text.strip("\n") for block in tutorial.of("python")]
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "<!--" not in text
    assert "```text" not in text
    assert re.findall(r"\$\$\n(.*?)\n\$\$", text, re.DOTALL) == [b.text.rstrip("\n") for b in tutorial.of("math")]
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (TWINS / target).exists(), target
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_the_ids_of_cells_depend_on_nothing_but_their_content() -> None:
    text = "# A\n\n```python\nx = 1\n```\n\n```python\nx = 1\n```\n"
    first, again = (json.loads(make_notebooks.twin(t))["cells"] for t in (text, text.replace("# A", "# B")))
    assert [cell["id"] for cell in first[1:]] == [cell["id"] for cell in again[1:]]
    assert first[0]["id"] != again[0]["id"]
    assert first[1]["id"] != first[2]["id"]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_notebook_runs_from_start_to_end(tmp_path: Path) -> None:
    """What Jupyter adds, tried once: the code of each twin is that of its page, which the tutorials' tests run."""
    run_in_jupyter(next(path for path in FILES if path.stem == "04_gaussian_kl"), tmp_path)


@pytest.mark.notebooks
@pytest.mark.timeout(240)
@EACH
def test_the_notebook_runs_from_start_to_end(path: Path, tmp_path: Path) -> None:
    run_in_jupyter(path, tmp_path)


def run_in_jupyter(path: Path, tmp_path: Path) -> None:
    folders = ("TINYVAE_FIGURES", "IPYTHONDIR", "HYPOTHESIS_STORAGE_DIRECTORY")  # what a notebook writes goes here
    environment = os.environ | {name: str(tmp_path / name) for name in folders}
    command = [sys.executable, "-c", EXECUTE, str(TWINS / f"{path.stem}.ipynb")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip() == command[-1]
