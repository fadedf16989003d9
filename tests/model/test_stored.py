"""Files that an earlier version wrote load, evaluate and generate; and the net under a rebuilding holds."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import run

import tinyvae
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training.record import read_record

STORED = Path(__file__).parents[1] / "stored"
_spec = importlib.util.spec_from_file_location("stored_make", STORED / "make.py")
assert _spec is not None
assert _spec.loader is not None
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)
EXPECTED = json.loads((STORED / "expected.json").read_text())
ROUNDING = 1e-4  # float32 on another CPU, relative to what is of order 1 or larger


def test_every_stored_file_is_looked_at_and_they_are_small() -> None:
    assert sorted(EXPECTED) == sorted([*make.MODELS, *(f"run-{name}" for name in make.RUNS)])
    assert sum(path.stat().st_size for path in STORED.rglob("*") if path.is_file() and path.suffix != ".pyc") < 50_000


@pytest.mark.parametrize("name", make.MODELS)
def test_a_stored_model_says_what_it_said(name: str) -> None:
    found = make.said_of_model(tinyvae.load(STORED / f"{name}.safetensors"))
    for key, numbers in EXPECTED[name].items():
        np.testing.assert_allclose(found[key], numbers, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("name", make.RUNS)
def test_a_stored_run_evaluates_and_generates(name: str, tmp_path: Path) -> None:
    shutil.copytree(STORED / f"run-{name}", tmp_path / "run")
    found = make.said_of_run(tmp_path / "run")
    assert found == pytest.approx(EXPECTED[f"run-{name}"], rel=ROUNDING)
    assert run("evaluate", tmp_path / "run", "--checkpoint", "best", "--nll-samples", "0", "--json") == 0
    assert run("generate", tmp_path / "run", "--n", "3", "--out", tmp_path / "a.npy") == 0
    assert np.load(tmp_path / "a.npy").shape == (3, 64)


@pytest.mark.parametrize("name", make.MODELS)
def test_a_stored_model_saved_anew_says_the_same_in_todays_words(name: str, tmp_path: Path) -> None:
    model = tinyvae.load(STORED / f"{name}.safetensors")
    tinyvae.save(model, tmp_path / "new.safetensors")
    again = tinyvae.load(tmp_path / "new.safetensors")
    assert again.architecture == model.architecture
    assert again.params.flat.tobytes() == model.params.flat.tobytes()
    assert checkpoints.read_checkpoint(STORED / f"{name}.safetensors").format == "tinyvae 1"
    assert checkpoints.read_checkpoint(tmp_path / "new.safetensors").format == checkpoints.FORMAT


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("name", make.RUNS)
@pytest.mark.parametrize("more", [[], ["--epochs", "9"]], ids=["as it is", "to more epochs"])
def test_a_stored_run_is_not_gone_on_with_and_nothing_is_touched(
    name: str, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(STORED / f"run-{name}", folder)
    unfinished = folder / "checkpoints" / ".0123456789abcdef.tmp"  # a run that is gone on with is put in order
    unfinished.write_text("half")
    before = everything(folder)
    assert run("train", "--resume", folder, *more) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "was trained by an earlier version (tinyvae 1): its model can be loaded, evaluated and used" in err
    assert "begin a new one" in err
    assert everything(folder) == before


@pytest.mark.parametrize("name", make.RUNS)
def test_a_stored_runs_options_are_todays(name: str) -> None:
    """Beta, K and sigma, which stood beside their part."""
    config = read_record(checkpoints.read_last(STORED / f"run-{name}")[0]).config
    expected = {
        "grey": ("bernoulli", "elbo"), "iwae": ("bernoulli", "iwae:draws=2"), "conditional": ("gaussian", "elbo"),
    }[name]  # fmt: skip
    assert (config.likelihood, config.objective) == expected
    config.check_resolved()
