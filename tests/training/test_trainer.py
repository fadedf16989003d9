"""Training from Python: one call, loops of one's own, directories, and what ends a training."""

import csv
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import assert_killed, instead
from running import run as command
from strategies import DTYPES

import tinyvae
from tinyvae.errors import CheckpointError, NonFiniteError, TinyvaeError, UsageError
from tinyvae.likelihoods.gaussian import Gaussian
from tinyvae.objectives.elbo import ELBO
from tinyvae.ops.adam import adam_step
from tinyvae.training import engine as engines
from tinyvae.training import trainer as trainers
from tinyvae.training.adam import Adam
from tinyvae.training.checkpoint import read_last, saved_steps
from tinyvae.training.engine import Engine
from tinyvae.training.lock import Lock
from tinyvae.training.metrics import FILE, Row
from tinyvae.training.result import History, Result
from tinyvae.training.trainer import Trainer, fit

ROWS, DATA, LATENT = 50, 6, 2
X = np.random.default_rng(0).random((ROWS, DATA)).astype(np.float32)
HELD_OUT = np.random.default_rng(1).random((12, DATA)).astype(np.float32)
Y, Y_HELD_OUT = np.arange(ROWS) % 3, np.arange(12) % 3
SMALL: dict[str, Any] = {"epochs": 3, "batch_size": 16}  # 4 updates in each epoch: 16, 16, 16 and 2 rows


def model(**more: Any) -> tinyvae.VAE:
    return tinyvae.VAE(DATA, (5,), LATENT, **{"kernels": "numpy", **more})


def quietly(*args: Any, **more: Any) -> Result:
    return fit(*args, progress=False, **more)


def without_seconds(rows: Any) -> list[dict[str, Any]]:
    return [{**asdict(row), "seconds": 0} for row in rows]


def everything(trainer: Trainer) -> tuple[Any, ...]:
    """All that must not depend on how a training was looped over."""
    best = trainer.result().best_params
    arrays = (trainer.model.params.flat, trainer.engine.m, trainer.engine.v, np.zeros(0) if best is None else best)
    return (*(a.tobytes() for a in arrays), trainer.state, without_seconds(trainer.history))


def by_loop(*args: Any, **more: Any) -> Trainer:
    trainer = Trainer(*args, **more)
    rows = list(trainer)
    assert rows == trainer.history
    return trainer


def by_steps(*args: Any, **more: Any) -> Trainer:
    trainer = Trainer(*args, **more)
    steps = list(trainer.steps())
    assert [step.updates for step in steps] == list(range(1, trainer.state.updates + 1))
    assert [step.row for step in steps if step.row] == trainer.history
    return trainer


def by_train(*args: Any, **more: Any) -> Trainer:
    trainer = Trainer(*args, **more)
    assert trainer.train()
    return trainer


# --------------------------------------------------------------------------------------------- four ways, one training

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # options of the model, and of the training
    "plain": ({}, {}),
    "held out": ({}, {"valid": 0.2, "patience": 2}),
    "accumulated": ({}, {"accumulate": 3}),
    "clipped": ({}, {"clip_norm": 0.1}),
    "decaying weights": ({}, {"weight_decay": 0.1}),
    "step sizes of a function": ({}, {"lr": lambda epochs: 0.01 / (1 + epochs)}),
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


# ------------------------------------------------------------------------------------------------- left, and resumed


def check_left_and_resumed(
    path: Path, left_after: int, twice: bool = False, dtype: str = "float32", valid: Any = None, accumulate: int = 1
) -> None:
    """A training that is left after so many updates, and resumed, ends as one that never was."""
    labels: dict[str, Any] = {"y": Y} if isinstance(valid, tuple) else {}
    made = lambda: model(dtype=dtype, classes=3 if labels else 0)
    options = {**SMALL, "accumulate": accumulate}
    never_left = by_train(made(), X, **labels, valid=valid, **options)
    left = Trainer(made(), X, **labels, valid=valid, run=path, **options)
    where_left = None
    for step in left.steps():
        where_left = everything(left)
        if step.updates == left_after:
            break
    left.close()
    resumed = Trainer(made(), X, **labels, valid=valid, resume=path)
    assert everything(resumed) == where_left
    resumed.close()
    if twice:
        for _ in Trainer(made(), X, **labels, valid=valid, resume=path).steps():
            break
    resumed = Trainer(made(), X, **labels, valid=valid, resume=path)
    resumed.train()
    assert everything(resumed) == everything(never_left)
    with (path / FILE).open() as file:
        assert [int(line["epoch"]) for line in csv.DictReader(file)] == [1, 2, 3]


