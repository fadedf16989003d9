"""`tinyvae anomaly` as a user has it: the table of scores, the summary, and one line for what cannot be."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from running import run, small_digits
from sklearn.metrics import roc_auc_score

import tinyvae
from tinyvae.commands import anomaly
from tinyvae.training.data import load_digits

FAILURE, USAGE = 1, 2
LEFT_OUT = 6
TRAINED = ["--epochs", "10", "--backend", "numpy", "--kernels", "numpy", "--no-figures", "--quiet"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on images, without the rows of one label, on points in the plane, and a conditional one; and other data."""
    folder = tmp_path_factory.mktemp("runs")
    own = small_digits(folder)
    for name, data, *options in [
        ("digits", "digits"),
        ("without", "digits", "--leave-out", str(LEFT_OUT)),
        ("plane", "two-gaussians", "--latent", "2", "--hidden", "8"),
        ("conditional", str(own), "--conditional", "--hidden", "6", "--epochs", "1"),
    ]:
        assert run("train", "--data", data, *TRAINED, *options, "--valid", "none", "--out", folder / name) == 0
    noise = np.random.default_rng(0).random((40, 64))
    np.save(folder / "noise.npy", noise)
    np.savez(folder / "labels.npz", x=noise, y=np.arange(40) % 10)
    np.savez(folder / "strange.npz", x=noise, y=np.arange(40))
    np.savez(folder / "one.npz", x=noise, y=np.zeros(40, dtype=int))
    np.savez(folder / "many.npz", x=np.tile(noise, (2, 1)), y=np.arange(80))
    np.save(folder / "nan.npy", np.where(noise == noise[3, 3], np.nan, noise))
    np.save(folder / "bright.npy", 255 * noise)
    np.save(folder / "narrow.npy", noise[:, :10])
    np.save(folder / "empty.npy", noise[:0])
    digits = load_digits()
    np.savez(folder / "thresholded.npz", x=(digits.x_test >= 8).astype(float))
    return folder


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scored(capsys: pytest.CaptureFixture[str], *line: str | Path) -> tuple[str, list[dict[str, str]]]:
    """What is printed, and the rows of the table."""
    capsys.readouterr()
    assert run("anomaly", *line, "--out", "a.csv") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.endswith("a.csv\n")
    with Path("a.csv").open() as file:
        return out, list(csv.DictReader(file))


@pytest.mark.parametrize("method", ["elbo", "likelihood"])
def test_every_row_is_scored_and_flagged_above_the_threshold(
    runs: Path, here: Path, method: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"elbo": "1,438", "likelihood": "200"}[method]  # of the training rows; the slower method gets fewer
    if method == "likelihood":
        monkeypatch.setattr(anomaly, "ROWS", 200)
    line = [runs / "digits", "digits", "--score", method, "--samples", "3", "--quantile", "0.9"]
    out, rows = scored(capsys, *line)
    data, model = tinyvae.load_data("digits"), tinyvae.load(runs / "digits")
    assert data.y_test is not None
    assert [row["row"] for row in rows] == [str(i) for i in range(len(data.x_test))]
    assert [int(row["label"]) for row in rows] == data.y_test.tolist()
    if method == "likelihood":
        counted = re.search(r"cannot be trusted: the scores of (\d+) of 359 rows of digits", out)
        assert sum(row["trusted"] == "0" for row in rows) == (int(counted[1]) if counted else 0)
    else:
        assert "trusted" not in rows[0]
    threshold = re.search(rf"threshold (\S+) nats: the 0.9 quantile of {own} training rows", out)
    flagged = re.search(r"flagged +(\d+) rows", out)
    assert threshold
    assert flagged
    scores, flags = (
        np.array([float(row["score"]) for row in rows]),
        np.array([row["is_anomaly"] == "1" for row in rows]),
    )
    assert int(flagged[1]) == flags.sum()
    assert scores[flags].min() > float(threshold[1]) - 0.01  # two decimals are printed
    assert scores[~flags].max() < float(threshold[1]) + 0.01
    assert 0.05 < flags.mean() < 0.25  # about a tenth: the test rows are a little less likely than the training rows
    rng = np.random.default_rng(5)
    bound = [model.loss(data.values(data.x_test), rng.standard_normal((len(scores), 8))).loss for _ in range(3)]
    assert scores.mean() == pytest.approx(np.mean(bound), abs=1.0)  # 3 draws of importance sampling gain less
    assert "against" not in out.replace("against the rest", "")  # the run's own data
    assert "cross-entropies" in out
    for label in range(10):
        area = re.search(rf"^ +{label} .*%  +(\d\.\d+) *$", out, re.MULTILINE)
        assert area
        assert float(area[1]) == pytest.approx(roc_auc_score(data.y_test == label, scores), abs=6e-4)
    again, _ = scored(capsys, *line)
    assert again == out


