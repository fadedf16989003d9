"""Every kernel is compiled for real GPUs: by NVRTC, as CuPy does it, and by nvcc where there is one."""

import ctypes
import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from cuda_on_cpu import models
from cuda_on_cpu.shim import MOVES, SOURCE, together
from fake_cupy import installed
from strategies import sampled

from tinyvae.kernels.cuda.launch import signatures
from tinyvae.kernels.cuda.table import THREADS

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")  # A100, H100 and H200, B200
REGISTERS = 65536  # of a multiprocessor, on all three
SHARED_MEMORY = 48 * 1024  # of a block, without asking for more
PTXAS = (
    r"Compiling entry function '(\w+)'.*?"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?"
)
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
some_architecture = pytest.mark.parametrize("architecture", sampled(ARCHITECTURES, 3))


def nvrtc() -> ctypes.CDLL:
    """The library in the wheel nvidia-cuda-nvrtc."""
    try:
        files = importlib.metadata.files("nvidia-cuda-nvrtc") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("NVRTC is not installed: python -m pip install nvidia-cuda-nvrtc")
    paths = [str(file.locate()) for file in files if re.fullmatch(r"libnvrtc\.so\.\d+|nvrtc64_\w+\.dll", file.name)]
    assert len(paths) == 1, files
    return ctypes.CDLL(paths[0])


class Compiled(NamedTuple):
    result: int  # 0 if all is well
    log: str
    cubin: bytes  # what a GPU runs
    ptx: str


def compile_with_nvrtc(source: str, architecture: str, *options: str) -> Compiled:
    """With the options that CuPy gives."""
    library, program, text = nvrtc(), ctypes.c_void_p(), ctypes.c_char_p(source.encode())
    assert library.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None) == 0
    encoded = [option.encode() for option in ("--std=c++17", "-ftz=true", f"-arch={architecture}", *options)]
    result = library.nvrtcCompileProgram(program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
    log, cubin, ptx = (read(library, program, what) for what in ("ProgramLog", "CUBIN", "PTX"))
    assert library.nvrtcDestroyProgram(ctypes.byref(program)) == 0
    return Compiled(result, log.rstrip(b"\0").decode(), cubin, ptx.rstrip(b"\0").decode())


def read(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    if library[f"nvrtcGet{what}Size"](program, ctypes.byref(size)) != 0:
        return b""  # a program that did not compile has nothing but its log
    buffer = ctypes.create_string_buffer(size.value)
    assert library[f"nvrtcGet{what}"](program, buffer) == 0
    return buffer.raw


FILES = pytest.mark.parametrize(
    ("source", "macros"), [(SOURCE, ()), (SOURCE, ("-DTF32",)), (MOVES, ())], ids=["step", "step, tf32", "moves"]
)


@FILES
@each_architecture
def test_nvrtc_compiles_every_kernel_without_a_warning(architecture: str, source: str, macros: tuple[str, ...]) -> None:
    result, log, cubin, ptx = compile_with_nvrtc(source, architecture, *macros)
    assert (result, log) == (0, "")
    names = set(signatures(source))
    assert set(re.findall(r"^\.visible \.entry (\w+)\(", ptx, re.MULTILINE)) == names
    assert {name for name in names if f".text.{name}\0".encode() in cubin} == names  # sections of the binary
    assert ("mma.sync.aligned.m16n8k8" in ptx) == ("cvt.rna.tf32" in ptx) == bool(macros)  # tensor cores


def test_nvrtc_compiles_the_loops_of_every_model_without_a_warning() -> None:
    """As one source, in which nothing depends on the architecture; and one of them as CuPy gets it."""
    architecture = ARCHITECTURES[0]
    with installed():
        codes = models.noted_codes()
    result, log, cubin, ptx = compile_with_nvrtc(together(codes), architecture)
    assert (result, log) == (0, "")
    assert len(re.findall(r"^\.visible \.entry ", ptx, re.MULTILINE)) == sum(len(signatures(code)) for code in codes)
    assert compile_with_nvrtc(codes[-1], architecture)[:2] == (0, "")
    assert cubin


def test_a_warning_would_show() -> None:
    source = SOURCE + '\nextern "C" __global__ void extra() { int unused; }\n'
    assert "unused" in compile_with_nvrtc(source, "sm_90").log


@FILES
@some_architecture
def test_nvcc_keeps_everything_in_registers(
    architecture: str, source: str, macros: tuple[str, ...], tmp_path: Path
) -> None:
    """No register is spilled, the registers of a block fit a multiprocessor at least twice, and so does its memory."""
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("nvcc is not installed; it comes with NVIDIA's CUDA toolkit")
    (tmp_path / "kernels.cu").write_text(source)
    command = [compiler, "-std=c++17", "-ftz=true", f"-arch={architecture}", "-cubin", "-Xptxas", "-v", *macros]
    command += ["-Werror", "all-warnings", "-o", str(tmp_path / "kernels.cubin"), str(tmp_path / "kernels.cu")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {name: [int(n or 0) for n in numbers] for name, *numbers in re.findall(PTXAS, done.stderr, re.DOTALL)}
    assert found.keys() == signatures(source).keys()
    for name, (stack, stored, loaded, registers, shared) in found.items():
        assert (stack, stored, loaded) == (0, 0, 0), name
        assert 2 * THREADS * registers <= REGISTERS, name
        assert shared <= SHARED_MEMORY, name
