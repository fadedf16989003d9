"""A run that was interrupted and resumed is the run that was not: the same bytes, on NumPy."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import run
from strategies import EVERY_FUSED
from training_runs import final_state, stop_after
from variants import TRAIN
from variants import VARIANTS as KINDS

import tinyvae
from tinyvae import kernels as kernel_files
from tinyvae.commands import main, train
from tinyvae.errors import NonFiniteError
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training.adam import Adam
from tinyvae.training.engine import Engine
from tinyvae.training.metrics import Evaluation

EPOCHS = 4
BATCHES = 5  # of an epoch: 54 rows in batches of 12, the last of 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "pixels.npy"
    np.save(path, np.random.default_rng(0).uniform(0, 1, (60, 9)).astype(np.float32))
    return str(path)


def options(data: str, *more: str) -> list[str]:
    small = ["--hidden", "6", "--latent", "2", "--batch-size", "12", "--epochs", str(EPOCHS), "--backend", "numpy"]
    return ["train", "--data", data, *small, "--no-figures", "--quiet", *more]


VARIANTS = {
    "plain": [],
    "dynamic binarization": ["--binarize", "dynamic"],
    "accumulate, cosine, warm-up, clipping": [
        *("--accumulate", "2", "--lr-schedule", "cosine", "--beta-warmup", "2", "--clip-norm", "1"),
    ],
    "predicted sigma, float64, reference kernels": [
        *("--likelihood", "gaussian", "--sigma", "predicted", "--dtype", "float64", "--kernels", "reference"),
    ],
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("updates", [1, 3, BATCHES, BATCHES + 2, 2 * BATCHES + 1])
def test_stopped_at_any_update_and_resumed_is_the_same_run(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, updates: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(options(data, *VARIANTS[variant], "--out", str(whole))) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, updates)
        assert main(options(data, *VARIANTS[variant], "--out", str(parts))) == 130
    state = checkpoints.read_last(parts)[0].run["state"]
    assert state["updates"] == updates
    assert main(["train", "--resume", str(parts), "--no-figures", "--quiet"]) == 0
    assert final_state(parts) == final_state(whole)


@pytest.mark.parametrize("variant", ["iwae, labels", "conv, batch norm, labels", "iwae"])
@pytest.mark.parametrize("updates", [2, 7])
def test_every_kind_of_model_resumes_to_the_same_run(
    variant: str, updates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six updates in an epoch, the last of them on fewer rows."""
    options = [*TRAIN, "--epochs", "2", "--batch-size", "256", *KINDS[variant]]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*options, "--out", whole) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, updates)
        assert run(*options, "--out", parts) == 130
    assert run("train", "--resume", parts, "--no-figures", "--quiet") == 0
    once, again = (final_state(folder) for folder in (whole, parts))
    assert once.keys() == again.keys()
    for name, content in once.items():
        assert content == again[name], name


