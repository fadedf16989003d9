"""The command line as a user has it: what is printed, what is written, and that every option does something."""

import argparse
import csv
import importlib.metadata
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from strategies import EVERY_FUSED

import tinyvae
from tinyvae import backend
from tinyvae.__main__ import main as guarded
from tinyvae.checking import models
from tinyvae.checking.finite_differences import Check
from tinyvae.checking.models import CASES
from tinyvae.commands import anomaly, augment, embed, evaluate, generate, gradcheck, main, restore, train
from tinyvae.training.data import load_digits
from tinyvae.training.metrics import Row

COMMANDS = (train, evaluate, generate, gradcheck, embed, restore, anomaly, augment)
TINY = ["--hidden", "6", "--latent", "2", "--epochs", "3", "--no-figures", "--quiet", "--backend", "numpy"]


def run(*argv: str | Path) -> int:
    try:
        return main([str(a) for a in argv])
    except SystemExit as end:  # argparse's way
        return end.code if isinstance(end.code, int) else -1


def small_digits(folder: Path) -> Path:
    """60 of the digits, as a user would save images of their own."""
    digits = load_digits()
    assert digits.y_train is not None
    path = folder / "own.npz"
    np.savez(path, x=digits.x_train[:60].reshape(60, 8, 8) / 16, y=digits.y_train[:60])
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own to run in, with own.npz."""
    monkeypatch.chdir(tmp_path)
    small_digits(tmp_path)
    return tmp_path


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def without_time(folder: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in metrics(folder)]


# ----------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.__name__.rpartition(".")[2])
def test_help_explains_every_option(command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    command.add_arguments(parser)
    assert run(command.__name__.rpartition(".")[2], "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "examples:" in out
    for action in parser._actions:
        assert action.help, action
        assert "default" in action.help or action.default in (None, False, argparse.SUPPRESS)
        for flag in action.option_strings:
            assert re.search(rf"^  {flag}\b", out, re.MULTILINE), flag


def test_the_help_of_all_names_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^    {command.__name__.rpartition('.')[2]}\b", out, re.MULTILINE)
        assert command.SUMMARY in " ".join(out.split())


def test_the_console_script_is_this_command() -> None:
    scripts = importlib.metadata.entry_points(group="console_scripts", name="tinyvae")
    if not scripts:
        pytest.skip("tinyvae is run from its sources here, not installed")
    (script,) = scripts
    assert script.load() is guarded


# ---------------------------------------------------------------------------------------------------------------- train


def test_a_run_directory_holds_all_there_is_to_know(here: Path) -> None:
    assert run("train", "--data", "own.npz", *TINY, "--beta", "0.5", "--out", "run") == 0
    folder = here / "run"
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) == [
        "checkpoints",
        "checkpoints/best-000002.safetensors",
        "checkpoints/best-000003.safetensors",
        "checkpoints/step-000000002.safetensors",
        "checkpoints/step-000000003.safetensors",
        "config.json",
        "metrics.csv",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert config["hidden"] == [6]
    assert config["batch_size"] == 128  # a default that was not given, but holds
    assert config["versions"]["tinyvae"] == tinyvae.__version__
    assert config["parameters"] == tinyvae.load(folder).params.flat.size
    rows = metrics(folder)
    assert list(rows[0]) == list(Row.__dataclass_fields__)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for row in rows:
        assert float(row["test_loss"]) == float(row["test_nll"]) + 0.5 * float(row["test_kl"])


def test_pictures_are_drawn_unless_they_are_not_wanted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--data", "own.npz", *[a for a in TINY if a not in ("--no-figures", "--quiet")]) == 0
    out = capsys.readouterr().out
    (folder,) = (here / "runs").iterdir()
    assert re.fullmatch(r"own-\d{8}-\d{6}", folder.name)
    listed = re.findall(r"^  (\S+\.png)$", out, re.MULTILINE)
    assert sorted(listed) == sorted(str(p.relative_to(here)) for p in (folder / "figures").iterdir())
    assert len(listed) == 6
    assert out.endswith(f"next: tinyvae evaluate runs/{folder.name}\n")


def test_quiet_prints_nothing_at_all(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--data", "own.npz", *TINY, "--out", "run") == 0
    assert capfd.readouterr() == ("", "")


def test_many_epochs_print_few_lines_without_control_characters(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [a for a in TINY if a != "--quiet"]
    assert run("train", "--data", "own.npz", *argv, "--epochs", "200", "--batch-size", "60", "--out", "run") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert not set(map(ord, out)) & (set(range(32)) - {10})
    epochs = re.findall(r"^ +(\d+) +-?\d+\.\d\d ", out, re.MULTILINE)
    assert (epochs[0], epochs[-1]) == ("1", "200")
    assert len(epochs) <= 27
    assert len(metrics(here / "run")) == 200


BASE = ["--data", "own.npz", *TINY]
CHANGES = {  # every one of these trains another model; after the bar, what it takes besides
    "--activation": "tanh", "--tied": "", "--hidden": "5 4", "--decoder-hidden": "4 3", "--latent": "3",
    "--likelihood": "gaussian", "--sigma": "fixed:0.5 | --likelihood gaussian", "--binarize": "dynamic",
    "--beta": "2", "--beta-warmup": "2", "--free-bits": "0.5", "--epochs": "2", "--batch-size": "7",
    "--lr": "0.01", "--lr-schedule": "cosine", "--clip-norm": "0.1", "--accumulate": "2 | --batch-size 30",
    "--seed": "1", "--dtype": "float64", "--data": "two-gaussians:20",
    "--conv": "2", "--batch-norm": "", "--conditional": "", "--leave-out": "1", "--objective": "iwae",
    "--importance": "2 | --objective iwae",
}  # fmt: skip
SAME = {  # and these the same one
    "--data-dir": "nowhere", "--patience": "3", "--backend": "numpy", "--kernels": EVERY_FUSED[0], "--device": "0",
    "--checkpoint-every": "2", "--no-figures": "", "--quiet": "", "--keep-blas": "",
}  # fmt: skip
ELSEWHERE = {"--out", "--resume", "--help", "--tf32"}  # tested by name below and above; --tf32 with the GPU's tests


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    folder = tmp_path_factory.mktemp("baseline")
    assert run("train", "--data", small_digits(folder), *TINY, "--out", folder / "run") == 0
    return without_time(folder / "run")


@pytest.mark.parametrize("flag", [*CHANGES, *SAME])
def test_every_option_is_accepted_stored_and_has_the_effect_it_should(
    flag: str, here: Path, baseline: list[dict[str, str]]
) -> None:
    values, _, besides = (CHANGES | SAME)[flag].partition("|")
    assert run("train", *BASE, flag, *values.split(), *besides.split(), "--out", "run") == 0
    assert (without_time(here / "run") != baseline) == (flag in CHANGES)
    config = json.loads((here / "run" / "config.json").read_text())
    name = flag[2:].replace("-", "_")
    if name not in train.NOT_STORED:
        stored = config[name] if isinstance(config[name], list) else [config[name]]
        assert stored == [type(a)(b) for a, b in zip(stored, values.split() or [True], strict=True)]


def test_no_option_is_left_out_of_these_tests(capsys: pytest.CaptureFixture[str]) -> None:
    run("train", "--help")
    flags = set(re.findall(r"^  (?:-h, )?(--[a-z0-9-]+)", capsys.readouterr().out, re.MULTILINE))
    assert flags == set(CHANGES) | set(SAME) | ELSEWHERE


def test_resume_goes_on_to_more_epochs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", *BASE, "--out", "run") == 0
    assert run("train", "--resume", "run", "--epochs", "5", "--no-figures") == 0
    assert len(metrics(here / "run")) == 5
    assert "going on with run at epoch 4, from step-000000003.safetensors" in capsys.readouterr().out


def test_an_empty_directory_will_do_as_the_run_directory(here: Path) -> None:
    (here / "run").mkdir()
    assert run("train", *BASE, "--out", "run") == 0


def test_patience_stops_when_the_test_loss_gets_no_better(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [a for a in BASE if a != "--quiet"]  # steps of 1e-30 change no float32 weight, so no epoch beats the first
    assert run("train", *argv, "--epochs", "50", "--lr", "1e-30", "--patience", "2", "--out", "run") == 0
    assert len(metrics(here / "run")) == 3
    out = capsys.readouterr().out
    assert "stopped after epoch 3: no better test loss for 2 epochs" in out
    assert re.search(r"best test loss \d+\.\d\d after epoch 1", out)


def test_auto_says_that_and_why_it_falls_back(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "cupy_problem", lambda device=0: "CuPy is not installed: python -m pip install it")
    argv = [a for a in BASE if a != "--quiet"]
    assert run("train", *argv, "--backend", "auto", "--out", "run") == 0
    out = capsys.readouterr().out
    assert "backend: numpy (CuPy is not installed)\n" in out
    assert f"machine: numpy, {EVERY_FUSED[0]} kernels, float32; seed 0" in out
    assert json.loads((here / "run" / "config.json").read_text())["backend"] == "numpy"


@pytest.mark.parametrize(
    ("options", "noted"), [([], True), (["--binarize", "dynamic"], False), (["--binarize", "threshold"], False),
                           (["--likelihood", "gaussian"], False)],
)  # fmt: skip
def test_bernoulli_on_grey_pixels_is_called_by_its_name(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], noted: bool
) -> None:
    argv = [a for a in BASE if a != "--quiet"]
    assert run("train", *argv, *options, "--out", "run") == 0
    assert ("no log-likelihood" in capsys.readouterr().out) == noted
    assert run("evaluate", "run", "--json", "--nll-samples", "2") == 0
    assert ("note" in json.loads(capsys.readouterr().out)) == noted
    assert run("evaluate", "run", "--nll-samples", "2") == 0
    assert ("not log-likelihoods" in capsys.readouterr().out) == noted


# ------------------------------------------------------------------------------------------------------------ gradcheck


def test_gradcheck_finds_every_gradient_right(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On some of the models: `test_gradients` checks each of them, on all kernels."""
    few = CASES[::9]
    monkeypatch.setattr(models, "CASES", few)
    assert run("gradcheck", "--seed", "3") == 0
    out = capsys.readouterr().out
    total = re.search(r"all (\d+) gradients agree with finite differences\n$", out)
    assert total
    assert int(total[1]) == len(re.findall(r" ok *\n", out))
    assert all(out.count(f"  {case.name}: encoder.0.weight ") == 2 for case in few if not case.model.get("conv"))
    assert "WRONG" not in out
    assert "cannot tell" not in out


