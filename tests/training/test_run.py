"""What a run directory survives: a kill at any time, damage, two processes at once, a terminal that goes away."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running import run
from safetensors.numpy import load_file

from tinyvae.training import figures
from tinyvae.training.engine import Engine
from tinyvae.training.lock import Lock
from tinyvae.training.metrics import Evaluation
from tinyvae.training.signals import StopRequest

OPTIONS = ("--hidden", "4", "--latent", "2", "--batch-size", "12", "--backend", "numpy", "--kernels", "numpy")
STEPS = 3  # updates in an epoch: 27 of the 33 rows in batches of 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pixels.npy"
    np.save(path, np.random.default_rng(0).uniform(0, 1, (33, 4)).astype(np.float32))
    return path


def train(data: Path, out: Path, *more: str, epochs: int = 4) -> int:
    common = ("--epochs", str(epochs), "--checkpoint-every", "1", "--no-figures", "--quiet")
    return run("train", "--data", data, *OPTIONS, *common, "--out", out, *more)


def resume(out: Path, *more: str) -> int:
    return run("train", "--resume", out, "--no-figures", "--quiet", *more)


def steps(out: Path) -> list[int]:
    return sorted(int(path.name[5:14]) for path in (out / "checkpoints").glob("step-*"))


def step(out: Path, n: int) -> Path:
    return out / "checkpoints" / f"step-{n:09d}.safetensors"


def stop_after(monkeypatch: pytest.MonkeyPatch, updates: int) -> None:
    """As if Ctrl-C came during the update with this number."""
    asked = iter(range(1, 10_000))

    def received(self: StopRequest) -> int | None:
        return signal.SIGINT if next(asked) >= updates else None

    monkeypatch.setattr(StopRequest, "received", property(received, lambda self, value: None), raising=False)


# ------------------------------------------------------------------------------------------------ which files are kept


def test_a_whole_checkpoint_is_never_deleted_for_a_damaged_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 3, 6 and 9 are there, 6 and 9 damaged; the run goes on from 3, and is stopped again after step 5."""
    out, spare = tmp_path / "run", tmp_path / "spare"
    assert train(data, out, epochs=1) == 0
    shutil.copy(step(out, 3), spare)
    assert resume(out, "--epochs", "3") == 0
    assert steps(out) == [6, 9]
    shutil.copy(spare, step(out, 3))
    for n in (6, 9):
        step(out, n).write_bytes(step(out, n).read_bytes()[:-1])
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert resume(out, "--epochs", "3") == 130
    assert {3, 5} <= set(steps(out))  # both are whole: the damaged ones do not push them out
    assert resume(out, "--epochs", "3") == 0
    whole = tmp_path / "whole"
    assert train(data, whole, epochs=3) == 0
    assert steps(out)[-1] == 9
    assert step(out, 9).read_bytes() == step(whole, 9).read_bytes()


def test_a_damaged_checkpoint_in_between_costs_no_whole_one(data: Path, tmp_path: Path) -> None:
    """3 whole, 6 damaged, 9 whole: after another epoch, 9 and 12 are whole, and only then 3 may go."""
    out, spare = tmp_path / "run", tmp_path / "spare"
    assert train(data, out, epochs=1) == 0
    shutil.copy(step(out, 3), spare)
    assert resume(out, "--epochs", "3") == 0
    shutil.copy(spare, step(out, 3))
    step(out, 6).write_bytes(b"damaged")
    assert resume(out) == 2  # has all its epochs: nothing to do, but looked at
    assert 3 in steps(out)
    assert resume(out, "--epochs", "4") == 0
    assert steps(out) == [9, 12]


