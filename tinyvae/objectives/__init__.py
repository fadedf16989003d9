"""What is minimized. One file, one objective: whatever lies in this folder can be asked for.

model.loss_and_grad(x, eps, objective=tinyvae.objectives.IWAE(draws=5))
"""

import sys
from typing import Any

from tinyvae import parts
from tinyvae.objectives.objective import Objective


def names() -> list[str]:
    """The names of all objectives, sorted."""
    return parts.names(sys.modules[__name__], Objective)


def objective(named: str | Objective) -> Objective:
    """The objective that the text describes, or the one given. Raises ValueError for one that there is not."""
    return named if isinstance(named, Objective) else parts.part(sys.modules[__name__], Objective, named)


def __getattr__(name: str) -> Any:
    """The classes, by their names: `objectives.IWAE`."""
    for file in names() if not name.startswith("_") else ():
        cls = type(objective(file))
        if cls.__name__ == name:
            return cls
    raise AttributeError(f"there is no objective {name!r}")
