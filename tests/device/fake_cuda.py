"""The part of the stand-in for CuPy that concerns CUDA itself: devices, streams, events, kernels and graphs.

Kernels run on the CPU, through `cuda_on_cpu/shim.py`. Time is made as unkind as CUDA allows:

- What is given to a stream of its own runs as late as possible: when somebody waits for it. So whoever reads its
  results without waiting reads the numbers of before.
- Such a stream may not begin while the default stream has been given work since it last waited for that: on a GPU the
  two would run side by side.
- A graph keeps addresses, not arrays. It is refused if an array that it needs has been freed.
- While a stream captures, only launches of kernels that were launched before are taken down; all else is refused.

Arguments of kernels are checked against their signatures: CuPy itself would copy the bytes of whatever it is given.
"""

import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda_on_cpu import shim

from tinyvae.kernels.cuda.launch import signatures
from tinyvae.kernels.cuda.table import THREADS


class CUDARuntimeError(RuntimeError):
    """What CuPy raises when the driver or the device says no."""


class CUDADriverError(RuntimeError):
    """The same, from the other library."""


class RaceError(RuntimeError):
    """On a GPU nobody would say so: two streams would run side by side."""


class NVRTCError(RuntimeError):
    """The source does not compile."""


class Clock:
    """What this process's (only) device is doing, and has done since `reset`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """As in a new process."""
        self.streams: weakref.WeakSet[Stream] = weakref.WeakSet()  # all but the default one
        self.default = Stream(null=True)
        self.stack = [self.default]
        self.operations: list[str] = []  # array operations, copies and allocations: all but launches
        self.launches: list[str] = []  # kernels that ran, by name
        self.loaded: set[tuple[str, str, tuple[str, ...]]] = set()  # kernels launched at least once
        self.synchronizations = 0

    @property
    def current(self) -> "Stream":
        """The stream that work goes to."""
        return self.stack[-1]


class Stream:
    """`cupy.cuda.Stream`: the default one works at once, others only when they must."""

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        if ptds or priority is not None or null == non_blocking:
            raise NotImplementedError("the stand-in has the default stream and non-blocking ones only")
        self.null = null
        self.waiting: list[Callable[[], None]] = []  # work given and not done
        self.given = self.done_count = 0
        self.seen = 0  # how much of the default stream's work this one has waited for
        self.settled = 0  # how much of this stream's work the host has waited for
        self.captured: list[Node] | None = None
        if not null:
            clock.streams.add(self)

    def __enter__(self) -> "Stream":
        clock.stack.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        assert clock.stack.pop() is self

    def give(self, work: Callable[[], None]) -> None:
        """Queue a piece of work."""
        if not self.null and max(self.seen, clock.default.settled) < clock.default.given:
            raise RaceError("a stream works beside the default stream, for which it has not waited")
        self.given += 1
        self.waiting.append(work)
        if self.null:
            self.finish()

    def finish(self, count: int | None = None) -> None:
        """Do the work given so far, or the first `count` pieces ever given."""
        while self.waiting and (count is None or self.done_count < count):
            self.waiting.pop(0)()
            self.done_count += 1

    def synchronize(self) -> None:
        """Wait for all work given so far."""
        self.refuse_capture("synchronize")
        clock.synchronizations += 1
        self.finish()
        self.settled = self.given

    def record(self, event: "Event | None" = None) -> "Event":
        """An event at the end of the work given so far."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: "Event") -> None:
        """Work given from now on begins after the event."""
        event.finish()
        if event.stream is not None and event.stream.null:
            self.seen = max(self.seen, event.count)

    def begin_capture(self, mode: int | None = None) -> None:
        """From now on kernels are taken down and not run."""
        if self.null:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.captured is not None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream captures already")
        self.captured = []

    def end_capture(self) -> "Graph":
        """What was taken down."""
        if self.captured is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream does not capture")
        graph, self.captured = Graph._of(self.captured), None
        return graph

    def is_capturing(self) -> bool:
        """Between begin_capture and end_capture."""
        return self.captured is not None

    def refuse_capture(self, what: str) -> None:
        """Raises NotImplementedError while this stream captures."""
        if self.captured is not None:
            raise NotImplementedError(f"{what} while a stream is being captured")


