"""A likelihood and an objective of a user's own from the command line: typed, stored by name, typed again."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_parts import runs_of, write_mine
from running import held_out, metrics, roundings_of_means, run
from safetensors.numpy import load_file

import tinyvae
from tinyvae import parts
from tinyvae.errors import CheckpointError
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training.config import Config
from tinyvae.training.run import Run

MODEL = ["--valid", "held.npz", "--hidden", "4", "--latent", "2", "--backend", "numpy", "--no-figures", "--quiet"]
TYPED = ["--likelihood", "./mine.py:Mine:weight=2", "--objective", "./mine.py:Heavy:free_bits=0.01"]
OWN = ["--own", "./mine.py:Mine", "--own", "mine.py:Heavy"]


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if nothing had been typed."""
    monkeypatch.setattr(parts, "_TYPED", [])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.endswith(".py"):
            del sys.modules[name]


def forget() -> None:
    """Of what was typed, this process knows nothing any more: as in the next command."""
    parts._TYPED.clear()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, mine.py, and a run that uses both of its classes."""
    folder = tmp_path_factory.mktemp("own")
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32))
    write_mine(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_TYPED", [])
        patch.chdir(folder)
        held_out("x.npy", Path("held.npz"))
        assert run("train", "--data", "x.npy", *MODEL, *TYPED, "--epochs", "2", "--out", "run") == 0
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to run in, where mine.py has not been run yet."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "runs of this file").unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], code: int, *argv: str) -> str:
    """The one line that a command answers."""
    capsys.readouterr()
    assert run(*argv) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    return err


def test_it_trains_by_them_and_stores_their_names(here: Path) -> None:
    config = json.loads((here / "run" / "config.json").read_text())
    assert config["likelihood"] == "Mine:weight=2.0"
    assert config["objective"] == "Heavy:free_bits=0.01"
    row = {name: float(number) for name, number in metrics(here / "run")[-1].items()}
    bound = row["valid_nll"] + 2 * row["valid_kl"]  # measured, so without free bits
    assert abs(row["valid_loss"] - bound) <= roundings_of_means(4) * row["valid_loss"] < row["valid_kl"]


def test_the_run_is_looked_at_where_the_classes_are_typed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "run", *OWN, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    row = metrics(here / "run")[-1]
    assert {name: found[name] for name in ("loss", "nll", "kl")} == {
        name: float(row[f"valid_{name}"]) for name in ("loss", "nll", "kl")
    }
    for line in (["generate", "run", "--n", "3", "--draw"], ["generate", "run", "--checkpoint", "best"]):
        forget()
        assert run(*line, *OWN, "--out", "a.npy") == 0
    forget()
    assert run("embed", "run", "x.npy", *OWN, "--out", "z.npz") == 0


@pytest.mark.parametrize("command", ["evaluate run", "generate run --out a.npy", "embed run x.npy --out z.npz"])
def test_without_them_one_line_says_what_to_type_and_nothing_is_run(
    command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(capsys, 1, *command.split())
    assert "is made with the likelihood 'Mine', which is not the package's own; name the file of its class" in err
    assert "--own FILE.py:CLASS" in err
    err = refused(capsys, 1, *command.split(), "--own", "mine.py:Mine")
    assert "is made with the objective 'Heavy', which is not the package's own; name the file of its class" in err
    assert runs_of(here) == 1  # where it was typed
    assert sorted(p.name for p in here.iterdir()) == ["held.npz", "mine.py", "run", "runs of this file", "x.npy"]


def test_no_checkpoint_is_passed_over_for_want_of_a_class(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not damaged: no older one serves in its place, and none is deleted."""
    steps = checkpoints.saved_steps(here / "run")
    assert len(steps) == 2
    err = refused(capsys, 1, "train", "--resume", "run", "--epochs", "5")
    assert str(steps[-1].relative_to(here)) in err
    assert "damaged" not in err
    assert checkpoints.saved_steps(here / "run") == steps
    with pytest.raises(CheckpointError, match="is made with the likelihood 'Mine'"):
        Run.reopen(here / "run")


def test_it_is_gone_on_with_where_they_are_typed_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give it once more: --likelihood FILE.py:CLASS" in refused(capsys, 1, "train", "--resume", "run")
    err = refused(capsys, 1, "train", "--resume", "run", "--likelihood", "mine.py:Mine:weight=2")
    assert "give it once more: --objective FILE.py:CLASS" in err
    other = ["--likelihood", "mine.py:Mine:weight=3", *TYPED[2:]]
    err = refused(capsys, 2, "train", "--resume", "run", "--epochs", "4", *other)
    assert "--likelihood is Mine:weight=2.0 in the run, not Mine:weight=3" in err
    forget()
    assert run("train", "--resume", "run", "--epochs", "4", "--no-figures", "--quiet", *TYPED) == 0
    forget()
    whole = ["train", "--data", "x.npy", *MODEL, *TYPED, "--epochs", "4", "--out", "whole"]
    assert run(*whole) == 0
    forget()
    once, again = (load_file(checkpoints.step_path(here / name, 4)) for name in ("whole", "run"))
    assert once.keys() == again.keys()
    assert all(once[name].tobytes() == again[name].tobytes() for name in once)


