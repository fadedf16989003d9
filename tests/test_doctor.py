"""`tinyvae doctor`: what it finds, what it measures, and what it advises."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tinyvae import blas
from tinyvae.commands import doctor, main
from tinyvae.errors import TinyvaeError
from tinyvae.training import stopwatch


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    """Made-up times, which depend on the settings alone; the list of what was asked for."""
    asked: list[tuple[str, dict[str, str]]] = []

    def time(kernels: str, environ: dict[str, str]) -> float:
        asked.append((kernels, environ))
        seconds = {"fused": 2e-3, "numpy": 3e-3, "reference": 9e-3}[kernels]
        return seconds * (2 if environ.get("OPENBLAS_CORETYPE") == "Nehalem" else 1)

    monkeypatch.setattr(stopwatch, "time_step_elsewhere", time)
    for name in [name for name in os.environ if name.startswith("OPENBLAS_")]:
        monkeypatch.delenv(name)
    return asked


def test_it_measures_each_setting_in_turns_and_finds_nothing_better(timings, capsys) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "as tinyvae train runs here" in out
    assert "--kernels reference" in out
    assert "9.00 ms" in out
    assert "nothing tried here is 1.1 times as fast as what tinyvae train does" in out
    names = [kernels for kernels, _ in timings]
    assert len(names) % doctor.ROUNDS == 0
    once = len(names) // doctor.ROUNDS
    assert names[:once] == names[once : 2 * once]
    assert timings[0][1] == dict(os.environ) | blas.choose(os.environ)


def test_it_names_the_variable_that_stands_in_the_way(timings, capsys, monkeypatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "you set OPENBLAS_CORETYPE=Nehalem" in " ".join(out.split())
    assert "better: unset OPENBLAS_CORETYPE   (2.0 times as fast)" in out


def test_without_timing_it_only_looks(timings, capsys) -> None:
    assert main(["doctor", "--no-timing"]) == 0
    assert timings == []
    out = capsys.readouterr().out
    for word in ("tinyvae", "CPU", "BLAS", "Numba", "driver", "CuPy"):
        assert word in out


def test_a_setting_that_fails_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def time(kernels: str, environ: dict[str, str]) -> float:
        if kernels == "reference":
            raise TinyvaeError("timing the reference kernels failed: no memory")
        return 2e-3

    monkeypatch.setattr(stopwatch, "time_step_elsewhere", time)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "2.00 ms" in out
    assert out.count("--kernels reference: timing the reference kernels failed: no memory") == 1


def test_kernels_that_are_faster_than_the_default_are_advised(timings, capsys, monkeypatch) -> None:
    fast = {"fused": 2e-3, "numpy": 4e-3, "reference": 1e-3}
    monkeypatch.setattr(stopwatch, "time_step_elsewhere", lambda kernels, environ: fast[kernels])
    assert main(["doctor"]) == 0
    assert "better: tinyvae train --kernels reference   (2.0 times as fast)" in capsys.readouterr().out


def test_a_real_measurement_is_a_plausible_time() -> None:
    seconds = stopwatch.time_step_elsewhere("numpy", {**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    assert 1e-5 < seconds < 10


def test_a_measurement_that_fails_says_why() -> None:
    with pytest.raises(Exception, match="timing the slow kernels failed: ValueError: kernels must be one of"):
        stopwatch.time_step_elsewhere("slow", dict(os.environ))


def found() -> dict[str, str]:
    return dict(doctor.look_for_gpu())


KERNEL_MODULE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Thu Jan  1 00:00:00 UTC 2026\nGCC version: 12\n"


@pytest.mark.parametrize(("driver", "extra"), [("580.65.06", "cuda13"), ("535.104", "cuda12")])
def test_a_driver_without_cupy_gets_the_line_that_installs_the_right_one(
    driver: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "version"
    file.write_text(KERNEL_MODULE.format(driver))
    monkeypatch.setattr(doctor, "DRIVER", file)
    monkeypatch.setattr(doctor.metadata, "distributions", lambda: [])
    monkeypatch.setattr(doctor, "cupy_problem", lambda: "CuPy is not installed: ...")
    assert found() == {
        "driver": f"NVIDIA {driver}",
        "CuPy": f"not installed: python -m pip install 'tinyvae[{extra}]' suits this driver",
    }


def test_a_cupy_that_cannot_be_used_is_shown_with_its_cause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "DRIVER", tmp_path / "none")
    monkeypatch.setattr(
        doctor.metadata, "distributions", lambda: [SimpleNamespace(name="cupy-cuda13x", version="14.2")]
    )
    monkeypatch.setattr(doctor, "cupy_problem", lambda: "CuPy is installed but finds no NVIDIA driver or GPU")
    assert found() == {
        "driver": "no NVIDIA driver is loaded",
        "CuPy": "cupy-cuda13x 14.2, but it cannot be used: CuPy is installed but finds no NVIDIA driver or GPU",
    }


def test_each_gpu_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = SimpleNamespace(
        getDeviceCount=lambda: 2,
        getDeviceProperties=lambda i: {"name": f"Card {i}".encode(), "totalGlobalMem": (i + 1) * 2**33},
        runtimeGetVersion=lambda: 13000,
        driverGetVersion=lambda: 13010,
    )
    backend = SimpleNamespace(xp=SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    monkeypatch.setattr(doctor, "cupy_problem", lambda: None)
    monkeypatch.setattr(doctor, "get_backend", lambda name: backend)
    assert found()["GPU 1"] == "Card 1, 16 GiB"
    assert found()["CUDA"] == "runtime 13000, the driver is good for 13010"
