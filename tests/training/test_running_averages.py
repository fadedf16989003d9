"""Running averages of batch normalization in a run: saved with each epoch, and gone on with bit for bit."""

import json
from pathlib import Path

import numpy as np
import pytest
from running import held_out, metrics, run

import tinyvae
from tinyvae.training import checkpoint as checkpoints

SMALL = ["--batch-norm", "--hidden", "12", "--latent", "2", "--batch-size", "300", "--no-figures", "--quiet"]
TRAIN = ["train", "--data", "digits", *SMALL, "--epochs", "4", "--backend", "numpy"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("normalized") / "run"
    valid = held_out("digits", folder.parent / "held.npz")
    assert run(*TRAIN, "--valid", valid, "--lr", "0.02", "--out", folder) == 0
    return folder


def test_they_are_saved_with_the_last_and_the_best_epoch(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tinyvae.load(trained)
    assert np.all(model.params["encoder.0.running_var"] != 1)
    assert np.any(model.params["encoder.0.running_mean"] != 0)
    rows = metrics(trained)
    losses = [float(row["valid_loss"]) for row in rows]
    for which, loss in [("last", losses[-1]), ("best", min(losses))]:  # measured with the running averages
        assert run("evaluate", trained, "--checkpoint", which, "--nll-samples", "0", "--json") == 0
        assert json.loads(capsys.readouterr().out)["loss"] == loss


def test_a_run_goes_on_with_them_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    valid = trained.parent / "held.npz"
    assert run(*TRAIN, "--valid", valid, "--lr", "0.02", "--epochs", "2", "--out", parts) == 0
    assert run("train", "--resume", parts, "--epochs", "4", "--no-figures", "--quiet") == 0
    once, again = (checkpoints.read_last(path)[0] for path in (trained, parts))
    assert set(once.params) == set(again.params)
    assert any(".running_" in name for name in once.params)
    for name, p in once.params.items():
        assert p.tobytes() == again.params[name].tobytes(), name
