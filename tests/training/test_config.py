"""The options of a run: resolved once, stored in one way, and compared by what they mean."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from tinyvae.likelihoods.gaussian import Gaussian
from tinyvae.objectives.elbo import ELBO
from tinyvae.objectives.iwae import IWAE
from tinyvae.training.config import SPELLINGS, Config
from tinyvae.training.fields import from_json

ON: dict[str, Any] = {"backend": "numpy", "kernels": "numpy"}  # what it ran on, which a stored configuration says


@pytest.mark.parametrize(
    ("given", "likelihood", "objective"),
    [
        ({}, "bernoulli", "elbo"),
        ({"likelihood": "gaussian"}, "gaussian", "elbo"),
        ({"likelihood": "gaussian", "sigma": "learned"}, "gaussian", "elbo"),
        ({"likelihood": "gaussian", "sigma": "fixed:0.5"}, "gaussian:sigma=fixed:0.5", "elbo"),
        ({"likelihood": "gaussian:sigma=columns"}, "gaussian:sigma=columns", "elbo"),
        ({"data": "two-gaussians"}, "gaussian:sigma=fixed:0.5", "elbo"),
        ({"data": "two-gaussians:20", "sigma": "learned"}, "gaussian", "elbo"),
        ({"data": "two-gaussians", "likelihood": "gaussian"}, "gaussian:sigma=fixed:0.5", "elbo"),
        ({"data": "two-gaussians", "likelihood": "gaussian:sigma=learned"}, "gaussian", "elbo"),
        ({"data": "two-gaussians", "likelihood": "laplace"}, "laplace", "elbo"),
        ({"data": "two-gaussians", "likelihood": "gaussian:sigma=predicted"}, "gaussian:sigma=predicted", "elbo"),
        ({"beta": 1.0, "free_bits": 0.0, "beta_warmup": 0.0}, "bernoulli", "elbo"),
        ({"beta": 2.0}, "bernoulli", "elbo:beta=2.0"),
        ({"beta_warmup": 1.5, "beta": 0.5}, "bernoulli", "elbo:beta=0.5,beta_warmup=1.5"),
        ({"objective": "elbo:free_bits=0.1", "beta": 2.0}, "bernoulli", "elbo:beta=2.0,free_bits=0.1"),
        ({"importance": 3}, "bernoulli", "elbo:draws=3"),
        ({"objective": "iwae"}, "bernoulli", "iwae"),
        ({"objective": "iwae", "importance": 5}, "bernoulli", "iwae"),
        ({"objective": "iwae", "importance": 3}, "bernoulli", "iwae:draws=3"),
        ({"objective": "iwae:estimator=dreg", "importance": 3}, "bernoulli", "iwae:draws=3,estimator=dreg"),
        ({"objective": "beta-tc", "beta": 3.0}, "bernoulli", "beta-tc:beta=3.0"),
    ],
)
def test_what_is_stored_is_one_text_for_each_part(given: dict[str, Any], likelihood: str, objective: str) -> None:
    resolved = Config(**{"data": "x.npy", **given}).resolved(1000)
    assert (resolved.likelihood, resolved.objective) == (likelihood, objective)
    assert {name: getattr(resolved, name) for name in SPELLINGS} == dict.fromkeys(SPELLINGS)
    with pytest.raises(ValueError, match="config has no kernels"):
        resolved.check_resolved()
    stored = Config(**{**asdict(resolved), **ON})
    stored.check_resolved()
    assert from_json(Config, json.loads(json.dumps(stored.to_dict())), "config") == stored


def test_the_parts_are_what_the_text_says() -> None:
    config = Config(likelihood="gaussian", sigma="fixed:2", objective="iwae", importance=7)
    assert (config.likelihood_part(), config.objective_part()) == (Gaussian("fixed:2"), IWAE(7))
    assert Config(beta=2.0, beta_warmup=1.5).objective_part() == ELBO(2.0, 1.5)
    assert Config(beta=2.0, beta_warmup=1.5).resolved(10).objective_part() == ELBO(2.0, 1.5)


@pytest.mark.parametrize("short", SPELLINGS)
def test_a_stored_configuration_spells_nothing(short: str) -> None:
    resolved = asdict(Config(data="x.npy", objective="elbo", likelihood="gaussian").resolved(100)) | ON
    value = {"sigma": "learned", "importance": 2}.get(short, 0.5)
    with pytest.raises(ValueError, match="spells an option of a part that has its own place"):
        Config(**{**resolved, short: value}).check_resolved()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"sigma": "learned", "likelihood": "bernoulli"},
            "--sigma is no option of bernoulli, but of --likelihood gaussian",
        ),
        ({"beta": 2.0, "objective": "iwae"}, "--beta is no option of iwae, but of --objective beta-tc or elbo"),
        ({"free_bits": 1.0, "objective": "beta-tc"}, "--free-bits is no option of beta-tc, but of --objective elbo"),
        ({"beta": 2.0, "objective": "elbo:beta=3"}, "--beta and --objective elbo:beta=3 both say beta"),
        ({"importance": 2, "objective": "iwae:draws=2"}, "--importance and --objective iwae:draws=2 both say draws"),
        ({"sigma": "x", "likelihood": "gaussian"}, "--sigma must be 'learned'"),
        ({"likelihood": "gaussian:sigma=x"}, "--likelihood gaussian:sigma=x: sigma must be 'learned'"),
        ({"beta": -1.0}, "--beta must be at least 0 and finite, not -1.0"),
        ({"beta_warmup": float("nan")}, "--beta-warmup must be at least 0 and finite, not nan"),
        ({"objective": "elbo:beta=x"}, "--objective elbo:beta=x: elbo:beta must be a number, not 'x'"),
        ({"objective": "nothing"}, "--objective must be one of beta-tc, elbo, iwae, not 'nothing'"),
        ({"likelihood": "nothing"}, "--likelihood must be one of bernoulli, .*, not 'nothing'"),
    ],
)
def test_the_error_names_what_was_typed(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Config(**given)
    assert str(caught.value).count("--" + said[2:].partition(" ")[0]) == 1


def test_what_fits_no_usual_likelihood_is_said_when_the_data_is_known() -> None:
    with pytest.raises(ValueError, match="--sigma is no option of bernoulli"):
        Config(sigma="learned").resolved(10)
    assert Config(data="two-gaussians", sigma="learned").resolved(10).likelihood == "gaussian"


def test_tf32_goes_with_what_the_captured_step_can() -> None:
    Config(tf32=True, likelihood="gaussian", beta=2.0)
    for given, said in [
        ({"objective": "iwae"}, "does not go with --objective iwae"),
        ({"importance": 2}, "does not go with --objective elbo:draws=2"),
        ({"likelihood": "laplace"}, "does not go with --likelihood laplace"),
        ({"likelihood": "gaussian", "sigma": "columns"}, "does not go with --likelihood gaussian:sigma=columns"),
        ({"activation": "gelu"}, "does not go with --activation gelu"),
        ({"conv": (2,)}, "does not go with --conv"),
    ]:
        options: dict[str, Any] = given
        with pytest.raises(ValueError, match=said):
            Config(tf32=True, **options)


# ------------------------------------------------------------------------------------------------------------ compared


@pytest.mark.parametrize(
    ("begun", "given", "lines"),
    [
        ({"objective": "iwae"}, {"objective": "iwae", "importance": 5}, 0),
        ({"objective": "iwae", "importance": 3}, {"objective": "iwae:draws=3"}, 0),
        ({"objective": "iwae", "importance": 3}, {"importance": 5}, 1),
        ({"beta": 2.0}, {"beta": 2.0}, 0),
        ({"beta": 2.0}, {"free_bits": 1.0, "beta": 3.0}, 2),
        ({"likelihood": "gaussian"}, {"likelihood": "laplace", "sigma": "columns"}, 2),
        ({"hidden": (3,)}, {"hidden": (4,), "seed": 1}, 2),
    ],
)
def test_differences_are_of_meaning(begun: dict[str, Any], given: dict[str, Any], lines: int) -> None:
    resolved = Config(**{"data": "x.npy", **begun}).resolved(100)
    found = resolved.differences(given)
    assert len(found) == lines
    assert all(line.startswith("--") and " in the run, not " in line for line in found)


def test_a_run_without_a_step_size_is_one_of_python() -> None:
    """There lr may be a function, which has no text; a file that says so of another run is wrong."""
    whole: dict[str, Any] = {"backend": "numpy", "kernels": "numpy", "lr": None}
    Config(**{**asdict(Config(**ON).resolved(100)), **whole, "data": "arrays", "valid": "arrays"}).check_resolved()
    with pytest.raises(ValueError, match="config has no lr"):
        Config(**{**asdict(Config(**ON).resolved(100)), **whole}).check_resolved()


def test_arrays_are_no_rows_that_a_command_could_hold_out() -> None:
    with pytest.raises(ValueError, match="--valid arrays is for data that is handed over in Python"):
        Config(valid="arrays")