@settings(max_examples=12)
@given(
    st.integers(1, 13), st.booleans(), DTYPES, st.sampled_from([None, 0.2, HELD_OUT, (HELD_OUT, Y_HELD_OUT)]),
    st.sampled_from([1, 3]),
)  # fmt: skip
def test_a_loop_may_be_left_at_any_update_and_gone_on_with(
    left_after: int, twice: bool, dtype: str, valid: Any, accumulate: int
) -> None:
    with TemporaryDirectory() as folder:
        check_left_and_resumed(Path(folder) / "run", left_after, twice, dtype, valid, accumulate)


def forgets_a_moment(self: Trainer, *args: Any) -> str | None:
    found = take_up(self, *args)
    self.engine.v *= 1.01
    return found


def begins_the_epoch_anew(self: Engine, state: engines.RunState) -> None:
    self.state = replace(state, batch=0, rows=0, sums=[0.0, 0.0, 0.0])


def saves_the_best_now(self: Trainer) -> None:
    self.engine.best_params[...] = self.model.params.flat
    save(self)


take_up, save = Trainer.take_up, Trainer.save
RESUME_BUGS = {
    "a moment is another": instead(Trainer, "take_up", forgets_a_moment),
    "nothing is saved where it is left": instead(Trainer, "_save_last", lambda self: None),
    "the epoch begins anew": instead(Engine, "restore", begins_the_epoch_anew),
    "the best is what was last": instead(Trainer, "save", saves_the_best_now),
}


@pytest.mark.parametrize("bug", RESUME_BUGS)
def test_a_resume_that_is_not_exact_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    paths = (tmp_path / name for name in "abc")

    def killer() -> None:
        try:
            check_left_and_resumed(next(paths), 5, valid=0.2)
        except TinyvaeError as error:
            raise AssertionError("cannot be resumed") from error

    assert_killed(monkeypatch, RESUME_BUGS[bug], killer)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_callback_stops_and_resuming_ends_the_same(tmp_path: Path, epoch: int) -> None:
    stops = lambda row, trainer: trainer.stop() if row.epoch == epoch else None
    result = quietly(model(), X, valid=0.2, run=tmp_path / "run", callbacks=[stops], **SMALL)
    assert not result.complete
    assert len(result.history) == epoch
    resumed = Trainer(model(), X, valid=0.2, resume=tmp_path / "run")
    resumed.train()
    assert everything(resumed) == everything(by_train(model(), X, valid=0.2, **SMALL))


