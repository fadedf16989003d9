"""What the commands on a run take: labels that its training rows have, images of its own shape; one line for others."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hostile import REMOVED, changed, describe, rewrite
from running import run

import tinyvae
from tinyvae.training import figures

FAILURE, USAGE = 1, 2
H, W = 4, 6
LABELS = {"from 1": (1, 2, 3), "even": (2, 4), "high": (3, 4, 5, 6, 7, 8), "gap": (0, 1, 5)}
TINY = ["--hidden", "4", "--latent", "2", "--epochs", "1", "--no-figures", "--quiet", "--backend", "numpy"]
TRAIN = [*TINY, "--kernels", "numpy"]


def images(rows: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (rows, *shape))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conditional runs on images whose labels are those of LABELS, and runs without labels on images and on rows."""
    folder = tmp_path_factory.mktemp("labels")
    for name, labels in LABELS.items():
        data = folder / f"{name}.npz"
        np.savez(data, x=images(60, H, W), y=np.resize(labels, 60))
        assert run("train", "--data", data, "--conditional", *TRAIN, "--out", folder / name) == 0
    for name, x in [("images", images(60, H, W)), ("rows", images(60, H * W))]:
        np.save(folder / f"{name}.npy", x)
        assert run("train", "--data", folder / f"{name}.npy", *TRAIN, "--out", folder / name) == 0
    return folder


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], code: int, words: str, *line: str | Path) -> None:
    capsys.readouterr()
    assert run(*line) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert re.search(words, err), err


