"""The functions that the Numba kernels write out as sums: measured against float64, over the whole range of float32."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from strategies import ULP

from tinyvae.commands import main
from tinyvae.errors import TinyvaeError
from tinyvae.ops.activations import ACTIVATIONS
from tinyvae.training.trainer import Trainer

numba = pytest.importorskip(
    "numba", reason="Numba is not installed, so its kernels were not tested: python -m pip install 'tinyvae[numba]'"
)
from tinyvae.kernels import numba_fused  # noqa: E402 - it imports Numba

SMALLEST = np.finfo(np.float32).tiny  # below it numbers are subnormal, and have fewer digits


def every_float32(low: float, high: float) -> np.ndarray:
    """About a million finite float32 numbers between two bounds, spread evenly over their bit patterns."""
    patterns = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    spread = np.linspace(max(low, -120), min(high, 120), 200_001, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        return np.concatenate([patterns[(patterns >= low) & (patterns <= high)], spread])


def mapped(f: Any, a: np.ndarray) -> np.ndarray:
    @numba.njit
    def loop(a: np.ndarray, out: np.ndarray) -> None:
        for i in range(a.size):
            out[i] = f(a[i])

    out = np.full_like(a, 7)
    loop(a, out)
    return out


# The functions, in float64 by other formulas, and where they are defined.
CASES = {
    "exp": (np.exp, -np.inf, np.inf),
    "expm1": (np.expm1, -np.inf, np.inf),
    "log1p": (np.log1p, 0, 1),
    "softplus": (lambda a: np.logaddexp(0, a), -np.inf, np.inf),
    "sigmoid": (lambda a: np.exp(-np.logaddexp(0, -a)), -np.inf, np.inf),
    "tanh": (np.tanh, -np.inf, np.inf),
}


@pytest.mark.parametrize("name", CASES)
def test_a_function_is_right_to_the_ulps_that_every_tolerance_counts_on(name: str) -> None:
    truth, low, high = CASES[name]
    a = every_float32(low, high)
    with np.errstate(over="ignore", under="ignore"):
        expected = truth(a.astype(np.float64))
        rounded = expected.astype(np.float32)
    got = mapped(getattr(numba_fused, name), a)
    assert np.array_equal(np.isinf(got), np.isinf(rounded))
    normal = np.isfinite(rounded) & (np.abs(expected) >= SMALLEST)
    ulps = np.abs(got[normal] - expected[normal]) / np.spacing(np.abs(rounded[normal])).astype(np.float64)
    assert ulps.max() <= ULP, f"{ulps.max():.2f} ulp at {a[normal][ulps.argmax()]!r}"
    tiny = np.abs(expected) < SMALLEST
    assert np.abs(got[tiny] - expected[tiny]).max(initial=0) <= SMALLEST


@pytest.mark.parametrize("name", CASES)
def test_nan_stays_nan_so_that_a_diverging_run_is_seen(name: str) -> None:
    assert np.isnan(mapped(getattr(numba_fused, name), np.full(9, np.nan, np.float32))).all()


def test_the_ends_of_the_line() -> None:
    ends = np.array([-np.inf, np.inf], np.float32)
    for name, expected in {
        "exp": [0, np.inf],
        "expm1": [-1, np.inf],
        "softplus": [0, np.inf],
        "sigmoid": [0, 1],
    }.items():
        assert mapped(getattr(numba_fused, name), ends).tolist() == expected, name
    assert mapped(numba_fused.tanh, ends).tolist() == [-1, 1]


def test_the_numbers_of_the_activations_are_in_the_order_of_their_table() -> None:
    kinds = {name: getattr(numba_fused, name.upper().replace("-", "_")) for name in ACTIVATIONS}
    assert kinds == numba_fused.KINDS


def test_the_hot_loops_are_vectorized() -> None:
    """Scalar code would be right and ten times slower; no test of numbers would show it."""
    matrix, row, number = numba.float32[:, ::1], numba.float32[::1], numba.float32
    signatures = {
        numba_fused._bernoulli_loss: (matrix, matrix, number, row, matrix),
        numba_fused._adam_step: (row, row, row, row, number, number),
    }
    for kept, signature in signatures.items():
        options = {name: kept.targetoptions[name] for name in ("fastmath", "error_model")}
        anew = numba.njit(signature, **options)(kept.py_func)  # code that was kept on disk cannot be looked at
        (assembly,) = anew.inspect_asm().values()
        packed = sum(assembly.count(word) for word in ("mulps", "fmadd213ps", "fmla\t", "fmul\tv"))  # x86-64; ARM
        assert packed > 0, f"{kept.__name__} has no vector multiplication"


def test_compiling_is_announced_once_and_not_when_there_is_nothing_to_compile(tmp_path: Path) -> None:
    environ = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
    for run, announced in [("first", 1), ("second", 0)]:
        command = [sys.executable, "-m", "tinyvae.train", "--epochs", "1", "--no-figures", "--out", str(tmp_path / run)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("compiling the kernels") == announced


@pytest.mark.parametrize(
    ("can_be_written", "said"), [(True, "once: they are kept"), (False, "at every run: no folder")]
)
def test_what_is_announced_is_true_where_nothing_can_be_kept(
    can_be_written: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = numba.njit

    def njit(**options: Any) -> Any:
        if options.pop("cache", False) and not can_be_written:
            raise RuntimeError("cannot cache function 'plus_one': no locator available")  # as Numba does
        return truth(**options)

    listeners: list[Any] = []
    monkeypatch.setattr(numba_fused, "numba", SimpleNamespace(njit=njit))
    monkeypatch.setattr(numba_fused, "_not_kept", [])
    events = SimpleNamespace(Listener=numba_fused.event.Listener, register=lambda kind, one: listeners.append(one))
    monkeypatch.setattr(numba_fused, "event", events)
    plus_one = numba_fused._compiled()(lambda x: x + 1)
    assert plus_one(2) == 3  # compiled either way
    options = ["--epochs", "1", "--no-figures", "--kernels", "numba", "--hidden", "4", "--out", str(tmp_path / "run")]

    def first_kernel(self: Trainer, stop: Any) -> bool:
        listeners[0].on_start(None)
        raise TinyvaeError("enough")

    monkeypatch.setattr(Trainer, "run", first_kernel)
    assert main(["train", *options, "--backend", "numpy"]) == 1
    out = capsys.readouterr().out
    assert out.count("compiling the kernels") == 1
    assert f"compiling the kernels ({said}" in out
