"""What ends a training from Python before its time: Ctrl-C, exceptions, numbers that run away, a second loop."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from planted import assert_killed, instead
from trainer_loops import SMALL, X, by_train, everything, model, quietly

from tinyvae.errors import NonFiniteError, UsageError
from tinyvae.training import trainer as trainers
from tinyvae.training.checkpoint import saved_steps
from tinyvae.training.engine import Engine
from tinyvae.training.metrics import FILE, Row
from tinyvae.training.trainer import Trainer

# --------------------------------------------------------------------------------------------------------------- Ctrl-C


def interrupt(times: int = 1) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_from_a_callback_returns_the_result_so_far(tmp_path: Path) -> None:
    hears = lambda row, trainer: interrupt() if row.epoch == 2 else None
    result = quietly(model(), X, run=tmp_path / "run", callbacks=[hears], **SMALL)
    assert not result.complete
    assert len(result.history) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = Trainer(model(), X, resume=tmp_path / "run")
    resumed.train()
    assert everything(resumed) == everything(by_train(model(), X, **SMALL))


def in_update(number: int, act: Callable[[], object]) -> Callable[..., Any]:
    """Engine._update, which acts in the middle of the update of this number."""
    truth, calls = Engine._update, iter(range(1, 10_000))

    def update(self: Engine, *args: Any) -> None:
        if next(calls) == number:
            act()
        truth(self, *args)

    return update


@pytest.mark.parametrize("way", ["fit", "loop", "steps", "train"])
@pytest.mark.parametrize("number", [6, 8])  # within an epoch, and its last
def test_ctrl_c_waits_for_the_whole_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, number: int
) -> None:
    never_left = by_train(model(), X, valid=0.2, **SMALL)
    more: dict[str, Any] = {"valid": 0.2, "run": tmp_path / "run", **SMALL}
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_update", in_update(number, interrupt))
        if way == "fit":
            assert not quietly(model(), X, **more).complete
        else:
            trainer = Trainer(model(), X, **more)
            with pytest.raises(KeyboardInterrupt):
                {"loop": lambda: list(trainer), "steps": lambda: list(trainer.steps()), "train": trainer.train}[way]()
            assert trainer.state.updates == number
            trainer.close()
    resumed = Trainer(model(), X, valid=0.2, resume=tmp_path / "run")
    assert resumed.state.updates == number
    resumed.train()
    assert everything(resumed) == everything(never_left)


def test_a_second_ctrl_c_is_raised_and_the_broken_update_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_update", in_update(6, lambda: interrupt(2)))
        with pytest.raises(KeyboardInterrupt):
            quietly(model(), X, run=tmp_path / "run", **SMALL)
    assert [file.stem for file in saved_steps(tmp_path / "run")] == ["step-000000004"]
    resumed = Trainer(model(), X, resume=tmp_path / "run")
    resumed.train()
    assert everything(resumed) == everything(by_train(model(), X, **SMALL))


def test_ctrl_c_from_a_timer_ends_a_long_training() -> None:
    timer = threading.Timer(0.1, interrupt)
    timer.start()
    result = quietly(model(), X, epochs=10**6, batch_size=50)
    timer.join()
    assert not result.complete
    assert result.history


def test_in_another_thread_nothing_is_changed() -> None:
    found: list[Any] = []
    handlers: list[Any] = []
    note = lambda row, trainer: handlers.append(signal.getsignal(signal.SIGINT))

    def work() -> None:
        found.append(quietly(model(), X, callbacks=[note], **SMALL))
        found.extend(Trainer(model(), X, callbacks=[note], **SMALL))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0].complete
    assert len(found) == 4
    assert set(handlers) == {signal.default_int_handler}


# -------------------------------------------------------------------------------------------- what goes wrong in a loop


@pytest.mark.parametrize("where", ["body", "callback", "held body"])
def test_an_exception_of_the_callers_loses_no_epoch(tmp_path: Path, where: str) -> None:
    def fails(row: Row, trainer: Trainer) -> None:
        if row.epoch == 2:
            raise KeyError("mine")

    callbacks = [fails] if where == "callback" else []
    more: dict[str, Any] = {**SMALL, "checkpoint_every": 50, "run": tmp_path / "run", "callbacks": callbacks}

    def loops() -> None:
        with Trainer(model(), X, **more) as trainer:
            held = iter(trainer)
            for row in held if where == "held body" else trainer:
                if where != "callback":
                    fails(row, trainer)

    with pytest.raises(KeyError, match="mine"):
        loops()
    resumed = Trainer(model(), X, resume=tmp_path / "run")
    assert resumed.state.epoch == 2
    resumed.train()
    assert everything(resumed) == everything(by_train(model(), X, **SMALL))


def test_nothing_goes_on_after_an_update_that_was_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise MemoryError

    trainer = Trainer(model(), X, run=tmp_path / "run", **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_update", in_update(6, fails))
        with pytest.raises(MemoryError):
            trainer.train()
    for act in (trainer.train, trainer.save, lambda: list(trainer), lambda: next(trainer.steps())):
        with pytest.raises(UsageError, match="broken off in the middle"):
            act()
    trainer.close()
    assert [file.stem for file in saved_steps(tmp_path / "run")] == ["step-000000004"]


def test_numbers_that_run_away_end_in_one_error_and_keep_the_table(tmp_path: Path) -> None:
    trainer = Trainer(model(), X, run=tmp_path / "run", lr=lambda epochs: 1e-3 if epochs < 2 else 1e30, **SMALL)
    with pytest.raises(NonFiniteError):
        trainer.train()
    with pytest.raises(UsageError):
        trainer.save()
    assert len((tmp_path / "run" / FILE).read_text().splitlines()) == 1 + 2
    assert [file.stem for file in saved_steps(tmp_path / "run")][-1] == "step-000000008"


@pytest.mark.parametrize("said", [float("nan"), -1.0, float("inf")])
def test_a_function_that_says_no_step_size_is_named(said: float) -> None:
    with pytest.raises(UsageError, match=r"lr says .* after 0\.25 epochs: it must be at least 0"):
        quietly(model(), X, lr=lambda epochs: said if epochs else 0.1, **SMALL)


def test_a_second_loop_ends_the_first() -> None:
    trainer = Trainer(model(), X, **SMALL)
    first = trainer.steps()
    next(first)
    assert len(list(trainer)) == 3
    assert list(first) == []
    assert list(trainer) == []
    assert everything(trainer) == everything(by_train(model(), X, **SMALL))
    trainer = Trainer(model(), X, **SMALL)
    first, second = iter(trainer), iter(trainer)
    assert list(first) == []
    assert [row.epoch for row in second] == [1, 2, 3]


def test_two_loops_at_once_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, instead(Trainer, "_leave", lambda self: None), test_a_second_loop_ends_the_first)


def test_a_stopped_trainer_makes_no_more_updates() -> None:
    trainer = Trainer(model(), X, **SMALL)
    for step in trainer.steps():
        if step.updates == 3:
            trainer.stop()
    before = everything(trainer)
    assert trainer.state.updates == 3
    assert trainer.finished()
    assert list(trainer.steps()) == list(trainer) == []
    assert trainer.train()
    assert everything(trainer) == before
    assert not trainer.result().complete


def test_a_callback_begins_no_other_training() -> None:
    for act in (lambda trainer: trainer.train(), lambda trainer: trainer.close()):
        with pytest.raises(UsageError, match=r"by trainer\.stop\(\)"):
            quietly(model(), X, callbacks=[lambda row, trainer, act=act: act(trainer)], **SMALL)


def test_what_a_caller_has_asked_of_numpy_is_what_callbacks_and_bodies_see() -> None:
    theirs: dict[str, Any] = {"divide": "raise", "over": "warn", "under": "raise", "invalid": "print"}
    seen: list[Any] = []
    note = lambda row, trainer: seen.append(np.geterr())
    with np.errstate(**theirs):
        quietly(model(), X, callbacks=[note], **SMALL)
        for _ in Trainer(model(), X, callbacks=[note], **SMALL):
            seen.append(np.geterr())
        for _ in Trainer(model(), X, callbacks=[note], **SMALL).steps():
            seen.append(np.geterr())
        seen.append(np.geterr())
    assert len(seen) == 3 + 6 + 3 + 12 + 1
    assert all(settings == theirs for settings in seen)


def test_silencing_the_callers_part_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = trainers.np.geterr
    plant = instead(
        trainers, "np", SimpleNamespace(geterr=lambda: dict.fromkeys(truth(), "ignore"), errstate=np.errstate)
    )
    assert_killed(monkeypatch, plant, test_what_a_caller_has_asked_of_numpy_is_what_callbacks_and_bodies_see)