def test_a_part_of_the_same_name_that_is_another_is_another_model(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its options are not those that were stored."""
    path = here / "mine.py"
    path.write_text(path.read_text().replace("weight", "share"))
    assert "Mine has the options share, not 'weight=2.0'" in refused(capsys, 1, "evaluate", "run", *OWN)


WRONG = {
    "--likelihood none.py:Mine": "--likelihood none.py:Mine: there is no such file none.py",
    "--objective mine.py:Mine": "--objective mine.py: has no class Mine of the kind Objective",
    "--likelihood mine.py:Heavy": "--likelihood mine.py: has no class Heavy of the kind Likelihood",
    "--likelihood mine.py:Nothing": "--likelihood mine.py: has no class Nothing of the kind Likelihood",
    "--likelihood mine.py:Mine:sigma=1": "Mine has the options weight, not 'sigma=1'",
    "--likelihood mine.py:Mine:weight=x": "Mine:weight must be a number, not 'x'",
    "--objective mine.py:Heavy --beta -1": "--beta must be at least 0",
    "--objective mine.py:Heavy --importance 0": "--importance must be at least 1",
    "--likelihood mine.py:Mine --sigma learned": "--sigma is no option of Mine, but of --likelihood gaussian",
    "--likelihood bad.py:Mine": "--likelihood bad.py: cannot be run (ZeroDivisionError: division by zero)",
    "--likelihood exit.py:Mine": "--likelihood exit.py: cannot be run (SystemExit: 0)",
    "--likelihood Mine": "--likelihood must be one of bernoulli, ",
}


@pytest.mark.parametrize("options", WRONG)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    options: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "bad.py").write_text("1 / 0\n")
    (here / "exit.py").write_text("raise SystemExit(0)\n")
    err = refused(capsys, 2, "train", "--data", "x.npy", *MODEL, *options.split(), "--out", "new")
    assert WRONG[options] in err
    assert not (here / "new").exists()


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("none.py:Mine", "--own none.py:Mine: there is no such file none.py"),
        ("mine.py", "--own mine.py: names no class in a file: write FILE.py:CLASS"),
        ("mine.py:Nothing", "--own mine.py: has no class Nothing of the kind Likelihood or Objective"),
        ("bad.py:Mine", "--own bad.py: cannot be run (ZeroDivisionError: division by zero)"),
    ],
)
def test_so_it_is_with_what_is_looked_at(own: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bad.py").write_text("1 / 0\n")
    assert said in refused(capsys, 2, "evaluate", "run", "--own", own)


def test_in_python_its_class_is_handed_over(here: Path) -> None:
    with pytest.raises(CheckpointError, match=r"hand its class over: load\(path, known=\[Mine\]\)"):
        tinyvae.load(here / "run")
    assert runs_of(here) == 0
    parts.typed("mine.py:Mine", Likelihood)
    (mine,) = parts._TYPED
    forget()
    model = tinyvae.load(here / "run", known=[mine])
    assert type(model.likelihood) is mine
    assert model.likelihood.fixed() == {"weight": 2.0}


def test_a_path_in_a_file_is_never_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever writes a checkpoint can write "./mine.py:Mine" into it."""
    from hostile import changed, describe, rewrite

    for where in (("run", "config", "objective"), ("architecture", "likelihood"), ("run", "config", "likelihood")):
        victim = here / f"victim-{where[-1]}-{where[0]}"
        shutil.copytree(here / "run", victim)
        for path in checkpoints.saved_steps(victim):
            about = changed(describe(path), ("run", "config", "objective"), "elbo")
            about = changed(changed(about, ("architecture", "likelihood"), "gaussian"), where, "./mine.py:Mine")
            rewrite(path, about)
        for command in (["evaluate", victim.name], ["train", "--resume", victim.name, "--epochs", "5"]):
            assert ".py" in refused(capsys, 1, *command)
        with pytest.raises(CheckpointError):
            tinyvae.load(victim, known=[dict])
    with pytest.raises(ValueError, match=r"--objective must be one of .* not './mine.py'"):
        Config(objective="./mine.py:Heavy")
    assert runs_of(here) == 0


def test_a_reader_that_ran_files_would_be_seen(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: whatever names a class in a file is run, whoever wrote it."""
    truth = parts.part

    def obliging(folder: Any, base: type, text: str, *rest: Any) -> Any:
        return truth(folder, base, parts.typed(text, base) if parts.is_typed(text) else text, *rest)

    monkeypatch.setattr(parts, "part", obliging)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_a_path_in_a_file_is_never_run(here, capsys)
    assert runs_of(here) > 0
