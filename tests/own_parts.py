"""Parts of a user's own: files that define some, as `tinyvae train --likelihood ./mine.py:Mine` takes them."""

from pathlib import Path

MINE = '''"""A likelihood and an objective of my own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tinyvae.formula import backward_of, formula
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.objectives.elbo import ELBO

with (Path(__file__).parent / "runs of this file").open("a") as file:
    file.write("run\\n")


@formula
def mine_nll(mean, weight, x):
    """w (x - m)^2 / 2."""
    return 0.5 * weight * (x - mean) * (x - mean)


@backward_of(mine_nll, "mean")
def mine_nll_backward(dnll, mean, weight, x):
    """w (m - x)."""
    return dnll * weight * (mean - x)


@dataclass(frozen=True)
class Mine(Likelihood):
    """Half a squared error, weighted."""

    outputs: ClassVar = ("mean",)
    nll: ClassVar = mine_nll
    slopes: ClassVar = mine_nll_backward
    weight: float = 1.0

    def fixed(self):
        return {"weight": self.weight}

    def mean(self, p, output):
        return output

    def draw(self, p, output, rng):
        return output

    def information(self, p, output):
        return 0 * output + self.weight


@dataclass(frozen=True)
class Heavy(ELBO):
    """The ELBO with another beta."""

    beta: float = 2.0


class Nothing:
    """No part."""
'''


def write_mine(folder: Path) -> Path:
    """mine.py, which notes in a file beside it each time that it is run."""
    path = folder / "mine.py"
    path.write_text(MINE)
    return path


def runs_of(folder: Path) -> int:
    """How often mine.py was run."""
    path = folder / "runs of this file"
    return len(path.read_text().splitlines()) if path.exists() else 0
