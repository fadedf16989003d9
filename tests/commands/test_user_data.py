"""What people bring, from the file to new rows: tables with gaps, pictures in colour, parts of their own, zeros."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from PIL import Image
from running import run

import tinyvae

SMALL = ["--hidden", "4", "--latent", "2", "--epochs", "2", "--backend", "numpy", "--kernels", "numpy"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def people(n: int = 60) -> pd.DataFrame:
    """Columns of all kinds, with gaps; an identifier, a column that never changes, and labels."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "id": np.arange(n), "sex": rng.choice(["male", "female"], n), "age": rng.integers(18, 80, n).astype(float),
        "height": rng.normal(170, 10, n), "visits": rng.poisson(6, n), "planet": "Earth",
        "pet": rng.choice(["cat", "dog", "cow"], n),
    })  # fmt: skip
    frame.loc[3, "age"], frame.loc[[4, 7], "sex"], frame.loc[5, "height"] = np.nan, None, np.nan
    return frame


def pictures() -> None:
    rng = np.random.default_rng(0)
    for channel, name in ((0, "red"), (2, "blue")):
        Path("pictures", name).mkdir(parents=True)
        for i in range(10):
            a = rng.integers(0, 60, (8, 8, 3))
            a[..., channel] += 150
            Image.fromarray(a.astype(np.uint8)).save(f"pictures/{name}/{i}.png")


def parts() -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x_train": rng.random((40, 6)),
        "x_test": rng.random((9, 6)),
        "x_valid": rng.random((7, 6)),
    }
    arrays |= {"y_train": rng.integers(1, 4, 40), "y_test": rng.integers(1, 4, 9), "y_valid": rng.integers(1, 4, 7)}
    np.savez("parts.npz", **arrays)


