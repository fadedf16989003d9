"""Mixtures of Student-t's, for tests."""

import numpy as np

from tinyvae.ops import student_t


def mixture(d: int) -> tuple[student_t.Mixture, np.ndarray]:
    """A mixture for each of two rows, and the precisions it was made of."""
    rng = np.random.default_rng(d)
    A = rng.standard_normal((2, 3, d, d))
    precision = A @ A.swapaxes(2, 3) + np.eye(d)
    return student_t.mixture_of(rng.uniform(0.1, 1, (2, 3)), rng.standard_normal((2, 3, d)), precision), precision
