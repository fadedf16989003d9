"""A run directory that somebody else wrote: whatever its files say, a command answers in one line and makes nothing.

Every field of a checkpoint's description is replaced, one at a time, by values of every kind, under a digest that fits.
"""

import contextlib
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hostile import ODD, REMOVED, changed, describe, last_of, places, resumed, rewrite
from running import run

EVERY = 23  # one in so many is tried here; all of them by `-m faults`


def is_other_kind(before: Any, value: Any) -> bool:
    """No reader could take the value for one of the same field."""
    if before is None:
        return False
    kinds = {type(before), int} if isinstance(before, float) else {type(before)}
    return value is REMOVED or value is None or type(value) not in kinds or value != value


def files_of(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


COMMANDS = (
    ("evaluate", "{}", "--nll-samples", "2", "--json"),
    ("train", "--resume", "{}", "--epochs", "3", "--quiet", "--no-figures"),
    ("generate", "{}", "--n", "2", "--out", "{}.npy"),
)


def attack(small_run: Path, here: Path, command: tuple[str, ...], about: Any) -> tuple[int, str]:
    """The exit code and the error of a command on a copy of the run with this description."""
    victim = here / "victim"
    shutil.rmtree(victim, ignore_errors=True)
    (here / "victim.npy").unlink(missing_ok=True)
    shutil.copytree(small_run, victim)
    for older in sorted((victim / "checkpoints").glob("step-*"))[:-1]:
        older.unlink()
    rewrite(last_of(victim), about)
    before, outside = files_of(victim), files_of(here) - {"victim.npy"}
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run(*(word.format(victim) for word in command))
        except SystemExit as left:
            code = int(left.code or 0)
    if code:
        assert files_of(victim) == before
    assert {name for name in files_of(here) - outside if not name.startswith("victim")} == set()
    return code, err.getvalue()


def all_attacks(about: dict[str, Any]) -> list[tuple[tuple[Any, ...], Any]]:
    return [(where, value) for where in places(about) for value in ODD]


def check(small_run: Path, here: Path, step: int) -> None:
    about = describe(last_of(small_run))
    attacks = all_attacks(about)
    assert len(attacks) > 1000
    for i, (where, value) in enumerate(attacks[::step]):
        before = about
        for key in where:
            before = before[key]
        what = f"{'.'.join(map(str, where))} = {'removed' if value is REMOVED else repr(value)[:40]}"
        for command in COMMANDS if step == 1 else COMMANDS[i % 3 : i % 3 + 1]:
            code, error = attack(small_run, here, command, changed(about, where, value))
            assert "Traceback" not in error, f"{what}: {error}"
            assert error.count("\n") == (1 if code else 0), f"{what}: {command[0]} ended with {code} and {error!r}"
            assert error.isascii() or error.isprintable() or "\x1b" not in error, what
            if is_other_kind(before, value):
                assert code == 1, f"{what} was believed by {command[0]}"


def test_a_field_of_a_wrong_type_or_value_is_one_line(small_run: Path, tmp_path: Path) -> None:
    check(small_run, tmp_path, EVERY)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_every_field_of_every_wrong_type_is_one_line(small_run: Path, tmp_path: Path) -> None:
    check(small_run, tmp_path, 1)


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        ("run.state.updates", 0, "holds step 0 under the name of another"),  # Adam would begin again at t = 1
        ("run.state.rows", 1, "rows is 0, not 1"),
        ("run.state.batch", 1, "updates is"),
        ("run.state.batch", 99, "batch 99 is not one between"),
        ("run.state.epoch", 3, "epoch must be at most 2"),
        ("run.state.best_epoch", 3, "best_epoch must be at most the 2 epochs"),
        ("run.state.best_epoch", 0, "no epoch is the best"),
        ("run.state.best_loss", None, "there is no best_loss"),
        ("run.state.sums", [1.0, 2.0], "sums must be three numbers"),
        ("run.state.sums", [1.0, 2.0, 3.0], "sums are 0"),
        ("run.config.latent", 3, "latent is 3 in its run, but 2 in its model"),
        ("run.config.hidden", [4], "hidden is"),
        ("run.config.decoder_hidden", [4], "decoder_hidden is"),
        ("run.config.activation", "tanh", "activation is 'tanh' in its run, but 'relu'"),
        ("run.config.likelihood", "bernoulli", "likelihood is 'bernoulli' in its run"),
        ("run.config.sigma", "fixed:1", "config spells an option of a part that has its own place"),
        ("run.config.likelihood", "gaussian:sigma=fixed:1", "likelihood is 'gaussian:sigma=fixed:1' in its run"),
        ("run.config.objective", "elbo:beta=-1", "beta must be at least 0"),
        ("run.config.objective", "x", "is made with the objective 'x', which is not the package's own"),
        ("run.config.beta", 2.0, "config spells an option of a part that has its own place"),
        ("run.config.dtype", "float64", "dtype is 'float64' in its run"),
        ("run.config.conditional", True, "conditional is True in its run"),
        ("run.config.backend", "auto", "does not say what it ran on"),
        ("run.config.data", "two-gaussians:x", "needs a number of points"),
        ("run.config.batch_size", 0, "batch-size must be at least 1"),
        ("run.image_shape", [3, 3], "width of the images is 9 in its run"),
        ("run.image_shape", [-2, -2], "image_shape must be two or three numbers above 0"),
        ("run.data_digest", "0" * 63, "data_digest must be 64 hexadecimal digits"),
        ("architecture.hidden", [10**9], "tensors do not fit|hidden is"),
        ("architecture.likelihood", "laplace", "likelihood is 'gaussian' in its run, but 'laplace' in its model"),
        ("architecture.likelihood", "x", "is made with the likelihood 'x', which is not the package's own"),
        ("architecture.likelihood", "gaussian:sigma=x", "sigma must be"),
        ("dtype", "bfloat16", "dtype must be one of float32, float64"),
        ("format", "tinyvae 9", "has format 'tinyvae 9'"),
    ],
)
def test_what_contradicts_itself_is_named(small_run: Path, tmp_path: Path, where: str, value: Any, said: str) -> None:
    about = changed(describe(last_of(small_run)), tuple(where.split(".")), value)
    code, error = attack(small_run, tmp_path, COMMANDS[1], about)
    assert code == 1
    assert error.count("\n") == 1
    assert re.search(said, error), error


