"""A training from Python that is left and gone on with, what resume refuses, and parts of one's own in it."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import assert_killed, instead
from running import run as command
from strategies import DTYPES
from trainer_loops import (
    DATA,
    HELD_OUT,
    LATENT,
    SMALL,
    Y_HELD_OUT,
    X,
    Y,
    by_train,
    everything,
    falling,
    model,
    quietly,
)

import tinyvae
from tinyvae.errors import CheckpointError, TinyvaeError, UsageError
from tinyvae.likelihoods.gaussian import Gaussian
from tinyvae.objectives.elbo import ELBO
from tinyvae.training import engine as engines
from tinyvae.training import trainer as trainers
from tinyvae.training.checkpoint import read_last, saved_steps
from tinyvae.training.engine import Engine
from tinyvae.training.metrics import FILE
from tinyvae.training.trainer import Trainer

# ---------------------------------------------------------------------------------------------------- left, and resumed


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


# -------------------------------------------------------------------------------------------------- what resume refuses


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