def test_files_with_other_names_are_nobodys(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(data, out, epochs=1) == 0
    mine = [
        "step-3.safetensors",
        "step-000000001.safetensors.bak",
        "step-final.safetensors",
        "best.safetensors",
        ".x.tmp",
    ]
    for name in mine:
        (out / "checkpoints" / name).write_bytes(b"mine")
    assert resume(out, "--epochs", "5") == 0
    assert all((out / "checkpoints" / name).read_bytes() == b"mine" for name in mine)


def test_a_checkpoint_that_cannot_be_read_is_not_taken_for_a_damaged_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fault may pass: nobody goes on from an older one meanwhile."""
    out = tmp_path / "run"
    assert train(data, out, epochs=2) == 0
    original = os.open

    def refuse(path, *args, **kwargs):
        if str(path).endswith("step-000000006.safetensors"):
            raise PermissionError(13, "Permission denied")
        return original(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert resume(out, "--epochs", "3") == 1
        assert run("evaluate", out) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all("cannot be read (Permission denied)" in line for line in errors)
    assert steps(out) == [3, 6]


def test_an_older_one_that_cannot_be_read_is_not_deleted_for_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """3, 6 and 9 are there, as if killed before the pruning; a passing fault at 6 must not keep 3 in its place."""
    out, spare = tmp_path / "run", tmp_path / "spare"
    assert train(data, out, epochs=1) == 0
    shutil.copy(step(out, 3), spare)
    assert resume(out, "--epochs", "3") == 0
    shutil.copy(spare, step(out, 3))
    original = os.open

    def refuse(path, *args, **kwargs):
        if str(path).endswith("step-000000006.safetensors"):
            raise OSError(5, "Input/output error")
        return original(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert resume(out, "--epochs", "4") == 1
    assert "step-000000006.safetensors: cannot be read (Input/output error)" in capsys.readouterr().err
    assert steps(out) == [3, 6, 9]
    assert resume(out) == 2  # nothing to train, but put in order
    assert steps(out) == [6, 9]


def test_evaluate_says_that_it_looks_at_an_older_checkpoint(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(data, out, epochs=2) == 0
    step(out, 6).write_bytes(b"damaged")
    assert run("evaluate", out, "--nll-samples", "2") == 0
    assert "step-000000006.safetensors: is damaged" in capsys.readouterr().err


def test_the_best_epoch_is_in_the_checkpoint_and_any_reader_sees_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {1: 5.0, 2: 3.0, 3: 4.0}
    monkeypatch.setattr(Engine, "measure", lambda self: Evaluation(losses[self.state.epoch + 1], 1.0, 1.0, 1))
    out = tmp_path / "run"
    assert train(data, out, epochs=3) == 0
    last, best = load_file(step(out, 9)), load_file(out / "checkpoints" / "best-000002.safetensors")
    assert last["best"].size == sum(a.size for a in best.values())
    assert np.isin(best["encoder.0.weight"], last["best"]).all()


def test_patience_counts_from_where_the_search_began_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint of tinyvae 0.1 only names the file of its best epoch; here that file is lost."""
    from hostile import describe, rewrite_with

    losses = {n: 5.0 + n for n in range(1, 20)}  # epoch 1 is the best of all
    monkeypatch.setattr(Engine, "measure", lambda self: Evaluation(losses[self.state.epoch + 1], 1.0, 1.0, 1))
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 2 * STEPS)
        assert train(data, out, "--patience", "2", epochs=9) == 130
    tensors = load_file(step(out, 6))
    del tensors["best"]
    rewrite_with(step(out, 6), describe(step(out, 6)), tensors)
    (out / "checkpoints" / "best-000001.safetensors").unlink()
    assert run("train", "--resume", out, "--no-figures") == 0
    said = capsys.readouterr().out
    assert "the best epoch is looked for anew" in said
    assert "stopped after epoch 5: no better validation loss for 2 epochs" in said  # epoch 3 is the best of those seen
    assert "best validation loss 8.00 after epoch 3" in said


# ------------------------------------------------------------------------------------------------ directories that died


def empty(path: Path) -> None:
    path.mkdir()


def only_the_folder(path: Path) -> None:
    (path / "checkpoints").mkdir(parents=True)


def with_leftovers(path: Path) -> None:
    only_the_folder(path)
    for name in (".0123456789abcdef.tmp", ".config.json.77.tmp"):
        (path / name).write_text("half")
    (path / "checkpoints" / ".step-000000005.safetensors.77.tmp").write_text("half")


def diverged(path: Path) -> None:
    only_the_folder(path)
    (path / "config.json").write_text("{}")
    (path / "metrics.csv").write_text("epoch\n")


@pytest.mark.parametrize("died", [empty, only_the_folder, with_leftovers, diverged])
def test_a_directory_that_died_before_its_first_checkpoint_can_be_used_again(data: Path, tmp_path: Path, died) -> None:
    out, whole = tmp_path / "run", tmp_path / "whole"
    died(out)
    assert train(data, out) == 0
    assert train(data, whole) == 0
    assert {p.relative_to(out) for p in out.rglob("*")} == {p.relative_to(whole) for p in whole.rglob("*")}
    assert step(out, 12).read_bytes() == step(whole, 12).read_bytes()


