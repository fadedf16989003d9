"""Parts by name: text says which and with what options, and back; a class in a file is run where a person typed it."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from own_parts import runs_of, write_mine

from tinyvae import layers, likelihoods, objectives, parts
from tinyvae.checking.examples import all_layers, all_objectives
from tinyvae.layers.layer import Layer
from tinyvae.likelihoods.gaussian import Gaussian
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.objectives.elbo import ELBO
from tinyvae.objectives.iwae import IWAE
from tinyvae.objectives.objective import Objective

OWN = (Likelihood, Objective)


@pytest.fixture(autouse=True)
def nothing_typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test types, no other knows of."""
    monkeypatch.setattr(parts, "_TYPED", [])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.endswith(".py"):
            del sys.modules[name]


# ------------------------------------------------------------------------------------------------------------ and back


def test_the_folder_is_the_list() -> None:
    folder = Path(likelihoods.__file__).parent
    files = {file.stem.replace("_", "-") for file in folder.glob("*.py")}
    assert set(parts.names(likelihoods, Likelihood)) == files - {"--init--", "likelihood", "support"}


@pytest.mark.parametrize("part", [*all_objectives(), *map(likelihoods.likelihood, likelihoods.names())], ids=str)
def test_text_and_back_is_the_same_part(part: Any) -> None:
    folder, base = (objectives, Objective) if isinstance(part, Objective) else (likelihoods, Likelihood)
    assert parts.part(folder, base, parts.text_of(part)) == part


@pytest.mark.parametrize("layer", [layer for layer in all_layers() if not layer.shares()], ids=parts.text_of)
def test_a_layers_text_makes_a_layer_of_the_same_options(layer: Layer) -> None:
    again = parts.part(layers, Layer, parts.text_of(layer))
    assert type(again) is type(layer)
    assert parts.text_of(again) == parts.text_of(layer)


def test_what_is_said_in_other_words_is_one_text() -> None:
    said = ["gaussian:sigma=fixed:0.5", "gaussian:sigma=fixed:0.5,"]
    assert {parts.text_of(likelihoods.likelihood(text)) for text in said} == {"gaussian:sigma=fixed:0.5"}
    defaults = ["elbo", "elbo:", "elbo:beta=1", "elbo:beta=1.0,free-bits=0", "elbo:free_bits=0.0"]
    assert {parts.text_of(objectives.objective(text)) for text in defaults} == {"elbo"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gauss", "likelihood must be one of bernoulli, .*laplace, .*negative-binomial, poisson, not 'gauss'"),
        ("", "likelihood must be one of .*, not ''"),
        ("likelihood", "must be one of .* not 'likelihood'"),
        ("support", "must be one of .* not 'support'"),
        ("gaussian:spread=1", "gaussian has the options sigma, not 'spread=1': write gaussian:option=value,..."),
        ("gaussian:sigma", "gaussian has the options sigma, not 'sigma'"),
        ("bernoulli:sigma=1", "bernoulli has no options, not 'sigma=1'"),
        ("negative_binomial", "must be one of .* not 'negative_binomial'"),
    ],
)
def test_a_name_or_an_option_that_there_is_not_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parts.part(likelihoods, Likelihood, text)


def test_an_unknown_name_is_an_error_of_its_own() -> None:
    with pytest.raises(parts.UnknownPartError) as caught:
        objectives.objective("Mine:beta=2")
    assert (caught.value.kind, caught.value.name) == ("objective", "Mine")


def test_who_has_an_option_is_read_off_the_folder() -> None:
    assert parts.having(likelihoods, Likelihood, "sigma") == ["gaussian"]
    assert "elbo" in parts.having(objectives, Objective, "beta")
    assert parts.having(objectives, Objective, "nothing") == []


def test_a_class_that_is_handed_over_is_known_by_its_own_name() -> None:
    @dataclass(frozen=True)
    class Mine(Gaussian):
        """One of the tests' own."""

    assert parts.part(likelihoods, Likelihood, "Mine:sigma=predicted", known=[Mine]) == Mine("predicted")
    assert parts.text_of(Mine("predicted")) == "Mine:sigma=predicted"
    with pytest.raises(parts.UnknownPartError):
        parts.part(objectives, Objective, "Mine", known=[Mine])  # it is no objective


