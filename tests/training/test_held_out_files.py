"""`--valid FILE`: rows held out in a file of their own, which need not be stored as the training rows are."""

from pathlib import Path

import numpy as np
import pytest
from running import metrics, run

from tinyvae.errors import DataError
from tinyvae.training.config import Config
from tinyvae.training.run import load_data

BYTES = np.random.default_rng(0).integers(0, 256, (60, 6), dtype=np.uint8)
STORED = {  # the same rows, three times
    "bytes": BYTES[:20],
    "float32": (BYTES[:20] / 255).astype(np.float32),
    "float64": BYTES[:20] / 255,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", x=BYTES[20:])


@pytest.mark.parametrize("kind", STORED)
def test_bytes_are_held_out_of_bytes_as_they_are_and_pixels_as_the_bytes_that_they_were(kind: str) -> None:
    np.save("valid.npy", STORED[kind])
    dataset = load_data(Config(data="x.npz", valid="valid.npy"))
    assert dataset.scale == 1 / 255
    assert dataset.x_valid.dtype == np.uint8
    assert np.array_equal(dataset.x_valid, BYTES[:20])


def test_a_run_on_bytes_hears_of_both_alike() -> None:
    losses = []
    for kind in ("bytes", "float64"):
        np.save("valid.npy", STORED[kind])
        small = ("--hidden", "4", "--latent", "2", "--epochs", "2", "--backend", "numpy", "--no-figures", "--quiet")
        assert run("train", "--data", "x.npz", "--valid", "valid.npy", *small, "--out", kind) == 0
        losses.append([row["valid_loss"] for row in metrics(Path(kind))])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("wrong", [0.4, -1.0, 256.0, np.nan], ids=["between two", "below", "above", "NaN"])
def test_what_is_no_byte_is_refused_beside_bytes(wrong: float) -> None:
    x = BYTES[:20] / 255
    x[3, 2] = wrong / 255
    np.save("valid.npy", x)
    with pytest.raises(DataError, match=r"valid\.npy: holds other numbers than bytes, of which x is made"):
        load_data(Config(data="x.npz", valid="valid.npy"))
