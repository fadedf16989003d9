"""Write the notebook twins of the tutorials, and the list in README.md: `python tutorials/make_notebooks.py`.

A twin holds what its Markdown holds: text cells and code cells, no outputs. The same Markdown makes the same bytes, so
a twin is never edited. Differences: math fences become $$ ... $$, what a block printed is left to the reader's own run,
the tests' comments are dropped, and links are those of a folder one deeper.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
TWINS = FOLDER / "notebooks"
SETUP = '# This notebook\'s helper `figures.py` lies one folder up.\nimport sys\n\nsys.path.insert(0, "..")'


def twin(text: str) -> str:
    """The notebook of a tutorial's Markdown, as the text of an .ipynb file (nbformat 4.5)."""
    cells: list[dict[str, Any]] = []
    text = re.sub(r"^<!--.*?-->\n", "", text, flags=re.MULTILINE | re.DOTALL)  # what only the tests read
    text = re.sub(r"(?<=^```\n)\n*```text\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for place, part in enumerate(re.split(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)):
        if place % 2:
            if "from figures import" in part and SETUP not in (cell["source"] for cell in cells):
                add(cells, "code", SETUP)
            add(cells, "code", part.strip("\n"))
        elif part.strip():
            add(cells, "markdown", markdown(part.strip("\n")))
    for cell in cells:
        cell["source"] = cell["source"].splitlines(keepends=True)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def add(cells: list[dict[str, Any]], kind: str, source: str) -> None:
    """Append a cell. Its id is the hash of its content, and of how many like it came before."""
    earlier = sum(cell["source"] == source and cell["cell_type"] == kind for cell in cells)
    name = hashlib.sha256(f"{kind} {earlier} {source}".encode()).hexdigest()[:12]
    cell: dict[str, Any] = {"cell_type": kind, "id": name, "metadata": {}, "source": source}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    cells.append(cell)


def markdown(text: str) -> str:
    """Math fences as $$, and links from the folder of the notebooks."""
    text = re.sub(r"^```math\n(.*?)\n```$", r"$$\n\1\n$$", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\]\((?!https?:|#)", "](../", text)
    return re.sub(r"\]\(\.\./(\d\d_\w+)\.md", r"](\1.ipynb", text)  # another tutorial: its twin


def listed(readme: str, tutorials: dict[str, str]) -> str:
    """README.md with its table made new, from the titles and the lines 'Needs: ... About N minutes.'"""
    rows = ["| | minutes | needs |", "| --- | --- | --- |"]
    for name, text in sorted(tutorials.items()):
        title = re.search(r"^# (.+)$", text, re.MULTILINE)
        needs = re.search(r"^Needs: (.+)\. About (\d+) minutes\.$", text, re.MULTILINE)
        if title and needs:
            rows.append(f"| [{name[:2]} {title[1]}]({name}.md) | {needs[2]} | {needs[1]} |")
    return re.sub(r"^\|.*\|$(\n\|.*\|$)*", lambda _: "\n".join(rows), readme, count=1, flags=re.MULTILINE)


def main() -> None:
    """Write every twin and the list, and remove the twins of tutorials that are gone."""
    TWINS.mkdir(exist_ok=True)
    tutorials = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("[0-9][0-9]_*.md")}
    for stale in TWINS.glob("*.ipynb"):
        if stale.stem not in tutorials:
            stale.unlink()
    for name, text in tutorials.items():
        (TWINS / f"{name}.ipynb").write_text(twin(text), encoding="utf-8")
    readme = FOLDER / "README.md"
    readme.write_text(listed(readme.read_text(encoding="utf-8"), tutorials), encoding="utf-8")


if __name__ == "__main__":
    main()