def test_a_class_of_ones_own_is_never_taken_for_a_part_of_the_package() -> None:
    @dataclass(frozen=True)
    class elbo(ELBO):  # noqa: N801 - as the package's part is called
        """Another loss under the same name."""

    assert parts.text_of(elbo()) == "Elbo"
    assert type(parts.part(objectives, Objective, "elbo", known=[elbo])) is ELBO
    assert type(parts.part(objectives, Objective, "Elbo", known=[elbo])) is elbo


# --------------------------------------------------------------------------------------------------- typed by a person


def test_a_typed_class_is_known_from_there_on(tmp_path: Path) -> None:
    path = write_mine(tmp_path)
    assert parts.is_typed(f"{path}:Mine")
    with pytest.raises(parts.UnknownPartError):
        likelihoods.likelihood("Mine")
    assert runs_of(tmp_path) == 0
    assert parts.typed(f"{path}:Mine:weight=2", Likelihood) == "Mine:weight=2"
    assert runs_of(tmp_path) == 1
    made = likelihoods.likelihood("Mine:weight=2")
    assert (type(made).__name__, made.fixed()) == ("Mine", {"weight": 2.0})
    assert parts.text_of(made) == "Mine:weight=2.0"
    assert parts.typed(f"{path}:Heavy", *OWN) == "Heavy"
    assert objectives.objective("Heavy").numbers() == (2.0,)


def test_a_file_that_has_changed_is_run_anew(tmp_path: Path) -> None:
    path = write_mine(tmp_path)
    parts.typed(f"{path}:Mine", Likelihood)
    path.write_text(path.read_text().replace("weight: float = 1.0", "weight: float = 3.0"))
    parts.typed(f"{path}:Mine", Likelihood)
    assert likelihoods.likelihood("Mine").fixed() == {"weight": 3.0}


BROKEN = {
    "raises": ("1 / 0", r"cannot be run \(ZeroDivisionError: division by zero\)"),
    "is no Python": ("def f(", r"cannot be run \(SyntaxError"),
    "lacks a module": ("import nothing_of_that_name", r"cannot be run \(ModuleNotFoundError"),
    "exits": ("raise SystemExit(0)", r"cannot be run \(SystemExit: 0\)"),
    "is no text": ("\0", r"cannot be run \(\w+"),
    "is empty": ("", "has no class Mine of the kind Likelihood or Obj"),
    "has another": ("from tinyvae.layers import Dense as Mine", "has no class Mine of the kind Likelihood or Obj"),
    "has a base": ("from tinyvae.likelihoods.likelihood import Likelihood as Mine", "has no class Mine"),
    "has an object": ("Mine = 3", "has no class Mine of the kind Likelihood or Obj"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_file_without_such_a_class_is_one_line(broken: str, tmp_path: Path) -> None:
    text, said = BROKEN[broken]
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        parts.typed(f"{path}:Mine", *OWN)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert parts._TYPED == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("none.py:Mine", "there is no such file none.py"), ("mine.py", "write FILE.py:CLASS"),
        ("mine.py:", "has no class  of the kind"), ("mine.py:Mine.x", "has no class Mine.x"),
        ("", "write FILE.py:CLASS"), (".py:Mine", "there is no such file"),
    ],
)  # fmt: skip
def test_what_names_no_class_is_one_line(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mine(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        parts.typed(text, *OWN)


def test_a_file_may_have_the_name_of_a_module(tmp_path: Path) -> None:
    """numpy.py does not stand in NumPy's place."""
    numpy, path = sys.modules["numpy"], tmp_path / "numpy.py"
    path.write_text(write_mine(tmp_path).read_text())
    assert parts.typed(f"{path}:Mine", Likelihood) == "Mine"
    assert sys.modules["numpy"] is numpy


def test_options_of_a_typed_class_are_checked_as_ours_are(tmp_path: Path) -> None:
    text = parts.typed(f"{write_mine(tmp_path)}:Mine:weight=x", Likelihood)
    with pytest.raises(ValueError, match="Mine:weight must be a number, not 'x'"):
        likelihoods.likelihood(text)


def test_an_objective_with_an_option_of_few_words() -> None:
    with pytest.raises(ValueError, match="estimator must be one of iwae, stl, dreg, not 'x'"):
        objectives.objective("iwae:estimator=x")
    assert objectives.objective("iwae:draws=2,estimator=dreg") == IWAE(2, "dreg")
