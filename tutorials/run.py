"""Run a tutorial: `python tutorials/run.py 04_gaussian_kl` runs its python blocks from top to bottom and prints.

An error's traceback points at the lines of the Markdown file. Figures and their numbers go to tutorials/figures.
"""

import re
import sys
from pathlib import Path


def main(names: list[str]) -> None:
    """Run the tutorials of these names, each in a namespace of its own."""
    for name in names:
        path = Path(__file__).parent / f"{Path(name).stem}.md"
        text = path.read_text(encoding="utf-8")
        namespace = {"__name__": "tutorial"}
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            lines_above = text[: block.start(1)].count("\n")
            exec(compile("\n" * lines_above + block[1], str(path), "exec"), namespace)


if __name__ == "__main__":
    main(sys.argv[1:] or sys.exit("python tutorials/run.py NAME, for example 04_gaussian_kl"))
