"""Whole models and single formulas on CUDA's kernels, run on the CPU in shuffled orders of threads, beside float64.

The contract for float32 is 1e-4 of a number, and 1e-4 nats. Whole models are held to what they can do: a number has at
most some hundred roundings of the largest beside it behind it.
"""

from typing import Any

import fake_cuda
import numpy as np
import pytest
from contracts.test_formulas import FORMULAS, allowed, inputs_of, name_of, results
from cuda_on_cpu import models
from fake_cupy import DeviceArray, FakeCupy
from fake_cupy import fake_for_a_module as fake_for_a_module
from strategies import assert_within, eps_of

from tinyvae.formula import Formula
from tinyvae.kernels.cuda_loops import CudaKernels
from tinyvae.kernels.reference import Reference
from tinyvae.loop import Loop

EPS = eps_of("float32")
BOUND = 128 * EPS
TAKING = [f for f in FORMULAS if f.inputs]


def run(k: CudaKernels, f: Formula) -> list[np.ndarray]:
    """The formula as a kernel of its own, at its points in float32."""
    given: dict[str, Any] = {n: DeviceArray(a) for n, a in inputs_of(f, dtype=np.float32).items() if n in f.inputs}
    made = k.map(Loop([f]), **given)
    return [a._host.copy() for a in (made if isinstance(made, tuple) else (made,))]


@pytest.fixture(scope="module", autouse=True)
def compiled(fake: FakeCupy) -> None:
    """All that the tests run, compiled at once."""
    codes = models.noted_codes()
    with fake_cuda.noting() as more:
        for f in TAKING:
            run(CudaKernels(fake), f)
    fake_cuda.compile_together([*codes, *more])


def assert_close(actual: Any, expected: Any, what: str) -> None:
    actual, expected = (a._host if isinstance(a, DeviceArray) else np.asarray(a) for a in (actual, expected))
    error, largest = np.abs(actual - expected).max(), np.abs(expected).max()
    assert error <= BOUND * largest, f"{what}: off by {error:.3g}, where the largest is {largest:.3g}"


@pytest.mark.parametrize("name", models.cases())
def test_losses_gradients_and_running_averages_are_those_of_float64(fake: FakeCupy, name: str) -> None:
    case = models.cases()[name]
    truth, model = models.built(case, dtype="float64", kernels="reference"), models.built(case, backend="cupy")
    assert model.kernels_name == "cuda"
    batch = here = models.inputs(truth, case, 1, seed=0)
    for seed, rows in enumerate(models.ROWS):
        batch = models.inputs(truth, case, rows, seed)
        there, here = models.moved(truth, batch), models.moved(model, batch)
        fake.reset_copies()
        losses = models.step(model, case, here)
        assert (fake.host_copies, fake.device_copies) == (0, 0)
        for loss, expected in zip(losses, models.step(truth, case, there), strict=True):
            assert_close(loss, expected, "loss")
        for tensor, g in truth.grads.items():
            assert_close(model.grads[tensor], g, f"the gradient of {tensor}")
        for tensor in (tensor for tensor in truth.params if ".running_" in tensor):
            assert_close(model.params[tensor], truth.params[tensor], tensor)
    for mine, expected in zip(models.evaluated(model, batch), models.evaluated(truth, batch), strict=True):
        assert_close(mine, expected, "evaluation")
    first = model.grads.flat._host.copy()
    models.step(model, case, here)
    assert np.array_equal(model.grads.flat._host, first), "the gradient depends on the order of the threads"


@pytest.mark.parametrize("f", TAKING, ids=name_of)
def test_a_formula_as_a_kernel_is_right_all_over_its_domain(fake: FakeCupy, f: Formula) -> None:
    """As the contract of the formulas has it for the host's kernels; beyond float32's range nothing is asked."""
    given = inputs_of(f, dtype=np.float32)
    truth = results(f, given)
    for got, expected, bound in zip(run(CudaKernels(fake), f), truth, allowed(f, given, truth, EPS), strict=True):
        within = np.isfinite(expected) & np.isfinite(bound) & (np.abs(expected) < 1e36)
        assert within.mean() > 0.3
        assert_within(got[within], expected[within], bound[within])


@pytest.mark.parametrize("f", TAKING, ids=name_of)
def test_nan_goes_wherever_the_formula_takes_it_so_that_a_diverging_run_is_seen(fake: FakeCupy, f: Formula) -> None:
    loop, k, truth = Loop([f]), CudaKernels(fake), Reference(np, "float32")
    for name in f.inputs:
        given: dict[str, Any] = {n: np.full((2, 3), 0.5, "f4") for n in f.inputs}
        given[name][0, 1] = np.nan
        moved: dict[str, Any] = {n: DeviceArray(a) for n, a in given.items()}
        made, expected = k.map(loop, **moved), truth.map(loop, **given)
        pairs = zip(made, expected, strict=True) if isinstance(made, tuple) else [(made, expected)]
        for got, nan in pairs:
            assert np.array_equal(np.isnan(got._host), np.isnan(nan)), f"NaN in {name}"
