"""What a message on data tells to do is done to the letter: its lines of Python, found and run."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from running import run

RNG = np.random.default_rng(0)


UNIT = RNG.uniform(0, 1, (40, 6))


SPOT = np.zeros((40, 6), bool)
SPOT[7, 2] = True


SPOT[7, 2] = True


REAL = RNG.standard_normal((200, 5))


SMALL = ["--epochs", "1", "--hidden", "4", "--latent", "2", "--backend", "numpy", "--kernels", "numpy", "--no-figures"]


def train(path: str, *options: str, code: int = 0) -> None:
    assert run("train", "--data", path, *SMALL, "--out", f"run-{len(list(Path.cwd().iterdir()))}", *options) == code


def advice(message: str) -> list[str]:
    """The lines of Python on x in a message, in the order they are given."""
    return re.findall(r"x = .+?(?=; [a-z ]+[^=\w]|$| \(--like| leaves| makes grey| flat rows|, which)", message)


def advised(message: str, x: np.ndarray, which: int = 0) -> np.ndarray:
    names: dict[str, Any] = {"np": np, "x": x}
    exec(advice(message)[which], names)
    return names["x"]
