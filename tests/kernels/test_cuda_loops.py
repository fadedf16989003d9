"""The contract for CuPy, on the stand-in: what is no formula, and what is remembered of a call."""

from typing import Any

import fake_cuda
import numpy as np
import pytest
from cuda_on_cpu import loops
from cuda_on_cpu.shim import MOVES
from fake_cupy import DeviceArray, FakeCupy
from fake_cupy import fake_for_a_module as fake_for_a_module
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import SEEDS

from tinyvae import VAE
from tinyvae.formula import formula
from tinyvae.kernels.contract import Kernels, Window
from tinyvae.kernels.cuda.launch import signatures
from tinyvae.kernels.cuda_loops import PART, CudaKernels
from tinyvae.loop import Loop

SIZE = st.sampled_from((1, 2, 3, 31, 32, 33, 257))


@pytest.fixture(scope="module")
def k(fake: FakeCupy) -> loops.Guarded:
    return loops.Guarded(fake)


@pytest.fixture(scope="module")
def plain(fake: FakeCupy) -> CudaKernels:
    return CudaKernels(fake)


def test_it_has_all_of_the_contract(k: loops.Guarded) -> None:
    kernels: Kernels = k  # pyright says so, too
    assert kernels.name == "cuda"
    assert not [name for name in vars(Kernels) if name[0] != "_" and not hasattr(k, name)]


# ------------------------------------------------------------------------------------------------- what is no formula


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Any geometry in which the window fits somewhere."""
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    height, width = (draw(st.integers(kernel, 9)) for _ in range(2))
    return Window(height, width, draw(st.integers(1, 3)), kernel, stride, draw(st.integers(0, kernel - 1)))


@given(SEEDS, windows(), st.integers(1, 4))
@example(0, Window(9, 7, 2, 4, 2, 1), 2)  # the stride leaves a remainder
@example(0, Window(4, 5, 1, 2, 3, 0), 1)  # pixels that no window covers
def test_convolutions(k: loops.Guarded, seed: int, window: Window, rows: int) -> None:
    loops.check_window(k, window, rows, seed)


@given(SEEDS, SIZE, st.integers(1, 3), st.integers(1, 5), st.sampled_from(["u1", "i2", "u4", "i8"]))
def test_scatter(k: loops.Guarded, seed: int, rows: int, K: int, classes: int, dtype: str) -> None:
    loops.check_scatter(k, rows, K, classes, dtype, seed)


@given(SEEDS, SIZE, SIZE)
@example(0, 3, PART)
def test_the_largest_and_the_sums(k: loops.Guarded, seed: int, rows: int, cols: int) -> None:
    loops.check_sums(k, rows, cols, seed)


def test_the_largest_of_a_row_with_nan_is_nan(k: loops.Guarded) -> None:
    a = np.zeros((3, 40), "f4")
    a[1, 33] = np.nan
    assert np.isnan(k.row_max(DeviceArray(a))._host.ravel()).tolist() == [False, True, False]


@given(SEEDS, SIZE, SIZE, st.sampled_from(["u1", "f4", "bool", "i2", "f2"]))
def test_gather(k: loops.Guarded, seed: int, rows: int, columns: int, stored: str) -> None:
    loops.check_gather(k, rows, columns, stored, seed)


def test_every_kernel_of_the_moves_is_launched(k: loops.Guarded) -> None:
    fake_cuda.clock.launches.clear()
    loops.check_window(k, Window(5, 5, 2, 3, 2, 1), 2, 0)
    loops.check_scatter(k, 5, 2, 3, "i8", 0)
    loops.check_sums(k, 3, PART, 0)
    for stored in ("u1", "f4"):
        loops.check_gather(k, 3, 5, stored, 0)
    assert set(signatures(MOVES)) == set(fake_cuda.clock.launches) - {"loop"}


# --------------------------------------------------------------------------------------------------- what is remembered


@formula
def scaled(a, factor, more):
    """a factor + more."""
    return a * factor + more


OUT, EVERY = Loop([scaled]), Loop([scaled], [scaled], [scaled])


def test_numbers_change_from_call_to_call_and_arrays_in_place(plain: CudaKernels, fake: FakeCupy) -> None:
    a = fake.ones((2, 3), dtype="float32")
    for i in range(4):
        plain.begin("numbers")
        a.fill(i)
        each, along, over = plain.map(EVERY, a=a, factor=float(i), more=2 * i)
        assert each._host.tolist() == [[i * i + 2 * i] * 3] * 2
        assert along._host.tolist() == [3 * (i * i + 2 * i)] * 2
        assert over._host.tolist() == [2 * (i * i + 2 * i)] * 3


def test_from_the_second_pass_on_nothing_is_allocated_and_nothing_prepared(fake: FakeCupy) -> None:
    k, a = CudaKernels(fake), fake.ones((5, 7), dtype="float32")

    def once() -> Any:
        k.begin("pass")
        k.map(EVERY, a=a, factor=2.0, more=1.0)
        k.row_max(a)
        return k.total(a)

    first = once()
    fake_cuda.clock.operations.clear()
    assert once() is first
    assert fake_cuda.clock.operations == []


def test_other_memory_is_seen_and_memory_that_was_kept_is_not_mistaken(plain: CudaKernels, fake: FakeCupy) -> None:
    for value in (1.0, 2.0, 3.0):
        plain.begin("other")
        a = fake.full((2, 2), value, dtype="float32")  # freed after each pass, but for what the call keeps
        assert plain.map(OUT, a=a, factor=1.0, more=0.0)._host.tolist() == [[value] * 2] * 2


def test_what_no_kernel_can_do_is_refused(k: loops.Guarded, fake: FakeCupy) -> None:
    a: Any = fake.ones((2, 6), dtype="float32")
    with pytest.raises(ValueError, match="rows are contiguous"):
        k.map(OUT, a=a[:, ::2], factor=1.0, more=0.0, out=(a[:, ::2],))
    with pytest.raises(TypeError, match="an array of float32 or a number, not an array of float64"):
        k.map(OUT, a=a.astype("float64"), factor=1.0, more=0.0)
    huge = DeviceArray(np.broadcast_to(np.float32(0), (2**16, 2**15)))
    with pytest.raises(ValueError, match=r"counts to 2\^31"):
        k.map(OUT, a=huge, factor=1.0, more=0.0, out=(huge,))
    two = Loop([scaled, scaled])
    with pytest.raises(ValueError, match="different heights"):
        k.map(two, a=a, factor=1.0, more=0.0, into=(fake.zeros((1, 6), "float32"), fake.zeros((2, 6), "float32")))


def test_a_model_on_cupy_takes_these_kernels(fake: FakeCupy) -> None:
    model = VAE(5, hidden=(4,), latent_dim=2, backend="cupy")
    assert model.kernels_name == "cuda"
    with model.borrowed("pass") as kernels:
        assert isinstance(kernels, CudaKernels)
