"""`tinyvae evaluate`: losses as the table has them, log p(x) above the bound, and rows that are estimated anew."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import BASE, held_out, metrics, roundings_of_means, run
from variants import VARIANTS

import tinyvae
from tinyvae.commands import main


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("variant", VARIANTS)
def test_evaluate_gives_the_last_row_of_the_metrics(
    variants: Path, variant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", variants / variant, "--json", "--nll-samples", "3") == 0
    found, row = json.loads(printed(capsys)), metrics(variants / variant)[-1]
    assert (found["rows"], found["epoch"]) == (331 if variant == "without 3" else 359, 1)
    for name in ("loss", "nll", "kl"):
        assert found[name] == float(row[f"valid_{name}"])
    objective = {"iwae": "iwae:draws=3", "iwae, labels": "iwae"}.get(variant, "elbo")
    draws = {"iwae": 3, "iwae, labels": 5}.get(variant, 1)
    assert (found["objective"], found["draws"]) == (objective, draws)
    bound = found["nll"] + found["kl"]
    if objective == "elbo":
        assert abs(found["loss"] - bound) <= roundings_of_means(128) * found["loss"] < found["kl"]
    else:  # the bound of several draws is the tighter one
        assert found["loss"] < bound
    assert np.isfinite(found["log_likelihood"])


def evaluated(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert run("evaluate", folder, "--json", "--backend", "numpy", *options) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize("options", [[], ["--binarize", "dynamic"], ["--beta", "3", "--free-bits", "0.3"]])
def test_evaluate_gives_exactly_the_last_row_of_the_metrics(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    valid = held_out("own.npz", here / "held.npz")
    assert run("train", *BASE, *options, "--valid", valid, "--out", "run") == 0
    found, row = evaluated(here / "run", capsys), metrics(here / "run")[-1]
    assert (found["epoch"], found["rows"]) == (3, 6)
    for name in ("loss", "nll", "kl", "active_units"):
        assert found[name] == float(row["active_units" if name == "active_units" else f"valid_{name}"])


def test_evaluate_takes_the_best_epoch_where_that_is_asked_for(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = [float(row["valid_loss"]) for row in metrics(trained)]
    best = losses.index(min(losses)) + 1
    assert best < len(losses)  # or this would show nothing
    found = evaluated(trained, capsys, "--checkpoint", "best")
    assert (found["epoch"], found["loss"]) == (best, min(losses))
    assert evaluated(trained, capsys, "--checkpoint", "last")["loss"] == losses[-1]


def test_the_log_likelihood_lies_above_the_bound(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(trained, capsys, "--nll-samples", "500", "--repair")
    assert found["repaired_distrusted"] == 0
    model, data = tinyvae.load(trained), tinyvae.load_data(str(trained.parent / "own.npz"))
    rng = np.random.default_rng(0)
    draws = [model.loss(data.x_test, rng.standard_normal((6, 2))).loss for _ in range(200)]
    # In expectation log p(x) >= its K-sample bound >= the ELBO = -loss. Both figures are draws: 5 standard errors.
    error = math.hypot(found["repaired_log_likelihood_mc_se"], float(np.std(draws)))
    assert found["repaired_log_likelihood"] >= -found["loss"] - 5 * error
    assert found["repaired_log_likelihood"] >= -np.mean(draws) - 5 * error / math.sqrt(200)
    assert found["log_likelihood_se"] > 0
    assert found["repaired_log_likelihood_se"] > 0


def test_bits_per_dimension_are_told_where_all_values_of_a_pixel_are_known(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of log p(x), or of the bound where that is left out; and of no likelihood that is a density or a coin."""
    x = np.random.default_rng(0).integers(0, 256, (30, 9), dtype="u1")
    np.save(here / "pixels.npy", x / np.float32(255))
    train = ("train", "--data", "pixels.npy", "--hidden", "4", "--latent", "2", "--epochs", "1")
    assert run(*train, "--likelihood", "discretized-logistic", "--out", "bits") == 0
    capsys.readouterr()
    for options, nats in [(("--nll-samples", "0"), None), (("--nll-samples", "5"), "log_likelihood")]:
        found = evaluated(here / "bits", capsys, *options)
        expected = found["nll"] + found["kl"] if nats is None else -found[nats]
        assert found["bits_per_dimension"] == pytest.approx(expected / (9 * math.log(2)), rel=1e-12)
        assert 4 < found["bits_per_dimension"] < 16  # uniform bytes have 8
        assert run("evaluate", here / "bits", *options) == 0
        of = "nll + kl" if nats is None else "-log p(x)"
        row = rf"bits per dimension +{found['bits_per_dimension']:.3f} +{re.escape(of)} / \(numbers of a row \* log 2\)"
        assert re.search(row, printed(capsys))
    assert run("train", *BASE, "--out", "run") == 0
    capsys.readouterr()
    assert "bits_per_dimension" not in evaluated(here / "run", capsys)


