"""The benchmarks' harness, without a time: agreement and its refusal, the arithmetic, the report, bad input."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture

import tinyvae
from benchmarks import __main__ as cli
from benchmarks import (
    agreement,
    candidates,
    kernels,
    machine,
    memory,
    output,
    plots,
    processes,
    report,
    scaling,
    step,
    train,
)
from benchmarks.candidates import ours, products
from benchmarks.output import Table
from benchmarks.rounds import exponent, ratio, summary
from benchmarks.shapes import SHAPES, TINY, given_batches
from tinyvae.kernels.numpy_loops import NumPyKernels
from tinyvae.loop import Loop
from tinyvae.model.vae import DRAW
from tinyvae.training import data
from tinyvae.training.adam import Adam
from tinyvae.training.batches import DRAWN
from tinyvae.training.data import Dataset
from tinyvae.training.engine import RunState
from tinyvae.training.graph_step import GraphStep
from tinyvae.training.metrics import Row

ROOT = Path(__file__).parent.parent
EACH_TINY = pytest.mark.parametrize("shape", TINY, ids=lambda shape: shape.name)
OURS_ALONE = ["--candidates", "tinyvae", "tinyvae numpy"]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Tasks run in this process. A planted function, by the task's name, may change what a task answers."""
    planted: dict[str, Any] = {}

    def ask(self: processes.Children, name: str, task: str, *, ours: bool, **request: Any) -> Any:
        module, function = task.split(".")
        answer = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**request)
        return json.loads(json.dumps(planted.get(task, lambda name, answer: answer)(name, answer)))

    monkeypatch.setattr(processes.Children, "ask", ask)
    monkeypatch.setattr(candidates.Entry, "missing", lambda self: self.library is not None)  # as on a bare machine
    return planted


# ------------------------------------------------------------------------------------------------------------ agreement


@pytest.mark.sweeps
def test_the_check_runs_in_processes_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(candidates.Entry, "missing", lambda self: self.library is not None)
    assert cli.main(["check", *OURS_ALONE, "torch eager"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^tinyvae numpy( +\d+%){8}$", out, flags=re.MULTILINE)
    assert "left out: torch eager (torch is not installed: python -m pip install -e '.[bench]')" in out


@EACH_TINY
@pytest.mark.parametrize("name", ["reference", "numpy"])
def test_our_kernels_agree_with_float64(shape: Any, name: str) -> None:
    losses = ours.build(shape, name, "numpy", False).given_losses(given_batches(shape, agreement.STEPS))
    assert agreement.compare(name, losses, agreement.expected(asdict(shape))) <= 1
    assert losses[-1] < losses[0]  # it did train


def wrong_lr(truth: Any) -> Any:
    return lambda self, k, g, lr, *others: truth(self, k, g, 1.001 * lr, *others)


def wrong_scale(truth: Any) -> Any:
    return lambda self, data, rows, scale, x: truth(self, data, rows, 1 / 256, x)


def wrong_rows(truth: Any) -> Any:
    return lambda self, data, rows, scale, x: truth(self, data, rows[::-1], scale, x)


def wrong_inputs(loop: Loop, wrong: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Any], Any]:
    """Other numbers go into that loop."""
    return lambda truth: lambda self, each, **given: truth(
        self, each, **(wrong(given) if each is loop else given)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "name", "plant", "shape"),
    [
        (Adam, "update", wrong_lr, TINY[0]),
        (NumPyKernels, "gather", wrong_scale, TINY[0]),
        (NumPyKernels, "gather", wrong_rows, TINY[0]),
        (NumPyKernels, "map", wrong_inputs(DRAW, lambda g: {**g, "eps": 1.01 * g["eps"]}), TINY[0]),
        (NumPyKernels, "map", wrong_inputs(DRAWN, lambda g: {**g, "u": 1 - g["u"]}), TINY[2]),
    ],
    ids=["the step size", "the scale", "the rows", "the noise", "the drawn pixels"],
)
def test_a_candidate_that_does_other_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, plant: Any, shape: Any
) -> None:
    truth = agreement.expected(asdict(shape))
    monkeypatch.setattr(owner, name, plant(getattr(owner, name)))
    losses = ours.build(shape, "numpy", "numpy", False).given_losses(given_batches(shape, agreement.STEPS))
    with pytest.raises(agreement.DisagreementError, match="does not do the same work"):
        agreement.compare("wrong", losses, truth)


