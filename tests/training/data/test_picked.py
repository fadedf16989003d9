"""Rows that stay in their file until it is their turn: the same training, bit for bit, as on the array in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import assert_killed, instead
from strategies import SEEDS

import tinyvae
from tinyvae.model.standard import Standard
from tinyvae.training import batches
from tinyvae.training.batches import Batches
from tinyvae.training.data.dataset import Dataset, split
from tinyvae.training.data.picked import Picked, lies_in_a_file, picked

ROWS, DATA = 47, 6


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "IN_MEMORY", 0)


def test_a_small_file_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "IN_MEMORY", ROWS * DATA * 8)
    model = tinyvae.VAE(DATA, (4,), 2, likelihood="gaussian", kernels="numpy")
    with tinyvae.Trainer(model, in_a_file(values("float64"), tmp_path), epochs=1) as trainer:
        assert trainer.engine.train_batches.file is None
        assert not isinstance(trainer.engine.train_batches.data, np.memmap)


def values(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    if kind == "uint8":
        return rng.integers(0, 256, (ROWS, DATA)).astype(np.uint8)
    x = 60 * rng.standard_normal((ROWS, DATA)) + 1e4
    if "gaps" in kind:
        x[rng.random(x.shape) < 0.2] = np.nan
    return x.astype(kind.split()[0])


def in_a_file(x: np.ndarray, folder: Path) -> Any:
    np.save(folder / "x.npy", x)
    found = np.load(folder / "x.npy", mmap_mode="r")
    assert isinstance(found, np.memmap)
    return found


KINDS = ("float64", "float32", "uint8", "float64 gaps", "float32 gaps")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("standardize", ["auto", "off"])
def test_a_training_is_the_same_bit_for_bit(tmp_path: Path, kind: str, standardize: str) -> None:
    x = values(kind)
    if standardize == "off" and kind != "uint8":
        x = (x - 1e4) / 60
    assert_same_training(x, in_a_file(x, tmp_path), "bernoulli" if kind == "uint8" else "gaussian", standardize)


def assert_same_training(x: np.ndarray, lying: Any, likelihood: str, standardize: str = "auto") -> None:
    found = []
    for rows in (x, lying):
        model = tinyvae.VAE(DATA, (4,), 2, likelihood=likelihood, kernels="numpy")
        options: dict[str, Any] = {"epochs": 2, "batch_size": 9, "valid": 0.2, "standardize": standardize}
        with tinyvae.Trainer(model, rows, **options) as trainer:
            trainer.train()
        in_file = trainer.engine.train_batches.file is not None
        assert in_file == (rows is lying)
        assert (model.standard is not None) == (likelihood == "gaussian" and standardize == "auto")
        losses = [(row.train_loss, row.train_nll, row.train_kl, row.valid_loss) for row in trainer.history]
        found.append((losses, model.params.flat.tobytes(), trainer.dataset.digest()))
    assert found[0] == found[1]


@pytest.mark.parametrize("how", ["dynamic", "threshold"])
@pytest.mark.parametrize("gaps", [False, True])
def test_grey_values_become_black_and_white_and_gaps_stay_gaps(tmp_path: Path, how: str, gaps: bool) -> None:
    x = np.random.default_rng(0).random((ROWS, DATA)).astype(np.float32)
    unknown = np.random.default_rng(1).random(x.shape) < (0.2 if gaps else 0)
    x[unknown] = np.nan
    found = []
    for rows in (x, in_a_file(x, tmp_path)):
        model = tinyvae.VAE(DATA, (4,), 2, kernels="numpy")
        with tinyvae.Trainer(model, rows, epochs=2, batch_size=64, binarize=how) as trainer:
            trainer.train()
        batches = trainer.engine.train_batches
        (batch,) = batches.in_order(0)
        assert np.array_equal(np.isnan(batch.x), unknown)
        assert set(np.unique(batch.x[~unknown])) == {0, 1}
        if how == "threshold":
            assert np.array_equal(batch.x == 1, x >= 0.5)
        found.append((model.params.flat.tobytes(), batch.x.tobytes()))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_seen_once_in_an_epoch_and_in_its_own_numbers(tmp_path: Path, kind: str) -> None:
    each_row_once(values(kind), tmp_path)


def each_row_once(x: np.ndarray, folder: Path) -> None:
    model = tinyvae.VAE(DATA, (4,), 2, likelihood="gaussian", dtype="float64", kernels="numpy")
    model.standard = Standard(np.arange(DATA) * 1.0, np.arange(DATA) + 1.0)
    scale = 1 / 255 if x.dtype == np.uint8 else 1.0
    batches = Batches(model, in_a_file(x, folder), scale, 9, dynamic=False)
    want = (x * float(scale) - model.standard.mean) / model.standard.std
    seen = np.concatenate([batch.x.copy() for batch in batches.shuffled(0, 1)])
    assert seen.shape == want.shape
    assert not np.array_equal(seen, want, equal_nan=True)  # in another order
    np.testing.assert_allclose(seen, want[batches.order(0, 1)], rtol=1e-12)
    assert np.array_equal(np.sort(batches.order(0, 1)), np.arange(len(x)))
    lost = np.where(np.isnan(want), 0, np.log(model.standard.std)).sum(axis=1).mean()
    assert batches.offset == pytest.approx(lost, rel=1e-6 if x.dtype == np.float32 else 1e-12)
    assert batches.missing == bool(np.isnan(want).any())


def test_a_wrong_order_dies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrong = lambda self, index: np.asarray(self.source[np.sort(self.rows[index])])
    x = values("float64")
    lying = in_a_file(x, tmp_path)
    killer = lambda: assert_same_training(x, lying, "gaussian")
    assert_killed(monkeypatch, instead(Picked, "__getitem__", wrong), killer)


@given(seed=SEEDS, truths=st.booleans(), again=st.booleans())
def test_some_rows_are_like_an_array_of_their_own(seed: int, truths: bool, again: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.random((12, 3))
    rows = rng.random(12) < 0.6 if truths else rng.permutation(12)[:7]
    found, want = Picked(x, np.arange(12)), x
    for _ in range(2 if again else 1):
        found, want = picked(found, rows[: len(want)] if truths else rows), want[rows[: len(want)] if truths else rows]
        rows = rng.random(len(want)) < 0.6 if truths else rng.permutation(len(want))[:4]
    assert isinstance(found, Picked)
    assert (found.shape, found.dtype, found.ndim, found.size, found.nbytes, len(found)) == (
        want.shape, want.dtype, 2, want.size, want.nbytes, len(want),
    )  # fmt: skip
    for index in (slice(None), slice(1, 3), slice(0, 0)):
        assert np.array_equal(found[index], want[index])
    if len(want):
        some = rng.integers(0, len(want), 5)
        assert np.array_equal(found[some], want[some])


def test_an_array_in_memory_is_taken_at_once() -> None:
    x = np.arange(6.0).reshape(3, 2)
    assert not lies_in_a_file(x)
    assert isinstance(picked(x, np.array([2, 0])), np.ndarray)


def test_a_split_file_is_not_read_until_it_is_asked_for(tmp_path: Path) -> None:
    x = values("float64")
    lying = split("own", in_a_file(x, tmp_path), None, 0.2)
    here = split("own", x, None, 0.2)
    assert all(isinstance(part.x, Picked) for part in lying.with_valid(0.2).parts())
    assert lying.with_valid(0.2).digest() == here.with_valid(0.2).digest()
    assert (lying.range(), lying.is_whole(), lying.is_binary()) == (here.range(), here.is_whole(), here.is_binary())
    assert isinstance(lying, Dataset)
