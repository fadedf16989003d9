"""The models, likelihoods and objectives that `tinyvae train` is asked for: what they train on, and which cannot be."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from running import metrics, run
from variants import ONCE

import tinyvae
from tinyvae.training import trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data that does not suit every model."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    np.save(folder / "vectors.npy", rng.uniform(0, 1, (30, 9)).astype("f4"))
    np.savez(folder / "many.npz", x=rng.uniform(0, 1, (30, 9)).astype("f4"), y=np.arange(30))
    np.savez(folder / "gaps.npz", x=rng.uniform(0, 1, (30, 9)).astype("f4"), y=np.arange(30) % 3 * 2)
    counts = rng.poisson(5, (30, 9))
    np.save(folder / "counts.npy", counts)
    np.save(folder / "minus.npy", counts - 20)
    codes = np.eye(3)[rng.integers(0, 3, (30, 3))].reshape(30, 9)
    np.save(folder / "codes.npy", codes)
    table = (rng.standard_normal((30, 2)), rng.uniform(size=(30, 1)) < 0.3, codes[:, :3], counts[:, :3])
    np.save(folder / "table.npy", np.concatenate(table, axis=1))
    np.savez(folder / "bool.npz", x=rng.uniform(0, 1, (30, 9)).astype("f4"), y=np.arange(30) % 2 == 0)
    return folder


def test_a_label_that_is_left_out_is_in_neither_part(variants: Path) -> None:
    digits = tinyvae.load_data("digits")
    assert digits.y_test is not None
    assert (digits.y_test != 3).sum() == 331
    with_all = metrics(variants / "labels")[-1]
    assert metrics(variants / "without 3")[-1]["train_loss"] != with_all["train_loss"]


COUNTS = ("poisson", "negative-binomial")
TABLE = "mixed:columns=gaussian*2+bernoulli*1+categorical*3+poisson*3"


@pytest.mark.parametrize(("name", "likelihood"), [("codes", "categorical:groups=3"), ("table", TABLE)])
def test_tables_are_trained_on_evaluated_drawn_and_restored(
    name: str, likelihood: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    of = data / f"{name}.npy"
    assert run(*ONCE, "--data", of, "--likelihood", likelihood, "--out", "run") == 0
    assert json.loads(Path("run/config.json").read_text())["likelihood"] == likelihood
    capsys.readouterr()
    assert run("evaluate", "run", "--json", "--nll-samples", "3") == 0
    found = json.loads(capsys.readouterr().out)
    assert np.isfinite([found[name] for name in ("loss", "nll", "kl", "log_likelihood")]).all()
    assert "note" not in found
    assert run("generate", "run", "--n", "4", "--draw", "--out", "x.npy") == 0
    tinyvae.load("run").likelihood.check_rows(np.load("x.npy"))
    assert run("embed", "run", of, "--out", "z.npz") == 0
    assert run("anomaly", "run", of, "--out", "a.csv") == 0
    for mask in ("half", "noise"):
        capsys.readouterr()
        assert run("restore", "run", "--mask", mask) == 0
        assert "nan" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "likelihood", "said"),
    [
        ("table", "categorical", "a categorical likelihood needs one-hot columns"),
        ("codes", "categorical:groups=9", "columns 0 to 8 of row 0 are"),
        ("codes", "categorical:groups=4", "do not make the 9 columns of the data"),
        ("table", TABLE.replace("poisson*3", "poisson*2"), "are 8 columns, but the data has 9"),
        ("table", "mixed:columns=poisson*2+gaussian", "columns 0 to 1 (poisson), counted from 0: the data lies in"),
        ("vectors", "discretized-logistic", "but a discretized logistic likelihood needs pixels of 8 bits"),
        ("counts", "continuous-bernoulli", "a ContinuousBernoulli likelihood needs [0, 1]"),
    ],
)
def test_data_that_does_not_suit_its_likelihood_is_one_line_and_no_run(
    name: str, likelihood: str, said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(*ONCE, "--data", data / f"{name}.npy", "--likelihood", likelihood, "--out", tmp_path / "never")
    assert code in (1, 2)
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("likelihood", ["poisson", "negative-binomial", "laplace"])
def test_counts_are_trained_on_evaluated_drawn_and_restored(
    likelihood: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*ONCE, "--data", data / "counts.npy", "--likelihood", likelihood, "--out", "run") == 0
    assert json.loads(Path("run/config.json").read_text())["likelihood"] == likelihood
    assert run("evaluate", "run", "--json", "--nll-samples", "3") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["likelihood"] == likelihood
    assert np.isfinite([found[name] for name in ("loss", "nll", "kl", "log_likelihood")]).all()
    assert run("generate", "run", "--n", "4", "--draw", "--out", "x.npy") == 0
    drawn = np.load("x.npy")
    assert (likelihood == "laplace") == bool((drawn != np.round(drawn)).any())
    assert run("embed", "run", data / "counts.npy", "--out", "z.npz") == 0
    assert run("anomaly", "run", data / "counts.npy", "--out", "a.csv") == 0
    for mask in ("half", "noise"):
        capsys.readouterr()
        assert run("restore", "run", "--mask", mask) == 0
        assert "nan" not in capsys.readouterr().out


@pytest.mark.parametrize("likelihood", COUNTS)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vectors", "holds numbers that are not whole, but .* needs counts 0, 1, 2, ...; .* x = np.round"),
        ("minus", "holds negative numbers, but .* needs counts 0, 1, 2, ...; "),
    ],
)
def test_what_is_no_count_is_refused_in_one_line_by_every_command(
    likelihood: str, name: str, words: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    other = data / f"{name}.npy"
    assert run(*ONCE, "--data", data / "counts.npy", "--likelihood", likelihood, "--out", "run") == 0
    for command in (
        [*ONCE, "--data", other, "--likelihood", likelihood, "--out", "never"],
        ["embed", "run", other, "--out", "never"],
        ["anomaly", "run", other, "--out", "never"],
    ):
        if "never" in command and command[0] != "train":
            command[-1] = {"embed": "never.npz", "anomaly": "never.csv"}[str(command[0])]
        capsys.readouterr()
        assert run(*command) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert re.search(rf"{name}.*: .*{words}", err), err
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_whole_numbers_with_a_fraction_among_them_are_no_counts(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The smallest and the largest are whole: these alone say nothing."""
    x = np.load(data / "counts.npy").astype(float)
    x[3, 4] = 2.5
    np.save(tmp_path / "few.npy", x)
    assert run(*ONCE, "--data", tmp_path / "few.npy", "--likelihood", "poisson", "--out", tmp_path / "never") == 1
    assert run(*ONCE, "--data", data / "counts.npy", "--likelihood", "poisson", "--out", tmp_path / "run") == 0
    for command, out in (("embed", "z.npz"), ("anomaly", "a.csv")):
        assert run(command, tmp_path / "run", tmp_path / "few.npy", "--out", tmp_path / out) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all("holds numbers that are not whole" in line for line in errors)