def test_a_nan_and_too_few_steps_are_refused() -> None:
    truth = {"losses": [5.0, 4.0], "tolerances": [0.1, 0.1]}
    assert agreement.compare("right", [5.05, 4.0], truth) == pytest.approx(0.5)
    for wrong in ([5.0, float("nan")], [5.0], [5.0, 4.2]):
        with pytest.raises(agreement.DisagreementError, match="no time is printed"):
            agreement.compare("wrong", wrong, truth)
    assert agreement.compare("tf32", [5.0, 4.02], truth, tf32=True) == pytest.approx(0.5)  # 1% of 4


def test_no_time_is_printed_when_losses_disagree(
    in_process: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def plant(name: str, answer: Any) -> Any:
        return {"losses": [x * (1.001 if name == "tinyvae numpy" else 1) for x in answer["losses"]]}

    in_process["step.losses"] = plant
    path = tmp_path / "step.json"
    assert cli.main(["step", "--shapes", "64-128-8", "--quick", "--json", str(path)]) == 1
    captured = capsys.readouterr()
    assert "tinyvae numpy does not do the same work: the loss of step 1 is" in captured.err
    assert "µs" not in captured.out
    assert not list(tmp_path.iterdir())


def test_the_captured_step_agrees_on_the_batches_that_it_drew(fake_cupy: FakeCupy) -> None:
    shape = TINY[2]
    built = ours.build(shape, "fused", "cupy", False)
    assert built.draws_on_device()
    losses, batches = built.drawn_losses(6)  # of 4 batches in an epoch
    assert len({x.tobytes() for x, _ in batches}) == len({eps.tobytes() for _, eps in batches}) == 6
    assert agreement.compare("captured", losses, agreement.expected_on(shape, batches)) <= 1


def test_the_captured_step_must_take_the_rows_that_are_next(
    fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = ours.build(TINY[0], "fused", "cupy", False)
    assert len(built.drawn_losses(6)[0]) == 6
    truth = GraphStep.begin_epoch
    monkeypatch.setattr(GraphStep, "begin_epoch", lambda self, order, *others: truth(self, order[::-1], *others))
    with pytest.raises(agreement.DisagreementError, match="other rows"):
        built.drawn_losses(6)


def test_a_peer_that_cannot_run_is_named_without_paths(
    in_process: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str, answer: Any) -> Any:
        if name == "torch eager":
            raise processes.ChildError("ImportError: /usr/lib/libc.so.6: version not found (by '/opt/x/torch.so')")
        return answer

    in_process["step.losses"] = fail
    entries = [candidates.CANDIDATES["tinyvae numpy"], candidates.CANDIDATES["torch eager"]]
    left_out: dict[str, str] = {}
    with processes.Children("numpy") as children, pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "losses", lambda **request: {"losses": expected_losses(request["shape"])})
        step.agree(children, entries, left_out, TINY[0], "numpy", False)
    reason = "does not run here: ImportError: ...: version not found (by '...')"
    assert left_out == {"torch eager": reason}
    assert f"left out: torch eager ({reason})" in capsys.readouterr().out


def expected_losses(shape: dict[str, Any]) -> list[float]:
    return agreement.expected(shape)["losses"]


# ----------------------------------------------------------------------------------------------------------- arithmetic


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    theirs, ours_ = [10.0, 30.0, 8.0], [5.0, 10.0, 8.0]
    assert ratio(theirs, ours_) == (2.0, 1.0, 3.0)
    assert summary(theirs).median / summary(ours_).median == 1.25  # the ratio of the medians is another
    with pytest.raises(ValueError, match="zip"):
        ratio(theirs, ours_[:2])


def test_the_exponent_of_a_power_law() -> None:
    x = [1.0, 2.0, 4.0, 8.0]
    assert exponent(x, [3 * v**1.5 for v in x]) == pytest.approx(1.5)
    assert exponent(x, [7.0] * 4) == pytest.approx(0)


def test_the_arithmetic_of_a_step() -> None:
    shape = SHAPES["784-400-20"]
    assert shape.parameters() == 652_824
    assert shape.flops() == 2 * 128 * (2 * 784 * 400 + 3 * (400 * 40 + 20 * 400 + 400 * 784))
    tiny = TINY[1]
    counted = sum(
        2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b, _ in products.build(tiny, "", "numpy", False).calls
    )
    assert counted == tiny.flops()


@EACH_TINY
def test_the_candidates_begin_with_the_models_weights(shape: Any) -> None:
    model = shape.model()
    weights = shape.weights()
    assert list(weights) == list(model.params)
    assert all(np.array_equal(weights[name], model.params[name]) for name in weights)


def test_no_rounding_decides_a_draw() -> None:
    u = given_batches(TINY[2], 3)[0].u.astype(float) * 255
    assert np.abs(u - np.round(u)).min() > 0.49


def test_a_childs_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.blas, "choose", lambda env: {"OPENBLAS_CORETYPE": "Chosen"})
    shell = {"PATH": "/bin", "OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Shell"}
    peer, mine = (processes.child_environment(shell, ours=o) for o in (False, True))
    assert "OPENBLAS_NUM_THREADS" not in peer | mine
    assert peer.get("OPENBLAS_CORETYPE") is None
    assert mine["OPENBLAS_CORETYPE"] == "Chosen"
    assert peer["PATH"] == mine["PATH"] == "/bin"


