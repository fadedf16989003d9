"""Save a figure of a tutorial beside the numbers that it shows.

The tutorials' code makes their figures: `from figures import save`. The picture is for the eye; the numbers, as JSON
with the seed that made them, are what a test computes again and compares.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent / "figures"


def save(name: str, figure: Figure, numbers: dict[str, Any]) -> None:
    """Write NAME.png and NAME.json to tutorials/figures, or to the folder that TINYVAE_FIGURES names.

    numbers  what the figure shows: numbers, words, lists and arrays, and the "seed" if anything random was drawn.
             An "rtol" among them is how closely another machine must agree (default 1e-6; rounding adds up in training)
    """
    folder = Path(os.environ.get("TINYVAE_FIGURES") or FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight", metadata={"Software": None})
    text = json.dumps(numbers, indent=1, default=_plain, allow_nan=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in JSON")
