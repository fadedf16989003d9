"""Memory: what there is not is not asked for, and a lack of it is called so."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stored_arrays import npy

from tinyvae.errors import DataError
from tinyvae.training.data import memory
from tinyvae.training.data.user import load_user_file


def sparse(path: Path, rows: int) -> Path:
    """A true .npy file of (rows, 100) zeros, of which the disk holds only the header."""
    header = npy(f"({rows}, 100)")
    path.write_bytes(header)
    os.truncate(path, len(header) + 800 * rows)
    return path


def test_more_than_the_memory_there_is_is_called_so_before_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "own.npz", x=np.zeros((1000, 100)))
    monkeypatch.setattr(memory, "available", lambda: 1e5)
    words = r"own\.npz: x, \(1000, 100\) float64: not enough memory: about 0.8 MB are needed, and 0.1 MB are free"
    with pytest.raises(DataError, match=words):
        load_user_file(tmp_path / "own.npz")


def test_a_file_that_is_read_in_place_needs_no_more_than_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sparse(tmp_path / "own.npy", 375_000)
    monkeypatch.setattr(memory, "available", lambda: 1e8)
    assert load_user_file(path).x_train.shape == (337_500, 100)


def test_memory_that_runs_out_is_called_so(tmp_path: Path) -> None:
    """3 GB under a limit of 2.5 GB, as `ulimit -v 2500000` sets it: in a process of its own."""
    path = sparse(tmp_path / "own.npy", 3_750_000)
    limit = 2_500_000 * 1024
    code = "import sys; from tinyvae.commands import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "train", "--data", str(path), "--backend", "numpy", "--kernels", "numpy",
               "--out", str(tmp_path / "run")]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "not enough memory: about 3.0 GB are needed" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_memory_that_runs_out_at_any_allocation_is_never_called_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "own.npy", np.zeros((20, 3)))
    np.savez(tmp_path / "own.npz", x=np.zeros((20, 3)))

    def fails(*args: object, **options: object) -> None:
        raise MemoryError

    for name in ("own.npy", "own.npz"):
        for where in ("memmap" if name == "own.npy" else "lib.format.read_array", "isfinite"):
            with monkeypatch.context() as patch:
                patch.setattr(np.lib.format if "." in where else np, where.rpartition(".")[2], fails)
                with pytest.raises(DataError, match="not enough memory"):
                    load_user_file(tmp_path / name)
