"""The door to CUDA: sources, signatures, and what a kernel is given."""

from typing import Any

import fake_cuda
import numpy as np
import pytest
from fake_cupy import DeviceArray, FakeCupy
from fake_cupy import fake_for_a_module as fake_for_a_module

from tinyvae.errors import BackendError
from tinyvae.kernels.cuda.launch import FOLDER, NULL, Launcher, Program, launcher, program, signatures, source
from tinyvae.kernels.cuda.table import KERNELS

CODE = """
extern "C" __global__ void doubled(const float* a, int lda, float* y, int size) {
    if (threadIdx.x < size) y[threadIdx.x] = 2 * a[threadIdx.x * lda];
}
extern "C" __global__ void noted(
    const unsigned char* maybe, long long* y, float scale) {
    y[0] = maybe ? 1 : 0;
    y[1] = scale;
}
"""


def given(**changes: Any) -> dict[str, Any]:
    arguments = {"a": DeviceArray(np.ones(3, "f4")), "lda": 1, "y": DeviceArray(np.zeros(3, "f4")), "size": 3} | changes
    return {name: value for name, value in arguments.items() if value is not ...}


def test_signatures_are_read_off_a_source() -> None:
    assert signatures(CODE) == {
        "doubled": [("const float*", "a"), ("int", "lda"), ("float*", "y"), ("int", "size")],
        "noted": [("const unsigned char*", "maybe"), ("long long*", "y"), ("float", "scale")],
    }


@pytest.mark.parametrize("file", [path.name for path in sorted(FOLDER.glob("*.cu"))])
def test_no_kernel_of_a_file_is_overlooked_and_nothing_is_included_or_atomic(file: str) -> None:
    text = source(file)
    assert len(signatures(text)) == text.count("__global__")
    code = "\n".join(line.partition("//")[0] for line in text.splitlines())
    assert "#include" not in code  # NVRTC has no headers
    assert "atomic" not in code


def test_a_step_is_launched_as_often_as_it_is_called(fake: FakeCupy) -> None:
    y, apart = DeviceArray(np.zeros(3, "f4")), DeviceArray(np.ones(6, "f4")[::2])
    function, arguments = Program(fake, CODE).step("doubled", (1, 1), **given(y=y, a=apart, lda=2))
    assert y._host.tolist() == [0, 0, 0]
    function(*arguments)
    assert y._host.tolist() == [2, 2, 2]


def test_none_is_a_null_pointer(fake: FakeCupy) -> None:
    y = DeviceArray(np.zeros(2, "i8"))
    for maybe in (None, DeviceArray(np.zeros(1, "u1"))):
        function, arguments = Program(fake, CODE).step("noted", (1, 1), maybe=maybe, y=y, scale=7)
        function(*arguments)
        assert y._host.tolist() == [int(maybe is not None), 7]
    assert (NULL.dtype, int(NULL)) == (np.uint64, 0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"a": DeviceArray(np.ones(3))}, "doubled: a must be float32, not float64"),
        ({"y": DeviceArray(np.ones(6, np.float32)[::2])}, "doubled: y must be contiguous"),
        ({"y": ...}, "doubled lacks arguments, or has too many: y"),
        ({"rows": 1}, "doubled lacks arguments, or has too many: rows"),
    ],
)
def test_wrong_arguments_are_refused(fake: FakeCupy, changes: Any, named: str) -> None:
    before = len(fake_cuda.clock.launches)
    with pytest.raises(TypeError, match=named):
        Program(fake, CODE).step("doubled", (1, 1), **given(**changes))
    assert len(fake_cuda.clock.launches) == before


def test_a_number_too_large_for_32_bits_is_refused(fake: FakeCupy) -> None:
    with pytest.raises(OverflowError):
        Program(fake, CODE).step("doubled", (1, 1), **given(size=2**31))


def test_a_source_is_compiled_once_and_so_is_the_captured_step(fake: FakeCupy) -> None:
    assert program(fake, CODE) is program(fake, CODE)
    assert launcher(fake) is launcher(fake)
    assert launcher(fake, tf32=True) is not launcher(fake)
    assert set(Launcher(fake).program.functions) == set(KERNELS)


def test_an_old_gpu_has_no_tf32(fake: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    device = fake_cuda.Device(fake.cuda.runtime)
    device.compute_capability = "75"
    monkeypatch.setattr(fake.cuda, "Device", lambda: device)
    with pytest.raises(BackendError, match="TF32"):
        Launcher(fake, tf32=True)
