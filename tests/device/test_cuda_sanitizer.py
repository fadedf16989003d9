"""The kernels under AddressSanitizer: no access outside an argument or outside an array in shared memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_on_cpu import sanitized_loops, shim
from cuda_on_cpu.shim import SOURCE
from strategies import sampled

PATHS = os.pathsep.join(map(str, Path(__file__).parents[:3]))  # of cuda_on_cpu, of what all tests share, of the package


def runtime() -> str:
    """AddressSanitizer's library, which must be in a process before anything else is."""
    name = "libasan.so"
    path = subprocess.run([shim.compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    if path.stdout.strip() == name:
        pytest.skip("g++ has no AddressSanitizer here: apt install libasan8, or the version that belongs to g++")
    return str(Path(path.stdout.strip()).resolve())


def watched(*program: str) -> subprocess.CompletedProcess[str]:
    """A module of cuda_on_cpu, in a process of its own that ends at the first wrong access."""
    environment = {
        **os.environ,
        "LD_PRELOAD": runtime(),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",  # Python leaks; fibres change stacks
        "PYTHONPATH": PATHS,
    }
    command = [sys.executable, "-m", *program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def step(source: str, *macros: str) -> subprocess.CompletedProcess[str]:
    """All checks of the captured step."""
    library = shim.build(source, macros=macros, sanitize=True)
    return watched("cuda_on_cpu.sanitized", str(library), str(int("TF32" in macros)))


def loops(*forms: str, old: str = "", new: str = "") -> subprocess.CompletedProcess[str]:
    """The checks of loops of these forms, or of all, with moves and models."""
    sanitized_loops.build_all(forms, old, new)
    return watched("cuda_on_cpu.sanitized_loops", ",".join(forms), old, new)


def assert_checked(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "checked"


@pytest.mark.parametrize("macros", sampled([(), ("TF32",)], 2), ids=["float32", "tf32"])
def test_no_access_of_the_captured_step_is_out_of_bounds(macros: tuple[str, ...]) -> None:
    assert_checked(step(SOURCE, *macros))


@pytest.mark.sweeps
def test_no_access_of_loops_moves_and_models_is_out_of_bounds() -> None:
    assert_checked(loops("all"))


@pytest.mark.parametrize(("old", "new", "report"), [
    ("bool holds(int i, int k) const { return i < n && k < depth; }",
     "bool holds(int i, int k) const { return i < n && k <= depth; }", "heap-buffer-overflow"),
    ("Tile tiles[GROUPS];", "Tile tiles[GROUPS - 1];", "global-buffer-overflow"),
], ids=["the prefetch reads one past", "shared memory is too small"])  # fmt: skip
def test_an_access_of_the_step_out_of_bounds_is_reported(old: str, new: str, report: str) -> None:
    assert SOURCE.count(old) == 1
    done = step(SOURCE.replace(old, new))
    assert done.returncode != 0
    assert f"AddressSanitizer: {report}" in done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize(("form", "old", "new", "report"), [
    ("columns", "row < last && column < cols", "row < last", "heap-buffer-overflow"),
    ("columns", "float parts[THREADS];", "float parts[THREADS / 2];", "global-buffer-overflow"),
], ids=["columns beyond the last are read", "shared memory is too small"])  # fmt: skip
def test_an_access_of_a_loop_out_of_bounds_is_reported(form: str, old: str, new: str, report: str) -> None:
    done = loops(form, old=old, new=new)
    assert done.returncode != 0
    assert f"AddressSanitizer: {report}" in done.stderr, done.stdout + done.stderr
