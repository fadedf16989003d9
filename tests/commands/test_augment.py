"""`tinyvae augment`: the table holds what the function returns, and what cannot be done is one line."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import TINY, run, small_digits

import tinyvae
from tinyvae.uses import augmentation
from tinyvae.uses.augmentation import augment


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "STEPS", 40)
    monkeypatch.setattr(augmentation, "CLASSIFIER_STEPS", 60)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional run on 60 digits, one that is not, and one whose pixels were made 0 and 1."""
    folder = tmp_path_factory.mktemp("runs")
    data = small_digits(folder)
    for name, options in [("c", ["--conditional"]), ("u", []), ("b", ["--conditional", "--binarize", "dynamic"])]:
        assert run("train", "--data", data, *TINY, *options, "--valid", "none", "--out", folder / name) == 0
    return folder


def augmented(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[str, list[list[str]]]:
    assert run("augment", *argv, "--backend", "numpy") == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    return "\n".join(lines[:2]), [re.split(r"\s{2,}", line.strip()) for line in lines[2:]]


@pytest.mark.parametrize("fair", [False, True])
def test_the_table_holds_what_the_function_returns(runs: Path, capsys: pytest.CaptureFixture[str], fair: bool) -> None:
    options = ["--labels", "10", "13", "--per-class", "3", "--repeats", "2", *(["--fair"] if fair else [])]
    title, (head, *rows) = augmented(capsys, runs / "c", *options)
    assert head == ["labels", "real", "real + generated", "generated", "gain"]
    model, data = tinyvae.load(runs / "c"), tinyvae.load_data(str(runs / "own.npz"))
    assert data.y_train is not None
    assert data.y_test is not None
    for n, row in zip((10, 13), rows, strict=True):
        gain = augment(
            model, data.x_train.astype("float32"), data.y_train, data.x_test.astype("float32"), data.y_test, n, 3, 2,
            np.random.default_rng([0, 5, n]), fair=fair,
        )  # fmt: skip
        expected = [
            f"{100 * m.value:.2f} +- {100 * m.standard_error:.2f}" for m in (gain.real, gain.both, gain.generated)
        ]
        difference = f"{100 * gain.difference.value:+.2f} +- {100 * gain.difference.standard_error:.2f}"
        assert row == [str(n), *expected, difference]
    assert "means of 2 repetitions" in title
    assert "on 6 test rows" in title
    assert ("trained on the labelled rows alone" in title) == fair
    assert ("ALL labels of its training set" in title) != fair


def test_rows_that_were_made_black_and_white_meet_black_and_white_ones(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values: list[np.ndarray] = []
    truth = augmentation.fit_softmax

    def watched(x: np.ndarray, *rest: Any, **more: Any) -> Any:
        values.append(x)
        return truth(x, *rest, **more)

    monkeypatch.setattr(augmentation, "fit_softmax", watched)
    title, _ = augmented(capsys, runs / "b", "--labels", "10", "--repeats", "1")
    assert "means of 1 repetition +-" in title
    assert len(values) == 3
    assert all(set(np.unique(x)) == {0, 1} for x in values)


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("u", 2, r"u: is not conditional, .*--conditional .*--help"),
        ("none", 2, r"none: there is no such run directory"),
        ("c --labels 9", 2, r"--labels 9: 9 rows cannot hold all 10 classes"),
        ("c --labels 10 500", 2, r"--labels 500: 500 rows need 50 of class 0, which has \d"),
        ("c --labels x", 2, "invalid int value: 'x'"),
        ("c --labels", 2, "expected at least one"),
        ("c --per-class 0", 2, "--per-class must be at least 1, not 0"),
        ("c --repeats 0", 2, "--repeats must be at least 1, not 0"),
        ("c --seed -1", 2, "--seed must be at least 0, not -1"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    runs: Path, line: str, code: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    assert run("augment", *line.split()) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert re.search(words, err)
