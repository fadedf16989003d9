"""Tests of the stand-in's streams, events, kernels and graphs: late where CUDA may be, strict where it would crash."""

from typing import Any

import fake_cuda
import numpy as np
import pytest
from cuda_on_cpu.shim import SOURCE
from fake_cuda import Event, Graph, RawModule, Stream, clock
from fake_cupy import FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture

from tinyvae.kernels.cuda.table import KERNELS, THREADS


def gather(fake: FakeCupy) -> Any:
    return fake.RawModule(code=SOURCE, options=("--std=c++17",)).get_function("gather_floats")


Given = tuple[Any, Any, Any]


def arrays(fake: FakeCupy) -> tuple[Any, Given]:
    """x, of 0.5, and what it is gathered from: a row of ones, which row it is, and the number of the batch."""
    data, order, state = fake.ones((1, 4), "float32"), fake.zeros(1, "int32"), fake.zeros(3, "uint32")
    return fake.full(4, 0.5, "float32"), (data, order, state)


def into(x: Any, given: Given, columns: Any = np.int32(4)) -> tuple[Any, ...]:  # noqa: B008 - a number
    """The arguments with which x becomes the row."""
    return (*given, x, np.int32(1), np.int32(1), columns, np.float32(1), np.int32(0))


def waiting_stream(fake: FakeCupy) -> Stream:
    """A stream that has waited for all there was."""
    stream = fake.cuda.Stream(non_blocking=True)
    stream.wait_event(fake.cuda.get_current_stream().record())
    return stream


GRID, BLOCK = (1, 1), (THREADS,)


# -------------------------------------------------------------------------------------------------------------- kernels


def test_a_kernel_runs_at_once_on_the_default_stream(fake_cupy: FakeCupy) -> None:
    x, given = arrays(fake_cupy)
    gather(fake_cupy)(GRID, BLOCK, into(x, given))
    assert fake_cupy.asnumpy(x).tolist() == [1, 1, 1, 1]
    assert clock.launches == ["gather_floats"]


