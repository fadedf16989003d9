"""The command line as a user has it: what is printed, what is written, and that every option does something."""

import json
import re
from pathlib import Path

import pytest
from running import BASE, TINY, metrics, roundings_of_means, run, small_digits, without_time
from strategies import EVERY_FUSED

import tinyvae
from tinyvae import backend
from tinyvae.commands import train
from tinyvae.likelihoods import likelihood
from tinyvae.objectives import objective
from tinyvae.training.config import SPELLINGS
from tinyvae.training.metrics import Row


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
        loss, nll, kl = (float(row[f"valid_{name}"]) for name in ("loss", "nll", "kl"))
        allowed = roundings_of_means(5) * loss
        assert abs(loss - (nll + 0.5 * kl)) <= allowed < kl / 20  # or this would show nothing


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


CHANGES = {  # every one of these trains another model; after the bar, what it takes besides
    "--activation": "tanh", "--tied": "", "--hidden": "5 4", "--decoder-hidden": "4 3", "--latent": "3",
    "--likelihood": "gaussian", "--sigma": "fixed:0.5 | --likelihood gaussian", "--binarize": "dynamic",
    "--beta": "2", "--beta-warmup": "2", "--free-bits": "0.5", "--epochs": "2", "--batch-size": "7",
    "--lr": "0.01", "--lr-schedule": "cosine", "--clip-norm": "0.1", "--accumulate": "2 | --batch-size 30",
    "--seed": "1", "--dtype": "float64", "--data": "two-gaussians:20",
    "--conv": "2", "--batch-norm": "", "--conditional": "", "--leave-out": "1", "--objective": "iwae",
    "--importance": "2 | --objective iwae", "--valid": "0.2", "--weight-decay": "0.1",
    "--standardize": "on | --likelihood gaussian",
}  # fmt: skip
SAME = {  # and these the same one
    "--data-dir": "nowhere", "--patience": "3", "--backend": "numpy", "--kernels": EVERY_FUSED[0], "--device": "0",
    "--checkpoint-every": "2", "--no-figures": "", "--quiet": "", "--keep-blas": "",
}  # fmt: skip
ELSEWHERE = {
    "--out",
    "--resume",
    "--help",
    "--tf32",
    "--label",
    "--kinds",
}  # tested by name below and above; --tf32 with the GPU's tests


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
    if name in SPELLINGS:  # stored once, as an option of its part
        kind, option = SPELLINGS[name]
        part = {"likelihood": likelihood, "objective": objective}[kind](config[kind])
        asked = getattr(part, option)
        assert (config[name], asked) == (None, type(asked)(values.strip()))
    elif name not in train.NOT_STORED:
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


def test_patience_stops_when_the_validation_loss_gets_no_better(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [a for a in BASE if a != "--quiet"]  # steps of 1e-30 change no float32 weight, so no epoch beats the first
    assert run("train", *argv, "--epochs", "50", "--lr", "1e-30", "--patience", "2", "--out", "run") == 0
    assert len(metrics(here / "run")) == 3
    out = capsys.readouterr().out
    assert "stopped after epoch 3: no better validation loss for 2 epochs" in out
    assert re.search(r"best validation loss \d+\.\d\d after epoch 1", out)


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
