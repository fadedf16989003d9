"""The stand-in beside the real CuPy, where that is installed: it has no name, argument or default that CuPy lacks."""

import ctypes
import importlib
import importlib.util
import inspect
import re
from typing import Any

import numpy as np
import pytest
from fake_arrays import signature
from fake_cuda import Device, Event, RawModule, Stream
from fake_cupy import FakeCupy, Generator, Philox4x3210
from fake_tables import CREATION, FUNCTIONS, METHODS, SAME_AS_NUMPY, UFUNCS

from tinyvae.kernels.cuda.launch import NULL


@pytest.fixture(scope="module")
def real_cupy() -> Any:
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed: its names and arguments cannot be compared")
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        pytest.skip(f"CuPy is installed but does not load: {error}")


def assert_accepted(function: str, ours: inspect.Signature, theirs: list[str], any_positional: bool = False) -> None:
    """Every argument of ours exists in theirs; those that can be given by position stand in the same place."""
    for place, (name, parameter) in enumerate(ours.parameters.items()):
        if parameter.kind is parameter.POSITIONAL_ONLY or parameter.kind is parameter.VAR_POSITIONAL:
            assert any_positional or place < len(theirs), f"{function} takes {theirs} only"
            continue
        assert name in theirs, f"{function} takes {theirs}, not {name}"
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and not any_positional:
            assert theirs.index(name) == place, f"{function} takes {theirs}, {name} not as number {place}"


def described_parameters(documented: Any) -> list[str]:
    """Of compiled functions only the first line of the docstring says what they take: "name(self, type a, b=0)"."""
    text = re.search(r"\((.*)\)", documented.__doc__.splitlines()[0])
    assert text is not None
    return [part.split("=")[0].split()[-1] for part in text[1].split(",") if part.strip() not in ("self", "/", "*")]


def test_cupy_has_the_ufuncs(real_cupy):
    for name in UFUNCS:
        real = getattr(real_cupy, name)
        assert isinstance(real, real_cupy.ufunc), name
        assert real.nin == getattr(np, name).nin, name
        assert {"out", "casting", "dtype"} <= {part.strip("\\*") for part in described_parameters(real)}, name


def test_cupy_has_the_functions(real_cupy):
    for name, parameters in FUNCTIONS.items():
        theirs = inspect.signature(getattr(real_cupy, name)).parameters
        any_positional = any(p.kind is p.VAR_POSITIONAL for p in theirs.values())
        assert_accepted(name, signature(parameters), list(theirs), any_positional)


def test_cupy_has_the_functions_that_make_arrays(real_cupy):
    for name in CREATION:
        ours, theirs = (inspect.signature(getattr(xp, name)) for xp in (FakeCupy(), real_cupy))
        assert_accepted(name, ours, list(theirs.parameters))


def test_cupy_has_the_methods_and_attributes_of_an_array(real_cupy):
    for name, parameters in METHODS.items():
        ours = signature(parameters)
        starred = any(p.kind is p.VAR_POSITIONAL for p in ours.parameters.values())
        theirs = [part.lstrip("*") for part in described_parameters(getattr(real_cupy.ndarray, name))]
        assert_accepted(name, ours, theirs, any_positional=starred)
    for name in ("shape", "dtype", "size", "ndim", "nbytes", "itemsize", "strides", "T", "flags", "fill"):
        assert hasattr(real_cupy.ndarray, name), name


def test_cupy_has_the_types_and_constants(real_cupy):
    for name in SAME_AS_NUMPY:
        real, numpys = getattr(real_cupy, name), getattr(np, name)
        if name in ("finfo", "iinfo"):
            assert repr(real(real_cupy.int8 if name == "iinfo" else real_cupy.float32)) == repr(
                numpys(np.int8 if name == "iinfo" else np.float32)
            )
        else:
            assert real is numpys or repr(real) == repr(numpys), name


def test_the_generator_takes_what_cupys_takes(real_cupy):
    for name in ("random", "standard_normal", "integers", "__init__"):
        theirs = inspect.signature(getattr(real_cupy.random.Generator, name)).parameters
        ours = inspect.signature(getattr(Generator, name)).parameters
        assert list(ours) == list(theirs), name
        assert [p.default for p in ours.values()] == [p.default for p in theirs.values()], name


def test_cupy_refuses_the_same_seeds_and_lacks_the_same_methods(real_cupy):
    with pytest.raises(ValueError, match="non-negative"):
        real_cupy.random.Philox4x3210(-1)
    with pytest.raises(TypeError, match="SeedSequence"):
        real_cupy.random.Philox4x3210(1.5)
    for name in ("permutation", "shuffle", "choice", "normal"):
        assert not hasattr(real_cupy.random.Generator, name)
    assert list(inspect.signature(Philox4x3210).parameters) == ["seed"]


def test_cupy_has_the_device_functions(real_cupy):
    for name in ("use", "synchronize", "id", "__enter__", "__exit__"):
        assert hasattr(real_cupy.cuda.Device, name)
        assert hasattr(Device, name) or name == "id"
    for name in ("getDeviceCount", "getDevice", "CUDARuntimeError"):
        assert hasattr(real_cupy.cuda.runtime, name)
    assert issubclass(real_cupy.cuda.runtime.CUDARuntimeError, RuntimeError)


# ------------------------------------------------------------------------------------- streams, events, kernels, graphs

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
