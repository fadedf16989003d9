"""Files that an earlier version wrote load, evaluate and generate; and the net under a rebuilding holds."""

import importlib.util
import json
import shutil
from pathlib import Path

import net
import numpy as np
import pytest
from test_commands import run

import tinyvae

STORED = Path(__file__).parent / "stored"
_spec = importlib.util.spec_from_file_location("stored_make", STORED / "make.py")
assert _spec is not None
assert _spec.loader is not None
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)
EXPECTED = json.loads((STORED / "expected.json").read_text())
ROUNDING = 1e-4  # float32 on another CPU, relative to what is of order 1 or larger


def test_every_stored_file_is_looked_at_and_they_are_small() -> None:
    assert sorted(EXPECTED) == sorted([*make.MODELS, *(f"run-{name}" for name in make.RUNS)])
    assert sum(path.stat().st_size for path in STORED.rglob("*") if path.is_file()) < 50_000


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


# ------------------------------------------------------------------------------------------------------------- the net


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    kept = ("dense", "batch norm", "iwae 5, deep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(net, "MODELS", {name: net.MODELS[name] for name in kept})
        return dict(net.numbers(kernels=("numpy",)))


def test_the_net_is_of_twenty_models_and_holds_still(stored: dict[str, np.ndarray]) -> None:
    assert len(net.MODELS) >= 20
    assert net.compare(stored, {name: a.copy() for name, a in stored.items()}) == []


@pytest.mark.parametrize("part", ["dense | float32 | numpy", "dense | float64 | numpy", "batch norm | float32 | numpy"])
def test_the_net_sees_a_gradient_that_changed_a_little(stored: dict[str, np.ndarray], part: str) -> None:
    name = f"{part} | encoder.0.weight"
    changed = stored[name].copy()
    i = np.unravel_index(abs(changed).argmax(), changed.shape)
    changed[i] = np.nextafter(changed[i], np.inf) if net.must_be_equal(name) else changed[i] * (1 + 2e-5)
    (line,) = net.compare(stored, {**stored, name: changed})
    assert line.startswith(name)


def test_the_net_sees_what_is_gone_and_what_is_new(stored: dict[str, np.ndarray]) -> None:
    name = next(iter(stored))
    rest = {key: a for key, a in stored.items() if key != name}
    assert net.compare(stored, rest) == [f"{name}: is not there any more"]
    assert net.compare(rest, stored) == [f"{name}: was not there before"]
