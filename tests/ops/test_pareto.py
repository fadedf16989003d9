"""The shape of a tail, by SciPy's generalized Pareto distribution."""

import math

import numpy as np
import pytest
from scipy import stats
from strategies import assert_within

from tinyvae.ops import pareto


@pytest.mark.parametrize("k", [-0.3, 0.001, 0.4, 0.7, 1.5])
def test_the_shape_of_a_tail_is_that_of_scipys_generalized_pareto(k: float) -> None:
    M = 20_000
    y = np.sort(stats.genpareto(k, scale=3.0).rvs((4, M), random_state=1), axis=1)
    log_w = np.log(np.concatenate([np.ones((4, 1)), 1 + y], axis=1)) + 500
    # asymptotically normal with deviation (1 + k) / sqrt(M), as the maximum of the likelihood; 5 of them
    assert_within(pareto.tail_shape(log_w), np.full(4, k), 5 * (1 + k) / math.sqrt(M) + 10 / M)


def test_a_short_tail_is_told_heavy_from_light_on_average() -> None:
    M, means = 20, []
    for k in (0.0, 0.5, 1.0):
        y = np.sort(stats.genpareto(k).rvs((500, M), random_state=2), axis=1)
        means.append(pareto.tail_shape(np.log(np.concatenate([np.ones((500, 1)), 1 + y], axis=1))).mean())
        # drawn to 1/2 by ten excesses more; the bias of the estimator at M = 20 is about 0.1
        assert abs(means[-1] - (M * k + 5) / (M + 10)) < 0.1
    assert means == sorted(means)


def test_tails_at_the_edge() -> None:
    equal, lonely = np.zeros((1, 21)), np.concatenate([np.full((1, 20), -800.0), [[0.0]]], axis=1)
    assert pareto.tail_shape(equal) == -math.inf
    assert pareto.tail_shape(equal + 1e-6 * np.arange(21)) == -math.inf  # the rounding of float32
    assert pareto.tail_shape(lonely) == math.inf
    assert np.isnan(pareto.tail_shape(equal[:, :5]))
