"""The directory of a training from Python: one owner, nothing left behind."""

import gc
from pathlib import Path
from typing import Any

import pytest
from trainer_loops import SMALL, X, model, quietly

from tinyvae.errors import TinyvaeError, UsageError
from tinyvae.training.lock import Lock
from tinyvae.training.trainer import Trainer


def test_two_trainers_in_one_directory_are_refused(tmp_path: Path) -> None:
    first = Trainer(model(), X, run=tmp_path / "run", **SMALL)
    again: tuple[dict[str, Any], ...] = ({"run": tmp_path / "run", **SMALL}, {"resume": tmp_path / "run"})
    for more in again:
        with pytest.raises(TinyvaeError, match="is in use by another run"):
            Trainer(model(), X, **more)
    first.train()
    with pytest.raises(TinyvaeError, match="is in use by another run"):
        Trainer(model(), X, resume=tmp_path / "run")
    first.close()
    Trainer(model(), X, resume=tmp_path / "run").close()


def test_a_directory_is_free_when_its_trainer_is_gone(tmp_path: Path) -> None:
    for _ in Trainer(model(), X, run=tmp_path / "run", **SMALL):
        break
    Trainer(model(), X, resume=tmp_path / "run").train()
    trainer = Trainer(model(), X, resume=tmp_path / "run")
    del trainer
    gc.collect()
    quietly(model(), X, resume=tmp_path / "run")
    quietly(model(), X, resume=tmp_path / "run")


def test_a_lock_that_outlives_its_trainer_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lock, "__del__", lambda self: None)
    with pytest.raises(TinyvaeError, match="is in use by another run"):
        test_a_directory_is_free_when_its_trainer_is_gone(tmp_path)


def test_a_closed_trainer_writes_nothing_more(tmp_path: Path) -> None:
    trainer = Trainer(model(), X, run=tmp_path / "run", **SMALL)
    rows = iter(trainer)
    next(rows)
    trainer.close()
    before = sorted((tmp_path / "run").rglob("*"))
    assert list(rows) == []
    with pytest.raises(UsageError, match="is closed: nothing more is saved"):
        trainer.save()
    with pytest.raises(UsageError, match="is closed: go on with it by resume"):
        trainer.train()
    assert sorted((tmp_path / "run").rglob("*")) == before
    trainer.close()


@pytest.mark.parametrize("wrong", [{"callbacks": print}, {"objective": "iwae:estimator=dreg"}])
def test_what_cannot_begin_leaves_no_directory(tmp_path: Path, wrong: dict[str, Any]) -> None:
    more: dict[str, Any] = {"run": tmp_path / "run", **SMALL, **wrong}
    with pytest.raises((TypeError, ValueError)):
        Trainer(model(batch_norm=True), X, **more)
    assert not (tmp_path / "run").exists()


def test_without_a_directory_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quietly(model(), X, valid=0.2, **SMALL)
    assert list(tmp_path.iterdir()) == []
