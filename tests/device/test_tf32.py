"""--tf32: it reaches the captured step, and is refused in one line where nothing would round."""

from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest
from fake_cupy import FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture
from kinds import BY_NAME, Kind
from trained import captured, of_kind, parameters, pixels

import tinyvae
from tinyvae import objectives
from tinyvae.commands import main
from tinyvae.errors import UsageError
from tinyvae.kernels.cuda.launch import launcher

NEW_OBJECTIVES = [name for name in objectives.names() if name not in ("elbo", "iwae")]


def test_tf32_reaches_the_kernels(fake_cupy: FakeCupy) -> None:
    exact, rounded = captured(epochs=1), captured(epochs=1, tf32=True)
    exact.run()
    rounded.run()
    assert not np.array_equal(parameters(exact), parameters(rounded))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--backend", "numpy"], "--backend numpy"),
        (["--backend", "cupy", "--kernels", "reference"], "--kernels reference"),
        (["--backend", "cupy", "--dtype", "float64"], "--dtype float64"),
        (["--backend", "cupy", "--clip-norm", "1"], "--clip-norm"),
        (["--backend", "cupy", "--accumulate", "2"], "--accumulate"),
        (["--backend", "cupy", "--conv", "3"], "--conv"),
        (["--backend", "cupy", "--batch-norm"], "--batch-norm"),
        (["--backend", "cupy", "--conditional"], "--conditional"),
        (["--backend", "cupy", "--activation", "swish"], "--activation swish"),
        (["--backend", "cupy", "--activation", "gelu"], "--activation gelu"),
        (
            ["--backend", "cupy", "--likelihood", "gaussian", "--sigma", "columns"],
            "--likelihood gaussian:sigma=columns",
        ),
        (["--data", "two-gaussians", "--sigma", "columns"], "--likelihood gaussian:sigma=columns"),
        (["--backend", "cupy", "--objective", "elbo:draws=2"], "--objective elbo:draws=2"),
        (["--backend", "cupy", "--objective", "iwae", "--importance", "3"], "--objective iwae:draws=3"),
        *((["--backend", "cupy", "--objective", name], f"--objective {name}") for name in NEW_OBJECTIVES),
    ],
)
def test_tf32_is_refused_where_nothing_would_round(
    fake_cupy: FakeCupy, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], named: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", *options, "--tf32", "--quiet", "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--tf32" in error
    assert named in error
    assert not (tmp_path / "run").exists()


def test_tf32_is_refused_where_auto_finds_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tinyvae.backend, "cupy_problem", lambda device=0: "CuPy is not installed: install it")
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--tf32", "--quiet", "--out", str(tmp_path / "run")])
    assert "does not go with --backend numpy" in capsys.readouterr().err


def test_tf32_on_a_gpu_that_has_none_is_refused_in_one_line(
    fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class OldDevice(fake_cuda.Device):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.compute_capability = "75"

    monkeypatch.setattr(fake_cuda, "Device", OldDevice)
    launcher.cache_clear()
    assert main(["train", "--backend", "cupy", "--tf32", "--quiet", "--out", str(tmp_path / "run")]) == 1
    launcher.cache_clear()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "this GPU has no TF32" in error


STRANGE = [
    Kind("another activation than the run's", {"activation": "swish"}),
    Kind("another likelihood than the run's", {"likelihood": "gaussian:sigma=columns"}),
    Kind("layers that the run does not say", BY_NAME["bernoulli"].model | {"classes": 2}),
]


@pytest.mark.parametrize("kind", STRANGE, ids=lambda kind: kind.name)
def test_tf32_is_refused_for_a_model_that_the_options_do_not_tell(fake_cupy: FakeCupy, kind: Kind) -> None:
    with pytest.raises(UsageError, match="--tf32 rounds in the captured training step alone"):
        of_kind(kind, "cupy", dtype="float32", tf32=True)


def test_tf32_is_refused_for_data_that_was_not_all_observed(fake_cupy: FakeCupy) -> None:
    x = pixels().astype(np.float32)
    x[3, 2] = np.nan
    with pytest.raises(UsageError, match=r"--tf32 .* cannot train this model on this data"):
        captured(x, tf32=True)