def trained(capsys: pytest.CaptureFixture[str], data: str, *options: str, figures: bool = False) -> str:
    """Train, evaluate, draw rows; what `train` and `evaluate` said."""
    drawn = [] if figures else ["--no-figures"]
    assert run("train", "--data", data, *SMALL, *options, *drawn, "--out", "run") == 0
    assert bool(list(Path("run").glob("figures/*.png"))) == figures
    assert run("evaluate", "run", "--nll-samples", "2") == 0
    said = capsys.readouterr().out
    assert "independent" in said
    assert run("evaluate", "run", "--nll-samples", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert np.isfinite(found["independent_columns"])
    assert ("warning" in found) == (found["nll"] + found["kl"] > found["independent_columns"] + 0.1)
    assert run("generate", "run", "--n", "5", "--draw", "--out", "new.npy") == 0
    assert np.load("new.npy").shape == (5, tinyvae.load("run").data_dim)
    assert run("generate", "run", "--n", "5", "--out", "new.png") == 0
    return said


@pytest.mark.parametrize(("figures", "options"), [(True, ()), (False, ("--conditional",))])
def test_a_table_with_gaps(capsys: pytest.CaptureFixture[str], figures: bool, options: tuple[str, ...]) -> None:
    people().to_csv("people.csv", index=False)
    said = trained(capsys, "people.csv", "--label", "pet", *options, figures=figures)
    for line in (
        "left out as constant: planet (always Earth)",
        "left out as identifier: id (whole numbers from 0 to 59, all different)",
        "cells that are missing, of 60 rows: sex 2, age 1, height 1",
        "1 real columns are standardized by the training rows",
        "mixed:columns=bernoulli*1+negative-binomial*1+gaussian*1+negative-binomial*1",
    ):
        assert line in said
    assert ("conditional on labels cat, cow, dog" in said) == bool(options)
    sex, age, height, visits = np.load("new.npy").T
    assert set(sex) <= {0, 1}
    assert (age == np.floor(age)).all()
    assert (visits >= 0).all()
    assert ((height > 100) & (height < 240)).all()  # in centimetres


def test_labels_are_asked_for_by_name_and_left_out_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    people().to_csv("people.csv", index=False)
    options = ["--data", "people.csv", "--label", "pet", *SMALL, "--no-figures"]
    assert run("train", *options, "--conditional", "--out", "run") == 0
    assert tinyvae.load("run").labels == ("cat", "cow", "dog")
    assert run("generate", "run", "--label", "dog", "--n", "3", "--out", "dogs.npy") == 0
    model, z = tinyvae.load("run"), np.zeros((3, 2))
    assert np.load("dogs.npy").shape == (3, 4)
    assert not np.array_equal(model.decode(z, y=["dog"] * 3), model.decode(z, y=["cat"] * 3))
    capsys.readouterr()
    assert run("generate", "run", "--label", "horse", "--out", "horses.npy") == 2
    error = capsys.readouterr().err
    assert "error: --label must be one of the run's labels, cat, cow, dog, not horse" in error
    assert error.count("\n") == 1
    assert not Path("horses.npy").exists()
    assert run("train", *options, "--leave-out", "horse", "--out", "none") == 1
    assert "has no rows with label horse; its labels are cat, cow, dog" in capsys.readouterr().err
    assert not Path("none").exists()
    assert run("train", *options, "--leave-out", "dog", "--out", "other") == 0
    rows = int(np.sum(np.asarray(people()["pet"]) != "dog"))
    counts = [int(n) for n in re.findall(r"(\d+) rows", capsys.readouterr().out)]
    assert sum(counts[:3]) == rows


def test_a_compressed_table_of_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    people().to_csv("people.tsv.gz", index=False, sep="\t")
    said = trained(capsys, "people.tsv.gz")
    assert "left out as identifier: id" in said
    assert "categorical*3" in said


@pytest.mark.parametrize(("figures", "options"), [(True, ("--conditional",)), (False, ())])
def test_a_folder_of_pictures_in_colour(
    capsys: pytest.CaptureFixture[str], figures: bool, options: tuple[str, ...]
) -> None:
    pictures()
    said = trained(capsys, "pictures", *options, figures=figures)
    assert "standardized" not in said
    assert "192 - 4 - [2] - 4 - 192" in said
    with Image.open("new.png") as sheet:
        assert len(np.unique(np.asarray(sheet.convert("RGB")).reshape(-1, 3), axis=0)) > 5
    if options:
        assert "conditional on labels blue, red" in said
        for label, channel in (("red", 0), ("blue", 2)):
            assert run("generate", "run", "--label", label, "--n", "2", "--out", f"{label}.npy") == 0
            x = np.load(f"{label}.npy").reshape(2, 8, 8, 3)
            assert x[..., channel].mean() > x[..., 2 - channel].mean()  # the start of training alone does so
        capsys.readouterr()


@pytest.mark.parametrize("figures", [True, False])
def test_parts_of_its_own(capsys: pytest.CaptureFixture[str], figures: bool) -> None:
    parts()
    said = trained(capsys, "parts.npz", "--conditional", figures=figures)
    assert "40 rows to train on, 7 rows held out, 9 rows to test on" in said
    assert "conditional on labels 1, 2, 3" in said


def test_rows_with_few_numbers_that_are_not_0(capsys: pytest.CaptureFixture[str]) -> None:
    x = scipy.sparse.csr_matrix(np.random.default_rng(0).poisson(0.5, (40, 7)).astype(float))
    scipy.sparse.save_npz("sparse.npz", x)
    trained(capsys, "sparse.npz", "--likelihood", "poisson")
    new = np.load("new.npy")
    assert (new == np.floor(new)).all()


def test_the_warning_is_for_a_model_that_has_learned_less_than_columns_by_themselves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((600, 1))
    np.save("line.npy", 30 * (z @ np.ones((1, 5)) + 0.1 * rng.standard_normal((600, 5))))
    options = ["--data", "line.npy", "--likelihood", "gaussian", "--no-figures", "--latent", "1", "--kernels", "numpy"]
    options += ["--backend", "numpy", "--batch-size", "50", "--hidden", "8"]
    worse = "is worse than independent columns"
    good, bad = ["--epochs", "30", "--lr", "0.01"], ["--epochs", "1", "--lr", "1e-5", "--standardize", "off"]
    for name, more, warned in (("good", good, False), ("bad", bad, True)):
        assert run("train", *options, *more, "--out", name) == 0
        said = capsys.readouterr()
        assert (worse in said.out + said.err) == warned
        assert "nll + kl is" in said.out
        assert run("evaluate", name, "--nll-samples", "0", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (worse in found.get("warning", "")) == warned
        assert abs(found["independent_columns"] - 5 * 0.5 * np.log(2 * np.pi * np.e * 30**2 * 1.01)) < 0.7


@pytest.mark.parametrize("mask", ["noise", "random:0.5", "half", "box:1,1,3,4"])
def test_pictures_in_colour_and_rows_with_gaps_are_restored(capsys: pytest.CaptureFixture[str], mask: str) -> None:
    pictures()
    x = np.random.default_rng(0).standard_normal((40, 4))
    x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    np.save("gaps.npy", x)
    for data, more in (("pictures", []), ("gaps.npy", ["--likelihood", "gaussian"])):
        if data == "gaps.npy" and mask.startswith("box"):
            continue
        assert run("train", "--data", data, *SMALL, *more, "--no-figures", "--out", f"run-{data}") == 0
        capsys.readouterr()
        assert run("restore", f"run-{data}", "--mask", mask, "--steps", "2", "--out", f"{data}.png") == 0
        said = capsys.readouterr().out
        assert "root mean squared error" in said
        assert "nan" not in said
        assert Path(f"{data}.png").exists()
