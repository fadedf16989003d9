"""Weights start as He et al. 2015 or Glorot & Bengio 2010 say, whatever the layer that has them."""

import math

import numpy as np
import pytest
from planted import assert_killed, instead

from tinyvae.layers import starts
from tinyvae.ops.activations import ACTIVATIONS


def as_said(f: str, gain: float = 1.0) -> None:
    shape, fan_in, fan_out = (300, 200), 300, 200
    w = starts.weights(shape, fan_in, fan_out, f, gain)(np.random.default_rng(1))
    he = ACTIVATIONS[f].rectifier
    variance = gain**2 * (2 / fan_in if he else 2 / (fan_in + fan_out))
    limit = math.sqrt(3 * variance)  # of the uniform numbers with this variance
    assert w.shape == shape
    assert (np.abs(w).max() > 1.5 * limit) == he  # normal numbers go beyond, uniform ones never
    assert he or np.abs(w).max() <= limit
    # 5 standard errors of the mean and of the variance (kurtosis 3 for normal numbers, less for uniform ones)
    assert abs(w.mean()) < 5 * math.sqrt(variance / w.size)
    assert abs(w.var() / variance - 1) < 5 * math.sqrt(2 / w.size)


@pytest.mark.parametrize("gain", [1.0, starts.HEAD_GAIN])
@pytest.mark.parametrize("f", ACTIVATIONS)
def test_the_range_is_that_of_the_paper(f: str, gain: float) -> None:
    as_said(f, gain)


def test_rectifiers_are_those_that_let_half_through() -> None:
    """E[f(a)^2] is near a half for a standard normal a, which is what He et al. 2015 count on: not for the others."""
    a = np.random.default_rng(0).standard_normal(200_000)
    for name, act in ACTIVATIONS.items():
        if name in ("relu", "leaky-relu"):
            assert (act.forward(a) ** 2).mean() == pytest.approx(0.5, abs=0.01)
        assert act.rectifier == (name not in ("linear", "tanh", "sigmoid"))


def test_planted_bugs_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    true = starts.weights
    for wrong in (
        lambda shape, fan_in, fan_out, before, gain=1.0: true(shape, fan_out, fan_in, before, gain),
        lambda shape, fan_in, fan_out, before, gain=1.0: true(shape, fan_in, fan_out, before, gain**2 * 1.1),
    ):
        assert_killed(monkeypatch, instead(starts, "weights", wrong), lambda: as_said("relu", 0.5))
    glorot = lambda *a, **k: true(a[0], a[1], a[2], "tanh", *a[4:], **k)
    assert_killed(monkeypatch, instead(starts, "weights", glorot), lambda: as_said("relu"))
