"""The size of numbers: what is outside [0, 1], badly scaled or beyond any loss is shown, and the remedy helps."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from remedies import REAL, SMALL, SPOT, UNIT, advised, train
from running import run
from strategies import assert_within

from tinyvae.errors import DataError
from tinyvae.training.config import Config
from tinyvae.training.data.dataset import Dataset
from tinyvae.training.data.scale import CHUNK, column_moments
from tinyvae.training.data.user import load_user_file
from tinyvae.training.run import load_data


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --------------------------------------------------------------------------------------------------- not in [0, 1]


OUTSIDE: dict[str, tuple[np.ndarray, str]] = {
    "a pixel of 1.0000001": (np.where(SPOT, 1.0000001, UNIT),
                             r"1\.0000001\].*1 of 240 values .*first is 1\.0000001 in row 7, column 2"),
    "rounded in float32": (np.where(SPOT, 1.0000001, UNIT).astype(np.float32), r"1\.00000011\d+ in row 7"),
    "rounded in float16": (np.where(SPOT, 1.001, UNIT).astype(np.float16), r"1\.0009765625|1\.00098"),
    "a hair below 0": (np.where(SPOT, -1e-9, UNIT), r"\[-1e-09, .*first is -1e-09 in row 7, column 2"),
    "an overshoot": (1.005 * UNIT / UNIT.max(), "clip it"),
    "whole pixels as floats": (np.floor(256 * UNIT), "must be divided by 255"),
    "resized pixels": (250 * UNIT, "must be divided by 255"),
    "sixteen greys": (np.append(np.floor(17 * UNIT), [[16] * 6], 0), "up to 16 must be divided by 16"),
    "sixteen bits": ((65535 * UNIT).astype(np.uint16), "must be divided by 65535"),
    "between -1 and 1": (2 * UNIT - 1, r"images in \[-1, 1\]"),
    "signed bytes": ((255 * UNIT - 128).astype(np.int8), "signed pixels"),
    "real numbers": (10 * REAL, "for real values use the gaussian likelihood"),
    "large whole numbers": (np.floor(1e6 * UNIT), "scale it there"),
}  # fmt: skip


@pytest.mark.parametrize("case", OUTSIDE)
def test_what_is_outside_0_to_1_is_shown_and_the_remedy_brings_it_there(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    x, words = OUTSIDE[case]
    np.save("own.npy", x)
    train("own.npy", code=1)
    err = capsys.readouterr().err
    assert re.search(words, err), err
    assert err.count("\n") == 1
    mended = advised(err.strip(), x)
    assert 0 <= mended.min() < mended.max() <= 1
    assert np.corrcoef(np.ravel(x).astype(float), np.ravel(mended))[0, 1] > 0.999  # the same picture
    np.save("own.npy", mended)
    assert load_user_file(Path("own.npy")).range()[1] <= 1


def test_the_row_that_is_named_is_the_files_own_whatever_was_left_out() -> None:
    y = np.arange(200) % 2
    for row in range(0, 200, 20):
        x = np.tile(UNIT, (5, 1))
        x[row, 3] = 1.5
        np.savez("own.npz", x=x, y=y)
        with pytest.raises(DataError, match=rf"in row {row}, column 3"):
            load_data(Config(data="own.npz", binarize="threshold", leave_out="1"))


# ------------------------------------------------------------------------------------------------------------- size


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_moments_are_those_of_what_was_observed_even_far_from_0(gaps: float) -> None:
    rng = np.random.default_rng(0)
    x = 1e6 + rng.standard_normal((2 * CHUNK + 7, 3))
    x[rng.random(x.shape) < gaps] = np.nan
    x[:, 2] = x[:, 2] if gaps == 0 else np.nan  # a column that nobody has seen
    mean, std = column_moments(Dataset("far", x, x[:2], scale=0.5))
    assert_within(mean[:2], 0.5 * np.nanmean(x[:, :2], axis=0), 1e-12 * 1e6)
    assert_within(std[:2], 0.5 * np.nanstd(x[:, :2], axis=0), 1e-9)
    if gaps:
        assert (mean[2], std[2]) == (0, 0)


FAR = REAL + np.array([0, 0, 0, 1e7, 0])


LARGE = {
    "a column near 1e7": FAR,
    "all of 60": 60 * REAL,
    "all of 1e-3": 1e-3 * REAL,
    "near 1e7 as float32": FAR.astype(np.float32),
    "beside a constant": np.column_stack([60 * REAL, np.full(200, 7.0)]),
}


BEYOND = {
    "a column of 1e20": REAL * [1, 1, 1, 1e20, 1],
    "a column of 1e150": REAL * [1, 1, 1, 1e150, 1],
    "all of 1e200": REAL * 1e200,
}


@pytest.mark.parametrize("case", LARGE)
def test_badly_scaled_columns_are_named_before_training_and_the_remedy_helps(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    x = LARGE[case]
    np.save("own.npy", x)
    run("train", "--data", "own.npy", *SMALL, "--likelihood", "gaussian", "--standardize", "off", "--out", "run")
    out, err = capsys.readouterr()
    notes = [line for line in out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    if "1e7" in case:
        assert "column 3 has mean 1e+07 and standard deviation" in notes[0]
    if err:  # it diverged: not for want of a smaller step
        assert "standardize: " in err
        assert "--lr" not in err
    names: dict[str, Any] = {"np": np, "x": x}
    exec(notes[0].partition("standardize: ")[2], names)
    np.save("mended.npy", names["x"])
    train("mended.npy", "--likelihood", "gaussian", "--standardize", "off")
    assert "note: " not in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", BEYOND)
def test_what_no_loss_can_hold_is_refused_with_its_column(
    case: str, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    x = BEYOND[case]
    np.save("own.npy", x)
    run(
        "train",
        "--data",
        "own.npy",
        *SMALL,
        "--likelihood",
        "gaussian",
        "--standardize",
        "off",
        "--dtype",
        dtype,
        "--out",
        "run",
    )
    err = capsys.readouterr().err
    assert re.search("column 3 (reaches|has mean)", err)
    assert "--lr" not in err
    names: dict[str, Any] = {"np": np, "x": x}
    with np.errstate(all="raise", under="ignore"):
        exec(err.partition("standardize: ")[2], names)
    assert np.allclose(names["x"].std(0), 1)


def test_data_of_unit_size_gets_no_note(capsys: pytest.CaptureFixture[str]) -> None:
    for x in (REAL, UNIT, 3 * REAL + 1, np.column_stack([REAL, np.zeros(200)])):
        np.save("own.npy", x)
        train("own.npy", "--likelihood", "gaussian", "--standardize", "off")
        assert "note: " not in capsys.readouterr().out
