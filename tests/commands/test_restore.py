"""`tinyvae restore` as a user has it: the table, the files, and one line for what cannot be."""

import re
from pathlib import Path

import numpy as np
import pytest
from running import run, small_digits

import tinyvae

FAILURE, USAGE = 1, 2
TRAINED = ["--epochs", "30", "--backend", "numpy", "--kernels", "numpy", "--no-figures", "--quiet"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on images, on points in the plane, on images made 0 and 1, and a conditional one."""
    folder = tmp_path_factory.mktemp("runs")
    own = small_digits(folder)
    for name, data, *options in [
        ("digits", "digits"),
        ("plane", "two-gaussians", "--latent", "2", "--hidden", "8"),
        ("binary", "digits", "--binarize", "dynamic", "--epochs", "1"),
        ("conditional", str(own), "--conditional", "--hidden", "6", "--epochs", "1"),
    ]:
        assert run("train", "--data", data, *TRAINED, *options, "--out", folder / name) == 0
    return folder


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(out: str) -> dict[str, list[float]]:
    """Each line of the table: the numbers after its name."""
    lines = [re.match(r"(VAE|as given|training mean|3 x 3 mean) +(.*)", line) for line in out.splitlines()]
    return {m[1]: [float(n) for n in re.findall(r"\d+\.\d+", m[2])] for m in lines if m}


@pytest.mark.parametrize("mask", ["half", "random:0.5", "box:2,2,4,4"])
def test_the_model_fills_in_better_than_the_mean(
    runs: Path, here: Path, mask: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("restore", runs / "digits", "--mask", mask, "--out", "a.npz") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == "a.npz"
    found = table(out)
    assert list(found) == ["VAE", "training mean"]
    for i in (0, 2):  # root mean squared error, cross-entropy; between them their standard errors
        ours, error = found["VAE"][i : i + 2]
        theirs, other = found["training mean"][i : i + 2]
        assert 0 < error < 0.1 * ours
        assert ours < theirs - 3 * (error + other)
    with np.load("a.npz") as file:
        arrays = {name: file[name] for name in file.files}
    assert sorted(arrays) == ["draw", "given", "restored", "row", "x"]
    data = tinyvae.load_data("digits")
    assert np.array_equal(arrays["x"], data.values(data.x_test[arrays["row"]]))
    known = ~np.isnan(arrays["given"])
    for name in ("given", "restored", "draw"):
        assert np.array_equal(arrays[name][known], arrays["x"][known])
    rmse = np.sqrt(np.mean((arrays["restored"] - arrays["x"])[~known] ** 2))
    assert found["VAE"][0] == pytest.approx(rmse, abs=5e-5)  # four decimals are printed


def test_a_denoised_row_is_closer_to_the_truth_than_the_noisy_one(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("restore", runs / "digits", "--mask", "noise", "--out", "a.npz") == 0
    out = capsys.readouterr().out
    found = table(out)
    assert list(found) == ["VAE", "as given", "training mean", "3 x 3 mean"]
    assert "25% of the pixels replaced by random numbers" in out
    assert found["VAE"][0] < found["as given"][0]
    assert len(found["VAE"]) == 4
    assert len(found["as given"]) == 2  # no probabilities, so no cross-entropy
    with np.load("a.npz") as file:
        assert sorted(file.files) == ["given", "restored", "row", "x"]


def test_real_numbers_have_no_cross_entropy(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mask in ("half", "noise"):
        assert run("restore", runs / "plane", "--mask", mask) == 0
        out = capsys.readouterr().out
        assert "cross-entropy" not in out
        assert all(len(numbers) == 2 for numbers in table(out).values())
    assert "Gaussian noise" in out


def test_a_run_on_0s_and_1s_restores_0s_and_1s(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("restore", runs / "binary", "--mask", "half", "--steps", "2", "--out", "a.npz") == 0
    with np.load("a.npz") as file:
        assert set(np.unique(file["x"])) == set(np.unique(file["draw"])) == {0.0, 1.0}
    assert run("restore", runs / "binary", "--mask", "noise") == 0
    assert "25% of the pixels flipped" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["digits", "plane", "conditional"])
def test_a_picture_is_written(runs: Path, here: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for mask in ("half", "noise"):
        assert run("restore", runs / name, "--mask", mask, "--steps", "2", "--n", "5", "--out", f"{mask}.png") == 0
        assert Path(f"{mask}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert capsys.readouterr().out.endswith(f"{mask}.png\n")


def test_a_seed_reproduces_the_numbers(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outs = []
    for seed in ("0", "0", "1"):
        assert run("restore", runs / "digits", "--mask", "random:0.5", "--steps", "2", "--seed", seed) == 0
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1] != outs[2]


REFUSED = [
    ("digits", USAGE, "required: --mask"),
    *[
        (f"digits --mask {mask}", USAGE, f"--mask .*{mask.partition(':')[2] or mask}.*--help")
        for mask in ("foo", "random:2", "random:0", "box:1,2,3", "box:0,0,0,1")
    ],
    (
        "digits --mask box:7,0,2,2",
        USAGE,
        "--mask: the box reaches to row 9 and column 2, outside of the image of 8 x 8",
    ),
    ("plane --mask box:0,0,1,1", USAGE, "--mask: a box needs images, and the data has none"),
    ("digits --mask random:1e-9", FAILURE, "--mask leaves nothing missing in 359 rows of 64 numbers"),
    ("digits --mask half --steps 0", USAGE, "--steps must be at least 1, not 0"),
    ("digits --mask half --n 0", USAGE, "--n must be at least 1, not 0"),
    ("digits --mask half --seed -1", USAGE, "--seed must be at least 0, not -1"),
    ("digits --mask half --out a.jpg", USAGE, r"--out must end in \.png or \.npz, not 'a\.jpg'"),
    ("digits --mask half --out no/a.png", FAILURE, r"no/a\.png: cannot be written .*choose another --out"),
    ("digits --mask half --out no/a.npz", FAILURE, r"no/a\.npz: cannot be written .*choose another --out"),
    ("none --mask half", USAGE, "there is no such run directory"),
]


@pytest.mark.parametrize(("line", "code", "words"), REFUSED, ids=[line for line, *_ in REFUSED])
def test_what_cannot_be_is_refused_in_one_line(
    runs: Path, here: Path, line: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = line.split()
    assert run("restore", runs / name, *options) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(words, err), err
    assert list(here.iterdir()) == []