def test_a_step_that_its_epochs_cannot_have_made_is_named(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_run, tmp_path / "run")
    last = last_of(tmp_path / "run")
    rewrite(last, changed(describe(last), ("run", "state", "updates"), 7))
    last.rename(last.with_name("step-000000007.safetensors"))
    assert resumed(tmp_path / "run") == 1
    assert "updates is 6, not 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "[" * 100_000, '{"a":' * 5_000, '{"format":NaN}', "1" * 9_000, '{"a":1,"a":2}', "\x00", "{"],
)
def test_a_description_that_is_no_table_is_one_line(small_run: Path, tmp_path: Path, text: str) -> None:
    for command in COMMANDS:
        code, error = attack(small_run, tmp_path, command, text)
        assert (code, error.count("\n")) == (1, 1), error


def test_a_run_does_not_choose_where_folders_are_made(small_run: Path, tmp_path: Path) -> None:
    about = describe(last_of(small_run))
    about = changed(about, ("run", "config", "data"), "mnist")
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "chosen" / "by" / "another", tmp_path / "victim" / "inside", tmp_path / "there"):
        hostile = changed(about, ("run", "config", "data_dir"), str(folder))
        for command in COMMANDS[:2]:
            code, error = attack(small_run, tmp_path, command, hostile)
            assert code == 1
            assert "it is gone; name its folder by --data-dir" in error
            assert not folder.exists() or not list(folder.iterdir())
