"""Tests of the stand-in's streams, events, kernels and graphs: late where CUDA may be, strict where it would crash."""

import ctypes
import importlib
import importlib.util
import inspect
import re
from typing import Any

import fake_cuda
import numpy as np
import pytest
from fake_cuda import Event, Graph, RawModule, Stream, clock
from fake_cupy import FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture

from tinyvae.kernels.cuda.launch import NULL, SOURCE
from tinyvae.kernels.cuda.table import KERNELS, THREADS


def binarize(fake: FakeCupy) -> Any:
    return fake.RawModule(code=SOURCE.read_text(), options=("--std=c++17",)).get_function("binarize")


def arrays(fake: FakeCupy, value: float = 0.5) -> tuple[Any, Any]:
    """x that becomes 1 where u < x: everywhere."""
    return fake.full(4, value, "float32"), fake.zeros(4, "float32")


def waiting_stream(fake: FakeCupy) -> Stream:
    """A stream that has waited for all there was."""
    stream = fake.cuda.Stream(non_blocking=True)
    stream.wait_event(fake.cuda.get_current_stream().record())
    return stream


GRID, BLOCK, FOUR = (1, 1), (THREADS,), np.int32(4)


# -------------------------------------------------------------------------------------------------------------- kernels


def test_a_kernel_runs_at_once_on_the_default_stream(fake_cupy: FakeCupy) -> None:
    x, u = arrays(fake_cupy)
    binarize(fake_cupy)(GRID, BLOCK, (x, u, FOUR))
    assert fake_cupy.asnumpy(x).tolist() == [1, 1, 1, 1]
    assert clock.launches == ["binarize"]


