"""Recipes: models from published articles, put right. Each is a small TOML file and a page of Markdown of one name.

The TOML holds `title`, `article`, `model`, `data` and `shows` (one line each), `other_data` (the data sets that it may
be run on instead), optionally `report_every` (epochs between two printed lines), and `[[variants]]`: each a `name` and
the `options` of `tinyvae train`, by their names there.
"""

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from typing import Any

from tinyvae.errors import UsageError
from tinyvae.training.config import Config


@dataclass(frozen=True)
class Variant:
    """One training run of a recipe."""

    name: str
    options: dict[str, Any]  # of `tinyvae train`; lists are tuples, as in Config

    def command(self, out: str) -> str:
        """The `tinyvae train` line that makes the same run, in the directory `out`."""
        words = ["tinyvae train"]
        for name, value in self.options.items():
            flag = f"--{name.replace('_', '-')}"
            if value is True:
                words.append(flag)
            else:
                values = value if isinstance(value, tuple) else (value,)
                words.append(" ".join([flag, *map(str, values)]))
        return " ".join([*words, f"--out {out}"])


@dataclass(frozen=True)
class Recipe:
    """A recipe as its two files tell it."""

    name: str
    title: str
    article: str  # the source, in words
    model: str
    data: str
    other_data: tuple[str, ...]
    shows: str
    page: str  # Markdown
    report_every: int | None  # epochs between two printed lines; None: about 25 lines in a run
    variants: tuple[Variant, ...]


def names() -> tuple[str, ...]:
    """The names of all recipes, in alphabetical order."""
    here = files(__name__)
    return tuple(sorted(file.name.removesuffix(".toml") for file in here.iterdir() if file.name.endswith(".toml")))


def load(name: str) -> Recipe:
    """The recipe called `name`. Raises UsageError if there is none, naming those that are spelled alike."""
    known = names()
    if name not in known:
        alike = get_close_matches(name, known)
        meant = f"did you mean {' or '.join(alike)}?" if alike else f"there are {', '.join(known)}"
        raise UsageError(f"there is no recipe called {name!r}; {meant}")
    here = files(__name__)
    content = tomllib.loads(here.joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    variants = tuple(_variant(v["name"], v["options"]) for v in content.pop("variants"))
    page = here.joinpath(f"{name}.md").read_text(encoding="utf-8")
    lists = {"other_data": tuple(content.pop("other_data")), "variants": variants}
    return Recipe(name=name, page=page, report_every=content.pop("report_every", None), **lists, **content)


def changed(recipe: Recipe, data: str | None, data_dir: str | None, epochs: int | None) -> tuple[Variant, ...]:
    """The recipe's variants with what the command line asks for instead.

    On other data the number of epochs and the batch size are those that suit that data, unless epochs are given.
    Raises UsageError for data that the recipe is not for, and for numbers that cannot be.
    """
    if data is not None and data not in (recipe.data, *recipe.other_data):
        if not recipe.other_data:
            raise UsageError(f"the recipe {recipe.name} has data of its own: leave --data away")
        allowed = ", ".join((recipe.data, *recipe.other_data))
        raise UsageError(f"--data must be one of {allowed} for the recipe {recipe.name}, not {data!r}")
    given = {name: value for name, value in (("data_dir", data_dir), ("epochs", epochs)) if value is not None}
    variants = []
    for variant in recipe.variants:
        options = dict(variant.options)
        if data in recipe.other_data:
            options["data"] = data
            for name in ("epochs", "batch_size"):
                options.pop(name, None)
        try:
            variants.append(_variant(variant.name, options | given))
        except ValueError as error:
            raise UsageError(str(error)) from error
    return tuple(variants)


def _variant(name: str, options: dict[str, Any]) -> Variant:
    """With tuples for lists. Raises ValueError or TypeError if these are no options of `tinyvae train`."""
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    Config(**options)
    return Variant(name, options)
