"""Where the tests of commands run, and what they run on."""

from pathlib import Path

import pytest
from running import TINY, held_out, run, small_digits
from variants import train_variants


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own to run in, with own.npz."""
    monkeypatch.chdir(tmp_path)
    small_digits(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each of the variants, by name, of one epoch."""
    folder = tmp_path_factory.mktemp("variants")
    train_variants(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose latent space is in use, and whose last epoch is not its best one: the test rows are held out."""
    folder = tmp_path_factory.mktemp("trained")
    data = small_digits(folder)
    longer = ["--hidden", "64", "--activation", "tanh", "--epochs", "60", "--lr", "0.01", "--batch-size", "9"]
    valid = held_out(data, folder / "held.npz")
    assert run("train", "--data", data, "--valid", valid, *TINY, *longer, "--out", folder / "run") == 0
    return folder / "run"
