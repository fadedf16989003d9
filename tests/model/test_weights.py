"""Sums of weights as they come."""

import math

import numpy as np
import pytest
from strategies import assert_within, eps_of

from tinyvae.model.weights import WeightSums
from tinyvae.ops import pareto

EPS = eps_of("float64")


@pytest.mark.parametrize("samples", [25, 60, 400])
def test_the_sums_as_they_come_are_those_of_all_weights_at_once(samples: int) -> None:
    log_w = 3 * np.random.default_rng(samples).standard_normal((samples, 5)) + 700  # beyond the largest number
    sums = WeightSums(np, 5, samples)
    for each in log_w:
        sums.add(each)
    found, w = sums.summary(), np.exp(log_w - 700)
    assert_within(found.log_p, 700 + np.log(w.mean(axis=0)), 1000 * samples * EPS)
    assert_within(found.effective, w.sum(axis=0) ** 2 / (w * w).sum(axis=0), 1e-9 * samples)
    tail = pareto.tail_length(samples)
    assert tail == min(samples // 5, math.ceil(3 * math.sqrt(samples)))
    whole = pareto.tail_shape(np.sort(log_w.T, axis=1)[:, -tail - 1 :])
    assert_within(found.pareto_k, whole, np.full(5, 1e-9))


def test_the_weights_of_no_consequence_do_not_spoil_the_others() -> None:
    sums = WeightSums(np, 2, 4)
    for log_w in ([-math.inf, -math.inf], [0.0, -math.inf], [-math.inf, -math.inf], [0.0, -math.inf]):
        with np.errstate(all="ignore"):
            sums.add(np.array(log_w))
    with np.errstate(all="ignore"):
        found = sums.summary()
    assert found.log_p.tolist() == [math.log(0.5), -math.inf]
    assert found.effective[0] == 2


def test_what_is_kept_does_not_grow_with_the_draws() -> None:
    assert WeightSums(np, 1, 10**9).tail.shape == WeightSums(np, 1, 10**4).tail.shape
    assert pareto.tail_length(24) == 0
