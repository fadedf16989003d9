"""Models of layers that were given one by one, and of classes of a user's own, saved and loaded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cases import build, inputs
from hostile import changed, describe, rewrite

import tinyvae
from tinyvae.checking.models import CASES, ModelCase
from tinyvae.errors import CheckpointError
from tinyvae.layers import Dense, Tied
from tinyvae.likelihoods.bernoulli import Bernoulli
from tinyvae.training import checkpoint as c

LAYERED = [case for case in CASES if "encoder" in case.model]


@pytest.mark.parametrize("case", LAYERED, ids=lambda case: case.name)
def test_a_model_of_layers_is_saved_and_loaded(case: ModelCase, tmp_path: Path) -> None:
    model = build(case, seed=4)
    x, eps, y = inputs(case, 5)
    model.loss_and_grad(x, eps, y=y)  # running averages are no longer at their start
    tinyvae.save(model, tmp_path / "model.safetensors")
    again = tinyvae.load(tmp_path / "model.safetensors")
    assert again.architecture.to_dict() == model.architecture.to_dict()
    assert list(again.params) == list(model.params)
    assert again.params.flat.tobytes() == model.params.flat.tobytes()
    assert again.loss(x, eps, y=y) == model.loss(x, eps, y=y)
    assert again.loss_and_grad(x, eps, y=y) == model.loss_and_grad(x, eps, y=y)


def test_weights_that_are_shared_are_shared_again(tmp_path: Path) -> None:
    first = Dense(6, 3, "tanh")
    model = tinyvae.VAE(encoder=[first, Dense(3, 4)], decoder=[Dense(2, 3, "tanh"), Tied(first, 3)])
    tinyvae.save(model, tmp_path / "model.safetensors")
    again = tinyvae.load(tmp_path / "model.safetensors")
    assert "decoder.1.weight" not in again.params
    before = again.decode(np.ones((1, 2)))
    again.params["encoder.0.weight"][...] += 1
    assert (again.decode(np.ones((1, 2))) != before).all()


@dataclass(frozen=True)
class Sure(Bernoulli):
    """A likelihood of the tests' own, with an option."""

    twice: bool = False


@dataclass(frozen=True, eq=False)
class Wide(Dense):
    """A layer of the tests' own."""


def test_classes_of_ones_own_are_handed_over(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = tinyvae.VAE(encoder=[Wide(3, 4, "relu"), Dense(4, 2)], decoder=[Wide(1, 3)], likelihood=Sure(twice=True))
    tinyvae.save(model, path)
    again = tinyvae.load(path, known=[Sure, Wide])
    assert again.likelihood == Sure(twice=True)
    assert [type(bound.layer) for bound in (*again.encoder, *again.decoder)] == [Wide, Dense, Wide]
    assert again.params.flat.tobytes() == model.params.flat.tobytes()
    for known, kind, name in (([], "likelihood", "Sure"), ([Sure], "layer", "Wide"), ([Wide], "likelihood", "Sure")):
        with pytest.raises(CheckpointError) as caught:
            tinyvae.load(path, known=known)
        said = f"{path}: is made with the {kind} '{name}', which is not the package's own; hand its class over"
        assert str(caught.value).startswith(said)
        with pytest.raises(c.StrangerError):
            c.read_checkpoint(path, known)


def test_a_class_that_is_handed_over_must_be_a_likelihood_or_layer(tmp_path: Path) -> None:
    tinyvae.save(tinyvae.VAE(3, (2,), 1, likelihood=Sure()), tmp_path / "model")
    for other in (type("Sure", (), {}), type("Sure", (Dense,), {})):
        with pytest.raises(CheckpointError, match="is made with the likelihood 'Sure'"):
            tinyvae.load(tmp_path / "model", known=[other])


@pytest.mark.parametrize("change", ["one text", "no text", "another width", "no such layer"])
def test_layers_that_cannot_be_are_refused(change: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tinyvae.save(tinyvae.VAE(encoder=[Dense(3, 4, "relu"), Dense(4, 2)], decoder=[Dense(1, 3)]), path)
    where, value, said = {
        "one text": (("architecture", "encoder"), "dense:inputs=3,width=4", "encoder must be a list of layers"),
        "no text": (("architecture", "encoder", 0), 3, "encoder.0 must be text, not 3"),
        "another width": (
            ("architecture", "encoder", 0), "dense:inputs=3,width=5", "encoder.1 takes 4 numbers, but what comes",
        ),
        "no such layer": (
            ("architecture", "decoder", 0), "tied:of=encoder.7,inputs=1", "describes no model|is made with",
        ),
    }[change]  # fmt: skip
    rewrite(path, changed(describe(path), where, value))
    with pytest.raises(CheckpointError, match=said) as caught:
        tinyvae.load(path)
    assert "\n" not in str(caught.value)
