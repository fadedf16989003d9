"""Every kind of model: its gradient by finite differences on the reference, and the same numbers on other kernels."""

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planted import Plant, assert_killed, instead
from strategies import EVERY_FUSED, assert_within, eps_of, sampled

from tinyvae import layers as layer_folder
from tinyvae import likelihoods, objectives, parts
from tinyvae.checking.examples import all_objectives, text
from tinyvae.checking.models import ARCHITECTURES, CASES, ROWS, ModelCase, build, check_model, inputs
from tinyvae.formula import formula
from tinyvae.kernels.reference import Reference
from tinyvae.layers.layer import Layer
from tinyvae.loop import Loop
from tinyvae.model import vae
from tinyvae.ops.activations import ACTIVATIONS

LIKELIHOOD = importlib.import_module("tinyvae.likelihoods.likelihood")  # the folder has a function of that name
BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("case", sampled(CASES, 3), ids=lambda case: case.name)
def test_every_gradient_is_right(case: ModelCase) -> None:
    """Of all cases, the test of the command sees to it in every run; here, with another seed."""
    assert [check for check in check_model(case, "reference", seed=1) if not check.passed] == []


@pytest.mark.parametrize("case", ARCHITECTURES[::6], ids=lambda case: case.name)
@pytest.mark.parametrize("kernels", EVERY_FUSED)
def test_the_check_itself_goes_through_other_kernels(kernels: str, case: ModelCase) -> None:
    """On some: that these give the numbers of the reference in float64 is what the next test sees to, on all."""
    assert [check for check in check_model(case, kernels) if not check.passed] == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernels", EVERY_FUSED)
@pytest.mark.parametrize("case", sampled(CASES, 6), ids=lambda case: case.name)
def test_all_kernels_give_the_references_numbers(case: ModelCase, kernels: str, dtype: str) -> None:
    """Losses, gradients and running averages, beside the reference in float64. A number has at most some hundred
    roundings behind it."""
    truth, model = build(case, dtype="float64", kernels="reference"), build(case, kernels=kernels, dtype=dtype)
    rng, off = np.random.default_rng(0), 256 * eps_of(dtype)
    model.params.flat += (0.2 * rng.standard_normal(model.params.flat.shape)).astype(dtype)
    truth.params.flat[...] = model.params.flat
    for rows in (5, ROWS, 3, 5):  # memory is made, made larger, and used again
        x, eps, y = inputs(case, truth, rng, rows)
        x, eps = x.astype(dtype), eps.astype(dtype)
        losses = model.loss_and_grad(x, eps, y=y, objective=case.loss)
        expected = truth.loss_and_grad(x.astype(float), eps.astype(float), y=y, objective=case.loss)
        assert_within(losses, expected, off * (np.abs(expected).max() + 1))
        for name, g in truth.grads.items():
            assert_within(model.grads[name], g, off * (np.abs(g).max() + 1))
        for name in (name for name in truth.params if ".running_" in name):
            p = truth.params[name]
            assert_within(model.params[name], p, off * (np.abs(p).max() + 1))


def test_whatever_lies_in_a_folder_is_among_the_cases() -> None:
    assert {f"likelihood {name}" for name in likelihoods.names()} <= set(BY_NAME)
    assert {f"activation {name}" for name in ACTIVATIONS} <= set(BY_NAME)
    assert {f"objective {text(o)}" for o in all_objectives()} <= set(BY_NAME)
    firsts = {name.removeprefix("layer ").partition(":")[0] for name in BY_NAME if name.startswith("layer ")}
    assert firsts == set(parts.names(layer_folder, Layer))
    assert {parts.name_of(type(case.loss)) for case in CASES} == set(objectives.names())


