"""`tinyvae export`: two files that give the run's numbers in ONNX Runtime; both or neither; one line where it fails."""

import errno
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from export.onnx_runs import run as in_onnx
from own_parts import write_mine
from running import BASE, TINY, run, small_digits

import tinyvae
from tinyvae.training import files

KINDS = {
    "plain": [*BASE, "--activation", "tanh"],
    "conditional": [*BASE, "--conditional", "--conv", "2", "--batch-norm", "--dtype", "float32"],
    "standardized": [*BASE, "--dtype", "float32", "--likelihood", "gaussian", "--standardize", "on"],
    "wide": [*BASE, "--dtype", "float64", "--likelihood", "gaussian"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    data = small_digits(folder)
    for name, options in KINDS.items():
        assert run("train", "--data", data, *options[2:], "--out", folder / name) == 0
    return folder


@pytest.mark.parametrize("which", ["last", "best"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_the_run(
    kind: str, which: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "deep" / "exported"
    assert run("export", runs / kind, "--onnx", folder, "--checkpoint", which) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(folder / f"{half}.onnx") for half in ("encoder", "decoder")]
    assert err == ""
    assert sorted(p.name for p in folder.iterdir()) == ["decoder.onnx", "encoder.onnx"]
    halves = {half: onnx.load(folder / f"{half}.onnx") for half in ("encoder", "decoder")}
    for half in halves.values():
        onnx.checker.check_model(half, full_check=True)
        said = {p.key: p.value for p in half.metadata_props}
        assert said["image_shape"] == "8x8"
        assert said["checkpoint"] == which
    model = tinyvae.load(runs / kind)
    if which == "best":
        model = tinyvae.load(next((runs / kind / "checkpoints").glob("best-*")))
    x = np.load(runs / "own.npz")["x"].reshape(60, 64)
    x = x.astype(model.dtype if model.standard is None else np.float64)
    assert model.standard is not None or kind != "standardized"
    y = np.load(runs / "own.npz")["y"].astype(np.int64) if model.classes else None
    given = {} if y is None else {"y": y}
    mu, logvar = model.encode(x, y)
    found = in_onnx(halves["encoder"], x=x, **given)
    expected = {"mu": mu, "logvar": logvar, "mean": model.decode(mu, y)}
    found |= in_onnx(halves["decoder"], z=np.ascontiguousarray(mu), **given)
    for name, a in expected.items():  # that these are close is for the tests of models
        np.testing.assert_allclose(found[name], a, atol=1e-4 if model.dtype == np.float32 else 1e-10, err_msg=name)


def test_a_likelihood_of_the_user_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = write_mine(tmp_path)
    data = small_digits(tmp_path)
    assert run("train", "--data", data, *TINY, "--likelihood", f"{mine}:Mine", "--out", "run") == 0
    monkeypatch.setattr("tinyvae.parts._TYPED", [])
    assert run("export", "run", "--onnx", "exported") == 1
    assert not Path("exported").exists()
    assert run("export", "run", "--onnx", "exported", "--own", f"{mine}:Mine") == 0
    assert len(list(Path("exported").iterdir())) == 2


def test_without_onnx_a_line_says_what_to_install(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "tinyvae.export.file", raising=False)
    assert run("export", runs / "plain", "--onnx", tmp_path / "new") == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("tinyvae export: ONNX files need the package onnx: python -m pip install 'tinyvae[onnx]'")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("at", range(4))
def test_a_disk_that_fails_leaves_what_there_was_or_both_new_files(
    call: str, at: int, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another run's two files, each call fails once. Only between the two names can one be new and one be old, and
    their metadata then says so."""
    folder = tmp_path / "exported"
    assert run("export", runs / "wide", "--onnx", folder) == 0
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    right, calls = getattr(os, call), []

    def failing(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == at + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return right(*args, **options)

    monkeypatch.setattr(files.os, call, failing)
    code = run("export", runs / "plain", "--onnx", folder)
    monkeypatch.undo()
    err = capsys.readouterr().err
    after = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert set(after) == set(before), "a temporary file is left"
    if len(calls) <= at:
        assert code == 0
        return
    assert code == 1
    assert re.fullmatch(
        r"tinyvae export: .*cannot be written \(No space left on device\); choose another --onnx\n", err
    )
    new = {name for name in after if after[name] != before[name]}
    assert new in (set(), {"decoder.onnx"}, set(after))
    if new == {"decoder.onnx"}:
        metadata = [onnx.load(folder / f"{half}.onnx").metadata_props for half in ("encoder", "decoder")]
        assert len({p.value for of in metadata for p in of if p.key == "parameters"}) == 2


@pytest.mark.parametrize("at", [1, 2])
def test_a_disk_that_fails_at_once_leaves_no_folder(
    at: int, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the one file has its name and the other does not get it."""
    right, calls = os.replace, []

    def failing(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return right(*args, **options)

    monkeypatch.setattr(files.os, "replace", failing)
    assert run("export", runs / "plain", "--onnx", tmp_path / "a" / "b") == 1
    assert list(tmp_path.iterdir()) == []
