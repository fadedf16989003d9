"""A run directory that somebody else wrote: whatever its files say, a command answers in one line and makes nothing.

Every field of a checkpoint's description is replaced, one at a time, by values of every kind, under a digest that fits.
"""

import contextlib
import io
import json
import os
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_commands import run

from tinyvae.training import checkpoint as checkpoints


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


REMOVED = object()
ODD = (
    None, True, -1, 0, 1, 10**30, 1.5, 1e308, float("nan"), "", "x", "\0", "\ud800", "\x1b[2J", [], [1, -1], ["x"], {},
    {"a": 1}, nested(90), REMOVED,
)  # fmt: skip
EVERY = 23  # one in so many is tried here; all of them by `-m faults`


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    np.save(folder / "x.npy", np.random.default_rng(0).uniform(0, 1, (30, 4)).astype(np.float32))
    model = ["--hidden", "3", "--latent", "2", "--likelihood", "gaussian", "--batch-size", "9", "--backend", "numpy"]
    small = ["--epochs", "2", "--no-figures", "--quiet", "--kernels", "numpy"]
    assert run("train", "--data", folder / "x.npy", *model, *small, "--out", folder / "run") == 0
    return folder / "run"


def last_of(path: Path) -> Path:
    return sorted((path / "checkpoints").glob("step-*"))[-1]


def describe(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["tinyvae"].rpartition("\n")[0])


def rewrite(path: Path, about: Any) -> None:
    """The checkpoint with another description, under the digest that fits it."""
    rewrite_with(path, about, load_file(path))


def rewrite_with(path: Path, about: Any, tensors: dict[str, np.ndarray]) -> None:
    """The same with other tensors."""
    text = about if isinstance(about, str) else json.dumps(about, sort_keys=True)
    save_file(tensors, path, metadata={"tinyvae": f"{text}\n{checkpoints._digest(text, tensors)}"})