class Event:
    """A point in a stream's work. One that was never recorded is past."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.stream: Stream | None = None
        self.count = 0

    def record(self, stream: Stream | None = None) -> None:
        """At the end of the work given so far to `stream`, or to the current one."""
        stream = clock.current if stream is None else stream
        stream.refuse_capture("an event")
        self.stream, self.count = stream, stream.given

    def finish(self) -> None:
        """Do the work up to here."""
        if self.stream is not None:
            self.stream.finish(self.count)

    def synchronize(self) -> None:
        """Wait for it."""
        clock.synchronizations += 1
        self.finish()


clock = Clock()


def get_current_stream(device_id: int = -1) -> Stream:
    """The stream that work goes to now."""
    return clock.current


def working(what: str, waits: bool = False) -> None:
    """Every array operation passes here first: it goes to the current stream, whose earlier work it needs done.

    With `waits` the host waits for it, too.
    """
    stream = clock.current
    stream.refuse_capture(what)
    clock.operations.append(what)
    stream.give(lambda: None)
    stream.finish()
    if waits:
        stream.settled = stream.given


class Node:
    """A launch of a kernel: its name, blocks and arguments, with the arrays that must still be there."""

    def __init__(self, kernel: "RawKernel", grid: tuple[int, int], values: dict[str, Any], arrays: list[Any]) -> None:
        self.kernel, self.grid, self.values = kernel, grid, values
        self.arrays = arrays

    def run(self) -> None:
        """On the CPU, the threads in an order of its own."""
        clock.launches.append(self.kernel.name)
        self.kernel.shim.launch(self.kernel.name, self.grid, self.values, seed=len(clock.launches))

    def forget_arrays(self) -> "Node":
        """For a graph: as `arrays`, functions that give the array, or None once it is freed."""
        return Node(self.kernel, self.grid, self.values, [weakref.ref(array) for array in self.arrays])


class Graph:
    """`cupy.cuda.Graph`: made by a capture only."""

    nodes: list[Node]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("a graph is made by stream capture")

    @classmethod
    def _of(cls, nodes: list[Node]) -> "Graph":
        graph = cls.__new__(cls)
        graph.nodes = [node.forget_arrays() for node in nodes]
        return graph

    def launch(self, stream: Stream | None = None) -> None:
        """Give all nodes to `stream`, or to the current one."""
        stream = clock.current if stream is None else stream
        stream.refuse_capture("the launch of a graph")
        for node in self.nodes:
            stream.give(functools.partial(self._run, node))

    @staticmethod
    def _run(node: Node) -> None:
        if any(array() is None for array in node.arrays):
            raise CUDARuntimeError("cudaErrorIllegalAddress: a graph uses an array that was freed")
        node.run()


class RawModule:
    """`cupy.RawModule`: compiled when its first function is asked for."""

    def __init__(self, *, code: str, options: tuple[str, ...] = (), backend: str = "nvrtc") -> None:
        if not isinstance(code, str) or not isinstance(options, tuple):
            raise TypeError("code must be a str, options a tuple")
        if not all(option.startswith(("-D", "--std=")) for option in options):
            raise NVRTCError(f"an unknown option in {options}")
        self.code, self.options, self.backend = code, options, backend

    def get_function(self, name: str) -> "RawKernel":
        """The kernel of that name."""
        macros = tuple(option.removeprefix("-D") for option in self.options if option.startswith("-D"))
        clock.current.refuse_capture("loading a module")
        if noted is None:
            load(macros, self.code)
        if name not in signatures(self.code):
            raise CUDADriverError("CUDA_ERROR_NOT_FOUND: named symbol not found")
        return RawKernel(name, self.code, macros)


noted: list[str] | None = None  # while kernels are noted: their sources
compiled: dict[str, shim.Shim] = {}  # what was compiled with others


@functools.cache
def load(macros: tuple[str, ...], code: str) -> shim.Shim:
    """The library of a source, loaded once."""
    if not macros and code in compiled:
        return compiled[code]
    return shim.Shim(shim.build(code, macros=macros), code)


@contextmanager
def noting() -> Iterator[list[str]]:
    """In here kernels are not compiled and not run: their sources are noted, so that they can be compiled at once."""
    global noted
    noted = []
    try:
        yield noted
    finally:
        noted = None


def compile_together(codes: Sequence[str], **options: Any) -> None:
    """Sources that were noted; options of `shim.build`."""
    codes = list(dict.fromkeys(codes))
    library = shim.build(*codes, **options)
    compiled.update({code: shim.Shim(library, code, i) for i, code in enumerate(codes)})


class RawKernel:
    """`cupy.RawKernel`, as RawModule gives it."""

    def __init__(self, name: str, code: str, macros: tuple[str, ...]) -> None:
        self.name, self.code, self.macros = name, code, macros
        self.arguments = signatures(code)[name]

    @property
    def shim(self) -> shim.Shim:
        """Its library."""
        return load(self.macros, self.code)

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, *, shared_mem: int = 0) -> None:
        """On the current stream."""
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError("grid and block must be tuples")
        (x, y, z), threads = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        if threads != (THREADS, 1, 1) or z != 1 or not 0 < x < 2**31 or not 0 < y < 2**16 or shared_mem:
            raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: grid {grid}, block {block}, shared_mem {shared_mem}")
        if len(args) != len(self.arguments):
            raise TypeError(f"{self.name} takes {len(self.arguments)} arguments, not {len(args)}")
        values, arrays = {}, []
        for (kind, argument), value in zip(self.arguments, args, strict=True):
            values[argument] = _value(f"{self.name}: {argument}", kind, value)
            if hasattr(value, "_host"):
                arrays.append(value._host if value._host.base is None else value._host.base)
        if noted is not None:
            noted.append(self.code)
            return
        node, stream, key = Node(self, (x, y), values, arrays), clock.current, (self.name, self.code, self.macros)
        if stream.captured is None:
            clock.loaded.add(key)
            stream.give(node.run)
        elif key not in clock.loaded:
            raise CUDADriverError(f"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: {self.name} is loaded at its first launch")
        else:
            stream.captured.append(node)


def _value(what: str, kind: str, value: Any) -> Any:
    """The value for the shim, if it has the very bytes that the kernel expects."""
    if not kind.endswith("*"):
        expected = {"int": np.int32, "float": np.float32}[kind]
        if type(value) is not expected:
            raise TypeError(f"{what} must be a numpy.{expected.__name__}, not {type(value).__name__} {value!r}")
        return value.item()
    if type(value) in (np.uint64, np.int64) and value == 0:
        return None
    if not hasattr(value, "_host"):
        raise TypeError(f"{what} must be a device array or a null pointer of 64 bits, not {type(value).__name__}")
    expected = shim.NUMPY_TYPES[kind.removeprefix("const ").removesuffix("*")]
    if value.dtype != expected:
        raise TypeError(f"{what} must be {np.dtype(expected)}, not {value.dtype}")
    return value._host.ctypes.data


class Runtime:
    """`cupy.cuda.runtime`, for a machine with some number of GPUs."""

    CUDARuntimeError = CUDARuntimeError

    def __init__(self, devices: int) -> None:
        self._devices, self._current = devices, 0

    def getDeviceCount(self) -> int:  # noqa: N802 - CuPy's name
        if self._devices == 0:
            raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return self._devices

    def getDevice(self) -> int:  # noqa: N802 - CuPy's name
        return self._current


class Device:
    """A device's number becomes the current one with `use`, or for the length of a `with`."""

    def __init__(self, runtime: Runtime, device: int | None = None) -> None:
        self._runtime, self._before = runtime, []
        self.id = runtime.getDevice() if device is None else device
        self.compute_capability = "90"

    def use(self) -> None:
        if not 0 <= self.id < self._runtime.getDeviceCount():
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self._runtime._current = self.id

    def synchronize(self) -> None:
        """Wait for every stream."""
        for stream in (clock.default, *clock.streams):
            stream.synchronize()

    def __enter__(self) -> "Device":
        self._before.append(self._runtime.getDevice())
        self.use()
        return self

    def __exit__(self, *error: Any) -> None:
        self._runtime._current = self._before.pop()


def cuda(devices: int) -> SimpleNamespace:
    """The module `cupy.cuda`."""
    runtime = Runtime(devices)
    return SimpleNamespace(
        runtime=runtime, Device=lambda device=None: Device(runtime, device),
        Stream=Stream, Event=Event, Graph=Graph, get_current_stream=get_current_stream,
    )  # fmt: skip