def test_what_a_stop_within_steps_saves_has_every_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU losses are looked at every 64 steps; here the same on NumPy: stopped, saved by hand, and left."""
    never_left = by_train(model(), X, **SMALL)
    monkeypatch.setitem(engines.RING, "numpy", 64)
    for name in ("stop", "save", "break"):
        trainer = Trainer(model(), X, run=tmp_path / name, **SMALL)
        for step in trainer.steps():
            assert np.isfinite(step.loss)
            if step.updates == 6:
                if name == "stop":
                    trainer.stop()
                elif name == "save":
                    trainer.save()
                    copytree(tmp_path / name, tmp_path / "taken")  # as a process that is killed leaves it
                    break
                else:
                    break
        trainer.close()
        resumed = Trainer(model(), X, resume=tmp_path / ("taken" if name == "save" else name))
        resumed.train()
        assert everything(resumed) == everything(never_left)


def test_a_finished_run_is_resumed_to_more_epochs_or_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run"
    quietly(model(), X, run=path, **{**SMALL, "epochs": 2})
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    again = quietly(model(), X, resume=path)
    assert again.complete
    assert len(again.history) == 2
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    with pytest.raises(UsageError, match="has 2 epochs behind it"):
        Trainer(model(), X, resume=path, epochs=1)
    longer = Trainer(model(), X, resume=path, epochs=3)
    longer.train()
    assert everything(longer) == everything(by_train(model(), X, **SMALL))
    assert read_last(path)[0].run["config"]["epochs"] == 3


@pytest.mark.parametrize(
    "more",
    [
        {"tied": True},
        {"conv": (2,), "image_shape": (2, 3)},
        {"batch_norm": True, "activation": "tanh"},
        {"decoder_hidden": (4, 3), "likelihood": "gaussian:sigma=predicted"},
    ],
    ids=["tied", "conv", "batch norm", "decoder"],
)
def test_every_architecture_comes_back(tmp_path: Path, more: dict[str, Any]) -> None:
    if "conv" in more:
        more = {"conv": (2,), "image_shape": (4, 4)}
    x = np.random.default_rng(0).random((20, 16)).astype(np.float32)
    made = lambda: tinyvae.VAE(16, (5,), LATENT, kernels="numpy", **more)
    for _ in Trainer(made(), x, run=tmp_path / "run", weight_decay=0.1, epochs=2, batch_size=10).steps():
        break
    resumed = Trainer(made(), x, resume=tmp_path / "run")
    resumed.train()
    assert everything(resumed) == everything(by_train(made(), x, weight_decay=0.1, epochs=2, batch_size=10))


def test_layers_one_by_one_come_back(tmp_path: Path) -> None:
    def made() -> tinyvae.VAE:
        dense = tinyvae.layers.Dense
        return tinyvae.VAE(
            encoder=[dense(DATA, 5, "tanh"), dense(5, 4)], decoder=[dense(2, 5, "relu"), dense(5, DATA)],
            kernels="numpy",
        )  # fmt: skip

    for _ in Trainer(made(), X, run=tmp_path / "run", **SMALL).steps():
        break
    resumed = Trainer(made(), X, resume=tmp_path / "run")
    resumed.train()
    assert everything(resumed) == everything(by_train(made(), X, **SMALL))


def test_a_loaded_data_set_of_flat_rows_suits_convolutions(tmp_path: Path) -> None:
    """The run says the image's shape, though the data does not: else nobody could read it again."""
    x = np.random.default_rng(0).random((20, 16)).astype(np.float32)
    made = lambda: tinyvae.VAE(16, (5,), LATENT, kernels="numpy", conv=(2,), image_shape=(4, 4))
    quietly(made(), trainers.Dataset("flat", x), run=tmp_path / "run", epochs=1)
    assert quietly(made(), trainers.Dataset("flat", x), resume=tmp_path / "run").complete


# ------------------------------------------------------------------------------------------------ what resume refuses


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    for _ in Trainer(model(), X, run=tmp_path / "begun", **SMALL).steps():
        break
    return tmp_path / "begun"


def test_resume_refuses_another_model(begun: Path) -> None:
    for other in (tinyvae.VAE(DATA, (4,), LATENT), model(dtype="float64"), model(likelihood="gaussian")):
        before = other.params.flat.copy()
        with pytest.raises(UsageError, match="is the run of another model"):
            Trainer(other, X, resume=begun)
        np.testing.assert_array_equal(other.params.flat, before)


def test_resume_refuses_other_data(begun: Path) -> None:
    for x, valid in ((X[:-1], None), (X + np.float32(1e-7), None), (X, 0.1), (X, HELD_OUT)):
        with pytest.raises(CheckpointError, match="was made with other data"):
            Trainer(model(), x, valid=valid, resume=begun)


@pytest.mark.parametrize(
    "more",
    [
        {"lr": 0.5}, {"batch_size": 3}, {"objective": "elbo:beta=2"}, {"objective": ELBO(beta=2)}, {"seed": 1},
        {"weight_decay": 0.1}, {"accumulate": 2}, {"clip_norm": 1.0}, {"lr_schedule": "cosine"}, {"patience": 3},
        {"binarize": "dynamic"}, {"lr": lambda epochs: 0.1},
    ],
    ids=lambda more: "=".join(map(str, *more.items())).partition(" at ")[0],
)  # fmt: skip
def test_resume_refuses_other_options_and_names_them(begun: Path, more: dict[str, Any]) -> None:
    (name,) = more
    with pytest.raises(UsageError, match=f"cannot be gone on with other options: {name} is"):
        Trainer(model(), X, resume=begun, **more)
    Trainer(model(), X, resume=begun, **SMALL, objective="elbo", lr=np.float64(1e-3)).close()  # the same: no others


