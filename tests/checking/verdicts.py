"""What `tinyvae.gradcheck` says of a function, put in one line, for several tests."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae import gradcheck

OK, BLIND, WRONG = "ok", "cannot tell", "WRONG"
W = np.random.default_rng(0).standard_normal((3, 4))
BIG = np.random.default_rng(1).standard_normal((20, 15))  # more than are checked one by one
ZERO = np.zeros((3, 4))


def square(w: np.ndarray) -> float:
    return float((w**2).sum())


def relu(w: np.ndarray) -> float:
    return float(np.maximum(w, 0).sum())


def off(g: np.ndarray, by: float = 1e-3, place: tuple[int, ...] = (2, 2)) -> np.ndarray:
    """The gradient with one number wrong."""
    wrong = g.astype(float)
    wrong[place] += by
    return wrong


def says(f: Callable[..., Any], w: np.ndarray, g: Any, verdict: str, note: str = "", **options: Any) -> None:
    """gradcheck of f has this verdict and note; it passes only if ok, and the parameters are as they were."""
    w = w.copy()
    before = w.tobytes()
    report = gradcheck(f, w, g, **options)
    assert report.verdict == report[0].verdict == verdict, report
    assert bool(report) == report.passed == report[0].passed == (verdict == OK)
    assert f"  {verdict}" in repr(report)
    assert note in repr(report)
    assert w.tobytes() == before