def test_every_parameter_of_every_case_is_checked_but_where_there_is_no_derivative() -> None:
    for case in (BY_NAME["gaussian, sigma learned"], BY_NAME["layer tied:of=dense,inputs=3"], BY_NAME["batch norm"]):
        names = {check.name.rpartition(": ")[2] for check in check_model(case, "reference")}
        learned = {name for name in build(case).params if ".running_" not in name}
        assert names == learned | {"loss"}
    dreg = next(case for case in CASES if not case.loss.is_derivative)
    names = {check.name.rpartition(": ")[2].partition(".")[0] for check in check_model(dreg, "reference")}
    assert names == {"loss", "decoder"}


# ---------------------------------------------------------------------------------------------------------------- bugs


def is_right(case: str, tensor: str) -> None:
    """Along a random direction alone: these bugs are no small ones."""
    checks = check_model(replace(BY_NAME[case], elementwise=0), "reference")
    found = next(c for c in checks if c.name == f"{case}: {tensor}")
    assert found.passed, found


def wrong_loop(name: str, function: object) -> Plant:
    return instead(vae, name, Loop([formula(function)]))  # pyright: ignore[reportArgumentType]


def first_draw(model: vae.VAE, k: Any, dz: Any, *more: Any, true: Any = vae.VAE._through_draw) -> Any:
    dz[np.arange(len(dz)) % (len(dz) // more[-1]) > 0] = 0  # more[-1]: the rows
    return true(model, k, dz, *more)


def half_scatter(k: Reference, *args: Any, true: Any = Reference.scatter) -> None:
    true(k, *args)
    args[-1][...] *= 0.5


BUGS: dict[str, tuple[Plant, str, str]] = {
    "z does not reach logvar": (wrong_loop("THROUGH_BOTH", lambda dz, logvar, eps, dmu, dlogvar: (
        dz + dmu, 0 * (logvar + eps) + dlogvar)), "bernoulli", "encoder.1.weight"),
    "the objective does not reach mu": (wrong_loop("THROUGH_BOTH", lambda dz, logvar, eps, dmu, dlogvar: (
        dz + 0 * dmu, vae.reparameterize_backward(dz, logvar, eps)[1] + dlogvar)), "bernoulli", "encoder.1.bias"),
    "the objective's own part of z is lost": (wrong_loop("FROM_OBJECTIVE", lambda dz, scale, direct: (
        dz * scale + 0 * direct)), "iwae, K 5", "encoder.0.weight"),
    "draws weigh alike": (wrong_loop("TIMES", lambda a, factor: 1 + 0 * (a + factor)), "iwae, K 5", "decoder.0.weight"),
    "draws weigh alike for a sigma": (
        wrong_loop("TIMES", lambda a, factor: 1 + 0 * (a + factor)), "iwae, sigma learned", "likelihood.logvar"),
    "the draws of a row averaged and not summed": (wrong_loop("THROUGH_DRAW", lambda dz, logvar, eps: (
        vae.reparameterize_backward(dz / 5, logvar, eps))), "iwae, K 5", "encoder.0.weight"),
    "the first draw alone reaches the encoder": (
        instead(vae.VAE, "_through_draw", first_draw), "iwae, K 5", "encoder.0.weight"),
    "the likelihood's gradient has the other sign": (
        wrong_loop("TIMES", lambda a, factor: -a * factor), "iwae, K 1", "decoder.1.weight"),
    "a shared sigma gets the mean of its slopes": (
        instead(LIKELIHOOD, "WEIGHTED_SUM", Loop(sums=[formula(lambda slope, weight: slope * weight / 56)])),
        "gaussian, sigma learned", "likelihood.logvar"),
    "the tied share is dropped": (
        instead(Reference, "finish", lambda self: self.later.clear()), "bernoulli, tied", "encoder.0.weight"),
    "half of the labels' gradient": (instead(Reference, "scatter", half_scatter), "conditional", "encoder.0.weight"),
    "the loss and its gradient are not of one function": (
        instead(vae.VAE, "loss", lambda self, *a, true=vae.VAE.loss, **k: true(self, *a, **k)._replace(loss=0.0)),
        "bernoulli", "loss"),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed_in_its_row(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, case, tensor = BUGS[bug]
    assert_killed(monkeypatch, plant, lambda: is_right(case, tensor))
