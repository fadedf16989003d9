"""The options of training: each written once, looked at once, and on the command line by the same names."""

import argparse
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from planted import assert_killed, instead

import tinyvae
from tinyvae.commands import train_options
from tinyvae.objectives.elbo import ELBO
from tinyvae.training.config import Config, help_of
from tinyvae.training.options import About, Training, about, default_epochs, explained
from tinyvae.training.trainer import Trainer, fit

X = np.random.default_rng(0).random((20, 6)).astype(np.float32)


def model() -> tinyvae.VAE:
    return tinyvae.VAE(6, (5,), 2, kernels="numpy")


# -------------------------------------------------------------------------------------------------------- written once


def test_the_groups_name_every_field_exactly_once() -> None:
    named = [name for names in train_options.GROUPS.values() for name in names]
    assert sorted(named) == sorted(f.name for f in fields(Config))


def test_a_field_that_is_in_no_group_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {**train_options.GROUPS, "machine": train_options.GROUPS["machine"][1:]}
    killer = test_the_groups_name_every_field_exactly_once
    assert_killed(monkeypatch, instead(train_options, "GROUPS", groups), killer)


@pytest.mark.parametrize("kind", [Training, Config])
def test_every_field_says_what_it_is(kind: type) -> None:
    for f in fields(kind):
        assert isinstance(about(f), About), f.name
        assert len(about(f).help) >= len("which GPU"), f.name
        assert explained(f).startswith(about(f).help)


def test_the_command_has_every_field_with_its_help() -> None:
    parser = argparse.ArgumentParser()
    train_options.add_arguments(parser)
    there = {action.option_strings[0]: action for action in parser._actions}
    for f in fields(Config):
        action = there[f"--{f.name.replace('_', '-')}"]
        assert action.help == help_of(f.name).replace("%", "%%")
        assert action.default is argparse.SUPPRESS
        assert action.choices == about(f).choices


def test_an_option_of_training_is_the_commands_as_well() -> None:
    known = {f.name: f for f in fields(Config)}
    for f in fields(Training):
        assert known[f.name].default == f.default
        if f.name != "objective":  # text there
            assert about(known[f.name]) == about(f)


# --------------------------------------------------------------------------------------------------------- looked at


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"epochs": 2.5}, "epochs must be a whole number, not 2.5"),
        ({"epochs": True}, "epochs must be a whole number, not True"),
        ({"epochs": "3"}, "epochs must be a whole number, not 3"),
        ({"epochs": 10**13}, "epochs must be from 1 to"),
        ({"batch_size": 2.0}, "batch_size must be a whole number, not 2.0"),
        ({"batch_size": -1}, "batch_size must be at least 1, not -1"),
        ({"lr": 0}, "lr must be above 0 and finite, not 0"),
        ({"lr": float("nan")}, "lr must be above 0 and finite, not nan"),
        ({"lr": float("inf")}, "lr must be above 0 and finite, not inf"),
        ({"lr": "0.1"}, "lr must be above 0 and finite, not 0.1"),
        ({"lr": True}, "lr must be above 0 and finite, not True"),
        ({"lr_schedule": "linear"}, "lr_schedule must be one of constant, cosine, not linear"),
        ({"lr": lambda epochs: 0.1, "lr_schedule": "cosine"}, "lr_schedule does not go with a function as lr"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, not -0.1"),
        ({"weight_decay": float("nan")}, "weight_decay must be from 0 to"),
        ({"weight_decay": lambda epochs: 0.1}, "weight_decay must be a number, not a function"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0 and finite, not 0.0"),
        ({"clip_norm": abs}, "clip_norm must be a number, not a function"),
        ({"accumulate": 0}, "accumulate must be at least 1, not 0"),
        ({"patience": 1}, "patience goes by rows that are held out: give valid"),
        ({"binarize": "yes"}, "binarize must be one of none, threshold, dynamic, not yes"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"seed": 0.5}, "seed must be a whole number, not 0.5"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, not 0"),
        ({"tf32": 1}, "tf32 must be True or False, not 1"),
        ({"objective": "elba"}, "objective must be one of beta-tc, elbo, iwae, not 'elba'"),
        ({"objective": "elbo:beta=x"}, "elbo:beta must be a number"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_an_impossible_value_gets_one_line_with_its_name(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("(", r"\(")) as caught:
        fit(model(), X, progress=False, **wrong)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)  # as it is said in Python


def test_an_unknown_option_is_named_with_those_that_there_are() -> None:
    with pytest.raises(TypeError, match="there is no option learning_rate: objective, epochs, batch_size, lr,"):
        Trainer(model(), X, learning_rate=0.1)


def test_numbers_of_numpy_are_numbers(tmp_path: Any) -> None:
    given: dict[str, Any] = {
        "epochs": np.int64(2), "batch_size": np.uint8(8), "lr": np.float32(1e-3), "weight_decay": np.float16(0.5),
        "clip_norm": np.float64(1.0), "seed": np.int32(3), "tf32": np.bool_(False), "valid": np.float32(0.25),
    }  # fmt: skip
    plain = {name: value.item() for name, value in given.items()}
    first = fit(model(), X, progress=False, run=tmp_path / "run", **given)
    second = fit(model(), X, progress=False, **plain)
    np.testing.assert_array_equal(first.model.params.flat, second.model.params.flat)
    fit(model(), X, progress=False, resume=tmp_path / "run", **given)  # what was stored can be read


def test_none_is_the_default() -> None:
    nothing: dict[str, Any] = dict.fromkeys(f.name for f in fields(Training))
    assert Trainer(model(), X, **nothing).options == Trainer(model(), X).options


def test_defaults_depend_on_the_rows() -> None:
    options = Training().resolved(1000)
    assert (options.batch_size, options.epochs, options.checkpoint_every) == (128, 500, 25)
    assert Training(epochs=3).resolved(1000).checkpoint_every == 1
    assert [default_epochs(rows, 128) for rows in (10, 12_800, 128_000, 10**7)] == [500, 50, 10, 10]


# ------------------------------------------------------------------------------------------------------- the step size


def test_the_step_size_is_a_number_half_a_cosine_or_what_a_function_says() -> None:
    at = (0, 0.5, 1, 2, 4)
    assert [Training(lr=0.5).resolved(9).lr_at(e) for e in at] == [0.5] * 5
    assert [Training(lr=0.5, epochs=2).lr_at(e) for e in at] == [0.5] * 5
    cosine = Training(lr=0.5, lr_schedule="cosine", epochs=2)
    np.testing.assert_allclose([cosine.lr_at(e) for e in (0, 1, 2, 4)], [0.5, 0.25, 0, 0], atol=1e-16)
    asked: list[float] = []
    fit(model(), X, progress=False, epochs=2, batch_size=10, lr=lambda epochs: asked.append(epochs) or 0.1)
    assert asked == [0.0, 0.5, 1.0, 1.5]


def test_the_same_is_the_same_however_it_is_written() -> None:
    first, second = Training(objective="elbo:beta=2"), Training(objective=ELBO(beta=2.0))
    assert first.says_the_same(second, "objective")
    assert not first.says_the_same(Training(), "objective")
    assert Training(lr=1e-3).says_the_same(Training(), "lr")
    assert not Training(lr=1e-2).says_the_same(Training(), "lr")