def test_resume_needs_the_function_again(tmp_path: Path) -> None:
    falling = VARIANTS["step sizes of a function"][1]["lr"]
    for _ in Trainer(model(), X, lr=falling, run=tmp_path / "run", **SMALL).steps():
        break
    with pytest.raises(UsageError, match="was trained with a function as lr: give it again"):
        Trainer(model(), X, resume=tmp_path / "run")
    resumed = Trainer(model(), X, resume=tmp_path / "run", lr=falling)
    resumed.train()
    assert everything(resumed) == everything(by_train(model(), X, lr=falling, **SMALL))


def test_resume_goes_on_in_its_own_directory(begun: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave run away"):
        Trainer(model(), X, resume=begun, run=tmp_path / "other")
    with pytest.raises(UsageError, match="there is no such run directory"):
        Trainer(model(), X, resume=tmp_path / "none")
    with pytest.raises(TinyvaeError, match="is not empty"):
        Trainer(model(), X, run=begun)


@pytest.mark.parametrize("refused", [{"lr": 0.5}, {"epochs": 0}])
def test_a_refusal_leaves_the_directory_free(begun: Path, refused: dict[str, Any]) -> None:
    with pytest.raises((TinyvaeError, ValueError)):
        Trainer(model(), X, resume=begun, **refused)
    Trainer(model(), X, resume=begun).close()


def test_a_damaged_checkpoint_is_warned_of(begun: Path) -> None:
    Trainer(model(), X, resume=begun, epochs=2).train()
    saved_steps(begun)[-1].write_bytes(b"torn")
    with pytest.warns(UserWarning, match="is damaged"):
        resumed = Trainer(model(), X, resume=begun, epochs=3)
    resumed.train()
    assert everything(resumed) == everything(by_train(model(), X, **SMALL))


# ------------------------------------------------------------------------------------- parts of one's own, and commands


@dataclass(frozen=True)
class Mine(ELBO):
    """The ELBO with another beta."""

    beta: float = 2.0


@dataclass(frozen=True)
class OwnGaussian(Gaussian):
    """A Gaussian of one's own."""

    replayed: ClassVar = False


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tinyvae.parts, "_TYPED", [])


@pytest.mark.usefixtures("strangers")
def test_a_likelihood_and_an_objective_of_ones_own_are_stored_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lambda: model(likelihood=OwnGaussian())
    for _ in Trainer(made(), X, objective=Mine(), run=tmp_path / "run", **SMALL).steps():
        break
    monkeypatch.setattr(tinyvae.parts, "_TYPED", [])  # as in a new process
    resumed = Trainer(made(), X, objective=Mine(), resume=tmp_path / "run")
    resumed.train()
    assert everything(resumed) == everything(by_train(made(), X, objective=Mine(), **SMALL))
    assert read_last(tmp_path / "run", [OwnGaussian])[0].run["config"]["objective"] == "Mine"


