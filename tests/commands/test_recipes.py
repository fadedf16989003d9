"""`tinyvae recipes`: the list, a page, a short run of each with its evidence, and mistakes in one line."""

import contextlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import run

from tinyvae import recipes
from tinyvae.commands import train
from tinyvae.model.vae import VAE
from tinyvae.recipes import Recipe, evidence
from tinyvae.training import figures
from tinyvae.training.config import Config
from tinyvae.training.metrics import Row

NAMES = recipes.names()


IMAGES = tuple(name for name in NAMES if name != "two-gaussians")


EACH = pytest.mark.parametrize("recipe", [recipes.load(name) for name in NAMES], ids=NAMES)


# -------------------------------------------------------------------------------------------------------- list and show


def test_list_shows_each_recipe_with_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes", "list") == 0
    out = capsys.readouterr().out
    for name in NAMES:
        assert f"{name} " in out
    assert "784-512-[20]-512-784" in out


@EACH
def test_show_prints_the_page_and_the_commands(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes", "show", recipe.name) == 0
    out = capsys.readouterr().out
    assert out.startswith(recipe.page)
    for variant in recipe.variants:
        assert variant.command(f"runs/{recipe.name}/{variant.name}") in out


def test_a_terminal_gets_the_page_rendered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run("recipes", "show", "manifold") == 0
    out = capsys.readouterr().out
    assert "## What" not in out
    assert "What the article says" in out


# ------------------------------------------------------------------------------------------------------------------ run


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Every recipe, run for an epoch: on the digits, or on its own points. Where, and what was printed."""
    ran = {}
    for name in NAMES:
        out = tmp_path_factory.mktemp("recipes") / name
        options = ["--epochs", "1", "--out", str(out), *(["--data", "digits"] if name in IMAGES else [])]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evidence, "FRESH", 100)
            patch.setattr(evidence, "PERMUTATIONS", 9)
            patch.setattr(figures, "write_figures", _loss_curves_only)
            ran[name] = out, _printed("recipes", "run", name, *options)
    return ran


def _loss_curves_only(path: Path, model: VAE, dataset: Any, rows: list[Row], seed: int) -> list[Path]:
    """In the place of all the pictures, which the tests of the train command draw."""
    (path / "figures").mkdir()
    (path / "figures" / "loss.png").write_text(f"{len(rows)} epochs")
    return []


def _printed(*argv: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run(*argv) == 0
    return out.getvalue()


def evaluated(path: Path) -> dict[str, Any]:
    return json.loads(_printed("evaluate", str(path), "--json", "--nll-samples", "0"))


@pytest.mark.parametrize("name", NAMES)
def test_a_short_run_trains_every_variant_draws_and_measures(name: str, short: dict[str, tuple[Path, str]]) -> None:
    folder, out = short[name]
    recipe = recipes.load(name)
    assert sorted(p.name for p in folder.iterdir()) == sorted(v.name for v in recipe.variants)
    for variant in recipe.variants:
        test = evaluated(folder / variant.name)
        assert (folder / variant.name / "figures" / "loss.png").read_text() == "1 epochs"
        line = next(line for line in out.splitlines() if line.startswith(f"{variant.name} "))
        assert f" {test['loss']:.2f} " in line
        assert f"{folder / variant.name / 'figures'}" in out
        assert f" {Config(**variant.options).objective_part().formula()} " in line


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shared-weights", ("squared error", "without tying")),
        ("two-gaussians", ("energy distance", "a second fresh sample", "moved into [0, 1]^2")),
        ("features", ("posterior means", "5 neighbours", "is a 4 an anomaly?", "is a 1 an anomaly?", "AUROC")),
    ],
)
def test_a_recipe_shows_what_it_is_about(name: str, words: tuple[str, ...], short: dict[str, tuple[Path, str]]) -> None:
    for word in words:
        assert word in short[name][1]


def test_data_and_samples_lie_in_one_picture(short: dict[str, tuple[Path, str]]) -> None:
    for variant in ("many-points", "hundred-points"):
        picture = short["two-gaussians"][0] / variant / "figures" / "data_and_samples_overlaid.png"
        assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_line_is_printed_every_ten_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "FRESH", 20)
    monkeypatch.setattr(figures, "write_figures", _loss_curves_only)
    monkeypatch.setattr(recipes, "load", lambda name, truth=recipes.load: _small(truth(name)))
    out = _printed("recipes", "run", "two-gaussians", "--epochs", "30", "--out", str(tmp_path / "a"))
    assert re.findall(r"^ +(\d+) +\d+\.\d\d ", out, flags=re.MULTILINE) == ["1", "10", "20", "30"]


def _small(recipe: Recipe) -> Recipe:
    return replace(recipe, variants=recipe.variants[1:])


def test_quiet_leaves_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "write_figures", _loss_curves_only)
    monkeypatch.setattr(recipes, "load", lambda name, truth=recipes.load: _small(truth(name)))
    out = _printed(
        "recipes", "run", "manifold", "--data", "digits", "--epochs", "1", "--quiet", "--out", str(tmp_path / "a")
    )
    assert out.startswith("test set, nats for each datum")


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["show", "two-gausians"], "there is no recipe called 'two-gausians'; did you mean two-gaussians?"),
        (["run", "xyz"], "there is no recipe called 'xyz'; there are convolutional, features, manifold"),
        (["run", "two-gaussians", "--data", "digits"], "has data of its own: leave --data away"),
        (["run", "manifold", "--data", "digit"], "--data must be one of mnist, digits, fashion-mnist"),
        (["run", "manifold", "--epochs", "0"], "--epochs must be at least 1, not 0"),
        (["run", "manifold", "--out", ""], "--out must name a directory"),
        ([], "the following arguments are required: ACTION"),
        (["run"], "the following arguments are required: NAME"),
    ],
)
def test_a_mistake_gets_one_line(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("recipes", *argv) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["a full directory", "a file"])
def test_an_output_that_is_there_is_refused_before_anything_is_trained(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("keep me")
    monkeypatch.setattr(train, "run", lambda args: pytest.fail("it trains"))
    out = tmp_path if what == "a full directory" else tmp_path / "mine"
    assert run("recipes", "run", "manifold", "--data", "digits", "--out", out) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{out}: " in err
    assert "choose another --out" in err
    assert (tmp_path / "mine").read_text() == "keep me"


def test_a_run_that_was_stopped_stops_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(train, "train", lambda options, out, reporter: calls.append(out) or 130)
    assert run("recipes", "run", "manifold", "--data", "digits", "--out", tmp_path / "new") == 130
    assert len(calls) == 1
