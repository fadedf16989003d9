"""What a message on data tells to do is done here, to the letter, and then the data is taken."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from remedies import UNIT, advised, train
from running import run

from tinyvae.errors import DataError
from tinyvae.training.data.user import load_user_file


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------------------------------------------- shapes and kinds

SHAPES = {
    "one channel before or behind": (UNIT.reshape(40, 1, 6, 1), 0, (40, 6, 1)),
    "three channels before or behind": (np.zeros((40, 3, 8, 3)), 0, (40, 72)),
    "opacity behind": (np.zeros((40, 8, 8, 4)), 0, (40, 8, 8, 3)),
    "opacity in front": (np.zeros((40, 4, 8, 8)), 0, (40, 3, 8, 8)),
    "images behind": (np.zeros((8, 8, 3, 40)), 0, (40, 8, 8, 3)),
    "one number": (UNIT[:, 0], 0, (40, 1)),
    "five dimensions": (np.zeros((40, 2, 2, 2, 2)), 0, (40, 16)),
    "strings": (UNIT.astype(str), 0, (40, 6)),
    "bytes": (UNIT.astype("S20"), 0, (40, 6)),
    "complex": (UNIT + 1j * UNIT, 0, (40, 12)),
    "dates": (np.arange(40).reshape(20, 2).astype("M8[D]"), 0, (20, 2)),
    "spans": (np.arange(40).reshape(20, 2).astype("m8[s]"), 0, (20, 2)),
    "records": (np.ones(20, dtype=[("a", "f8"), ("b", "i4")]), 0, (20, 2)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_other_shapes_and_kinds_are_told_how_to_become_rows(case: str) -> None:
    x, which, shape = SHAPES[case]
    np.save("own.npy", x)
    with pytest.raises(DataError) as caught:
        load_user_file(Path("own.npy"))
    mended = advised(str(caught.value), x, which)
    assert mended.shape == shape
    np.save("own.npy", mended)
    assert load_user_file(Path("own.npy")).x_train.dtype == np.float64


def test_an_ending_in_capitals_is_as_good() -> None:
    np.save("own.npy", UNIT)
    Path("own.npy").rename("OWN.NPY")
    np.savez("own.npz", x=UNIT)
    Path("own.npz").rename("mnist:2.Npz")  # nor is a set's name in front of it more than a name
    for path in ("OWN.NPY", "mnist:2.Npz"):
        train(path)


# ------------------------------------------------------------------------------------------------- keys and formats

Y = np.arange(40) % 3
OTHER_KEYS: dict[str, tuple[dict[str, np.ndarray], tuple[int, ...], bool]] = {
    "two tables and labels": ({"before": UNIT.reshape(40, 3, 2), "after": UNIT, "kind": Y}, (40, 3, 2), True),
    "two of a role": ({"images": UNIT, "data": UNIT, "labels": Y}, (40, 6), True),
    "many": ({f"a{i}": UNIT for i in range(30)}, (40, 6), False),
}


@pytest.mark.parametrize("case", OTHER_KEYS)
def test_an_archive_with_other_names_gets_the_line_that_renames(case: str) -> None:
    arrays, shape, labelled = OTHER_KEYS[case]
    np.savez("own.npz", **arrays)  # pyright: ignore[reportArgumentType] - its stub takes the names for options
    with pytest.raises(DataError) as caught:
        load_user_file(Path("own.npz"))
    for name in list(arrays)[:10]:
        assert f"{name} {arrays[name].shape} {arrays[name].dtype}" in str(caught.value)
    exec(str(caught.value).partition("in Python: ")[2], {})
    with np.load("own-x.npz") as file:
        assert file["x"].shape == shape
        assert ("y" in file.files) == labelled
    load_user_file(Path("own-x.npz"))


# ------------------------------------------------------------------------------------------------------------- labels


def test_labels_of_no_use_are_left_aside_by_every_command_that_needs_none(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("own.npz", x=UNIT, y=np.eye(3)[Y] + 0.1)  # scores, and no one-hot rows
    train("own.npz")
    assert "note: the labels are left aside: " in capsys.readouterr().out
    for options in (["--leave-out", "1"], ["--conditional"]):
        train("own.npz", *options, code=1)
        assert "y = y.argmax(axis=1)" in capsys.readouterr().err
    (folder,) = Path.cwd().glob("run-*")
    assert run("embed", folder, "own.npz", "--out", "z.csv") == 0
    assert run("anomaly", folder, "own.npz", "--out", "scores.csv") == 0
    assert "label" not in Path("z.csv").read_text()
    assert run("embed", folder, "own.npz", "--compare") == 1
    assert "y = y.argmax(axis=1)" in capsys.readouterr().err


def test_the_labels_that_there_are_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for y, words in [(Y + 1, "1, 2, 3"), (2 * Y + 2, "2, 4, 6"), (np.array(list("cab"))[Y], "a, b, c")]:
        np.savez("own.npz", x=UNIT, y=y)
        train("own.npz", "--conditional")
        assert f"conditional on labels {words};" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------- interrupts


def test_an_interrupt_while_data_is_read_is_one_line() -> None:
    np.savez("own.npz", x=UNIT)
    code = (
        "import os, signal, sys, numpy as np; from tinyvae.commands import main; "
        "np.lib.format.read_array = lambda *a, **k: os.kill(os.getpid(), signal.SIGINT); "
        "sys.exit(main(['train', '--data', 'own.npz']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "tinyvae train: interrupted\n")
    assert not Path("runs").exists()