def places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field, the tables among them."""
    if where:
        yield where
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*where, key))


def changed(about: dict[str, Any], where: tuple[Any, ...], value: Any) -> Any:
    about = json.loads(json.dumps(about))
    parent = about
    for key in where[:-1]:
        parent = parent[key]
    if value is REMOVED:
        del parent[where[-1]]
    else:
        parent[where[-1]] = value
    return about


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


def attack(trained: Path, here: Path, command: tuple[str, ...], about: Any) -> tuple[int, str]:
    """The exit code and the error of a command on a copy of the run with this description."""
    victim = here / "victim"
    shutil.rmtree(victim, ignore_errors=True)
    (here / "victim.npy").unlink(missing_ok=True)
    shutil.copytree(trained, victim)
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


def check(trained: Path, here: Path, step: int) -> None:
    about = describe(last_of(trained))
    attacks = all_attacks(about)
    assert len(attacks) > 1000
    for i, (where, value) in enumerate(attacks[::step]):
        before = about
        for key in where:
            before = before[key]
        what = f"{'.'.join(map(str, where))} = {'removed' if value is REMOVED else repr(value)[:40]}"
        for command in COMMANDS if step == 1 else COMMANDS[i % 3 : i % 3 + 1]:
            code, error = attack(trained, here, command, changed(about, where, value))
            assert "Traceback" not in error, f"{what}: {error}"
            assert error.count("\n") == (1 if code else 0), f"{what}: {command[0]} ended with {code} and {error!r}"
            assert error.isascii() or error.isprintable() or "\x1b" not in error, what
            if is_other_kind(before, value):
                assert code == 1, f"{what} was believed by {command[0]}"


def test_a_field_of_a_wrong_type_or_value_is_one_line(trained: Path, tmp_path: Path) -> None:
    check(trained, tmp_path, EVERY)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_every_field_of_every_wrong_type_is_one_line(trained: Path, tmp_path: Path) -> None:
    check(trained, tmp_path, 1)


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
        ("run.config.sigma", "fixed:1", "sigma is 'fixed:1' in its run"),
        ("run.config.dtype", "float64", "dtype is 'float64' in its run"),
        ("run.config.conditional", True, "conditional is True in its run"),
        ("run.config.backend", "auto", "does not say what it ran on"),
        ("run.config.data", "two-gaussians:x", "needs a number of points"),
        ("run.config.batch_size", 0, "batch-size must be at least 1"),
        ("run.image_shape", [3, 3], "width of the images is 9 in its run"),
        ("run.image_shape", [-2, -2], "image_shape must be at least 1 x 1"),
        ("run.data_digest", "0" * 63, "data_digest must be 64 hexadecimal digits"),
        ("architecture.hidden", [10**9], "tensors do not fit|hidden is"),
        ("architecture.likelihood", "laplace", "likelihood must be"),
        ("dtype", "bfloat16", "dtype must be one of float32, float64"),
        ("format", "tinyvae 9", "has format 'tinyvae 9'"),
    ],
)
def test_what_contradicts_itself_is_named(trained: Path, tmp_path: Path, where: str, value: Any, said: str) -> None:
    about = changed(describe(last_of(trained)), tuple(where.split(".")), value)
    code, error = attack(trained, tmp_path, COMMANDS[1], about)
    assert code == 1
    assert error.count("\n") == 1
    assert re.search(said, error), error


def test_a_step_that_its_epochs_cannot_have_made_is_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    last = last_of(tmp_path / "run")
    rewrite(last, changed(describe(last), ("run", "state", "updates"), 7))
    last.rename(last.with_name("step-000000007.safetensors"))
    assert resumed(tmp_path / "run") == 1
    assert "updates is 6, not 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "[" * 100_000, '{"a":' * 5_000, '{"format":NaN}', "1" * 9_000, '{"a":1,"a":2}', "\x00", "{"],
)
def test_a_description_that_is_no_table_is_one_line(trained: Path, tmp_path: Path, text: str) -> None:
    for command in COMMANDS:
        code, error = attack(trained, tmp_path, command, text)
        assert (code, error.count("\n")) == (1, 1), error


def test_a_run_does_not_choose_where_folders_are_made(trained: Path, tmp_path: Path) -> None:
    about = describe(last_of(trained))
    about = changed(about, ("run", "config", "data"), "mnist")
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "chosen" / "by" / "another", tmp_path / "victim" / "inside", tmp_path / "there"):
        hostile = changed(about, ("run", "config", "data_dir"), str(folder))
        for command in COMMANDS[:2]:
            code, error = attack(trained, tmp_path, command, hostile)
            assert code == 1
            assert "it is gone; name its folder by --data-dir" in error
            assert not folder.exists() or not list(folder.iterdir())


# ------------------------------------------------------------------------------------------------- the files beside it


def resumed(path: Path, *more: str) -> int:
    return run("train", "--resume", path, "--epochs", "3", "--no-figures", "--quiet", *more)


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "rows",
    [
        "1,inf,1,1,1,1,1,1,1", "1,0,nan,1,1,1,1,1,1", "1,0,1,1,1,1,1,1,1.5", "1,0,1,1,1,1,1,1,-1", "1", "1,,,,,,,,",
        "x,0,1,1,1,1,1,1,1", "1,0,1,1,1,1,1,1,1,1,1", "9" * 200_000, "\x00", "3,0,1,1,1,1,1,1,1",
        "1e400,0,1,1,1,1,1,1,1",
    ],
)  # fmt: skip
def test_a_damaged_table_is_one_line_and_a_remedy(copy: Path, rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = copy / "metrics.csv"
    head = table.read_text().partition("\n")[0]
    table.write_text(f"{head}\n{rows}\n")
    assert resumed(copy) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "metrics.csv" in error
    assert "move it away" in error
    table.unlink()
    assert resumed(copy) == 0  # the remedy helps


@pytest.mark.parametrize("content", ["", "x", "[]", "[" * 100_000, '{"history": 3}', "\x00", '{"a": NaN}'])
def test_a_damaged_configuration_is_one_line_and_a_remedy(
    copy: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "config.json").write_text(content)
    assert resumed(copy) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "config.json" in error
    (copy / "config.json").unlink()
    assert resumed(copy) == 0


@pytest.mark.parametrize("name", ["step-000000006.safetensors", "metrics.csv", "config.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "huge"])
def test_only_regular_files_of_a_sane_size_are_read(
    copy: Path, name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(copy.rglob(name))
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(1 << 42)  # a hole of four terabytes
    for older in copy.rglob("step-000000003.safetensors"):
        older.unlink()
    assert resumed(copy) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name in error


def test_a_name_in_a_message_does_not_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", tmp_path / "\x1b[2Jgone\n") == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert error.count("\n") == 1
