"""Training from Python: one call, loops of one's own, and what comes of them."""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from trainer_loops import (
    HELD_OUT,
    ROWS,
    SMALL,
    Y_HELD_OUT,
    X,
    Y,
    by_loop,
    by_steps,
    by_train,
    everything,
    falling,
    model,
    quietly,
    without_seconds,
)

from tinyvae.errors import UsageError
from tinyvae.objectives.elbo import ELBO
from tinyvae.training import engine as engines
from tinyvae.training import trainer as trainers
from tinyvae.training.engine import Engine
from tinyvae.training.metrics import Row
from tinyvae.training.result import History, Result
from tinyvae.training.trainer import Trainer, fit

# ---------------------------------------------------------------------------------------------- four ways, one training

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # options of the model, and of the training
    "plain": ({}, {}),
    "held out": ({}, {"valid": 0.2, "patience": 2}),
    "accumulated": ({}, {"accumulate": 3}),
    "clipped": ({}, {"clip_norm": 0.1}),
    "decaying weights": ({}, {"weight_decay": 0.1}),
    "step sizes of a function": ({}, {"lr": falling}),
    "an objective": ({}, {"objective": ELBO(beta=0.5, beta_warmup=2), "valid": HELD_OUT}),
    "labels": ({"classes": 3}, {"y": Y, "valid": (HELD_OUT, Y_HELD_OUT)}),
    "batch norm": ({"batch_norm": True}, {"lr_schedule": "cosine"}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_fit_and_the_loops_are_one_training(variant: str) -> None:
    of_model, of_training = VARIANTS[variant]
    options = {**SMALL, **of_training}
    first, *others = (by(model(**of_model), X, **options) for by in (by_train, by_loop, by_steps))
    for other in others:
        assert everything(other) == everything(first)
    result = quietly(model(**of_model), X, **options)
    assert result.model.params.flat.tobytes() == first.model.params.flat.tobytes()
    assert without_seconds(result.history) == without_seconds(first.history)
    assert result.complete
    assert len(result.history) == 3


def test_the_options_are_heard() -> None:
    plain = quietly(model(), X, **SMALL).model.params.flat
    for name, (of_model, of_training) in VARIANTS.items():
        if name not in ("plain", "held out", "labels", "batch norm"):  # these are other data, or another model
            assert (quietly(model(**of_model), X, **SMALL, **of_training).model.params.flat != plain).any(), name


def test_it_is_what_the_engine_makes_of_the_same_rows() -> None:
    asked = trainers.Training(**SMALL).resolved(ROWS)
    engine = Engine(model(), trainers.Dataset("rows", X), asked, trainers.Reporter(quiet=True))
    engine.run()
    assert engine.model.params.flat.tobytes() == quietly(model(), X, **SMALL).model.params.flat.tobytes()


def test_a_step_says_where_it_is() -> None:
    steps = list(Trainer(model(), X, **SMALL).steps())
    assert [step.epoch for step in steps] == [1] * 4 + [2] * 4 + [3] * 4
    assert [step.row is not None for step in steps] == [False, False, False, True] * 3
    losses = [step.loss for step in steps[:4]]
    row = steps[3].row
    assert row is not None
    assert np.isclose(np.average(losses, weights=[16, 16, 16, 2]), row.train_loss, rtol=1e-12)


def test_the_model_can_be_used_between_two_updates() -> None:
    other = model()
    trainer = Trainer(other, X, **SMALL)
    for step in trainer.steps():
        other.encode(X[: step.updates])
        other.sample(2, 0)
    assert everything(trainer) == everything(by_train(model(), X, **SMALL))


# ----------------------------------------------------------------------------------------------------- what comes of it


def test_the_best_model_is_that_of_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, seen = iter([3.0, 1.0, 2.0]), {}
    monkeypatch.setattr(Engine, "measure", lambda self: engines.Evaluation(next(losses), 1.0, 1.0, 2))
    keep = lambda row, trainer: seen.update({row.epoch: trainer.model.params.flat.copy()})
    result = quietly(model(), X, valid=0.2, callbacks=[keep], **SMALL)
    assert result.best_epoch == 2
    best = result.best_model()
    np.testing.assert_array_equal(best.params.flat, seen[2])
    np.testing.assert_array_equal(result.model.params.flat, seen[3])
    assert best is not result.model
    best.params.flat[...] = 0
    np.testing.assert_array_equal(result.best_model().params.flat, seen[2])


def test_without_held_out_rows_no_epoch_is_the_best() -> None:
    result = quietly(model(), X, **SMALL)
    assert result.best_epoch is None
    with pytest.raises(ValueError, match="hold rows out with valid"):
        result.best_model()


def test_the_history_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    result = quietly(model(), X, valid=0.2, **SMALL)
    rows = result.history
    assert isinstance(rows, History)
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert all(isinstance(row.valid_loss, float) and isinstance(row.active_units, int) for row in rows)
    assert all(row.valid_loss is None and row.active_units is None for row in quietly(model(), X, **SMALL).history)
    made: list[Any] = []
    table = SimpleNamespace(to_html=lambda **more: "<table>")
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda values: made.append(values) or table))
    assert rows.frame() is table
    assert made == [[asdict(row) for row in rows]]
    assert rows._repr_html_() == "<table>"
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        rows.frame()
    assert rows._repr_html_() is None


def test_a_result_says_what_it_is(tmp_path: Path) -> None:
    rows = History([Row(1, 0.0, 3.0, 2.0, 1.0, 2.5, 2.0, 0.5, 2), Row(2, 0.0, 2.0, 2.0, 1.0, 2.25, 2.0, 0.5, 2)])
    result = Result(model(), rows, complete=True, run=Path("runs/a"), best_epoch=2, best_params=None)
    said = "training loss 2.00, validation loss 2.25, best after epoch 2, run runs/a)"
    assert repr(result) == f"Result(2 epochs, {said}"
    assert repr(replace(result, complete=False)) == f"Result(stopped after 2 epochs, {said}"
    assert repr(Result(model(), History(), False, None, None, None)) == "Result(stopped after 0 epochs)"


def test_progress_is_printed_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    fit(model(), X, **SMALL)
    assert len(capsys.readouterr().out.splitlines()) == 2 + 3  # headings, and a line for each epoch
    quietly(model(), X, **SMALL)
    assert capsys.readouterr().out == ""