REFUSED: dict[str, Any] = {
    "a Python int": lambda x, given: into(x, given, 4),
    "an int of 64 bits": lambda x, given: into(x, given, np.int64(4)),
    "a float for an int": lambda x, given: into(x, given, np.float32(4)),
    "None": lambda x, given: into(None, given),
    "a null of 32 bits": lambda x, given: into(np.int32(0), given),
    "an address": lambda x, given: into(np.uint64(4096), given),
    "a host array": lambda x, given: into(np.zeros(4, "f4"), given),
    "another dtype": lambda x, given: into(x.astype("float64"), given),
    "too few": lambda x, given: into(x, given)[:-1],
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_arguments_of_other_bytes_than_the_kernel_reads_are_refused(fake_cupy: FakeCupy, arguments: Any) -> None:
    kernel = gather(fake_cupy)
    with pytest.raises(TypeError, match="gather_floats"):
        kernel(GRID, BLOCK, arguments(*arrays(fake_cupy)))
    assert clock.launches == []


def test_a_null_pointer_reaches_the_kernel(fake_cupy: FakeCupy) -> None:
    """Of one row and one dimension, without a logvar to learn: loss, nll and kl go into the ring."""
    kernel = fake_cupy.RawModule(code=SOURCE).get_function("finish_step")
    nll, kl = fake_cupy.full((1, 1), 3.0, "float32"), fake_cupy.full((1, 1), 0.5, "float32")
    schedule, ring = fake_cupy.full((1, 4), 2.0, "float32"), fake_cupy.empty((1, 3), "float32")
    state, nothing, one = fake_cupy.zeros(3, "uint32"), np.uint64(0), np.int32(1)
    kernel(GRID, BLOCK, (nll, one, kl, schedule, np.float32(0), ring, state, *[nothing] * 5, one, one))
    assert fake_cupy.asnumpy(ring).tolist() == [[4.0, 3.0, 0.5]]


@pytest.mark.parametrize(("grid", "block"), [((0, 1), BLOCK), ((1, 2**16), BLOCK), (GRID, (32,))])
def test_impossible_grids_and_other_blocks_are_refused(fake_cupy: FakeCupy, grid: Any, block: Any) -> None:
    with pytest.raises(fake_cuda.CUDADriverError, match="INVALID_VALUE"):
        gather(fake_cupy)(grid, block, into(*arrays(fake_cupy)))


def test_grid_and_block_are_tuples_and_so_are_options(fake_cupy: FakeCupy) -> None:
    with pytest.raises(TypeError, match="tuples"):
        gather(fake_cupy)([1], BLOCK, into(*arrays(fake_cupy)))
    with pytest.raises(TypeError, match="tuple"):
        RawModule(code="", options=["--std=c++17"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="positional"):
        RawModule("")  # type: ignore[misc]


def test_a_module_has_its_kernels_only_and_must_compile(fake_cupy: FakeCupy) -> None:
    with pytest.raises(fake_cuda.CUDADriverError, match="NOT_FOUND"):
        fake_cupy.RawModule(code=SOURCE).get_function("gather")
    with pytest.raises(RuntimeError, match="does not compile"):
        fake_cupy.RawModule(code="no C++").get_function("gather_floats")
    with pytest.raises(fake_cuda.NVRTCError):
        RawModule(code="", options=("-O9",))


# ----------------------------------------------------------------------------------------------------- streams, events


def test_a_stream_works_when_it_is_waited_for_and_not_before(fake_cupy: FakeCupy) -> None:
    x, given = arrays(fake_cupy)
    kernel, stream = gather(fake_cupy), waiting_stream(fake_cupy)
    with stream:
        assert fake_cupy.cuda.get_current_stream() is stream
        kernel(GRID, BLOCK, into(x, given))
    assert fake_cupy.cuda.get_current_stream() is clock.default
    assert fake_cupy.asnumpy(x)[0] == 0.5, "the default stream does not wait for it"
    stream.synchronize()
    assert fake_cupy.asnumpy(x)[0] == 1


def test_array_operations_are_in_the_order_of_their_stream(fake_cupy: FakeCupy) -> None:
    x, given = arrays(fake_cupy)
    kernel, stream = gather(fake_cupy), waiting_stream(fake_cupy)
    with stream:
        kernel(GRID, BLOCK, into(x, given))
        x += 1
        assert fake_cupy.asnumpy(x).tolist() == [2, 2, 2, 2]


def test_a_stream_that_did_not_wait_for_the_default_stream_is_a_race(fake_cupy: FakeCupy) -> None:
    stream = waiting_stream(fake_cupy)
    kernel, (x, given) = gather(fake_cupy), arrays(fake_cupy)
    with stream, pytest.raises(fake_cuda.RaceError):
        kernel(GRID, BLOCK, into(x, given))
    stream.wait_event(clock.default.record())
    with stream:
        kernel(GRID, BLOCK, into(x, given))
    fake_cupy.asnumpy(given[0])  # the host has waited for the default stream: whatever comes now comes after
    with stream:
        kernel(GRID, BLOCK, into(x, given))


def test_an_event_ends_the_waiting_where_it_was_recorded(fake_cupy: FakeCupy) -> None:
    x, given = arrays(fake_cupy)
    y, _ = arrays(fake_cupy)
    kernel, stream, event = gather(fake_cupy), waiting_stream(fake_cupy), Event(block=True, disable_timing=True)
    event.synchronize()  # never recorded: past
    with stream:
        kernel(GRID, BLOCK, into(x, given))
        event.record(stream)
        kernel(GRID, BLOCK, into(y, given))
    event.synchronize()
    assert (x._host[0], y._host[0]) == (1, 0.5)
    assert len(stream.waiting) == 1


def test_a_device_waits_for_all_its_streams(fake_cupy: FakeCupy) -> None:
    kernel, (x, given) = gather(fake_cupy), arrays(fake_cupy)
    stream = waiting_stream(fake_cupy)
    with stream:
        kernel(GRID, BLOCK, into(x, given))
    fake_cupy.cuda.Device().synchronize()
    assert (x._host[0], stream.waiting) == (1, [])


def test_other_streams_than_these_are_not_there(fake_cupy: FakeCupy) -> None:
    for options in [{}, {"ptds": True}, {"non_blocking": True, "priority": 1}]:
        with pytest.raises(NotImplementedError):
            fake_cupy.cuda.Stream(**options)


# --------------------------------------------------------------------------------------------------------------- graphs


def capture(fake: FakeCupy, x: Any, given: Given) -> tuple[Stream, Graph]:
    kernel = gather(fake)
    scratch = arrays(fake)
    stream = waiting_stream(fake)
    with stream:
        kernel(GRID, BLOCK, into(*scratch))
        stream.begin_capture()
        assert stream.is_capturing()
        kernel(GRID, BLOCK, into(x, given))
        return stream, stream.end_capture()


def test_a_graph_replays_what_was_captured_on_the_memory_as_it_is_then(fake_cupy: FakeCupy) -> None:
    x, given = arrays(fake_cupy)
    stream, graph = capture(fake_cupy, x, given)
    stream.synchronize()
    assert x._host[0] == 0.5, "a capture runs nothing"
    graph.launch(stream)
    graph.launch(stream)
    assert x._host[0] == 0.5
    stream.synchronize()
    assert x._host[0] == 1
    assert clock.launches == ["gather_floats"] * 3
    given[0].fill(3.0)
    graph.launch()
    assert x._host[0] == 3


def test_a_graph_does_not_keep_its_arrays(fake_cupy: FakeCupy) -> None:
    x, given = arrays(fake_cupy)
    stream, graph = capture(fake_cupy, x, given)
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
    "loading a module": lambda fake, x, stream: gather(fake),
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
    x, given = arrays(fake_cupy)
    kernel, stream = gather(fake_cupy), waiting_stream(fake_cupy)
    with stream:
        stream.begin_capture()
        with pytest.raises(fake_cuda.CUDADriverError, match="first launch"):
            kernel(GRID, BLOCK, into(x, given))


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


def test_every_kernel_of_the_table_is_in_the_source(fake_cupy: FakeCupy) -> None:
    module = fake_cupy.RawModule(code=SOURCE)
    assert [module.get_function(name).name for name in KERNELS] == list(KERNELS)


# --------------------------------------------------------------------------------------------------- compiling at once

SMALL = """
extern "C" __global__ void shift(float* x, float by) {
    if (threadIdx.x == 0) x[0] += by;
}
"""


def test_what_is_noted_is_not_run_and_runs_once_it_is_compiled_with_others(fake_cupy: FakeCupy) -> None:
    other, x = SMALL.replace("+=", "-="), fake_cupy.full(1, 0.5, "float32")
    with fake_cuda.noting() as codes:
        kernels = [fake_cupy.RawModule(code=code).get_function("shift") for code in (SMALL, other)]
        for kernel in kernels:
            kernel(GRID, BLOCK, (x, np.float32(1)))
    assert (codes, x._host[0], clock.launches) == ([SMALL, other], 0.5, [])
    fake_cuda.compile_together(codes)
    for kernel, expected in zip(kernels, (1.5, 0.5), strict=True):
        kernel(GRID, BLOCK, (x, np.float32(1)))
        assert x._host[0] == expected
