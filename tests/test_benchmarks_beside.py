"""`--beside`: whose code runs, in which processes, and what is refused before a number is printed."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as cli
from benchmarks import agreement, beside, memory, processes, report, side
from benchmarks.shapes import SHAPES, TINY, Shape
from tinyvae import blas

ROOT = Path(__file__).parent.parent
ON_LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process's peak is read from /proc")
SMALL = ["step", "--shapes", "64-128-8", "--kernels", "numpy", "--steps", "3", "--rounds", "2"]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A second checkout."""
    for package in ("tinyvae", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__", "results", "figures")
        shutil.copytree(ROOT / package, tmp_path / "other" / package, ignore=ignored)
    return tmp_path / "other"


def planted(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def test_a_checkout_beside_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "RESULTS", tmp_path)
    monkeypatch.chdir(tmp_path)  # a side runs in its own folder, wherever the command was started
    assert cli.main([*SMALL, "--beside", str(ROOT), "--blas-threads", "1"]) == 0
    out = capsys.readouterr().out
    agreed = out.index("64-128-8: the losses of 20 steps agree, to 0.0e+00 of their size")
    assert agreed < out.index("round 1 of 2") < out.index("µs a step, numpy kernels, OpenBLAS on 1 thread\n")
    assert re.search(r"^64-128-8( +[\d,.]+){2} +[\d.]+ \([\d.]+ to [\d.]+\)$", out, flags=re.MULTILINE)
    (stored,) = tmp_path.glob("step-*-beside.json")
    assert all(str(folder) not in stored.read_text() for folder in (ROOT, tmp_path))  # no paths of a machine
    rounds = json.loads(stored.read_text())["results"]["shapes"]["64-128-8"]["rounds"]
    assert [len(rounds[side]) for side in ("this", "other")] == [2, 2]

    readme = tmp_path / "README.md"
    readme.write_text(f"{report.BEGIN}\n{report.END}\n")
    assert cli.main(["report", "--results", str(tmp_path), "--readme", str(readme)]) == 0
    assert f"ignored: {stored.name} (--beside: two checkouts)" in capsys.readouterr().out
    assert "No results yet." in readme.read_text()


def test_the_other_checkouts_own_code_runs(other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted(other / "tinyvae/ops/adam.py", "BETA1, BETA2, EPSILON = 0.9,", "BETA1, BETA2, EPSILON = 0.8,")
    path = tmp_path / "x.json"
    assert cli.main([*SMALL, "--beside", str(other), "--json", str(path)]) == 1
    captured = capsys.readouterr()
    assert re.search(r": 64-128-8: the checkouts do not do the same work: the loss of step \d+ is", captured.err)
    assert "µs" not in captured.out
    assert not path.exists()


def test_a_field_that_the_other_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    later = {**TINY[0].to_dict(), "tied": True}
    monkeypatch.setattr(Shape, "to_dict", lambda self: later)
    asked = beside.Side(beside.OTHER, ROOT, None)
    with pytest.raises(processes.ChildError, match=r"^tiny relu, other checkout: ValueError: a shape has no tied here"):
        asked.ask("losses", TINY[0], "numpy", 1)


def test_code_from_elsewhere_is_refused(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(other / "tinyvae")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # where there is a tinyvae too
    asked = beside.Side(beside.OTHER, other, None)
    with pytest.raises(processes.ChildError, match=r"other checkout: ImportError: .* the other would be measured"):
        asked.ask("losses", TINY[0], "numpy", 1)


def test_a_sides_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shell = {"PATH": "/bin", "PYTHONPATH": "mine", "OPENBLAS_CORETYPE": "Shell", "OPENBLAS_L2_SIZE": "9"}
    env = processes.checkout_environment(shell, tmp_path, 2)
    assert env["PYTHONPATH"].split(os.pathsep) == [str(tmp_path), "mine"]
    assert {name: value for name, value in env.items() if name.startswith("OPENBLAS")} == {"OPENBLAS_NUM_THREADS": "2"}
    assert "OPENBLAS_NUM_THREADS" not in processes.checkout_environment(shell, tmp_path, None)


def test_a_side_sets_openblas_up_before_numpy_is_loaded() -> None:
    child = processes.Child(ours=True, checkout=ROOT, threads=1)
    child.ask("side.losses", shape=TINY[0].to_dict(), kernels="numpy", steps=1)
    found = child.ask("machine.blas_here")
    child.close()
    assert found["settings"] == {"OPENBLAS_NUM_THREADS": "1", **blas.choose({})}
    assert found["threads"] in (1, None)  # None: another BLAS


def test_a_side_takes_the_kernels_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("numpy", "reference"):
        built, batches = side.build(TINY[0].to_dict(), name, steps=3)
        assert built.trainer(print)[0].model.kernels_name == name
        assert len(batches) == 3
    fastest = side.build(TINY[0].to_dict(), None, steps=0)[0]
    assert fastest.trainer(print)[0].model.kernels_name == TINY[0].model().kernels_name


def test_the_order_changes_from_round_to_round_and_losses_come_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, str, str]] = []

    def ask(self: beside.Side, task: str, shape: Shape, kernels: str | None, steps: int) -> Any:
        asked.append((task, self.name, shape.name))
        assert kernels is None
        return {"losses": [1.0] * steps, "step": 2e-3 if self.name == "this" else 3e-3}

    monkeypatch.setattr(beside.Side, "ask", ask)
    names = ["64-128-8", "conv-32-64"]
    args = cli.parser().parse_args(["step", "--beside", str(ROOT), "--rounds", "2", "--shapes", *names])
    results = beside.run(args, [SHAPES[name] for name in names], lambda _: None)
    this, that = "this", "other"
    assert asked == [
        *(("losses", side, name) for name in names for side in (this, that)),
        *(("times", side, name) for order in ((this, that), (that, this)) for name in names for side in order),
    ]
    table = beside.tables(results)[0]
    assert table.title == "µs a step, each side's fastest kernels"
    assert table.rows[1] == ("conv-32-64", "2,000", "3,000", "1.50 (1.50 to 1.50)")


@ON_LINUX
def test_the_peak_is_that_of_the_process_and_knows_nothing_of_others() -> None:
    held = np.ones(2**27, dtype=np.uint8)  # of this process: 128 MiB
    asked = beside.Side(beside.THIS, ROOT, 1)
    tiny, large = (asked.peak(replace(TINY[0], data_dim=784, rows=n), "numpy", 1) for n in (64, 2**16))
    pixels = 784 * 2**16  # bytes; to draw them takes more
    assert tiny + pixels < large < 2**31
    assert tiny < held.size


@ON_LINUX
def test_the_memory_of_two_checkouts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "RESULTS", tmp_path)
    monkeypatch.setattr(memory, "BESIDE", memory.BESIDE[:1])
    assert cli.main(["memory", "--beside", str(ROOT), "--kernels", "numpy", "--blas-threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "peak memory of a process that trains, MiB, numpy kernels, OpenBLAS on 1 thread\n" in out
    assert re.search(r"^tiny relu +(\d+) +(\d+) +(0\.9\d|1\.0\d)$", out, flags=re.MULTILINE)  # the same code
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith("-beside.json")] == []


def test_memory_beside_needs_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["memory", "--beside", str(ROOT), "--data-dir", str(tmp_path), "--json", str(tmp_path / "x.json")]
    assert cli.main(command) == 2
    assert "leave --data-dir out" in capsys.readouterr().err


def test_losses_must_agree_to_a_ten_thousandth() -> None:
    right = [100.0] * agreement.STEPS
    assert beside.difference("a", right, [*right[1:], 100.0099]) == pytest.approx(9.9e-5, rel=1e-3)
    for wrong in (100.0101, float("nan"), float("inf")):
        for pair in ((right, [*right[1:], wrong]), ([*right[1:], wrong], right)):
            with pytest.raises(agreement.DisagreementError, match=r"a: .* step 20 .*; no time is printed"):
                beside.difference("a", *pair)
    with pytest.raises(agreement.DisagreementError, match="step 1 "):
        beside.difference("a", [float("inf")] * 20, [float("inf")] * 20)
    with pytest.raises(agreement.DisagreementError, match="19 and 20 losses"):
        beside.difference("a", right[1:], right)


def test_a_gpu_is_not_measured_beside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "cupy_problem", lambda: None)
    monkeypatch.setattr(cli, "check_writable", lambda path: None)
    assert cli.main(["step", "--beside", str(ROOT), "--backend", "cupy"]) == 2
    assert "leave --backend out" in capsys.readouterr().err
