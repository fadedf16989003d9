"""What a message on data tells to do is done here, to the letter, and then the data is taken."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from remedies import UNIT, advised, train
from running import run

from tinyvae.errors import DataError
from tinyvae.training.data.user import load_user_file


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------------------------------------------- missing numbers


@pytest.mark.parametrize(("where", "words"), [
    ([(4, 1)], r"1 of 40 rows, the first is row 4; in column 1\); remove these rows: .* leaves 39"),
    ([(4, 1), (9, 3), (9, 1)], r"2 of 40 rows, the first is row 4; in columns 1, 3\)"),
    ([(slice(None), 2)], r"40 of 40 rows, .*; in column 2\); remove these columns: .* leaves 5"),
    ([(i, i % 6) for i in range(40)], "fill in the mean"),
])  # fmt: skip
def test_missing_numbers_are_counted_and_the_remedy_leaves_none(where: list[Any], words: str) -> None:
    x = UNIT.copy()
    for place in where:
        x[place] = np.nan
    np.save("own.npy", x)
    with pytest.raises(DataError, match=words) as caught:
        load_user_file(Path("own.npy"))
    names: dict[str, Any] = {"np": np, "x": x}
    exec(
        re.split(r"remove these \w+: |fill in the mean of the column: ", str(caught.value))[1].split(" leaves")[0],
        names,
    )
    assert np.isfinite(names["x"]).all()
    assert min(names["x"].shape) >= 5


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

LABELS: dict[str, np.ndarray] = {
    "strings": np.array(list("abc"))[Y],
    "floats": Y + 0.0,
    "scores": np.eye(3)[Y] + 0.1,
    "below 0": Y - 1,
    "far apart": 1000 * Y,
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_stop_nothing_where_they_are_not_used_and_are_mended_where_they_are(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    y = LABELS[case]
    np.savez("own.npz", x=UNIT, y=y)
    train("own.npz", "--likelihood", "gaussian")
    out = capsys.readouterr().out
    assert ("note: the labels are left aside: " in out) == (case not in ("below 0", "far apart"))
    train("own.npz", "--conditional", code=1)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    names: dict[str, Any] = {"np": np, "y": y}
    exec(re.findall(r"y = .+$", err.strip())[0], names)
    assert np.array_equal(names["y"], Y)
    np.savez("own.npz", x=UNIT, y=names["y"])
    train("own.npz", "--conditional")
    assert "conditional on labels 0, 1, 2" in capsys.readouterr().out


def test_labels_of_no_use_are_left_aside_by_every_command_that_needs_none(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("own.npz", x=UNIT, y=np.array(list("abc"))[Y])
    train("own.npz")
    train("own.npz", "--leave-out", "1", code=1)
    assert "number the labels: y = np.unique" in capsys.readouterr().err
    (folder,) = Path.cwd().glob("run-*")
    assert run("embed", folder, "own.npz", "--out", "z.csv") == 0
    assert run("anomaly", folder, "own.npz", "--out", "scores.csv") == 0
    assert "label" not in Path("z.csv").read_text()
    assert run("embed", folder, "own.npz", "--compare") == 1
    assert "number the labels: y = np.unique" in capsys.readouterr().err


def test_the_labels_that_there_are_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for y, words in [(Y + 1, "1, 2, 3"), (2 * Y + 2, "2, 4, 6"), (np.arange(40), "40 numbers from 0 to 39")]:
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