@pytest.mark.parametrize(
    "name",
    ["config.json", "metrics.csv", "notes.txt", ".hidden", "checkpoints", "checkpoints/model.safetensors",
     "checkpoints/best-000001.safetensors", "figures/loss.png"],
)  # fmt: skip
def test_a_directory_with_anything_else_is_left_alone(
    data: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("precious")
    assert train(data, out) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is not empty; choose another --out" in error
    assert [p for p in out.rglob("*") if p.is_file()] == [out / name]
    assert (out / name).read_text() == "precious"


@pytest.mark.parametrize("kernels", ["numpy", "reference"])
def test_a_learned_sigma_that_runs_away_is_called_divergence(
    data: Path, tmp_path: Path, kernels: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--likelihood", "gaussian", "--lr", "1e30", "--kernels", kernels)
    assert train(data, tmp_path / "run", *options) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "diverged" in error


def test_a_diverged_run_says_so_and_its_directory_can_be_used_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "measure", lambda self: Evaluation(float("nan"), 1.0, 1.0, 1))
        assert train(data, out) == 1
    assert "diverged" in capsys.readouterr().err
    assert resume(out) == 1
    assert f"begin again with --out {out}" in capsys.readouterr().err
    assert train(data, out) == 0


# ------------------------------------------------------------------------------------------------ two at once


def test_a_directory_in_use_is_refused_and_not_touched(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, fresh = tmp_path / "run", tmp_path / "fresh"
    assert train(data, out, epochs=2) == 0
    fresh.mkdir()
    unfinished = out / "checkpoints" / ".0123456789abcdef.tmp"  # of the one that is at work
    unfinished.write_text("half")
    locks = [Lock(out), Lock(fresh)]
    assert resume(out, "--epochs", "3") == 1
    assert train(data, fresh) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all("is in use by another run" in line for line in errors)
    assert unfinished.exists()
    assert fresh.is_dir()  # who lost the race removes nothing
    assert run("evaluate", out, "--nll-samples", "2") == 0  # reading needs no lock
    for lock in locks:
        lock.release()
    assert resume(out, "--epochs", "3") == 0
    assert not unfinished.exists()
    assert train(data, fresh) == 0


def test_of_many_that_start_at_once_each_has_its_own_directory(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tinyvae", "train", "--data", str(data), *OPTIONS, "--epochs", "1", "--no-figures"]
    started = [
        subprocess.Popen([*command, *more], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for more in ([], [], ["--out", "same"], ["--out", "same"])
    ]
    ends = [(*process.communicate(timeout=60), process.returncode) for process in started]
    assert [code for _, _, code in ends[:2]] == [0, 0]
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert sorted(code for _, _, code in ends[2:]) == [0, 1]
    loser = next(error for _, error, code in ends[2:] if code)
    assert loser.count("\n") == 1
    assert "same: is in use by another run" in loser or "same: is not empty" in loser
    assert steps(tmp_path / "same") == [3]


# ------------------------------------------------------------------------------------------------ pictures and history


def test_a_finished_run_without_pictures_gets_them_by_resume(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(data, out, epochs=1) == 0
    (out / "checkpoints" / ".0123456789abcdef.tmp").write_text("half")
    before = step(out, 3).read_bytes()
    assert run("train", "--resume", out) == 0
    drawn = sorted((out / "figures").iterdir())
    assert [path.stem for path in drawn] == [
        "interpolation",
        "latent",
        "loss",
        "manifold",
        "reconstructions",
        "samples",
    ]
    drawn[2].unlink()  # as if killed while drawing
    assert run("train", "--resume", out) == 0
    assert sorted((out / "figures").iterdir()) == drawn
    assert step(out, 3).read_bytes() == before
    assert not list(out.rglob(".*"))
    capsys.readouterr()
    assert run("train", "--resume", out) == 2
    assert "has all its 1 epochs; to go on, give --epochs more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"), [(MemoryError(), "not enough memory"), (OSError(28, "No space left"), "No space")]
)
def test_pictures_that_cannot_be_drawn_cost_nothing_else(
    data: Path, tmp_path: Path, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "run"

    def fail(*args, **kwargs):
        raise error

    command = ("train", "--data", data, *OPTIONS, "--epochs", "1", "--quiet", "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr(figures, "write_figures", fail)
        assert run(*command) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "trained and saved, but not all pictures are drawn" in line
    assert said in line
    assert f"tinyvae train --resume {out}" in line
    assert run("train", "--resume", out, "--quiet") == 0
    assert (out / "figures" / "loss.png").exists()


def test_what_a_run_ran_with_is_kept_when_it_is_resumed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(data, out, epochs=1) == 0
    config = json.loads((out / "config.json").read_text())
    config["versions"]["numpy"] = "1.2.3"
    (out / "config.json").write_text(json.dumps(config))
    assert resume(out, "--epochs", "2") == 0
    assert resume(out, "--epochs", "3") == 0
    config = json.loads((out / "config.json").read_text())
    assert config["epochs"] == 3
    assert [entry["versions"]["numpy"] for entry in config["history"]] == ["1.2.3", np.__version__]
