"""Which models, objectives and data the captured step takes: what it does not know is left to the ordinary step."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture
from kinds import BY_NAME, CAPTURED, ORDINARY, Kind
from strategies import sampled
from trained import Heard, captured, from_afar, heard, of_kind, parameters, pixels

import tinyvae
from tinyvae.backend import to_host
from tinyvae.formula import formula
from tinyvae.kernels.cuda import table
from tinyvae.likelihoods.bernoulli import Bernoulli
from tinyvae.likelihoods.gaussian import Gaussian
from tinyvae.objectives.elbo import ELBO
from tinyvae.ops.activations import ACTIVATIONS
from tinyvae.training import graph_step
from tinyvae.training.batches import Batches
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset
from tinyvae.training.engine import Engine
from tinyvae.training.graph_step import GraphStep


@pytest.mark.parametrize("kind", CAPTURED, ids=lambda kind: kind.name)
def test_it_takes_what_it_knows(fake_cupy: FakeCupy, kind: Kind) -> None:
    assert GraphStep.suits(kind.build(backend="cupy"), kind.loss)
    assert of_kind(kind, "cupy", dtype="float32", epochs=1).graph_step is not None


@pytest.mark.parametrize("kind", ORDINARY, ids=lambda kind: kind.name)
def test_it_refuses_what_it_does_not_know(fake_cupy: FakeCupy, kind: Kind) -> None:
    model = kind.build(backend="cupy")
    assert not GraphStep.suits(model, kind.loss)
    x, _, y = kind.inputs(8)
    batches = Batches(model, x, 1.0, 4, False, y)
    m, v = (fake_cupy.zeros(model.params.flat.size, "float32") for _ in range(2))
    with pytest.raises(ValueError, match="the captured step does not know"):
        GraphStep(model, batches, m, v, kind.loss)


def test_every_activation_is_in_one_of_the_two_lists() -> None:
    ours = {kind.model.get("activation", "relu") for kind in CAPTURED} | {"linear"}
    assert ours == set(table.ACTIVATION_NAMES)
    assert set(ACTIVATIONS) - ours == {kind.name for kind in ORDINARY} & set(ACTIVATIONS)
    assert not any(ACTIVATIONS[name].reads_a for name in ours)  # the kernels keep y alone


@pytest.mark.parametrize("options", [{"kernels": "reference"}, {"dtype": "float64"}], ids=str)
def test_other_kernels_have_no_captured_step(fake_cupy: FakeCupy, options: dict[str, Any]) -> None:
    kind = CAPTURED[0]
    assert not GraphStep.suits(kind.build(backend="cupy", **options), kind.loss)
    assert not GraphStep.suits(kind.build(), kind.loss)


# ----------------------------------------------------------------------------------- what inherits from what it knows


@formula
def steeper_nll(logits, x):
    """Another loss than Bernoulli's."""
    return (logits - x) * (logits - x)


@dataclass(frozen=True)
class Steeper(Bernoulli):
    """It says no word of a kernel, and inherits one."""

    nll = steeper_nll


@dataclass(frozen=True)
class Seen(Bernoulli):
    """Bernoulli's kernel is right for the loss, but the encoder sees something else."""

    captured = "output_bernoulli"
    encoder_input = formula(lambda x: 2 * x - 1)


@dataclass(frozen=True)
class Wide(Gaussian):
    """As the Gaussian, in another class."""


@dataclass(frozen=True)
class Charged(ELBO):
    """It may minimize something else."""


STRANGERS = [Steeper(), Seen(), Wide()]


@pytest.mark.parametrize("likelihood", STRANGERS, ids=lambda part: type(part).__name__)
def test_a_likelihood_that_inherits_a_kernel_is_left_to_the_ordinary_step(fake_cupy: FakeCupy, likelihood: Any) -> None:
    assert likelihood.captured
    assert not GraphStep.suits(BY_NAME["bernoulli"].build(backend="cupy", likelihood=likelihood), ELBO())


def test_an_objective_that_inherits_from_the_elbo_is_left_to_the_ordinary_step(fake_cupy: FakeCupy) -> None:
    assert Charged().captured
    assert not GraphStep.suits(BY_NAME["bernoulli"].build(backend="cupy"), Charged())


# ------------------------------------------------------------------------------------------------- the ordinary step


