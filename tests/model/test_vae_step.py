"""The training step: it makes no array, and fused and readable kernels take the same steps."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from cases import build, inputs
from planted import assert_killed, instead
from small_models import make
from strategies import EVERY_FUSED, eps_of, sampled

import tinyvae
from tinyvae.checking.models import CASES, ModelCase
from tinyvae.model import vae
from tinyvae.objectives.elbo import ELBO
from tinyvae.objectives.objective import Objective
from tinyvae.training import adam as adams
from tinyvae.training.adam import Adam


class Training:
    """Steps on one batch, as the training loop makes them: the pass, the gradient's length, clipping, Adam."""

    def __init__(self, model: tinyvae.VAE, objective: Objective, x: Any, eps: Any, y: Any = None) -> None:
        self.model, self.objective, self.adam = model, objective.on(len(x)), Adam(model)
        self.batch = model.checked_batch(x, eps, y, objective.samples)
        self.unclipped = model.grads.flat.copy()  # the last gradient
        self.first: dict[int, Any] = {}  # rows of the batch: the same views each time, as the loop has them

    def step(self, rows: int) -> np.ndarray:
        x, eps, y, missing = self.batch
        few = x[:rows], eps[: rows * self.objective.samples], self.objective, None if y is None else y[:rows], missing
        with self.model.lock, self.model.borrowed("step", rows) as k:
            terms = self.model.step(k, *self.first.setdefault(rows, few))
            norm2 = k.squared_norm(self.model.grads.flat)
            self.unclipped[...] = self.model.grads.flat
            self.adam.update(k, self.model.grads.flat, 1e-3, 1.0, norm2)
            return np.concatenate(terms)


def peak_growth(training: Training, rows: int) -> int:
    """By how many bytes memory grows at most in a step after the first few; NumPy reports arrays to tracemalloc."""
    usual = np.setbufsize(BUFFER)
    for n in (rows, RAGGED, rows):
        training.step(n)
    tracemalloc.start()
    try:
        training.step(rows)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        training.step(rows)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
        np.setbufsize(usual)


# Python's own objects are as many at any number of rows. A ufunc over strided or broadcast operands works through
# buffers of its own: BUFFER elements at most, which is fewer than there are rows. An array made in a step holds a
# float32 for each row at least: it grows with these.
ROWS, RAGGED, BUFFER, FLOAT32 = 2000, 300, 256, 4
ALLOWED = FLOAT32 * ROWS // 2  # of growth from ROWS to twice as many: half of the smallest array's
MADE = [case for case in CASES if "beta-tc" not in (case.objective.partition(":")[0])]  # that one is array code


def growth(case: ModelCase, kernels: str) -> int:
    once, twice = (
        peak_growth(Training(build(case, kernels=kernels), case.loss, *inputs(case, rows)), rows)
        for rows in (ROWS, 2 * ROWS)
    )
    return twice - once


@pytest.mark.parametrize("kernels", EVERY_FUSED)
@pytest.mark.parametrize("case", sampled(MADE, 2), ids=lambda case: case.name)
def test_a_training_step_makes_no_array(case: ModelCase, kernels: str) -> None:
    assert growth(case, kernels) < ALLOWED


COMPILED = pytest.mark.skipif("numba" not in EVERY_FUSED, reason="Numba is not installed")


def small_peak(case: ModelCase) -> None:
    training = Training(build(case, kernels="numba"), case.loss, *inputs(case, ROWS))
    for _ in range(3):
        training.step(ROWS)
    assert peak_growth(training, ROWS) < 4096


@COMPILED
@pytest.mark.parametrize("case", sampled(MADE, 2), ids=lambda case: case.name)
def test_a_step_of_compiled_loops_takes_less_than_4_kb(case: ModelCase) -> None:
    """Of Python's own objects, from the fourth step on: tuples, and the floats and arrays that a caller gets."""
    small_peak(case)


@COMPILED
def test_a_step_that_asks_its_layers_again_takes_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, instead(vae, "replayed", lambda part: False), lambda: small_peak(CASES[0]))


@pytest.mark.parametrize("kernels", EVERY_FUSED)
def test_the_smallest_array_would_be_noticed(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = ELBO.forward

    def with_a_copy(self: ELBO, k: Any, nll: Any, q: Any) -> Any:
        return truth(self, k, nll.copy(), q)  # (rows,)

    monkeypatch.setattr(ELBO, "forward", with_a_copy)
    assert growth(CASES[0], kernels) > ALLOWED


@pytest.mark.parametrize("name", EVERY_FUSED)
@pytest.mark.parametrize(
    "kind", ["bernoulli", "tied", "gaussian, fixed", "gaussian, learned", "gaussian, predicted", "laplace"]
)
def test_fused_and_reference_losses_agree_for_100_steps(kind: str, name: str) -> None:
    steps, rows, eps = 100, 16, eps_of("float32")
    rng = np.random.default_rng(0)
    tied = {"tied": True} if kind == "tied" else {}
    x, noise = rng.uniform(0, 1, (rows, 6)), rng.standard_normal((rows, 2))
    fused, reference = (
        Training(make("bernoulli" if tied else kind, kernels=kernels, dtype="float32", **tied), ELBO(), x, noise)
        for kernels in (name, "reference")
    )
    first = float(reference.step(rows)[0])
    theirs = fused.step(rows)
    for step in range(1, steps):
        ours, theirs = fused.step(rows).astype(float), reference.step(rows).astype(float)
        # Each step rounds p by eps / 2 of it in both runs, and its own size, at most some lr, by up to 100 eps where m
        # or v cancel: together eps (|p| + 0.1) a step. What that does to the loss is at most sum |dL/dp| times it. On
        # top come some 50 roundings of the loss itself.
        p = np.abs(reference.model.params.flat.astype(float)) + 0.1
        drift = step * float(p @ np.abs(reference.unclipped.astype(float)))
        assert np.abs(ours - theirs).max() <= eps * (drift + 50 * np.abs(theirs).max())
    assert theirs[0] < 0.95 * first  # it did train


def test_another_step_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step size that is wrong by one part in a hundred, in one of the two."""
    truth, calls = adams.step_and_epsilon, iter(range(10**6))

    def off(t: int, lr: float) -> tuple[float, float]:
        return truth(t, lr * (1 + 1e-2 * (next(calls) % 2)))  # the two trainings step in turns

    monkeypatch.setattr(adams, "step_and_epsilon", off)
    with pytest.raises(AssertionError):
        test_fused_and_reference_losses_agree_for_100_steps("bernoulli", EVERY_FUSED[0])