# -------------------------------------------------------------------------------------------------- commands and report


def tiny_mnist(name: str, folder: Path) -> Dataset:
    x = TINY[0].pixels()
    return Dataset(name, x, x[:20], scale=1 / 255)


def run_all(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Every command at a small size, into `folder`. Its times mean nothing, and nobody looks at them."""
    small = SHAPES["64-128-8"]
    monkeypatch.setattr(scaling, "SERIES", {"batch": TINY[:2], "rows": TINY[:2]})
    monkeypatch.setattr(kernels, "BLOCK", 0.0)
    monkeypatch.setattr(train, "SHAPE", TINY[0])
    monkeypatch.setattr(memory, "SHAPE", small)
    monkeypatch.setattr(memory, "peak", lambda options: 2**27)
    monkeypatch.setattr(plots, "DPI", 40)
    monkeypatch.setattr(data, "load", tiny_mnist)
    commands = {
        "step": ["--shapes", "64-128-8", "--steps", "3", "--rounds", "2"],
        "scaling": ["--series", "batch", "rows", "--steps", "3", "--rounds", "2"],
        "kernels": ["--rounds", "2", "--shape", "64-128-8"],
        "train": ["--data-dir", str(folder), "--rounds", "2", "--target", "100"],
        "memory": [],
    }
    for name, options in commands.items():
        assert cli.main([name, *options, "--json", str(folder / f"{name}-here.json")]) == 0


def test_every_command_and_the_report(
    in_process: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_all(monkeypatch, tmp_path)
    printed = capsys.readouterr().out
    assert "left out: jax jit (jax is not installed" in printed
    assert not list(tmp_path.glob("*.partial"))
    for name in ("quick", "unfinished"):
        stored = json.loads((tmp_path / "step-here.json").read_text())
        stored["arguments"] += ["--quick"] if name == "quick" else []
        (tmp_path / f"step-{name}.json{output.PARTIAL if name == 'unfinished' else ''}").write_text(json.dumps(stored))
    stored = json.loads((tmp_path / "step-here.json").read_text())
    assert len(stored["results"]["shapes"]["64-128-8"]["rounds"]["tinyvae"]) == 2
    assert stored["arguments"] == ["step", "--shapes", "64-128-8", "--steps", "3", "--rounds", "2"]
    assert stored["results"]["kernels"] in ("numba", "numpy")
    assert stored["machine"]["cpu"]
    assert stored["machine"]["versions"]["numpy"] == np.__version__
    assert str(tmp_path) not in "".join(path.read_text() for path in tmp_path.glob("*.json"))  # no paths of a machine

    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{report.BEGIN}\nyesterday\n{report.END}\nafter\n")
    assert cli.main(["report", "--results", str(tmp_path), "--readme", str(readme)]) == 0
    printed = capsys.readouterr().out
    assert "ignored: step-quick.json (--quick" in printed
    assert "ignored: step-unfinished.json.partial (its run did not" in printed
    text = readme.read_text()
    assert "quick" not in text
    assert "unfinished" not in text
    assert text.startswith("before\n\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "yesterday" not in text
    assert re.search(r"^\| tinyvae \| [\d,.]+ \| [\d,.]+ to [\d,.]+ \| 1 \| [\d,]+ \|$", text, flags=re.MULTILINE)
    for title, _ in report.TITLES.values():
        assert f"## {title}\n" in text
    for picture in re.findall(r"\]\((.+?\.png)\)", text):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "figures").iterdir())) == 4  # memory has none


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a process has")
def test_a_file_is_trained_on_in_place() -> None:
    assert 2**24 < memory.peak_on_a_file(0.02) < 2**30


def test_the_peak_memory_is_that_of_the_command() -> None:
    options = ["--data", "digits", "--epochs", "1", "--no-figures"]
    assert (
        2**24 < memory.peak(options) < 2**31
    )  # bytes: Python with NumPy alone takes more, no machine has to give more
    with pytest.raises(processes.ChildError, match="exit code 2"):
        memory.peak(["--data", "nothing"])


def test_a_target_that_is_not_reached() -> None:
    curves = {"tinyvae": [[(1.0, 120.0), (2.0, 107.0)]], "torch eager": [[(1.0, 120.0), (3.0, 109.0)]]}
    table = train.tables({"target": 108.0, "tf32": False, "curves": curves})[0]
    assert table.rows[0] == ("tinyvae", "2.00", "2.00 to 2.00", "2 to 2", "1")
    assert table.rows[1] == ("torch eager", "not reached", "-", "2 to 2", "-")
    curves = {"tinyvae": curves["torch eager"], "torch eager": curves["tinyvae"]}
    table = train.tables({"target": 108.0, "tf32": False, "curves": curves})[0]
    assert table.rows[1] == ("torch eager", "2.00", "2.00 to 2.00", "2 to 2", "-")  # with nothing to compare it with


def test_the_clock_stops_when_the_device_has_done_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(train.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(train, "wait", lambda model: now.__setitem__(0, now[0] + 10))
    stopwatch = train.Stopwatch(tinyvae.VAE(4, (4,), 2), batches=3)
    for batch in (1, 2, 3):
        now[0] += 1
        stopwatch.batch(RunState(batch=batch), 0.0)
    now[0] += 100  # an evaluation
    stopwatch.epoch(Row(1, *[1.0] * 7, active_units=2))
    assert stopwatch.curve[0][0] == 13


def test_tables() -> None:
    table = Table("times", ("", "µs"), [("ours", "1"), ("theirs", "10")])
    assert table.text().splitlines() == ["times", "----------", "        µs", "ours     1", "theirs  10"]
    assert table.markdown().splitlines()[2:4] == ["|  | µs |", "| --- | ---: |"]


@pytest.mark.parametrize("content", ["{", "[]", '{"command": "dance"}', '{"command": "step"}'])
def test_a_file_that_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert cli.main(["report", "--results", str(tmp_path), "--readme", str(tmp_path / "README.md")]) == 2
    err = capsys.readouterr().err
    assert "a.json: is no result" in err
    assert err.count("\n") == 1


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["step", "--shapes", "784"], "invalid choice: '784'"),
        (["step", "--rounds", "0"], "must be a whole number, at least 1, not '0'"),
        (["step", "--tf32"], "--tf32 is for GPUs"),
        (["step", "--beside", "/nowhere"], "--beside /nowhere: there is no such folder"),
        (["step", "--beside", str(ROOT / "tests")], "has no tinyvae/__init__.py"),
        (["step", "--beside", str(ROOT), "--candidates", "tinyvae"], "leave --candidates out"),
        (["step", "--kernels", "numpy"], "--kernels goes with --beside DIR"),
        (["step", "--blas-threads", "1"], "--blas-threads goes with --beside DIR"),
        (["step", "--beside", str(ROOT), "--blas-threads", "0"], "must be a whole number, at least 1, not '0'"),
        (["train"], "required: --data-dir"),
        (["train", "--data-dir", "/nowhere"], "there is no such folder"),
        (["report", "--readme", "/nowhere"], "has no lines"),
    ],
    ids=str,
)
def test_bad_input_gets_one_line(
    in_process: dict[str, Any], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = cli.main(arguments)
    except SystemExit as error:
        code = error.code
    err = capsys.readouterr().err
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("ending", ["", "a-file/x.json"], ids=["a folder", "below a file"])
def test_a_file_that_cannot_be_written_is_refused_before_measuring(
    in_process: dict[str, Any], tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a-file").touch()
    assert cli.main(["step", "--json", str(tmp_path / ending)]) == 2
    captured = capsys.readouterr()
    assert "cannot be written" in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "code", "message"), [(OSError("disk full"), 1, "disk full"), (KeyboardInterrupt(), 130, "interrupted")]
)
def test_a_run_that_ends_early_replaces_nothing(
    in_process: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: BaseException,
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(args: Any, save: output.Save) -> dict[str, Any]:
        save({"half": 1})
        raise error

    monkeypatch.setattr(step, "run", run)
    path = tmp_path / "step.json"
    path.write_text("whole")
    assert cli.main(["step", "--json", str(path)]) == code
    assert capsys.readouterr().err == f"python -m benchmarks step: {message}\n"
    assert path.read_text() == "whole"
    assert json.loads(output.partial(path).read_text())["results"] == {"half": 1}


def test_what_is_stored_names_no_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"JAX_CACHE_DIR": "here", "XLA_FLAGS": "--dump=/home/me", "OMP_NUM_THREADS": "2"}.items():
        monkeypatch.setenv(name, value)
    found = machine.settings(machine.SETTINGS)
    assert found["OMP_NUM_THREADS"] == "2"
    assert not {"JAX_CACHE_DIR", "XLA_FLAGS"} & set(found)
    assert machine.platform.release() not in machine.operating_system()
    for words in (["--data-dir=/home/me"], ["--data", "/home/me"], ["--data-dir", "home/me", "--json=/x"]):
        assert cli.shown(cli.parser().parse_args(["train", *words])) == ["train", "--data-dir", "DIR"]


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "cupy_problem", lambda: "CuPy is not installed: install it")
    assert cli.main(["check", "--backend", "cupy"]) == 2
    assert capsys.readouterr().err == "python -m benchmarks check: CuPy is not installed: install it\n"


def test_a_failing_child_is_told_by_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(processes.ChildError, match="has no attribute 'dance'"):
        processes.ask_once("step.dance", ours=False)


# ------------------------------------------------------------------------------------------------------------ documents


def test_the_documented_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for line in (ROOT / "benchmarks/README.md").read_text().splitlines()
             if line.startswith("python -m benchmarks ")]  # fmt: skip
    assert len(lines) >= 7
    for line in lines:
        with pytest.raises(SystemExit):
            cli.main([line.split()[3], "--help"])
        known = capsys.readouterr().out
        assert all(option in known for option in re.findall(r"--[a-z-]+", line)), line


@pytest.mark.skipif(shutil.which("bash") is None, reason="gpu.sh is a bash script")
def test_the_gpu_script_lists_its_parts(tmp_path: Path) -> None:
    script = str(ROOT / "benchmarks/gpu.sh")
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "DRY": "1", "OUT": str(tmp_path)}
    done = subprocess.run(["bash", script], env={**environment, "DATA_DIR": "DIR"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"python3 -m benchmarks (.*)", done.stdout)
    assert {line.split()[0] for line in commands} == {"check", "step", "train", "kernels", "scaling"}
    for line in commands:
        known = cli.parser().format_help() + line
        assert "--backend cupy" in known
