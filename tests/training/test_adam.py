"""Adam on a model: copies of it, and arrays that are put in the place of its own."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from planted import assert_killed, instead
from strategies import EVERY_FUSED

import tinyvae
from tinyvae.training import adam as adams

COPIES: list[Callable[[Any], Any]] = [copy.deepcopy, lambda adam: pickle.loads(pickle.dumps(adam))]
copied = pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle"])


def stepped() -> tinyvae.Adam:
    """After one step."""
    model = tinyvae.VAE(data_dim=5, hidden=(4,), latent_dim=2, dtype="float64")
    adam = tinyvae.Adam(model)
    step(adam)
    return adam


def step(adam: tinyvae.Adam) -> None:
    rng = np.random.default_rng(adam.t)
    adam.model.loss_and_grad(rng.uniform(size=(3, 5)), rng.standard_normal((3, 2)))
    adam.step(lr=0.01)


@copied
def test_a_copy_goes_on_as_the_original_does_and_moves_its_own_model(copied: Callable[[Any], Any]) -> None:
    adam = stepped()
    twin, before = copied(adam), adam.model.params.flat.copy()
    step(twin)
    assert (adam.model.params.flat == before).all()
    step(adam)
    assert (adam.model.params.flat != before).any()
    for mine, its in zip(
        (adam.model.params.flat, adam.m, adam.v), (twin.model.params.flat, twin.m, twin.v), strict=True
    ):
        np.testing.assert_array_equal(mine, its)


def test_moments_that_are_replaced_are_used() -> None:
    adam, other = stepped(), stepped()
    adam.m, adam.v = np.ones_like(adam.m), np.ones_like(adam.v)
    other.m[...], other.v[...] = 1, 1
    step(adam)
    step(other)
    np.testing.assert_array_equal(adam.model.params.flat, other.model.params.flat)
    np.testing.assert_array_equal(adam.m, other.m)


def comes_to_rest(kernels: str) -> None:
    """Where a gradient has stayed 0, m is 0 at last, and never among the smallest numbers of float32.

    0.9^64 of 2^-93 is 1.2e-31; from 1e3 it takes 680 steps to get so far, and at most 64 more to the rounding.
    """
    model = tinyvae.VAE(data_dim=5, hidden=(4,), latent_dim=2, kernels=kernels)
    adam = tinyvae.Adam(model)
    adam.m[...] = np.logspace(-12, 3, adam.m.size)
    model.grads.flat[...] = 0
    for _ in range(900):
        adam.step(lr=1e-3)
        assert np.all((adam.m == 0) | (np.abs(adam.m) > 1e-32))
    assert not adam.m.any()


@pytest.mark.parametrize("kernels", ["reference", *EVERY_FUSED])
def test_without_gradients_the_moments_come_to_rest(kernels: str) -> None:
    comes_to_rest(kernels)


def test_a_moment_without_rest_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, instead(adams, "REST", 10**9), lambda: comes_to_rest("numpy"))


def test_a_wrong_view_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stays when its array has been replaced."""
    first: dict[int, Any] = {}
    true = tinyvae.Adam._as_rows
    plant = instead(tinyvae.Adam, "_as_rows", lambda self, *a: first.setdefault(id(self), true(self, *a)))
    assert_killed(monkeypatch, plant, test_moments_that_are_replaced_are_used)


@copied
def test_a_dump_holds_no_views(copied: Callable[[Any], Any]) -> None:
    """Which would come back as arrays of their own."""
    assert copied(stepped()).seen == ([], [])
