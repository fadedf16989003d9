"""Convolutions, batch normalization, labels and the importance-weighted bound from the command line, on the digits."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from test_commands import metrics, run

import tinyvae
from tinyvae.commands import train
from tinyvae.training import checkpoint as checkpoints
from tinyvae.training.signals import StopRequest

TRAIN = ["train", "--data", "digits", "--latent", "2", "--no-figures", "--quiet", "--backend", "numpy"]
ONCE = [*TRAIN, "--epochs", "1"]
VARIANTS = {
    "conv": ["--conv", "4"],
    "conv, batch norm, labels": ["--conv", "3", "4", "--hidden", "6", "--batch-norm", "--conditional"],
    "labels": ["--conditional", "--hidden", "8"],
    "batch norm": ["--batch-norm", "--hidden", "8"],
    "iwae": ["--objective", "iwae", "--importance", "3", "--hidden", "8"],
    "iwae, labels": ["--objective", "iwae", "--conditional", "--hidden", "8"],
    "without 3": ["--leave-out", "3", "--hidden", "8"],
}
CONDITIONAL = [name for name, options in VARIANTS.items() if "--conditional" in options]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each variant, of one epoch."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in VARIANTS.items():
        assert run(*ONCE, *options, "--out", folder / name) == 0, name
    rng = np.random.default_rng(0)
    np.save(folder / "vectors.npy", rng.uniform(0, 1, (30, 9)).astype("f4"))
    np.savez(folder / "gaps.npz", x=rng.uniform(0, 1, (30, 9)).astype("f4"), y=np.arange(30) % 3 * 2)
    np.savez(folder / "negative.npz", x=rng.uniform(0, 1, (30, 9)).astype("f4"), y=np.arange(30) % 3 - 1)
    np.savez(folder / "far.npz", x=rng.uniform(0, 1, (30, 9)).astype("f4"), y=np.arange(30) % 3 * 50_000)
    np.savez(folder / "late.npz", x=rng.uniform(0, 1, (30, 9)).astype("f4"), y=np.append(np.zeros(29, int), -1))
    np.savez(folder / "bool.npz", x=rng.uniform(0, 1, (30, 9)).astype("f4"), y=np.arange(30) % 2 == 0)
    return folder


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("variant", VARIANTS)
def test_evaluate_gives_the_last_row_of_the_metrics(
    runs: Path, variant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", runs / variant, "--json", "--nll-samples", "3") == 0
    found, row = json.loads(printed(capsys)), metrics(runs / variant)[-1]
    assert (found["rows"], found["epoch"]) == (331 if variant == "without 3" else 359, 1)
    for name in ("loss", "nll", "kl"):
        assert found[name] == float(row[f"test_{name}"])
    is_iwae = variant.startswith("iwae")
    assert found["objective"] == ("iwae" if is_iwae else "elbo")
    if is_iwae:  # the bound of several draws is the tighter one
        assert found["loss"] < found["nll"] + found["kl"]
    else:
        assert found["loss"] == pytest.approx(found["nll"] + found["kl"], rel=1e-12)
    assert np.isfinite(found["log_likelihood"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_generate_samples_and_paths(runs: Path, variant: str, tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    for options, rows in [
        (["--n", "5"], 5), (["--n", "5", "--draw"], 5), (["--interpolate", "0", "7"], 11),
        (["--interpolate", "0", "7", "--path", "sphere"], 11), (["--manifold"], 225),
    ]:  # fmt: skip
        assert run("generate", runs / variant, *options, "--out", out) == 0
        x = np.load(out)
        assert x.shape == (rows, 64)
        assert np.all((x >= 0) & (x <= 1))
    assert run("generate", runs / variant, "--n", "5", "--out", tmp_path / "x.png") == 0


@pytest.mark.parametrize("variant", CONDITIONAL)
def test_generate_what_a_label_asks_for(runs: Path, variant: str, tmp_path: Path) -> None:
    out, model = tmp_path / "x.npy", tinyvae.load(runs / variant)

    def made(*options: str) -> np.ndarray:
        assert run("generate", runs / variant, *options, "--out", out) == 0
        return np.load(out)

    threes = made("--n", "12", "--label", "3")
    in_turn = made("--n", "12")
    np.testing.assert_array_equal(threes[3], in_turn[3])  # the same z, and in turn the fourth label is 3
    assert np.any(threes != made("--n", "12", "--label", "4"))
    digits = tinyvae.load_data("digits")
    assert digits.y_test is not None
    x, y = digits.values(digits.x_test[[2, 5]]), digits.y_test[[2, 5]]
    mu = model.encode(x, y)[0]
    expected = [model.decode(mu[i : i + 1], np.array([label]))[0] for i in range(2) for label in range(10)]
    np.testing.assert_allclose(made("--style", "2", "5"), expected, rtol=1e-4)
    ends = made("--interpolate", "2", "5", "--label", "1")[[0, -1]]
    np.testing.assert_allclose(ends, model.decode(mu, np.array([1, 1])), rtol=1e-4)


def test_a_label_that_is_left_out_is_in_neither_part(runs: Path) -> None:
    digits = tinyvae.load_data("digits")
    assert digits.y_test is not None
    assert (digits.y_test != 3).sum() == 331
    with_all = metrics(runs / "labels")[-1]
    assert metrics(runs / "without 3")[-1]["train_loss"] != with_all["train_loss"]


WRONG = [
    (["--data", "vectors.npy", "--conv", "4"], 2, "convolutions need images"),
    (["--conv", "4", "4", "4", "4"], 2, "images of 8 x 8 pixels are too small for 4 convolutions: use 3"),
    (["--conv", "0"], 2, "--conv must be at least 1, not 0"),
    (["--conv", "4", "--tied"], 2, "tied weights do not go with convolutions"),
    (["--batch-norm", "--tied"], 2, "tied weights do not go with batch normalization"),
    (["--conditional", "--tied"], 2, "tied weights do not go with labels"),
    (["--conv", "4", "--likelihood", "gaussian", "--sigma", "predicted"], 2, "no output for a predicted sigma"),
    (["--data", "vectors.npy", "--conditional"], 1, "vectors: has no labels; --conditional needs y"),
    (["--data", "late.npz", "--conditional"], 1, "late: has labels below 0"),
    (["--data", "negative.npz", "--conditional"], 1, "has labels below 0; --conditional needs whole numbers from 0 on"),
    (["--data", "vectors.npy", "--leave-out", "1"], 1, "vectors: has no labels, so none can be left out"),
    (["--leave-out", "11"], 1, "digits: has no rows with label 11; its labels are 0, 1, 2"),
    (["--data", "gaps.npz", "--leave-out", "1"], 1, "its labels are 0, 2, 4"),
    (["--leave-out", "-1"], 1, "digits: has no rows with label -1; its labels are 0, 1, 2"),
    (["--leave-out", "1", "--conditional"], 2, "--conditional does not go with --leave-out"),
    (["--batch-norm", "--batch-size", "1"], 2, "--batch-norm needs the variance of a batch"),
    (
        ["--data", "far.npz", "--conditional"],
        1,
        "has 3 different labels, but they reach to 100000; number them from 0 to 2",
    ),
    (["--importance", "3"], 2, "--importance is the number of draws of --objective iwae"),
    (["--objective", "iwae", "--importance", "0"], 2, "--importance must be at least 1, not 0"),
    (["--objective", "iwae", "--beta", "2"], 2, "--beta weighs the KL of the ELBO: leave it out with --objective iwae"),
    (["--objective", "iwae", "--beta-warmup", "2"], 2, "--beta-warmup weighs the KL"),
    (["--objective", "iwae", "--free-bits", "1"], 2, "--free-bits weighs the KL"),
    (["--objective", "dreg"], 2, "invalid choice: 'dreg'"),
]


@pytest.mark.parametrize(("options", "code", "message"), WRONG, ids=[" ".join(options) for options, _, _ in WRONG])
def test_wrong_options_of_train_get_one_line(
    runs: Path, options: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(runs)
    assert run(*ONCE, *options, "--out", "never") == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert not (runs / "never").exists()


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("conv", ["--label", "3"], "--label needs a run that was trained with --conditional"),
        ("iwae", ["--style", "0"], "--style needs a run that was trained with --conditional"),
        ("labels", ["--label", "10"], "--label must be one of the run's labels, 0 to 9, not 10"),
        ("labels", ["--label", "-1"], "--label must be one of the run's labels, 0 to 9, not -1"),
        ("labels", ["--style", "0", "359"], "--style needs test rows from 0 to 358, not 359"),
        ("labels", ["--style", "-1"], "--style needs test rows from 0 to 358, not -1"),
        ("labels", ["--style", "0", "--label", "3"], "--style decodes with every label: leave --label away"),
        ("labels", ["--interpolate", "0", "400"], "--interpolate needs test rows from 0 to 358, not 400"),
        ("labels", ["--interpolate", "0", "1", "--path", "arc"], "invalid choice: 'arc'"),
    ],
)
def test_wrong_options_of_generate_get_one_line(
    runs: Path, variant: str, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", runs / variant, *options, "--out", tmp_path / "x.npy") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert not (tmp_path / "x.npy").exists()


@pytest.mark.parametrize("variant", ["iwae, labels", "conv, batch norm, labels", "iwae"])
@pytest.mark.parametrize("updates", [2, 7])
def test_stopped_and_resumed_is_the_same_run(
    variant: str, updates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six updates in an epoch, the last of them on fewer rows."""
    options = [*TRAIN, "--epochs", "2", "--batch-size", "256", *VARIANTS[variant]]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*options, "--out", whole) == 0
    asked = iter(range(1, 100))
    with monkeypatch.context() as patch:  # as if Ctrl-C came during that update
        received = property(lambda self: signal.SIGINT if next(asked) >= updates else None, lambda self, value: None)
        patch.setattr(StopRequest, "received", received, raising=False)
        assert run(*options, "--out", parts) == 130
    assert run("train", "--resume", parts, "--no-figures", "--quiet") == 0
    once, again = (final_state(folder) for folder in (whole, parts))
    assert once.keys() == again.keys()
    for name, content in once.items():
        assert content == again[name], name


def final_state(folder: Path) -> dict[str, bytes]:
    """What must not depend on interruptions: the last checkpoint, the best one, the losses."""
    last = checkpoints.saved_steps(folder)[-1]
    best = checkpoints.best_path(folder, checkpoints.read_checkpoint(last).run["state"]["best_epoch"])
    table = repr([{k: v for k, v in row.items() if k != "seconds"} for row in metrics(folder)])
    return {**{path.name: path.read_bytes() for path in (last, best)}, "metrics": table.encode()}


def test_truth_values_are_labels_0_and_1(runs: Path, tmp_path: Path) -> None:
    assert run(*ONCE, "--data", runs / "bool.npz", "--conditional", "--out", tmp_path / "run") == 0
    assert tinyvae.load(tmp_path / "run").architecture.classes == 2


def test_a_run_that_cannot_begin_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(train, "Trainer", fail)
    assert run(*ONCE, "--out", tmp_path / "run") == 1
    assert not (tmp_path / "run").exists()