def test_a_wrong_gradient_is_a_failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Check("dense, dW", error=0.1, tolerance=1e-6, passed=False)
    monkeypatch.setattr(gradcheck, "check_operations", lambda seed: [wrong])
    monkeypatch.setattr(gradcheck, "check_models", lambda kernels, seed: [])
    assert run("gradcheck") == 1
    assert "1 of 1 gradients are WRONG: dense, dW" in capsys.readouterr().out


def test_a_gradient_that_the_check_cannot_judge_is_no_success(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Check("dense, dW", error=1e-9, tolerance=1e-6, passed=True)
    blind = Check("dense, db", error=0.1, tolerance=9.0, passed=False, note="at [0, 1]: a kink", blind=True)
    wrong = Check("dense, dx", error=0.1, tolerance=1e-6, passed=False)
    monkeypatch.setattr(gradcheck, "check_models", lambda kernels, seed: [])
    for checks, lines in [
        ([right, blind], ["of 1 of 2 gradients the check cannot tell: dense, db"]),
        ([right, blind, wrong], [
            "1 of 3 gradients are WRONG: dense, dx", "of 1 of 3 gradients the check cannot tell: dense, db",
        ]),
    ]:  # fmt: skip
        monkeypatch.setattr(gradcheck, "check_operations", lambda seed, checks=checks: checks)
        assert run("gradcheck") == 1
        out = capsys.readouterr().out
        assert re.search(r"dense, db +1\.0e-01 +9\.0e\+00 +cannot tell at \[0, 1\]: a kink", out)
        assert out.splitlines()[-len(lines) :] == lines
        assert ("WRONG" in out) == (wrong in checks)