def test_a_label_that_was_left_out_is_pointed_at(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = scored(capsys, runs / "without", "digits", "--samples", "2")
    pointed = [line for line in out.splitlines() if line.rstrip().endswith("<- left out of training")]
    assert [line.split()[0] for line in pointed] == [str(LEFT_OUT)]
    area = float(pointed[0].split()[4])
    assert area > 0.6  # it is noticed
    assert "<-" not in scored(capsys, runs / "digits", "digits", "--samples", "1")[0]
    training = len(load_digits().x_train) - int((load_digits().y_train == LEFT_OUT).sum())
    assert f"quantile of {training:,} training rows" in out


def test_other_data_is_compared_with_the_runs_own(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, rows = scored(capsys, runs / "digits", runs / "noise.npy")
    assert "AUROC     1.000 against 359 of the run's own test rows" in out
    assert "below 0.5" not in out
    assert {row["is_anomaly"] for row in rows} == {"1"}
    assert list(rows[0]) == ["row", "score", "is_anomaly"]
    out, _ = scored(capsys, runs / "digits", runs / "thresholded.npz")
    area = re.search(r"AUROC +(\S+) against 359", out)
    assert area
    assert float(area[1]) < 0.35
    assert "below 0.5: the model finds this data likelier than its own" in out


def test_labels_that_are_no_classes_have_no_auroc(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in [("one", "1 label"), ("many", "80 different labels")]:
        out, rows = scored(capsys, runs / "digits", runs / f"{name}.npz", "--samples", "1")
        assert f"{count}: no AUROC of each" in out
        assert rows[-1]["label"] == str(int(count.split()[0]) - 1)


def test_a_conditional_run_uses_the_labels(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, first = scored(capsys, runs / "conditional", runs / "labels.npz", "--samples", "1")
    with np.load(runs / "labels.npz") as file:
        np.savez("turned.npz", x=file["x"], y=9 - file["y"])
    _, second = scored(capsys, runs / "conditional", "turned.npz", "--samples", "1")
    differ = [a["score"] != b["score"] for a, b in zip(first, second, strict=True)]
    assert sum(differ) > 30  # of 40: in so small a model two labels can do the same, to the digits of the table


def test_the_parts_of_a_named_data_set(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, rows in [("test", 359), ("train", 1438), ("all", 1797)]:
        assert len(scored(capsys, runs / "digits", "digits", "--part", part, "--samples", "1")[1]) == rows


REFUSED = [
    ("digits digits", USAGE, "required: --out"),
    ("digits digits --out a.txt", USAGE, r"--out must end in \.csv, not 'a\.txt'"),
    ("digits digits --out no/a.csv", FAILURE, r"no/a\.csv: cannot be written .*choose another --out"),
    ("digits digits --out a.csv --samples 0", USAGE, "--samples must be at least 1, not 0"),
    ("digits digits --out a.csv --quantile 1.5", USAGE, r"--quantile must lie in \[0, 1\], not 1\.5"),
    ("digits digits --out a.csv --quantile nan", USAGE, r"--quantile must lie in \[0, 1\], not nan"),
    ("digits digits --out a.csv --score mse", USAGE, "--score.*'mse'"),
    ("digits foo --out a.csv", USAGE, "DATA must be .*'foo'"),
    ("digits none.npy --out a.csv", USAGE, r"none\.npy: there is no such file"),
    ("digits two-gaussians --out a.csv", FAILURE, "two-gaussians, test: has 2 columns, .* trained on 64"),
    ("plane digits --out a.csv", FAILURE, "digits, test: has 64 columns, .* trained on 2"),
    ("digits @narrow.npy --out a.csv", FAILURE, r"narrow\.npy: has 10 columns"),
    ("digits @bright.npy --out a.csv", FAILURE, r"bright\.npy: .*must be divided by 255"),
    ("digits @empty.npy --out a.csv", FAILURE, r"empty\.npy: x has shape \(0, 64\)"),
    ("conditional @noise.npy --out a.csv", FAILURE, r"noise\.npy: .*needs labels y"),
    (
        "conditional @strange.npz --out a.csv",
        FAILURE,
        r"strange\.npz: has the labels 10 to 39, which no training row .* have 0 to 9",
    ),
    ("none digits --out a.csv", USAGE, "there is no such run directory"),
]


@pytest.mark.parametrize(("line", "code", "words"), REFUSED, ids=[line for line, *_ in REFUSED])
def test_what_cannot_be_is_refused_in_one_line(
    runs: Path, here: Path, line: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = line.replace("@", f"{runs}/").split()
    assert run("anomaly", runs / name, *options) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(words, err), err
    assert list(here.iterdir()) == []


def test_rows_far_beyond_the_data_are_anomalies_and_not_errors(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    np.save("own.npy", rng.standard_normal((60, 5)))
    argv = [
        "train",
        "--data",
        "own.npy",
        "--likelihood",
        "gaussian",
        "--hidden",
        "8",
        "--latent",
        "2",
        "--epochs",
        "60",
    ]
    assert run(*[*argv, "--no-figures", "--quiet", "--backend", "numpy", "--out", "wide"]) == 0
    x = rng.standard_normal((6, 5))
    x[2], x[4] = 1e6, 1e25
    np.savez("far.npz", x=x, y=np.arange(6) % 2)
    for score in ("elbo", "likelihood"):
        out, rows = scored(capsys, here / "wide", "far.npz", "--score", score)
        if score == "likelihood":
            assert rows[4]["trusted"] == "0"
            assert "cannot be trusted: the scores of" in out
        assert [row["is_anomaly"] for row in rows if row["row"] in ("2", "4")] == ["1", "1"]
        assert all(float(row["score"]) > 0 or np.isfinite(float(row["score"])) for row in rows)
    x[4] = 1e300
    np.savez("far.npz", x=x)
    capsys.readouterr()
    assert run("anomaly", "wide", "far.npz", "--out", "a.csv") == 1
    assert "far.npz: the data holds NaN or infinite values" in capsys.readouterr().err


def test_the_runs_own_file_is_known_by_any_path(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("own.npy", np.random.default_rng(0).uniform(0, 1, (60, 5)))
    assert run("train", "--data", "own.npy", *TRAINED, "--out", "own") == 0
    out, _ = scored(capsys, here / "own", "own.npy")
    assert "against" not in out