WRONG = [
    (["--data", "vectors.npy", "--conv", "4"], 2, "convolutions need images"),
    (["--conv", "4", "4", "4", "4"], 2, "images of 8 x 8 pixels are too small for 4 convolutions: use 3"),
    (["--conv", "0"], 2, "--conv must be at least 1, not 0"),
    (["--conv", "4", "--tied"], 2, "tied weights do not go with convolutions"),
    (["--batch-norm", "--tied"], 2, "tied weights do not go with batch normalization"),
    (["--conditional", "--tied"], 2, "tied weights do not go with labels"),
    (
        ["--conv", "4", "--likelihood", "gaussian", "--sigma", "predicted"],
        2,
        "but the likelihood needs mean and logvar: use sigma 'learned'",
    ),
    (["--data", "vectors.npy", "--conditional"], 1, "vectors: has no labels; --conditional needs y"),
    (["--data", "many.npz", "--conditional"], 1, "many: has 30 different labels for 24 rows: these are no classes"),
    (["--data", "vectors.npy", "--leave-out", "1"], 1, "vectors: has no labels, so none can be left out"),
    (["--leave-out", "11"], 1, "digits: has no rows with label 11; its labels are 0, 1, 2"),
    (["--data", "gaps.npz", "--leave-out", "1"], 1, "its labels are 0, 2, 4"),
    (["--leave-out", "-1"], 1, "digits: has no rows with label -1; its labels are 0, 1, 2"),
    (["--leave-out", "1", "--conditional"], 2, "--conditional does not go with --leave-out"),
    (["--batch-norm", "--batch-size", "1"], 2, "--batch-norm needs the variance of a batch"),
    (["--objective", "iwae", "--importance", "0"], 2, "--importance must be at least 1, not 0"),
    (
        ["--objective", "iwae", "--beta", "2"],
        2,
        "--beta is no option of iwae, but of --objective beta-tc or elbo: ask for that",
    ),
    (["--objective", "iwae", "--beta-warmup", "2"], 2, "is no option of iwae, but of --objective elbo: ask for that"),
    (["--objective", "iwae", "--free-bits", "1"], 2, "is no option of iwae, but of --objective elbo: ask for that"),
    (["--objective", "dreg"], 2, "--objective must be one of beta-tc, elbo, iwae, not 'dreg'"),
    (["--objective", "iwae:draw=3"], 2, "iwae has the options draws, estimator, not 'draw=3': write iwae:option=value"),
    (["--objective", "iwae:draws=3", "--importance", "4"], 2, "both say draws: leave one away"),
    (["--objective", "iwae:draws=x"], 2, "iwae:draws must be a whole number, not 'x'"),
    (["--objective", "iwae:estimator=dreg", "--batch-norm"], 2, "batch normalization"),
    (["--objective", "iwae:draws=3,estimator=stl"], 2, "stl"),
]


@pytest.mark.parametrize(("options", "code", "message"), WRONG, ids=[" ".join(options) for options, _, _ in WRONG])
def test_wrong_options_of_train_get_one_line(
    data: Path, options: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(data)
    assert run(*ONCE, *options, "--out", "never") == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert not (data / "never").exists()


def test_truth_values_are_labels_0_and_1(data: Path, tmp_path: Path) -> None:
    assert run(*ONCE, "--data", data / "bool.npz", "--conditional", "--out", tmp_path / "run") == 0
    assert tinyvae.load(tmp_path / "run").architecture.classes == 2


def test_a_run_that_cannot_begin_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(trainer, "Engine", fail)
    assert run(*ONCE, "--out", tmp_path / "run") == 1
    assert not (tmp_path / "run").exists()