REFUSED: dict[str, Any] = {
    "a Python int": lambda x, u: (x, u, 4),
    "an int of 64 bits": lambda x, u: (x, u, np.int64(4)),
    "a float for an int": lambda x, u: (x, u, np.float32(4)),
    "None": lambda x, u: (x, None, FOUR),
    "a null of 32 bits": lambda x, u: (x, np.int32(0), FOUR),
    "an address": lambda x, u: (x, np.uint64(4096), FOUR),
    "a host array": lambda x, u: (x, np.zeros(4, "f4"), FOUR),
    "another dtype": lambda x, u: (x, u.astype("float64"), FOUR),
    "too few": lambda x, u: (x, u),
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_arguments_of_other_bytes_than_the_kernel_reads_are_refused(fake_cupy: FakeCupy, arguments: Any) -> None:
    kernel = binarize(fake_cupy)
    with pytest.raises(TypeError, match="binarize"):
        kernel(GRID, BLOCK, arguments(*arrays(fake_cupy)))
    assert clock.launches == []


def test_a_null_pointer_reaches_the_kernel(fake_cupy: FakeCupy) -> None:
    kernel = fake_cupy.RawModule(code=SOURCE.read_text()).get_function("bernoulli_loss")
    x, logits = arrays(fake_cupy)
    nll = fake_cupy.empty(2, "float32")
    numbers = np.int32(2), np.int32(2)
    kernel((2, 1), BLOCK, (logits, x, np.float32(1), nll, np.uint64(0), *numbers))
    np.testing.assert_allclose(fake_cupy.asnumpy(nll), 2 * np.log(2), rtol=1e-6)


@pytest.mark.parametrize(("grid", "block"), [((0, 1), BLOCK), ((1, 2**16), BLOCK), (GRID, (32,))])
def test_impossible_grids_and_other_blocks_are_refused(fake_cupy: FakeCupy, grid: Any, block: Any) -> None:
    with pytest.raises(fake_cuda.CUDADriverError, match="INVALID_VALUE"):
        binarize(fake_cupy)(grid, block, (*arrays(fake_cupy), FOUR))


def test_grid_and_block_are_tuples_and_so_are_options(fake_cupy: FakeCupy) -> None:
    with pytest.raises(TypeError, match="tuples"):
        binarize(fake_cupy)([1], BLOCK, (*arrays(fake_cupy), FOUR))
    with pytest.raises(TypeError, match="tuple"):
        RawModule(code="", options=["--std=c++17"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="positional"):
        RawModule("")  # type: ignore[misc]


def test_a_module_has_its_kernels_only_and_must_compile(fake_cupy: FakeCupy) -> None:
    with pytest.raises(fake_cuda.CUDADriverError, match="NOT_FOUND"):
        fake_cupy.RawModule(code=SOURCE.read_text()).get_function("binarise")
    with pytest.raises(RuntimeError, match="does not compile"):
        fake_cupy.RawModule(code="no C++").get_function("binarize")
    with pytest.raises(fake_cuda.NVRTCError):
        RawModule(code="", options=("-O9",))


# ----------------------------------------------------------------------------------------------------- streams, events


def test_a_stream_works_when_it_is_waited_for_and_not_before(fake_cupy: FakeCupy) -> None:
    x, u = arrays(fake_cupy)
    kernel, stream = binarize(fake_cupy), waiting_stream(fake_cupy)
    with stream:
        assert fake_cupy.cuda.get_current_stream() is stream
        kernel(GRID, BLOCK, (x, u, FOUR))
    assert fake_cupy.cuda.get_current_stream() is clock.default
    assert fake_cupy.asnumpy(x)[0] == 0.5, "the default stream does not wait for it"
    stream.synchronize()
    assert fake_cupy.asnumpy(x)[0] == 1


def test_array_operations_are_in_the_order_of_their_stream(fake_cupy: FakeCupy) -> None:
    x, u = arrays(fake_cupy)
    kernel, stream = binarize(fake_cupy), waiting_stream(fake_cupy)
    with stream:
        kernel(GRID, BLOCK, (x, u, FOUR))
        x += 1
        assert fake_cupy.asnumpy(x).tolist() == [2, 2, 2, 2]


def test_a_stream_that_did_not_wait_for_the_default_stream_is_a_race(fake_cupy: FakeCupy) -> None:
    stream = waiting_stream(fake_cupy)
    kernel, (x, u) = binarize(fake_cupy), arrays(fake_cupy)
    with stream, pytest.raises(fake_cuda.RaceError):
        kernel(GRID, BLOCK, (x, u, FOUR))
    stream.wait_event(clock.default.record())
    with stream:
        kernel(GRID, BLOCK, (x, u, FOUR))
    fake_cupy.asnumpy(u)  # the host has waited for the default stream: whatever comes now comes after
    with stream:
        kernel(GRID, BLOCK, (x, u, FOUR))


def test_an_event_ends_the_waiting_where_it_was_recorded(fake_cupy: FakeCupy) -> None:
    x, u = arrays(fake_cupy)
    y, _ = arrays(fake_cupy)
    kernel, stream, event = binarize(fake_cupy), waiting_stream(fake_cupy), Event(block=True, disable_timing=True)
    event.synchronize()  # never recorded: past
    with stream:
        kernel(GRID, BLOCK, (x, u, FOUR))
        event.record(stream)
        kernel(GRID, BLOCK, (y, u, FOUR))
    event.synchronize()
    assert (x._host[0], y._host[0]) == (1, 0.5)
    assert len(stream.waiting) == 1


def test_a_device_waits_for_all_its_streams(fake_cupy: FakeCupy) -> None:
    kernel, (x, u) = binarize(fake_cupy), arrays(fake_cupy)
    stream = waiting_stream(fake_cupy)
    with stream:
        kernel(GRID, BLOCK, (x, u, FOUR))
    fake_cupy.cuda.Device().synchronize()
    assert (x._host[0], stream.waiting) == (1, [])


def test_other_streams_than_these_are_not_there(fake_cupy: FakeCupy) -> None:
    for options in [{}, {"ptds": True}, {"non_blocking": True, "priority": 1}]:
        with pytest.raises(NotImplementedError):
            fake_cupy.cuda.Stream(**options)


# --------------------------------------------------------------------------------------------------------------- graphs


def capture(fake: FakeCupy, x: Any, u: Any) -> tuple[Stream, Graph]:
    kernel = binarize(fake)
    scratch = arrays(fake)
    stream = waiting_stream(fake)
    with stream:
        kernel(GRID, BLOCK, (*scratch, FOUR))
        stream.begin_capture()
        assert stream.is_capturing()
        kernel(GRID, BLOCK, (x, u, FOUR))
        return stream, stream.end_capture()


def test_a_graph_replays_what_was_captured_on_the_memory_as_it_is_then(fake_cupy: FakeCupy) -> None:
    x, u = arrays(fake_cupy)
    stream, graph = capture(fake_cupy, x, u)
    stream.synchronize()
    assert x._host[0] == 0.5, "a capture runs nothing"
    graph.launch(stream)
    graph.launch(stream)
    assert x._host[0] == 0.5
    stream.synchronize()
    assert x._host[0] == 1
    assert clock.launches == ["binarize"] * 3
    x.fill(0.0)
    graph.launch()
    assert x._host[0] == 0


def test_a_graph_does_not_keep_its_arrays(fake_cupy: FakeCupy) -> None:
    x, u = arrays(fake_cupy)
    stream, graph = capture(fake_cupy, x, u)
    del x
    graph.launch(stream)
    with pytest.raises(RuntimeError, match="freed"):
        stream.synchronize()


WHILE_CAPTURING: dict[str, Any] = {
    "cuBLAS": lambda fake, x, stream: x @ x,
    "matmul with out": lambda fake, x, stream: fake.matmul(x, x, out=x[0]),
    "random numbers": lambda fake, x, stream: fake.random.Generator(fake.random.Philox4x3210(1)).random(4),
    "allocation": lambda fake, x, stream: fake.empty(3),
    "a copy to the host": lambda fake, x, stream: fake.asnumpy(x),
    "a copy to the device": lambda fake, x, stream: fake.asarray(np.zeros(3)),
    "synchronize": lambda fake, x, stream: stream.synchronize(),
    "an event": lambda fake, x, stream: stream.record(),
    "an operator": lambda fake, x, stream: x + 1,
    "assignment": lambda fake, x, stream: x.__setitem__(0, 1.0),
    "loading a module": lambda fake, x, stream: binarize(fake),
}


@pytest.mark.parametrize("attempt", WHILE_CAPTURING.values(), ids=WHILE_CAPTURING)
def test_while_a_stream_captures_all_but_kernels_is_refused(fake_cupy: FakeCupy, attempt: Any) -> None:
    x, _ = arrays(fake_cupy)
    stream = waiting_stream(fake_cupy)
    with stream:
        stream.begin_capture()
        with pytest.raises(NotImplementedError, match="while a stream is being captured"):
            attempt(fake_cupy, x, stream)
        assert stream.end_capture().nodes == []


def test_a_kernel_that_was_never_launched_is_not_captured(fake_cupy: FakeCupy) -> None:
    x, u = arrays(fake_cupy)
    kernel, stream = binarize(fake_cupy), waiting_stream(fake_cupy)
    with stream:
        stream.begin_capture()
        with pytest.raises(fake_cuda.CUDADriverError, match="first launch"):
            kernel(GRID, BLOCK, (x, u, FOUR))


def test_captures_begin_once_and_end_once_and_not_on_the_default_stream(fake_cupy: FakeCupy) -> None:
    with pytest.raises(RuntimeError, match="default"):
        clock.default.begin_capture()
    stream = waiting_stream(fake_cupy)
    with pytest.raises(RuntimeError, match="does not capture"):
        stream.end_capture()
    stream.begin_capture()
    with pytest.raises(RuntimeError, match="captures already"):
        stream.begin_capture()
    stream.end_capture()
    with pytest.raises(NotImplementedError):
        Graph()


# ----------------------------------------------------------------------------------------------- against the real CuPy


@pytest.fixture(scope="module")
def real_cupy() -> Any:
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed: its names and arguments cannot be compared")
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        pytest.skip(f"CuPy is installed but does not load: {error}")


STREAM = ("synchronize", "record", "wait_event", "begin_capture", "end_capture", "is_capturing")


def test_cupys_streams_and_events_take_the_same_arguments(real_cupy: Any) -> None:
    for ours, theirs, names in [
        (Stream, real_cupy.cuda.Stream, ("__init__", *STREAM)),
        (Event, real_cupy.cuda.Event, ("__init__", "record", "synchronize")),
    ]:
        for name in names:
            parameters = [inspect.signature(getattr(c, name)).parameters.values() for c in (ours, theirs)]
            assert [(p.name, p.default) for p in parameters[0]] == [(p.name, p.default) for p in parameters[1]], name
    for name in ("__enter__", "__exit__"):
        assert hasattr(real_cupy.cuda.Stream, name)


def first_line(documented: Any) -> str:
    return documented.__doc__.splitlines()[0]


def test_cupys_compiled_functions_take_the_same_arguments(real_cupy: Any) -> None:
    assert first_line(real_cupy.cuda.Graph.launch) == "Graph.launch(self, stream=None)"
    assert first_line(real_cupy.cuda.get_current_stream) == "get_current_stream(int device_id=-1)"
    assert first_line(real_cupy.RawModule.get_function) == "RawModule.get_function(self, str name)"
    assert "__call__(self, grid, block, args, \\*, shared_mem=0)" in real_cupy.RawKernel.__call__.__doc__
    assert hasattr(real_cupy.ndarray, "data")
    assert "ptr" in dir(real_cupy.cuda.MemoryPointer)


def test_cupys_modules_refuse_the_same_arguments(real_cupy: Any) -> None:
    modules: list[Any] = [RawModule, real_cupy.RawModule]
    for module in modules:
        with pytest.raises(TypeError, match="positional"):
            module("")
        with pytest.raises(TypeError, match="tuple"):
            module(code="", options=["--std=c++17"])
        made = module(code="text", options=("--std=c++17", "-DTF32"))
        assert (made.code, made.options, made.backend) == ("text", ("--std=c++17", "-DTF32"), "nvrtc")


def test_cupy_refuses_the_same_captures_and_graphs(real_cupy: Any) -> None:
    with pytest.raises(RuntimeError, match=re.escape("cannot capture on the default (legacy) stream")):
        real_cupy.cuda.Stream.null.begin_capture()
    with pytest.raises(NotImplementedError):
        real_cupy.cuda.Graph()


def test_cupy_passes_the_bytes_that_the_launcher_means(real_cupy: Any) -> None:
    """What CuPy makes of a number is where `ptr` points; a Python number would have been eight bytes."""
    scalar = importlib.import_module("cupy._core._scalar").CScalar
    for value, kind in [(np.int32(-4), ctypes.c_int32), (np.float32(1.5), ctypes.c_float), (NULL, ctypes.c_uint64)]:
        made = scalar(value)
        assert (made.dtype, kind.from_address(made.ptr).value) == (value.dtype, value)
    assert (scalar(4).dtype, scalar(1.5).dtype) == (np.int64, np.float64)


def test_every_kernel_of_the_table_is_in_the_source(fake_cupy: FakeCupy) -> None:
    module = fake_cupy.RawModule(code=SOURCE.read_text())
    assert [module.get_function(name).name for name in KERNELS] == list(KERNELS)