@pytest.mark.parametrize("words", [("train", "--resume"), ("evaluate",)])
def test_the_commands_send_a_run_of_arrays_back_to_python(
    begun: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert command(*words, begun) != 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    assert "Python, on arrays" in said[0]
    Trainer(model(), X, resume=begun).close()


def test_a_run_of_the_command_can_be_gone_on_with_here_and_stays_the_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ("--hidden", "5", "--latent", "2", "--kernels", "numpy", "--backend", "numpy", "--batch-size", "400")
    small = ("--data", "digits", *shape, "--no-figures", "--quiet", "--valid", "0.2")
    for name, epochs in (("run", "1"), ("whole", "2")):
        assert command("train", *small, "--epochs", epochs, "--out", tmp_path / name) == 0
    resumed = tinyvae.VAE(64, (5,), 2, kernels="numpy")
    result = quietly(resumed, tinyvae.load_data("digits"), valid=0.2, resume=tmp_path / "run", epochs=2)
    assert result.complete
    np.testing.assert_array_equal(resumed.params.flat, tinyvae.load(tmp_path / "whole").params.flat)
    assert read_last(tmp_path / "run")[0].run["config"] == read_last(tmp_path / "whole")[0].run["config"]
    assert command("evaluate", tmp_path / "run", "--nll-samples", "0") == 0
    capsys.readouterr()


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


# -------------------------------------------------------------------------------------------------------------- Ctrl-C


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


# ---------------------------------------------------------------------------------------------------------- directories


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


# --------------------------------------------------------------------------------------------------------- weight decay


def one_step(decay: float, **more: Any) -> tuple[tinyvae.VAE, dict[str, np.ndarray], np.ndarray]:
    """A model after a step of Adam, its parameters before, and the gradient."""
    made = model(dtype="float64", **more)
    rng = np.random.default_rng(0)
    made.params.flat += 0.3 * rng.standard_normal(made.params.flat.size)
    made.loss_and_grad(rng.random((9, made.data_dim)), rng.standard_normal((9, LATENT)))
    before, g = {name: p.copy() for name, p in made.params.items()}, made.grads.flat.copy()
    Adam(made).step(lr=0.01, weight_decay=decay)
    return made, before, g


@pytest.mark.parametrize("more", [{}, {"tied": True}, {"batch_norm": True}, {"likelihood": "gaussian:sigma=columns"}])
def test_weight_matrices_shrink_by_lr_times_the_rate_and_nothing_else_does(more: dict[str, Any]) -> None:
    """Loshchilov & Hutter 2019, algorithm 2: p - lr (m^ / (sqrt(v^) + eps) + decay p); at t = 1 m^ = g, v^ = g^2."""
    made, before, _ = one_step(0.5, **more)
    for name, p in made.params.items():
        g = made.grads[name]
        decay = 0.5 * before[name] if name.endswith("weight") and p.ndim == 2 else 0.0
        expected = before[name] - 0.01 * (g / (np.abs(g) + 1e-8) + decay)
        # a few roundings of numbers below 2; sqrt(c2) and c1 cost a few more, of a step of 0.01
        np.testing.assert_allclose(p, expected, rtol=0, atol=1e-15, err_msg=name)
    shrunk = one_step(0.5, **more)[0].params
    plain = one_step(0.0, **more)[0].params
    assert {name for name in plain if (plain[name] != shrunk[name]).any()} == {n for n in plain if plain[n].ndim > 1}


def test_the_moments_know_nothing_of_the_decay() -> None:
    made, _, g = one_step(0.0)
    adam = Adam(made)
    made.grads.flat[...] = g
    adam.step(lr=0.01, weight_decay=0.5)
    zeros = np.zeros_like(g)
    _, m, v = adam_step(zeros, g, zeros, zeros, t=1, lr=0.01)
    np.testing.assert_allclose(adam.m, m, rtol=1e-15)
    np.testing.assert_allclose(adam.v, v, rtol=1e-14)


def decays_all(self: Adam) -> None:
    Adam_set_up(self)
    self.matrices = list(self.model.params.values())


def through_the_gradient(
    self: Adam, k: Any, g: Any, lr: float, clip: Any = None, norm2: Any = None, decay: float = 0.0
) -> None:
    if decay:
        for name, p in self.model.params.items():
            if p.ndim > 1:
                self.model.grads[name][...] += decay * p
    Adam_update(self, k, g, lr, clip, norm2, 0.0)


Adam_set_up, Adam_update = Adam._set_up, Adam.update
DECAY_BUGS = {
    "of biases": (Adam, "_set_up", decays_all),
    "through the gradient": (Adam, "update", through_the_gradient),
}


@pytest.mark.parametrize("bug", ["of biases", "through the gradient"])
def test_a_wrong_decay_is_seen(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    killer = lambda: test_weight_matrices_shrink_by_lr_times_the_rate_and_nothing_else_does({})
    assert_killed(monkeypatch, instead(*DECAY_BUGS[bug]), killer)
