"""Every command explains its options, and answers every wrong input by one line; nothing is left behind.

The line says what is wrong and what to do.
"""

import argparse
import errno
import importlib.metadata
import os
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from running import run

import tinyvae
from tinyvae import backend
from tinyvae.__main__ import main as guarded
from tinyvae.commands import anomaly, augment, embed, evaluate, export, generate, gradcheck, restore, train
from tinyvae.training import run as runs

COMMANDS = (train, evaluate, generate, gradcheck, embed, restore, anomaly, augment, export)


# ----------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.__name__.rpartition(".")[2])
def test_help_explains_every_option(command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    command.add_arguments(parser)
    assert run(command.__name__.rpartition(".")[2], "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "examples:" in out
    for action in parser._actions:
        assert action.help, action
        assert "default" in action.help or action.default in (None, False, argparse.SUPPRESS)
        for flag in action.option_strings:
            assert re.search(rf"^  {flag}\b", out, re.MULTILINE), flag


def test_the_help_of_all_names_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^    {command.__name__.rpartition('.')[2]}\b", out, re.MULTILINE)
        assert command.SUMMARY in " ".join(out.split())


def test_the_console_script_is_this_command() -> None:
    scripts = importlib.metadata.entry_points(group="console_scripts", name="tinyvae")
    if not scripts:
        pytest.skip("tinyvae is run from its sources here, not installed")
    (script,) = scripts
    assert script.load() is guarded


HUGE = str(10**14)  # of anything: more bytes than a process can address, so no allocation can succeed by chance


USAGE, FAILURE = 2, 1


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good data, bad data, a run, and things that are no run."""
    folder = tmp_path_factory.mktemp("master")
    good = np.random.default_rng(0).uniform(0, 1, (40, 6))
    for name, x in {
        "good": good,
        "images": good.reshape(40, 3, 2),
        "real": 10 * good - 5,
        "nan": np.where(good == good[7, 2], np.nan, good),
        "strings": good.astype(str),
        "line": good[:, 0],
        "few": good[:9],
        "empty": good[:0],
        "far": good + 1e20,
    }.items():
        np.save(folder / f"{name}.npy", x)
    np.save(folder / "objects.npy", np.array([[None, 1]] * 20, dtype=object))
    np.savez(folder / "nameless.npz", good, good)
    np.savez(folder / "labels.npz", x=good, y=np.arange(39))
    (folder / "text.npy").write_text("1,2,3\n")
    (folder / "cut.npy").write_bytes((folder / "good.npy").read_bytes()[:500])
    (folder / "folder.npy").mkdir()
    (folder / "void").mkdir()
    (folder / "mnist").mkdir()
    (folder / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"not these")
    model = ["--hidden", "4", "--latent", "3", "--epochs", "1", "--backend", "numpy", "--no-figures", "--quiet"]
    assert run("train", "--data", folder / "good.npy", *model, "--out", folder / "run") == 0
    (folder / "model" / "checkpoints").mkdir(parents=True)
    tinyvae.save(tinyvae.load(folder / "run"), folder / "model" / "checkpoints" / "step-000000001.safetensors")
    shutil.copytree(folder / "run", folder / "renamed")
    (folder / "renamed/checkpoints/best-000001.safetensors").replace(
        folder / "renamed/checkpoints/step-000000002.safetensors"
    )
    shutil.copytree(folder / "run", folder / "damaged")
    for path in (folder / "damaged" / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    return folder


@pytest.fixture
def here(master: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to run in."""
    shutil.copytree(master, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refused(here: Path, line: str, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends with this code and one line that has these words (a pattern), and changes no file."""
    before = everything(here)
    argv = [a.replace("~", "\n") for a in line.split()]
    assert run(*argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert re.match(r"tinyvae( \w+)?: ", err), err
    assert re.search(words, err), err
    assert everything(here) == before


# ------------------------------------------------------------------------------------------------- one option at a time


TRAIN = "train --data good.npy --epochs 1 --hidden 4 --latent 2 --backend numpy --quiet --out new"


AT_LEAST_ONE = ("--hidden", "--decoder-hidden", "--latent", "--epochs", "--batch-size", "--accumulate", "--patience",
                "--checkpoint-every")  # fmt: skip


AT_LEAST_ZERO = ("--seed", "--device")


KL = ("--beta", "--beta-warmup", "--free-bits")


CHOICES = ("--activation", "--likelihood", "--objective", "--binarize", "--lr-schedule", "--backend", "--kernels",
           "--dtype")  # fmt: skip


ONE_OPTION = [
    *[(flag, value) for flag in AT_LEAST_ONE for value in ("0", "-1", "nan", "inf", "1.5", "x", "")],
    *[(flag, value) for flag in AT_LEAST_ZERO for value in ("-1", "nan", "1.5", "x", "")],
    *[("--lr", value) for value in ("0", "-1", "nan", "inf", "-inf", "x", "")],
    *[("--clip-norm", value) for value in ("0", "-1", "nan", "inf", "x", "")],
    *[(flag, value) for flag in KL for value in ("-1", "nan", "inf", "-inf", "x", "")],
    *[(flag, value) for flag in CHOICES for value in ("x", "", "0", "NUMPY")],
    *[("--sigma", f"{value} --likelihood gaussian")
      for value in ("x", "0.1", "fixed", "fixed:", "fixed:0",
                     "fixed:-1", "fixed:nan", "fixed:inf", "fixed:x", "Learned", "")],
    *[("--data", value) for value in ("", "x", "none.npy", "good.csv", "digits:5", "mnist:", "two-gaussians:",
                                      "two-gaussians:0", "two-gaussians:-1", "two-gaussians:1.5", "two-gaussians:x")],
]  # fmt: skip


@pytest.mark.parametrize(("flag", "value"), ONE_OPTION)
def test_a_wrong_value_of_an_option_is_named(
    here: Path, flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "sigma" if flag == "--sigma" else flag
    shown = value.removeprefix("two-gaussians:").partition(" ")[0]
    refused(here, f"{TRAIN} {flag}={value}", USAGE, rf"{name}.*{re.escape(shown)}.*--help\)$", capsys)


@pytest.mark.parametrize("flag", [*AT_LEAST_ONE, *AT_LEAST_ZERO, *CHOICES, *KL, "--lr", "--data", "--out", "--sigma"])
def test_an_option_without_its_value_is_named(here: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(here, f"{TRAIN} {flag}", USAGE, rf"{flag}: expected.*--help", capsys)


# ------------------------------------------------------------------------------------------- what does not go together


GAUSSIAN = f"{TRAIN} --likelihood gaussian"


REFUSED: list[tuple[str, int, str]] = [
    ("", USAGE, "required: COMMAND.*--help"),
    ("trian", USAGE, "'trian'.*train.*--help"),
    (f"{TRAIN} --nonsense", USAGE, "--nonsense.*--help"),
    (f"{TRAIN} extra", USAGE, "extra.*--help"),
    (
        f"{TRAIN} --sigma learned",
        USAGE,
        "--sigma is no option of bernoulli, but of --likelihood gaussian: ask for that",
    ),
    (
        f"{TRAIN} --sigma fixed:0.1 --likelihood bernoulli",
        USAGE,
        "of --likelihood gaussian: ask for that, or leave it out",
    ),
    (f"{TRAIN} --tied --decoder-hidden 5", USAGE, r"mirrors the encoder: decoder_hidden must be \(4,\)"),
    (f"{GAUSSIAN} --tied --sigma predicted", USAGE, "use sigma 'learned' or 'fixed:VALUE'"),
    # data
    (TRAIN.replace("good", "real"), FAILURE, r"real.*needs \[0, 1\].*for real values use the gaussian"),
    (
        f"{TRAIN} --binarize dynamic".replace("good", "real"),
        FAILURE,
        r"real: .*\[-4.97\d*, 4.97\d*\], but --binarize needs \[0, 1\]",
    ),
    (TRAIN.replace("good", "strings"), FAILURE, r"strings\.npy: x has dtype <U\d+, but numbers are needed"),
    (TRAIN.replace("good", "objects"), FAILURE, r"objects\.npy: .*holds Python objects.*numpy\.save"),
    (TRAIN.replace("good", "line"), FAILURE, r"line\.npy: x has shape \(40,\), but \(rows, columns\)"),
    (TRAIN.replace("good", "few"), FAILURE, "few: 9 rows are too few.*at least 10 are needed"),
    (TRAIN.replace("good", "empty"), FAILURE, r"empty\.npy: x has shape \(0, 6\)"),
    (TRAIN.replace("good", "text"), FAILURE, r"text\.npy: .*it is text.*let its name end so: text\.csv"),
    (TRAIN.replace("good", "cut"), FAILURE, r"cut\.npy: is not a readable \.npy"),
    (
        TRAIN.replace("good.npy", "nameless.npz"),
        FAILURE,
        r"nameless\.npz: holds arr_0 \(40, 6\) float64, arr_1 .*, but the data must be called x",
    ),
    (f"{TRAIN.replace('good.npy', 'labels.npz')} --conditional", FAILURE, r"labels\.npz: y must be 40 labels"),
    (TRAIN.replace("good", "folder"), USAGE, r"--data folder\.npy: is a folder"),
    (f"{TRAIN.replace('good.npy', 'mnist')} --data-dir mnist", FAILURE, "is not the published file.*or delete it"),
    (
        f"{TRAIN.replace('good.npy', 'mnist')} --data-dir text.npy",
        FAILURE,
        "is a file, not a folder.*another --data-dir",
    ),
    # where to
    (TRAIN.replace("new", "run"), FAILURE, "run: is not empty; choose another --out, or go on with it by --resume run"),
    (TRAIN.replace("new", "text.npy"), FAILURE, r"text\.npy: cannot be written .*choose another --out"),
    (TRAIN.replace("new", "text.npy/below"), FAILURE, "text.npy/below: cannot be written .*choose another --out"),
    (TRAIN.replace("new", "n" * 300), FAILURE, "nnn: cannot be written .*choose another --out"),
    # resume
    ("train --resume none", USAGE, "none: there is no such run directory"),
    ("train --resume good.npy", USAGE, r"good\.npy: there is no such run directory"),
    ("train --resume void", FAILURE, "void: holds no checkpoint; was it written by 'tinyvae train --out void'"),
    ("train --resume model", FAILURE, "model/.*is a model without the state of a run"),
    ("train --resume damaged --epochs 2", FAILURE, "damaged: no whole checkpoint is left;.*step-000000001"),
    ("train --resume run --no-figures", USAGE, "run has all its 1 epochs; to go on, give --epochs more than that"),
    ("train --resume run --epochs 1", USAGE, "run has all its 1 epochs"),
    ("train --resume run --epochs 2 --lr 0.5", USAGE, "other options: --lr is 0.001 in the run, not 0.5"),
    ("train --resume run --epochs 2 --hidden 4 4", USAGE, "--hidden is 4 in the run, not 4 4"),
    ("train --resume run --epochs 2 --tied --seed 3", USAGE, "--tied is False in the run.*; --seed is 0 in the run"),
    ("train --resume run --epochs 2 --data images.npy", USAGE, r"--data is .*good\.npy in the run, not .*images\.npy"),
    ("train --resume run --out new", USAGE, "leave --out away"),
    ("train --resume run --epochs 0", USAGE, "--epochs must be at least 1, not 0"),
    # evaluate and generate
    ("evaluate", USAGE, "required: RUN.*--help"),
    ("evaluate none", USAGE, "none: there is no such run directory"),
    ("evaluate good.npy", USAGE, r"good\.npy: there is no such run directory"),
    ("evaluate void", FAILURE, "void: holds no checkpoint"),
    ("evaluate model", FAILURE, "holds no configuration"),
    ("evaluate damaged", FAILURE, "damaged: no whole checkpoint is left"),
    ("evaluate damaged --checkpoint best", FAILURE, "damaged"),
    ("evaluate run --checkpoint worst", USAGE, "--checkpoint.*'worst'.*last.*best"),
    ("evaluate run --nll-samples -1", USAGE, "--nll-samples must be at least 0, not -1"),
    ("evaluate run --nll-samples x", USAGE, "--nll-samples.*'x'"),
    ("evaluate run --backend x", USAGE, "--backend.*'x'"),
    ("evaluate run extra", USAGE, "extra"),
    ("generate run", USAGE, "required: --out"),
    ("generate none --out a.png", USAGE, "none: there is no such run directory"),
    ("generate void --out a.png", FAILURE, "void: holds no checkpoint"),
    ("generate model --out a.png", FAILURE, "holds no configuration"),
    ("generate run --out a.jpg", USAGE, r"--out must end in \.png or \.npy, not 'a\.jpg'"),
    ("generate run --out a", USAGE, "--out must end in"),
    ("generate run --out .png", USAGE, "--out must end in"),
    ("generate run --out no/a.png", FAILURE, r"no/a\.png: cannot be written .*choose another --out"),
    ("generate run --out no/a.npy", FAILURE, r"no/a\.npy: cannot be written .*choose another --out"),
    ("generate run --out text.npy/a.npy", FAILURE, "cannot be written .*choose another --out"),
    ("generate run --out folder.npy", FAILURE, r"folder\.npy: cannot be written .*choose another --out"),
    ("generate run --out a.npy --n 0", USAGE, "--n must be at least 1"),
    ("generate run --out a.npy --n x", USAGE, "--n.*'x'"),
    ("generate run --out a.npy --seed -1", USAGE, "--seed must be at least 0, not -1"),
    ("generate run --out a.npy --interpolate 0 4", USAGE, "--interpolate needs test rows from 0 to 3, not 4"),
    ("generate run --out a.npy --interpolate -1 0", USAGE, "--interpolate needs test rows from 0 to 3, not -1"),
    ("generate run --out a.npy --interpolate 0", USAGE, "--interpolate: expected 2 arguments"),
    ("generate run --out a.npy --manifold", USAGE, "--manifold needs a two-dimensional z, but this run has 3"),
    ("generate run --out a.npy --manifold --n 3", USAGE, "--n.*not allowed with|--manifold.*not allowed with"),
    ("export run", USAGE, "required: --onnx"),
    ("export none --onnx new", USAGE, "none: there is no such run directory"),
    ("export void --onnx new", FAILURE, "void: holds no checkpoint"),
    ("export damaged --onnx new", FAILURE, "damaged: no whole checkpoint is left"),
    ("export run --onnx text.npy", FAILURE, r"text\.npy: cannot be written .*choose another --onnx"),
    ("export run --onnx text.npy/below", FAILURE, "text.npy/below: cannot be written .*choose another --onnx"),
    ("export run --onnx new --backend numpy", USAGE, "--backend"),
    ("gradcheck --seed x", USAGE, "--seed.*'x'"),
    ("gradcheck --seed -1", USAGE, "--seed must be at least 0, not -1"),
    # far too much, and names that are hardly names
    (f"{TRAIN} --latent {HUGE}", USAGE, f"--latent must be .*not {HUGE}"),
    (f"{TRAIN} --hidden {HUGE}", USAGE, f"--hidden must be .*not {HUGE}"),
    (f"{TRAIN} --beta-warmup 1{'0' * 400}", USAGE, "--beta-warmup must be .{1,200}$"),
    (f"{TRAIN} --epochs 1{'0' * 400}", USAGE, "--epochs must be .{1,200}$"),
    (f"{TRAIN} --data two-gaussians:{HUGE}", USAGE, "needs a number of points"),
    (f"generate run --n {HUGE} --out a.npy", FAILURE, "not enough memory"),
    ("train --resume renamed --epochs 3", FAILURE, "renamed/.*is a model without the state of a run"),
    (f"{TRAIN} --out=", USAGE, "--out must name a directory"),
    (f"{TRAIN} --data a~name.npy", USAGE, r"a.nname\.npy: there is no such file"),
]


@pytest.mark.parametrize(
    ("line", "code", "words"), REFUSED, ids=[line.replace(TRAIN, "...")[:50] for line, *_ in REFUSED]
)
def test_what_cannot_be_is_refused_in_one_line(
    here: Path, line: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(here, line, code, words, capsys)


# ------------------------------------------------------------------------------------------------- with a planted fault


def test_a_gpu_that_cannot_be_used_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "cupy_problem", lambda device=0: "CuPy is not installed: or use --backend numpy")
    for line in (f"{TRAIN} --backend cupy", "evaluate run --backend cupy", "generate run --backend cupy --out a.npy"):
        refused(here, line, FAILURE, "CuPy is not installed: .*--backend numpy", capsys)


def test_data_that_may_not_be_read_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*args: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "good.npy")

    monkeypatch.setattr(os, "open", denied)
    refused(here, TRAIN, FAILURE, r"good\.npy: cannot be read \(Permission denied\)", capsys)


def test_numbers_too_large_to_train_on_are_one_line_and_no_checkpoint(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*GAUSSIAN.replace("good", "far").split(), "--standardize", "off") == FAILURE
    err = capsys.readouterr().err
    assert re.fullmatch(
        r"tinyvae train: far: column \d reaches 1e\+20, and the square of that is beyond float32.*\n", err
    )
    assert [p for p in (here / "new").rglob("*.safetensors")] == []


def no_space(*args: Any, **options: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_at_the_pictures_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Figure, "savefig", no_space)
    assert run(*TRAIN.split()) == FAILURE
    assert re.fullmatch(r"tinyvae train: .*No space left on device.*\n", capsys.readouterr().err)


def test_a_full_disk_at_the_start_leaves_no_directories(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "write_text", no_space)
    refused(here, TRAIN, FAILURE, "new: cannot be written .No space left on device.; choose another --out", capsys)