# --------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("name", LABELS)
def test_a_label_that_nobody_has_is_refused_and_those_there_are_are_named(
    name: str, runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = {"from 1": "1 to 3", "even": "2, 4", "high": "3 to 8", "gap": "0, 1, 5"}[name]
    for label in sorted(set(range(-1, 10)) - set(LABELS[name])):
        for what in ([], ["--interpolate", "0", "1"], ["--manifold"]):
            words = f"--label must be one of the run's labels, {there}, not {label} "
            refused(capsys, USAGE, words, "generate", runs / name, *what, "--label", str(label), "--out", "a.npy")
    assert list(here.iterdir()) == []
    for label in LABELS[name]:
        assert run("generate", runs / name, "--label", str(label), "--n", "1", "--out", f"{label}.npy") == 0


@pytest.mark.parametrize("name", LABELS)
def test_what_is_made_without_a_label_has_those_that_there_are(name: str, runs: Path, here: Path) -> None:
    model, labels = tinyvae.load(runs / name), np.array(LABELS[name])
    n = 2 * len(labels) + 1
    assert run("generate", runs / name, "--n", str(n), "--out", "turn.npy") == 0
    z = np.random.default_rng([0, figures.streams.SAMPLES]).standard_normal((n, 2))
    np.testing.assert_array_equal(np.load("turn.npy"), model.decode(z, np.resize(labels, n)))
    assert run("generate", runs / name, "--manifold", "--out", "plane.npy") == 0
    z = figures.manifold_points()
    np.testing.assert_array_equal(np.load("plane.npy"), model.decode(z, np.full(len(z), labels[0])))
    assert run("generate", runs / name, "--style", "0", "2", "--out", "style.npy") == 0
    assert np.load("style.npy").shape == (2 * len(labels), H * W)
    data = tinyvae.load_data(str(runs / f"{name}.npz"))
    assert data.y_test is not None
    mu, _ = model.encode(data.x_test[[0, 2]], data.y_test[[0, 2]])
    expected = model.decode(np.repeat(mu, len(labels), axis=0), np.tile(labels, 2))
    np.testing.assert_allclose(np.load("style.npy"), expected, rtol=1e-5)


@pytest.mark.parametrize("command", ["embed", "anomaly"])
def test_rows_with_a_label_that_no_training_row_has_are_refused(
    command: str, runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = {"embed": "z.npz", "anomaly": "a.csv"}[command]
    for labels, named in [((1, 0), "the label 0"), ((0, 2, 7), "the labels 0, 7"), ((1, -1), "the label -1")]:
        np.savez("other.npz", x=images(6, H, W), y=np.resize(labels, 6))
        words = rf"other\.npz: has {named}, which no training row of the run has: these have 1 to 3"
        refused(capsys, FAILURE, words, command, runs / "from 1", "other.npz", "--out", out)
        assert not Path(out).exists()
    np.savez("other.npz", x=images(6, H, W), y=np.resize((3, 1), 6))
    assert run(command, runs / "from 1", "other.npz", "--out", out) == 0
    assert capsys.readouterr().err == ""


def test_where_the_data_is_gone_the_run_still_knows_its_labels(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("own.npz", x=images(60, H, W), y=np.resize((1, 3), 60))
    assert run("train", "--data", "own.npz", "--conditional", *TRAIN, "--out", "run") == 0
    shutil.move("own.npz", "moved.npz")
    lines = [
        ["generate", "run", "--label", "1", "--out", "a.npy"],
        ["generate", "run", "--out", "b.npy"],
        ["embed", "run", "moved.npz", "--out", "z.npz"],
    ]
    for line in lines:
        assert run(*line) == 0
        assert capsys.readouterr().err == ""
    for nobodys in ("0", "2", "4"):
        refused(capsys, USAGE, f"1, 3.*not {nobodys}", "generate", "run", "--label", nobodys, "--out", "c.npy")


def test_a_run_that_does_not_name_its_labels_looks_at_its_data(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint of tinyvae 0.1; where the data is gone too, a line says that labels cannot be checked."""
    np.savez("own.npz", x=images(60, H, W), y=np.resize((1, 3), 60))
    assert run("train", "--data", "own.npz", "--conditional", *TRAIN, "--out", "run") == 0
    for path in Path("run/checkpoints").glob("step-*"):
        rewrite(path, changed(describe(path), ("run", "labels"), REMOVED))
    assert run("generate", "run", "--label", "2", "--out", "c.npy") == USAGE
    assert "1, 3" in capsys.readouterr().err
    Path("own.npz").unlink()
    assert run("generate", "run", "--label", "1", "--out", "a.npy") == 0
    err = capsys.readouterr().err
    assert re.fullmatch(r"note: which labels the run was trained with cannot be checked: .*own\.npz: .*\n", err), err


# --------------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("command", ["embed", "anomaly"])
@pytest.mark.parametrize("shape", [(6, 4), (2, 12), (12, 2), (1, 24), (24, 1), (3, 8)])
def test_images_of_another_shape_are_refused_though_the_numbers_would_fit(
    command: str, shape: tuple[int, int], runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("other.npy", images(12, *shape))
    out = {"embed": "z.npz", "anomaly": "a.csv"}[command]
    h, w = shape
    words = rf"other\.npy: holds images of {h} x {w} pixels, but the run was trained on images of 4 x 6 pixels"
    refused(capsys, FAILURE, words, command, runs / "images", "other.npy", "--out", out)
    assert not Path(out).exists()


def test_rows_and_images_of_the_runs_shape_are_the_same_to_it(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = images(12, H, W)
    np.save("images.npy", x)
    np.save("rows.npy", x.reshape(12, -1))
    found = {}
    for on in ("images", "rows"):
        for name in ("images", "rows"):
            capsys.readouterr()
            assert run("embed", runs / on, f"{name}.npy", "--out", "z.npz") == 0
            err = capsys.readouterr().err
            with np.load("z.npz") as file:
                found[on, name] = file["mu"]
            said = "note: images.npy: images of 4 x 6 pixels are taken as rows of 24 numbers, pixel row after pixel row"
            assert err.startswith(said) if (on, name) == ("rows", "images") else err == ""
    for on in ("images", "rows"):
        np.testing.assert_array_equal(found[on, "images"], found[on, "rows"])


@pytest.mark.parametrize("line", [["restore", "--mask", "half"], ["evaluate"], ["generate", "--interpolate", "0", "1"]])
def test_a_runs_own_file_with_its_images_in_another_shape_is_other_data(
    line: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = images(60, H, W)
    np.save("own.npy", x)
    assert run("train", "--data", "own.npy", *TRAIN, "--out", "run") == 0
    out = ["--out", "a.npy"] if line[0] == "generate" else []
    for other, kind in [
        (x.reshape(60, W, H), "images of 6 x 4 pixels"),
        (x.reshape(60, -1), "rows that are no images"),
    ]:
        np.save("own.npy", other)
        words = rf"was made with images of 4 x 6 pixels, but own now holds {kind}"
        refused(capsys, FAILURE, words, line[0], "run", *line[1:], *out)
