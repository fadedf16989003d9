"""Which kernels there are for a machine, and what is said where some cannot be used."""

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
from strategies import EVERY_FUSED

from tinyvae import kernels
from tinyvae.backend import Backend, get_backend
from tinyvae.kernels.numpy_loops import NumPyKernels
from tinyvae.kernels.reference import Reference

HOST = get_backend("numpy")
DEVICE = Backend("cupy", None)


def test_numba_is_tested_where_it_is_installed() -> None:
    if "numba" not in EVERY_FUSED:
        pytest.skip("Numba is not installed, so its kernels were not compared: python -m pip install 'tinyvae[numba]'")
    assert EVERY_FUSED == ["numba", "numpy"]


def test_the_fastest_that_is_installed_is_chosen() -> None:
    for asked in (None, "fused"):
        for dtype in ("float32", "float64"):
            name, make = kernels.select(asked, HOST, dtype)
            assert name == EVERY_FUSED[0]
            assert make().dtype == dtype
            assert make() is not make()  # each call that is under way has memory of its own
    assert type(kernels.select("numpy", HOST)[1]()) is NumPyKernels
    assert type(kernels.select("reference", HOST)[1]()) is Reference
    assert {kernels.select(name, HOST)[0] for name in (*EVERY_FUSED, "reference")} == {*EVERY_FUSED, "reference"}


@pytest.mark.parametrize(
    ("name", "backend", "dtype", "said"),
    [
        ("fast", HOST, "float32", "kernels must be one of fused, numpy, numba, cuda, reference, not 'fast'"),
        ("cuda", HOST, "float32", "the cuda kernels cannot be used here: they need the cupy backend, not numpy"),
        ("numba", DEVICE, "float32", "the numba kernels cannot be used here: they need the numpy backend, not cupy"),
        ("cuda", DEVICE, "float64", "the cuda kernels cannot be used here: they compute in float32, not float64"),
        ("fused", DEVICE, "float64", "there are no fused kernels here: they compute in float32, not float64"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(name: str, backend: Any, dtype: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kernels.select(name, backend, dtype)


def test_where_nothing_fused_can_be_used_the_reference_is_chosen_unless_fused_is_asked_for() -> None:
    assert kernels.select(None, DEVICE, "float64")[0] == "reference"


def test_without_numba_numpys_kernels_are_chosen_and_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(kernels, "numba_problem", kernels.numba_problem.__wrapped__)  # not what it remembers
    assert kernels.select("fused", HOST)[0] == "numpy"
    with pytest.raises(ValueError, match=r"Numba is not installed: python -m pip install 'tinyvae\[numba\]'"):
        kernels.select("numba", HOST)


def test_a_numba_that_does_not_load_leaves_numpys_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> Any:
        if name == "numba":
            raise ImportError("Numba needs NumPy 2.3 or less")
        return importlib.import_module(name)

    fake = SimpleNamespace(import_module=import_module, util=SimpleNamespace(find_spec=lambda name: name))
    monkeypatch.setattr(kernels, "importlib", fake)
    monkeypatch.setattr(kernels, "numba_problem", kernels.numba_problem.__wrapped__)
    assert kernels.select(None, HOST)[0] == "numpy"
    with pytest.raises(ValueError, match=r"Numba does not load \(Numba needs NumPy 2.3 or less\): python -m pip"):
        kernels.select("numba", HOST)
