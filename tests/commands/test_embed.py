"""The command `tinyvae embed`: the numbers in its files, its table, and what it refuses."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from running import TINY, held_out, run, small_digits

import tinyvae
from tinyvae.backend import to_host
from tinyvae.training.data.rows import load_rows
from tinyvae.uses import features
from tinyvae.uses.features import compare_features, run_rows

DIGITS = load_rows("digits", "test")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs: u, c (conditional), b (pixels drawn 0 or 1), n (on data without labels), and files to encode."""
    folder = tmp_path_factory.mktemp("runs")
    x = np.load(small_digits(folder))["x"]
    np.save(folder / "bare.npy", x)
    np.savez(folder / "grown.npz", x=x * 2, y=np.zeros(60, int))
    np.savez(folder / "large.npz", x=x, y=np.full(60, 10))
    valid = held_out(folder / "own.npz", folder / "held.npz")
    data = {"u": "own.npz", "c": "own.npz", "b": "own.npz", "n": "bare.npy"}
    options = {"c": ["--conditional"], "b": ["--binarize", "dynamic"]}
    for name, file in data.items():
        argv = ["--data", folder / file, *TINY, *options.get(name, []), "--out", folder / name]
        assert run("train", *argv, "--valid", valid) == 0
    return folder


@pytest.fixture
def here(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(runs)
    return runs


def embedded(*argv: str | Path) -> int:
    return run("embed", *argv, "--backend", "numpy")


@pytest.mark.parametrize("name", ["u", "c"])
def test_a_file_holds_q_of_every_row(here: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert embedded(name, "digits", "--out", tmp_path / "z.npz") == 0
    assert capsys.readouterr() == (f"{tmp_path / 'z.npz'}\n", "")
    mu, logvar = tinyvae.load(here / name).encode(DIGITS.x, DIGITS.y if name == "c" else None)
    with np.load(tmp_path / "z.npz") as file:
        assert sorted(file.files) == ["logvar", "mu", "y"]
        assert file["mu"].shape == (359, 2)
        assert np.array_equal(file["mu"], to_host(mu))
        assert np.array_equal(file["logvar"], to_host(logvar))
        assert np.array_equal(file["y"], DIGITS.y)  # type: ignore[arg-type]  # DIGITS has labels
    assert [p.name for p in tmp_path.iterdir()] == ["z.npz"]


def test_a_table_holds_the_same_numbers_to_the_last_digit(here: Path, tmp_path: Path) -> None:
    for name in ("z.npz", "z.csv"):
        assert embedded("u", "digits", "--part", "all", "--out", tmp_path / name) == 0
    with (tmp_path / "z.csv").open(newline="") as text, np.load(tmp_path / "z.npz") as file:
        head, *lines = csv.reader(text)
        assert head == ["z1", "z2", "label"]
        assert len(lines) == 1797
        assert np.array_equal(np.array([line[:2] for line in lines], dtype="float32"), file["mu"])
        assert [int(line[2]) for line in lines] == file["y"].tolist()


def test_rows_without_labels_have_no_column_of_them(here: Path, tmp_path: Path) -> None:
    for name in ("z.npz", "z.csv"):
        assert embedded("u", "bare.npy", "--out", tmp_path / name) == 0
    with np.load(tmp_path / "z.npz") as file:
        assert sorted(file.files) == ["logvar", "mu"]
        assert np.array_equal(file["mu"], tinyvae.load(here / "u").encode(np.load("bare.npy").reshape(60, 64))[0])
    assert (tmp_path / "z.csv").read_text().splitlines()[0] == "z1,z2"


def test_the_best_epoch_can_be_asked_for(here: Path, tmp_path: Path) -> None:
    for which in ("last", "best"):
        assert embedded("u", "own.npz", "--out", tmp_path / f"{which}.npz", "--checkpoint", which) == 0
    mu = [np.load(tmp_path / f"{which}.npz")["mu"] for which in ("last", "best")]
    best = next((here / "u" / "checkpoints").glob("*best*"))
    assert np.array_equal(mu[1], tinyvae.load(best).encode(np.load("own.npz")["x"].reshape(60, 64))[0])


@pytest.mark.parametrize("name", ["u", "c", "b"])
def test_the_table_of_features_is_compare_features(here: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert embedded(name, "digits", "--compare") == 0
    out, err = capsys.readouterr()
    assert err == ""
    title, head, *lines = out.splitlines()
    assert title == f"{name} after epoch 3: right labels, of 359 rows of digits, test"
    assert re.split(r"\s{2,}", head) == ["features", "numbers", "softmax", "neighbours"]
    own, model = tinyvae.load_data("own.npz"), tinyvae.load(here / name)
    assert own.y_train is not None
    assert DIGITS.y is not None
    config = tinyvae.training.config.Config(data="own.npz", binarize="dynamic" if name == "b" else "none")
    x = DIGITS.x
    if name == "b":
        x = np.array(x > np.random.default_rng([0, 3]).random(x.shape), dtype=float)
    scores = compare_features(
        model, run_rows(own, "train", config), own.y_train, x, DIGITS.y, np.random.default_rng([0, 1])
    )
    for score, line in zip(scores, lines, strict=False):
        shares = [f"{100 * s:.2f} +- {100 * score.standard_error(s):.2f} %" for s in (score.softmax, score.knn)]
        assert re.split(r"\s{2,}", line) == [score.features, str(score.size), *shares]
    notes = lines[3:]
    assert len(notes) == (name == "c")
    assert all("this run is conditional: its encoder is given the labels" in note for note in notes)


def test_rows_that_were_learned_from_are_said_to_be(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("own.npz", here / "own.npz"):
        assert embedded("u", name, "--compare") == 0
        assert "note: the classifiers learned from some of these very rows" in capsys.readouterr().out


def test_labels_that_were_never_learned_are_counted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert embedded("u", "large.npz", "--compare") == 0
    out = capsys.readouterr().out
    assert out.count(" 0.00 +- 0.00 %") == 6
    assert "note: 60 rows have labels that no training row has" in out


def test_a_file_and_a_table_in_one_go(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert embedded("u", "digits", "--compare", "--out", tmp_path / "z.csv") == 0
    out = capsys.readouterr().out
    assert "posterior means" in out
    assert out.splitlines()[-1] == str(tmp_path / "z.csv")
    assert len((tmp_path / "z.csv").read_text().splitlines()) == 360


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("u digits", 2, "nothing to do: add --out FILE, --compare, or both"),
        ("u digits --out z.txt", 2, r"--out must end in .npz or .csv, not 'z.txt'"),
        ("u digits --out z", 2, r"--out must end in .npz or .csv, not 'z'"),
        ("u digits --out nowhere/z.npz", 1, r"nowhere/z.npz: cannot be written \(No such file or directory\)"),
        ("u digits --out nowhere/z.csv", 1, r"nowhere/z.csv: cannot be written \(No such file or directory\)"),
        ("none digits --out z.npz", 2, "none: there is no such run directory"),
        ("u none.npz --out z.npz", 2, "none.npz: there is no such file"),
        ("u two-gaussians --out z.npz", 1, "has 2 columns, but the run was trained on 64"),
        ("u grown.npz --out z.npz", 1, r"grown.npz: the data lies in \[0, 2\]"),
        ("u bare.npy --compare", 1, "bare.npy: has no labels, and --compare needs some"),
        ("n digits --compare --out z.npz", 1, "bare: has no labels, and --compare needs some"),
        ("c bare.npy --out z.npz", 1, "bare.npy: the model is conditional: it needs labels"),
        (
            "c large.npz --out z.npz",
            1,
            r"large.npz: has the label.* which no training row of the run has: these have 0 to 9",
        ),
        ("u digits --part some --out z.npz", 2, "--part: invalid choice: 'some'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    here: Path, line: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.iterdir())
    assert embedded(*line.split()) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert re.search(words, err), err
    assert sorted(here.iterdir()) == before


def test_the_classifiers_learn_from_the_runs_own_rows(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is learned from has the training rows' size, whatever DATA is."""
    sizes: list[int] = []
    truth = features.fit_softmax

    def watched(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> object:
        sizes.append(len(x))
        return truth(x, y, rng, steps=5)

    monkeypatch.setattr(features, "fit_softmax", watched)
    assert embedded("u", "digits", "--compare") == 0
    assert sizes == [54, 54, 54]
    capsys.readouterr()
