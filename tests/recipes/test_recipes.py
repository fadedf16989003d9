"""The recipes: whole, runnable by `tinyvae recipes`, and honest about what cannot be asked of them."""

from importlib.resources import files
from pathlib import Path

import pytest
from running import run

from tinyvae import recipes
from tinyvae.commands import train
from tinyvae.model.vae import VAE
from tinyvae.recipes import Recipe
from tinyvae.training.config import OPTIONS, Config

NAMES = ("convolutional", "features", "manifold", "shared-weights", "two-gaussians")
EACH = pytest.mark.parametrize("recipe", [recipes.load(name) for name in NAMES], ids=NAMES)
SECTIONS = ["What the article says", "What is wrong in it", "What tinyvae does", "The command", "What we get"]


def test_there_are_five_each_of_two_files_in_the_package() -> None:
    assert recipes.names() == NAMES
    here = {file.name for file in files("tinyvae.recipes").iterdir()}
    assert {f"{name}{ending}" for name in NAMES for ending in (".toml", ".md")} <= here


def test_the_package_data_are_named_where_wheels_are_made() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"tinyvae.recipes" = ["*.toml", "*.md"]' in text


@EACH
def test_every_variant_is_a_configuration_of_the_train_command(recipe: Recipe) -> None:
    assert recipe.variants
    for variant in recipe.variants:
        config = Config(**variant.options)
        assert set(variant.options) <= set(OPTIONS)
        assert config.data.partition(":")[0] == recipe.data
        assert config.resolved(1000).epochs == variant.options["epochs"]


@EACH
def test_the_command_that_is_shown_asks_for_just_that(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(train, "run", lambda args: asked.append(vars(args)) or 0)
    for variant in recipe.variants:
        words = variant.command("there").split()
        assert run(*words[1:]) == 0
        given = {name: tuple(v) if isinstance(v, list) else v for name, v in asked.pop().items()}
        assert given == {**variant.options, "out": "there"}


@EACH
def test_a_page_has_all_sections_in_order_short_lines_and_nothing_of_another_place(recipe: Recipe) -> None:
    lines = recipe.page.splitlines()
    assert lines[0] == f"# {recipe.title}"
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == SECTIONS
    assert 50 <= len(lines) <= 110
    assert max(map(len, lines)) <= 120
    assert f"python -m tinyvae recipes run {recipe.name}" in recipe.page
    for word in ("/work", "/tmp", "TODO", "session", "helper", "assistant", "issue", "brief", "http:", "https:"):
        assert word not in recipe.page.lower(), word
    assert recipe.page.isascii()


@EACH
def test_the_titles_are_lines(recipe: Recipe) -> None:
    for text in (recipe.title, recipe.article, recipe.model, recipe.shows):
        assert text == text.strip() != ""
        assert "\n" not in text


def test_the_dense_net_beside_the_convolutions_is_of_their_size() -> None:
    sizes = []
    for variant in recipes.load("convolutional").variants:
        config = Config(**variant.options).resolved(60_000)
        assert config.hidden is not None
        assert config.latent is not None
        image = (28, 28) if config.conv else None
        model = VAE(784, config.hidden, config.latent, conv=config.conv, image_shape=image)
        sizes.append(model.params.flat.size)
    # one unit more or less of the hidden layer is 784 + 784 + 3 * 100 + 2 parameters: no other width comes closer
    assert abs(sizes[0] - sizes[1]) <= 1870 // 2
