"""The kernels under AddressSanitizer: no access outside an argument or outside an array in shared memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_on_cpu import shim

SOURCE = shim.SOURCE.read_text()


def runtime() -> str:
    """AddressSanitizer's library, which must be in a process before anything else is."""
    name = "libasan.so"
    path = subprocess.run([shim.compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    if path.stdout.strip() == name:
        pytest.skip("g++ has no AddressSanitizer here: apt install libasan8, or the version that belongs to g++")
    return str(Path(path.stdout.strip()).resolve())


def sanitized(source: str, *macros: str) -> subprocess.CompletedProcess[str]:
    """All checks, in a process of their own that ends at the first wrong access."""
    preload, library = runtime(), shim.build(macros, sanitize=True, source=source)
    command = [sys.executable, "-m", "cuda_on_cpu.sanitized", str(library), str(int("TF32" in macros))]
    environment = {
        **os.environ,
        "LD_PRELOAD": preload,
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",  # Python leaks; fibres change stacks
        "PYTHONPATH": str(Path(__file__).parent),
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("macros", [(), ("TF32",)], ids=["float32", "tf32"])
def test_no_access_is_out_of_bounds(macros: tuple[str, ...]) -> None:
    done = sanitized(SOURCE, *macros)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "checked"


@pytest.mark.parametrize(("old", "new", "report"), [
    ("bool holds(int i, int k) const { return i < n && k < depth; }",
     "bool holds(int i, int k) const { return i < n && k <= depth; }", "heap-buffer-overflow"),
    ("Tile tiles[GROUPS];", "Tile tiles[GROUPS - 1];", "global-buffer-overflow"),
], ids=["the prefetch reads one past", "shared memory is too small"])  # fmt: skip
def test_an_access_out_of_bounds_is_reported(old: str, new: str, report: str) -> None:
    assert SOURCE.count(old) == 1
    done = sanitized(SOURCE.replace(old, new))
    assert done.returncode != 0
    assert f"AddressSanitizer: {report}" in done.stderr, done.stdout + done.stderr
