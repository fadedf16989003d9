"""The benchmark of single kernels: which calls it finds in a step, what it says that they cost, and what it repeats."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture

from benchmarks import kernels
from benchmarks.shapes import TINY, Shape
from tinyvae.backend import get_backend
from tinyvae.kernels.contract import Rows
from tinyvae.kernels.numpy_loops import NumPyKernels
from tinyvae.kernels.reference import Reference
from tinyvae.ops.activations import activation
from tinyvae.training.adam import Adam

EACH = pytest.mark.parametrize("shape", TINY, ids=lambda shape: shape.name)


@EACH
def test_the_calls_products_are_the_steps(shape: Shape) -> None:
    unlabelled = replace(shape, classes=0)  # whose label is looked up, and multiplied nowhere
    assert sum(call.flops() for call in kernels.noted(shape, "numpy")) == unlabelled.flops()


@EACH
def test_the_floor_multiplies_the_same_sizes(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(np, "matmul", lambda a, b, out: asked.append(2 * a.shape[0] * a.shape[1] * b.shape[1]))
    for call in kernels.noted(shape, "numpy"):
        product = call.product(get_backend("numpy"))
        assert (product is None) == (call.flops() == 0)
        if product:
            product()
            assert asked[-1] == call.flops()


@pytest.mark.parametrize("make", [NumPyKernels, lambda dtype: Reference(np, dtype)], ids=["numpy", "reference"])
@EACH
def test_a_call_that_is_repeated_finds_what_it_found_in_the_step(
    monkeypatch: pytest.MonkeyPatch, shape: Shape, make: Any
) -> None:
    monkeypatch.setattr(Adam, "update", lambda *others: None)  # the weights stay
    k, compared = make("float32"), 0
    for call in kernels.noted(shape, "numpy"):
        if call.function in ("product", "convolve", "spread", "row_max"):  # nobody changes what they read
            result, again = (r.y if isinstance(r, Rows) else r for r in (call.result, call.run(k)))
            assert np.allclose(again, result, rtol=1e-5, atol=1e-6), call.label()  # sums of 80 products below 1
            compared += 1
    assert compared >= 3


def test_the_bytes_worked_out_by_hand() -> None:
    n, d, h, latent = 16, 12, 8, 3
    size = d * h + h + h * 2 * latent + 2 * latent + latent * h + h + h * d + d
    numbers = {
        "product 16 x 12 x 8, relu": n * d + d * h + h + n * h,
        "back 16 x 8 x 12": n * d + h * d + n * h + n * h,  # the gradient, W, y below for its slope, the result
        "back 16 x 3 x 8": n * h + latent * h + n * latent,  # z has no slope
        "gradient 16 x 12 x 8": n * d + n * h + d * h + h,
        "map reparameterize_forward 16 x 3": 4 * n * latent,
        f"map adam_update 1 x {size}": 7 * size,
        f"squared_norm {size}": size + 1,
    }
    found = {call.label(): call for call in kernels.calls(TINY[0], "numpy")}
    for label, count in numbers.items():
        assert found[label].bytes() == 4 * count, label
    rows = n * np.dtype(np.int64).itemsize
    assert found["gather 16 x 12"].bytes() == rows + n * d * (1 + 4)  # not the whole data set


def test_what_is_read_of_the_layer_below() -> None:
    y, a = np.ones((2, 3)), np.zeros((2, 3))
    for name, read in {"relu": [y], "linear": [], "swish": [y, a], "gelu": [a]}.items():
        found = list(kernels.arrays(Rows(y, activation(name), a)))
        assert {id(b) for b in found} == {id(b) for b in read}, name
    assert list(kernels.arrays(Rows(y, None))) == []


def test_calls_alike_are_timed_once() -> None:
    twice = Shape("twice", 12, (6, 6), 3, batch=16, rows=64)
    labels = [call.label() for call in kernels.noted(twice, "numpy")]
    assert labels.count("product 16 x 6 x 6, relu") == 2
    assert [call.label() for call in kernels.calls(twice, "numpy")] == list(dict.fromkeys(labels))


def test_each_is_timed_by_both_kernels_and_beside_its_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "BLOCK", 0.0)
    monkeypatch.setattr(kernels, "BLOCKS", 1)
    rows = kernels.times("numpy", TINY[3].to_dict())
    assert [row["label"] for row in rows] == [call.label() for call in kernels.calls(TINY[3], "numpy")]
    for row in rows:
        assert min(row["fused"], row["reference"], row["copy"]) > 0
        assert (row["products"] is not None) == (row["flops"] > 0)


def test_on_a_gpu_the_step_goes_call_by_call(fake_cupy: FakeCupy) -> None:
    labels = [call.label() for call in kernels.calls(TINY[0], "cupy")]
    assert labels == [call.label() for call in kernels.calls(TINY[0], "numpy")]