def by_quadrature(model: tinyvae.VAE, x: np.ndarray) -> np.ndarray:
    """log p(x) of each row: a sum over the plane of z. (rows,)"""
    step = 0.02
    ticks = np.arange(-6, 6, step)
    z = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)  # (360,000, 2)
    p = model.decode(z).astype("float64").clip(1e-12, 1 - 1e-12)
    log_prior = -(z * z).sum(axis=1) / 2 - math.log(2 * math.pi)
    log_joint = x @ np.log(p).T + (1 - x) @ np.log1p(-p).T + log_prior
    return np.logaddexp.reduce(log_joint, axis=1) + 2 * math.log(step)


def test_rows_whose_q_is_in_the_wrong_place_are_counted_and_repaired(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = tinyvae.load(trained), tinyvae.load_data(str(trained.parent / "own.npz"))
    truth = by_quadrature(model, data.values(data.x_test)).mean()
    original = tinyvae.VAE.encode

    def displaced(self: tinyvae.VAE, x: Any, y: Any = None) -> tuple[np.ndarray, np.ndarray]:
        mu, logvar = original(self, x, y)
        return mu + 3, logvar - 4

    monkeypatch.setattr(tinyvae.VAE, "encode", displaced)
    found = evaluated(trained, capsys, "--repair")
    assert found["log_likelihood"] < truth - 2  # or this would show nothing
    assert found["distrusted"] == 6
    assert found["log_likelihood_mc_se"] is None  # nobody knows
    assert found["repaired_distrusted"] == 0
    assert abs(found["repaired_log_likelihood"] - truth) < 0.1
    assert found["repaired_log_likelihood_mc_se"] < 0.1
    without = evaluated(trained, capsys)
    assert without == {name: value for name, value in found.items() if not name.startswith("repaired")}
    for options, remedy in [((), "--repair"), (("--repair",), "anew below")]:
        assert run("evaluate", trained, "--backend", "numpy", *options) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines() if "cannot be trusted" in line]
        assert lines[0][3:6] == ["6", "of", "6"]
        assert remedy in " ".join(lines[0])
        assert [line[3:6] for line in lines[1:]] == [["0", "of", "6"]] * len(options)


def test_repair_needs_something_to_repair(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", trained, "--nll-samples", "0", "--repair") == 2
    assert "--repair is for log p(x), which --nll-samples 0 leaves out" in capsys.readouterr().err


def test_the_table_shows_the_same_figures(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(trained, capsys)
    assert run("evaluate", trained, "--backend", "numpy") == 0
    out = capsys.readouterr().out
    assert f"{trained} after epoch 60, on 6 test rows" in out
    table = {line.rsplit("  ", 1)[0].split("  ")[0]: line for line in out.splitlines()}
    for row, name in [("loss", "loss"), ("nll", "nll"), ("kl", "kl"), ("log p(x)", "log_likelihood")]:
        assert f" {found[name]:.2f} " in table[row]
    assert run("evaluate", trained, "--nll-samples", "0") == 0
    assert "log p(x)" not in capsys.readouterr().out


def test_evaluate_is_the_same_every_time(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluated(trained, capsys) == evaluated(trained, capsys)


def test_other_data_than_in_training_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", *BASE, "--out", "run") == 0
    shutil.copy("own.npz", "before.npz")
    np.savez("own.npz", x=np.load("before.npz")["x"][::-1])
    assert run("evaluate", "run") == 1
    assert "was made with other data than own holds now" in capsys.readouterr().err


def test_a_run_can_be_evaluated_from_another_directory(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train", *BASE, "--out", "run") == 0
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert evaluated(here / "run", capsys)["rows"] == 6


# ------------------------------------------------------------------------------------------------ pictures and history


def test_labels_belong_to_the_fingerprint_of_a_conditional_runs_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, file = np.random.default_rng(0), tmp_path / "own.npz"
    x, y = rng.uniform(0, 1, (40, 6)), np.arange(40) % 3
    argv = ["train", "--data", file, "--hidden", "4", "--latent", "2", "--epochs", "1", "--no-figures", "--quiet"]
    for name, options in [("plain", []), ("labels", ["--conditional"])]:
        np.savez(file, x=x, y=y)
        assert main([str(a) for a in [*argv, *options, "--out", tmp_path / name]]) == 0
        np.savez(file, x=x, y=y[::-1])
        capsys.readouterr()
        code = main(["evaluate", str(tmp_path / name), "--nll-samples", "0"])
        assert (code, "was made with other data" in capsys.readouterr().err) == ((1, True) if options else (0, False))