@pytest.mark.parametrize(
    "options",
    [
        {"clip_norm": 0.5}, {"accumulate": 2}, {"activation": "swish"}, {"activation": "gelu"},
        {"objective": "elbo:draws=2"}, {"likelihood": "gaussian:sigma=columns"},
    ],
    ids=str,
)  # fmt: skip
def test_what_it_does_not_cover_is_trained_by_the_ordinary_step_with_the_fused_kernels(
    fake_cupy: FakeCupy, options: dict[str, Any]
) -> None:
    trainer = captured(epochs=20, lr=2e-2, **options)
    assert (trainer.model.kernels_name, trainer.graph_step) == ("cuda", None)
    trainer.run()
    rows = heard(trainer).rows
    assert rows[-1].valid_loss < rows[0].valid_loss - 0.1


def with_gaps() -> np.ndarray:
    x = pixels().astype(np.float32) / 255
    x[np.random.default_rng(1).uniform(size=x.shape) < 0.2] = np.nan
    return x


def test_data_that_was_not_all_observed_is_trained_by_the_ordinary_step(fake_cupy: FakeCupy) -> None:
    x = with_gaps()
    dataset = Dataset("gaps", x[:100], x_valid=x[100:])
    config = Config(data="p.npy", backend="cupy", batch_size=16, epochs=20, lr=2e-2).resolved(100)
    trainer = from_afar(Engine(tinyvae.VAE(6, (5,), 2, backend="cupy"), dataset, config, Heard()))
    assert (trainer.model.kernels_name, trainer.graph_step) == ("cuda", None)
    trainer.run()
    rows = heard(trainer).rows
    assert rows[-1].valid_loss < rows[0].valid_loss - 0.1
    assert np.isfinite(parameters(trainer)).all()


def test_gaps_in_the_test_set_alone_leave_the_captured_step(fake_cupy: FakeCupy) -> None:
    x = pixels().astype(np.float32) / 255
    x[110, 2] = np.nan
    dataset = Dataset("gaps", x[:100], x_valid=x[100:])
    config = Config(data="p.npy", backend="cupy", batch_size=16, epochs=1).resolved(100)
    trainer = Engine(tinyvae.VAE(6, (5,), 2, backend="cupy"), dataset, config, Heard())
    assert trainer.graph_step is not None
    trainer.run()
    assert np.isfinite(heard(trainer).rows[0].valid_loss)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int64", "uint16", "float16", "float32", "float64"])
def test_data_of_any_dtype_reaches_the_captured_step_as_bytes_or_float32(fake_cupy: FakeCupy, dtype: str) -> None:
    x = (pixels() > 127).astype(dtype)
    dataset = Dataset("bits", x[:100], x_valid=x[100:])
    config = Config(data="p.npy", backend="cupy", batch_size=16, epochs=1).resolved(100)
    trainer = Engine(tinyvae.VAE(6, (5,), 2, backend="cupy"), dataset, config, Heard())
    assert trainer.graph_step is not None
    trainer.run()
    name, arguments = trainer.graph_step.launches[0]
    assert name == "gather_floats"
    batch = to_host(arguments["x"])[:4]  # of the last, smaller batch
    order = trainer.train_batches.order(0, 1)[96:]
    np.testing.assert_array_equal(batch, x[order].astype(np.float32))


# --------------------------------------------------------------------------------------------------------- planted bugs


def _what_inherits_is_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(graph_step, "vars", lambda cls: {"captured": True}, raising=False)


def _swish_is_taken_for_another(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(ACTIVATIONS, "swish", replace(ACTIVATIONS["swish"], captured=1))


def _gaps_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Batches, "missing", property(lambda self: False, lambda self, value: None), raising=False)


SWISH = next(kind for kind in ORDINARY if kind.name == "swish")
BUGS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[..., None], tuple[Any, ...]]] = {
    "what inherits a kernel is taken": (
        _what_inherits_is_taken, test_a_likelihood_that_inherits_a_kernel_is_left_to_the_ordinary_step, (Steeper(),),
    ),
    "so is an objective": (
        _what_inherits_is_taken, test_an_objective_that_inherits_from_the_elbo_is_left_to_the_ordinary_step, (),
    ),
    "swish is taken for another": (_swish_is_taken_for_another, test_it_refuses_what_it_does_not_know, (SWISH,)),
    "gaps are not looked at": (
        _gaps_are_not_looked_at, test_data_that_was_not_all_observed_is_trained_by_the_ordinary_step, (),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sampled(BUGS, 3))
def test_a_planted_bug_is_found(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plant, killer, arguments = BUGS[name]
    killer(fake_cupy, *arguments)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        killer(fake_cupy, *arguments)
