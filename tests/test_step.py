"""The training step: it makes no array, and fused and readable kernels take the same steps."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from strategies import EVERY_FUSED, eps_of
from test_model import make

import tinyvae
from tinyvae.kernels import numpy_fused


class Training:
    """Adam on a model, with nothing but the kernels."""

    def __init__(self, model: tinyvae.VAE, rows: int) -> None:
        rng = np.random.default_rng(0)
        self.model, size, dtype = model, model.params.flat.size, model.dtype
        self.m, self.v, self.norm2, self.t = np.zeros(size, dtype), np.zeros(size, dtype), np.zeros((), dtype), 0
        self.unclipped, self.first = np.zeros(size, dtype), np.zeros(3, dtype)  # the last gradient, the first losses
        self.x = rng.uniform(0, 1, (rows, model.architecture.data_dim)).astype(dtype)
        self.eps = rng.standard_normal((rows, model.architecture.latent_dim)).astype(dtype)

    def step(self, rows: int, free_bits: float = 0.0) -> np.ndarray:
        model, self.t = self.model, self.t + 1
        losses = model.forward_backward(self.x[:rows], self.eps[:rows], 1.0, free_bits)
        self.unclipped[...] = model.grads.flat
        if self.t == 1:
            self.first = losses.copy()
        model.kernels.squared_norm(model.grads.flat, out=self.norm2)
        model.kernels.clip(model.grads.flat, self.norm2, 1.0)
        model.kernels.adam_step(model.params.flat, model.grads.flat, self.m, self.v, self.t, 1e-3, work=model.work)
        return losses


def peak_growth(training: Training, rows: int, free_bits: float) -> int:
    """By how many bytes memory grows at most in a step after the first; NumPy reports its arrays to tracemalloc."""
    training.step(training.x.shape[0], free_bits)
    tracemalloc.start()
    try:
        training.step(rows, free_bits)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        training.step(rows, free_bits)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# A ufunc over strided or broadcast operands works through buffers of its own: `bufsize` elements for each of at most 3
# operands, whatever the arrays' size. Views and Python's other objects are some 100 bytes each, arrays (latent,) and
# (batch,) below 8 KiB; 16 KiB for both. The smallest array that holds rows and columns is (1800, 20), 144,000 bytes.
ITEMSIZE, LARGE, RAGGED, LATENT = 4, 2000, 1800, 20
ALLOWED = 3 * np.getbufsize() * ITEMSIZE + 16 * 1024


@pytest.mark.parametrize("kernels", EVERY_FUSED)
@pytest.mark.parametrize("rows", [LARGE, RAGGED])  # full, and smaller than the buffers were made for
@pytest.mark.parametrize("free_bits", [0.0, 0.1])
@pytest.mark.parametrize(
    "arguments",
    [{"hidden": (400,)}, {"activation": "elu"}, {"tied": True}, {"likelihood": "gaussian"},
     {"likelihood": "gaussian", "sigma": "predicted", "activation": "softplus"}],
    ids=str,
)  # fmt: skip
def test_a_training_step_makes_no_array(arguments: dict[str, Any], free_bits: float, rows: int, kernels: str) -> None:
    assert RAGGED * LATENT * ITEMSIZE > ALLOWED  # or the test could not fail
    arguments = {"hidden": (50,)} | arguments
    model = tinyvae.VAE(784, latent_dim=LATENT, kernels=kernels, **arguments)
    assert peak_growth(Training(model, LARGE), rows, free_bits) < ALLOWED


def test_the_allocation_test_would_notice_the_smallest_array(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = numpy_fused.latent_forward

    def with_a_copy(head: Any, eps: Any, **results: Any) -> None:
        truth(head, eps.copy(), **results)

    monkeypatch.setattr(numpy_fused, "latent_forward", with_a_copy)
    assert peak_growth(Training(tinyvae.VAE(784, (50,), LATENT, kernels="numpy"), LARGE), RAGGED, 0.0) > ALLOWED


@pytest.mark.parametrize("name", EVERY_FUSED)
@pytest.mark.parametrize("kind", ["bernoulli", "tied", "gaussian, fixed", "gaussian, learned", "gaussian, predicted"])
def test_fused_and_reference_losses_agree_for_100_steps(kind: str, name: str) -> None:
    steps, eps = 100, eps_of("float32")
    fused, reference = (Training(make(kind, kernels=kernels, dtype="float32"), 16) for kernels in (name, "reference"))
    for step in range(steps):
        ours, theirs = fused.step(16).astype(float), reference.step(16).astype(float)
        # Each step rounds p by eps / 2 of it in both runs, and its own size, at most some lr, by up to 100 eps where m
        # or v cancel: together eps (|p| + 0.1) a step. What that does to the loss is at most sum |dL/dp| times it. On
        # top come some 50 roundings of the loss itself.
        p = np.abs(reference.model.params.flat.astype(float)) + 0.1
        drift = step * float(p @ np.abs(reference.unclipped.astype(float)))
        assert np.abs(ours - theirs).max() <= eps * (drift + 50 * np.abs(theirs).max())
    assert reference.model.losses[0] < 0.95 * reference.first[0]  # it did train
