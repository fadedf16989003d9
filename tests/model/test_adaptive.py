"""Draws of the mixture that importance sampling draws from, against its density."""

import math
from typing import Any

import numpy as np
import pytest
from mixtures import mixture
from scipy import stats
from strategies import assert_within

from tinyvae.model import adaptive
from tinyvae.ops import student_t


@pytest.mark.parametrize("d", [1, 3])
def test_the_draws_of_a_mixture_have_its_density(d: int) -> None:
    (mix, _), n = mixture(d), 20_000
    z = adaptive.draw(mix, n, np.random.default_rng(3))
    log_t = student_t.log_mixture(mix.share, student_t.log_densities(mix, z))
    for mean, deviation in [(0.0, 0.7), (0.6, 0.4)]:  # the mean of p / t over draws of t is 1, for any density p
        p: Any = stats.norm(mean, deviation)
        w = np.exp(p.logpdf(z).sum(axis=2) - log_t)
        assert_within(w.mean(axis=1), np.ones(2), 5 * w.std(axis=1) / math.sqrt(n))