def test_stopped_again_and_again(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(options(data, "--out", str(whole))) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        assert main(options(data, "--out", str(parts))) == 130
    for _ in range(EPOCHS * BATCHES - 2):
        with monkeypatch.context() as patch:
            stop_after(patch, 1)
            assert main(["train", "--resume", str(parts), "--no-figures", "--quiet"]) == 130
    assert main(["train", "--resume", str(parts), "--no-figures", "--quiet"]) == 0
    assert final_state(parts) == final_state(whole)


def test_more_epochs_later_are_the_same_as_at_once(data: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(options(data, "--out", str(whole), "--epochs", "6")) == 0
    assert main(options(data, "--out", str(parts))) == 0
    assert main(["train", "--resume", str(parts), "--epochs", "6", "--no-figures", "--quiet"]) == 0
    np.testing.assert_array_equal(tinyvae.load(parts).params.flat, tinyvae.load(whole).params.flat)


def test_killed_between_a_checkpoint_and_its_best_the_run_loses_neither(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epoch 2 is the best by what is measured; the kill comes when its file would be written, after the checkpoint."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    losses = {1: 5.0, 2: 3.0, 3: 4.0, 4: 4.5}

    def evaluate(self):
        return Evaluation(losses[self.state.epoch + 1], 1.0, 1.0, 1)

    monkeypatch.setattr(Engine, "measure", evaluate)
    assert main(options(data, "--out", str(whole))) == 0
    original, calls = checkpoints.save_checkpoint, iter(range(1, 99))

    def killed(path, *args, **kwargs):
        if next(calls) == 4:  # step 1, best 1, step 2, best 2
            raise KeyboardInterrupt
        original(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_checkpoint", killed)
        assert main(options(data, "--out", str(parts))) == 130
    assert not checkpoints.best_path(parts, 2).exists()
    assert checkpoints.read_last(parts)[0].run["state"]["best_epoch"] == 2
    assert main(["train", "--resume", str(parts), "--no-figures", "--quiet"]) == 0
    assert final_state(parts) == final_state(whole)


def test_the_best_epoch_before_a_stop_is_still_the_best_after_it(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {1: 5.0, 2: 3.0, 3: 4.0, 4: 4.5}
    monkeypatch.setattr(Engine, "measure", lambda self: Evaluation(losses[self.state.epoch + 1], 1.0, 1.0, 1))
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 2 * BATCHES)
        assert main(options(data, "--out", str(out))) == 130
    after_two = checkpoints.read_last(out)[0].params
    assert main(["train", "--resume", str(out), "--no-figures", "--quiet"]) == 0
    best = checkpoints.read_checkpoint(checkpoints.best_path(out, 2))
    for name, a in after_two.items():
        np.testing.assert_array_equal(best.params[name], a)
    assert checkpoints.read_last(out)[0].run["state"]["best_epoch"] == 2


@pytest.mark.parametrize("loss", ["deleted", "damaged"])
def test_a_lost_best_file_is_written_again_from_the_checkpoint(data: str, tmp_path: Path, loss: str) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(options(data, "--out", str(whole), "--epochs", "6")) == 0
    assert main(options(data, "--out", str(parts))) == 0
    epoch = checkpoints.read_last(parts)[0].run["state"]["best_epoch"]
    if loss == "deleted":
        checkpoints.best_path(parts, epoch).unlink()
    else:
        checkpoints.best_path(parts, epoch).write_bytes(b"x")
    assert main(["train", "--resume", str(parts), "--epochs", "6", "--no-figures", "--quiet"]) == 0
    assert final_state(parts)["metrics"] == final_state(whole)["metrics"]
    best = checkpoints.read_last(whole)[0].run["state"]["best_epoch"]
    assert checkpoints.best_path(parts, best).read_bytes() == checkpoints.best_path(whole, best).read_bytes()


def test_a_run_out_of_patience_is_not_resumed(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = {1: 3.0, 2: 4.0, 3: 4.0, 4: 4.5}
    monkeypatch.setattr(Engine, "measure", lambda self: Evaluation(losses[self.state.epoch + 1], 1.0, 1.0, 1))
    out = str(tmp_path / "run")
    assert main(options(data, "--out", out, "--patience", "2")) == 0
    with pytest.raises(SystemExit) as caught:
        main(["train", "--resume", out, "--no-figures"])
    assert caught.value.code == 2
    assert "for want of a better validation loss" in capsys.readouterr().err


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_serves(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(options(data, "--out", str(whole))) == 0
    shutil.copytree(whole, parts)
    newest = checkpoints.saved_steps(parts)[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    assert main(["train", "--resume", str(parts), "--no-figures"]) == 0
    assert f"warning: {newest}: is damaged" in capsys.readouterr().out
    assert final_state(parts) == final_state(whole)


def test_a_diverged_run_never_overwrites_its_last_good_checkpoint(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    original, calls = Adam.update, iter(range(1, 10_000))

    def spoiled(self, *args):
        original(self, *args)
        if next(calls) == 2 * BATCHES:  # the last update of the second epoch
            self.model.params.flat[0] = np.nan

    monkeypatch.setattr(Adam, "update", spoiled)
    assert main(options(data, "--out", str(out), "--kernels", "numpy")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the parameter encoder.0.weight holds NaN" in error
    last, problems = checkpoints.read_last(out)
    assert last.run["state"]["epoch"] == 1
    assert not problems


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--hidden", "7"], "--hidden is 6 in the run, not 7"),
        (["--kernels", "reference"], f"--kernels is {EVERY_FUSED[0]} in the run, not reference"),
        (["--backend", "cupy"], "--backend is numpy in the run, not cupy"),
        (["--seed", "3", "--lr", "0.1"], "--seed is 0 in the run, not 3; --lr is 0.001 in the run, not 0.1"),
        (["--out", "elsewhere"], "leave --out away"),
        (["--epochs", "2"], "has all its 4 epochs"),
    ],
)
def test_resuming_with_other_options_is_refused(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(options(data, "--out", str(tmp_path / "run"))) == 0
    with pytest.raises(SystemExit) as caught:
        main(["train", "--resume", str(tmp_path / "run"), *more])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


SAME = {  # (what the run was begun with, what is said when it is resumed)
    "spelled and written out": ("--objective iwae --importance 3", "--objective iwae:draws=3"),
    "written out and spelled": ("--objective iwae:draws=3", "--objective iwae --importance 3"),
    "a default": ("--objective iwae", "--objective iwae:draws=5"),
    "a default, spelled": ("--objective iwae:draws=5", "--importance 5"),
    "the name alone": ("--objective iwae:draws=3", "--objective iwae"),
    "in another order": ("--objective elbo:beta=2,free_bits=0.1", "--objective elbo:free-bits=0.1,beta=2.0"),
    "of the ELBO": ("--beta 2 --free-bits 0.1", "--objective elbo:beta=2,free_bits=0.1"),
    "of the ELBO, one of two": ("--objective elbo:beta=2,free_bits=0.1", "--free-bits 0.1"),
    "draws of the ELBO": ("--importance 3", "--objective elbo:draws=3"),
    "sigma": ("--likelihood gaussian --sigma fixed:0.5", "--likelihood gaussian:sigma=fixed:0.5"),
    "sigma, a default": ("--likelihood gaussian", "--likelihood gaussian:sigma=learned"),
    "likelihood's name alone": ("--likelihood gaussian --sigma predicted", "--likelihood gaussian"),
}


@pytest.mark.parametrize("case", SAME)
def test_what_means_the_same_is_the_same_when_a_run_is_resumed(case: str, data: str, tmp_path: Path) -> None:
    begun, again = SAME[case]
    assert main(options(data, *begun.split(), "--out", str(tmp_path / "run"))) == 0
    argv = ["train", "--resume", str(tmp_path / "run"), "--epochs", "5", "--no-figures", "--quiet", *again.split()]
    assert main(argv) == 0
    assert checkpoints.read_last(tmp_path / "run")[0].run["state"]["epoch"] == 5


OTHER = {  # likewise, with the line
    "draws": ("--objective iwae --importance 3", "--importance 4", "--importance is 3 in the run, not 4"),
    "written out": (
        "--objective iwae --importance 3", "--objective iwae:draws=4",
        "--objective is iwae:draws=3 in the run, not iwae:draws=4",
    ),
    "an option that is not the default": (
        "--objective iwae", "--objective iwae:estimator=dreg", "is iwae in the run, not iwae:estimator=dreg",
    ),
    "another objective": ("--beta 2", "--objective iwae", "--objective is elbo:beta=2.0 in the run, not iwae"),
    "beta": ("--beta 2", "--beta 3", "--beta is 2.0 in the run, not 3.0"),
    "beta of the default": ("", "--objective elbo:beta=3", "--objective is elbo in the run, not elbo:beta=3"),
    "sigma": (
        "--likelihood gaussian", "--likelihood gaussian:sigma=columns",
        "--likelihood is gaussian in the run, not gaussian:sigma=columns",
    ),
    "another likelihood": ("--likelihood gaussian", "--likelihood laplace", "--likelihood is gaussian in the run"),
    "an option that the run's part has not": (
        "--objective iwae", "--beta 2", "--beta is None in the run",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER)
def test_what_means_another_loss_is_refused_when_a_run_is_resumed(
    case: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, again, said = OTHER[case]
    assert main(options(data, *begun.split(), "--out", str(tmp_path / "run"))) == 0
    with pytest.raises(SystemExit) as caught:
        main(["train", "--resume", str(tmp_path / "run"), "--epochs", "5", *again.split()])
    error = capsys.readouterr().err
    assert (caught.value.code, error.count("\n")) == (2, 1)
    assert said in error


def test_resuming_on_other_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((40, 3), np.float32))
    assert main(options(str(path), "--out", str(tmp_path / "run"))) == 0
    np.save(path, np.ones((40, 3), np.float32))
    assert main(["train", "--resume", str(tmp_path / "run"), "--epochs", "9"]) == 1
    assert "was made with other data" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ what cannot be


def test_a_checkpoint_that_cannot_be_written_ends_the_run_with_one_line(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, original = tmp_path / "run", os.replace

    def full(source, target):
        if "step-000000010" in str(target):
            raise OSError(28, "No space left on device")
        original(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert main(options(data, "--out", str(out), "--kernels", "numpy")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "No space left on device" in error
    assert f"--resume {out}" in error
    assert checkpoints.read_last(out)[0].run["state"]["updates"] == BATCHES
    assert not list((out / checkpoints.FOLDER).glob(".*"))


def test_the_session_refuses_to_store_a_nan(data: str, tmp_path: Path) -> None:
    reporter = train.Reporter(quiet=True)
    config = train.Config(data=data, backend="numpy", epochs=1, hidden=(3,), latent=2)
    session = train.Session.fresh(config, tmp_path / "run", reporter)
    session.trainer.engine.m[0] = np.nan
    with pytest.raises(NonFiniteError):
        session.trainer.save()
    assert checkpoints.saved_steps(tmp_path / "run") == []


def test_a_run_whose_kernels_are_gone_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert main(["train", "--epochs", "1", "--quiet", "--no-figures", "--backend", "numpy", "--out", out]) == 0
    monkeypatch.setattr(kernel_files, "numba_problem", lambda: "Numba is not installed: python -m pip install it")
    capsys.readouterr()
    if EVERY_FUSED[0] == "numba":
        with pytest.raises(SystemExit) as caught:
            main(["train", "--resume", out, "--epochs", "2"])
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "the numba kernels cannot be used here: Numba is not installed: python -m pip install it" in error


def test_fused_is_not_taken_for_reference_when_a_run_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    argv = ["train", "--quiet", "--no-figures", "--backend", "numpy"]
    assert main([*argv, "--epochs", "1", "--kernels", "reference", "--out", out]) == 0
    with pytest.raises(SystemExit):
        main(["train", "--resume", out, "--epochs", "2", "--kernels", "fused"])
    assert "--kernels is reference in the run, not fused" in capsys.readouterr().err
