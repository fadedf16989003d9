"""Proof of teeth: wrong formulas planted one by one, each with the name of the test that must fail under it.

A killer is a row of the finite-difference checks (`row`, `model`), or a test of this suite (`named`). Finite
differences cannot see a forward that is wrong in step with its backward: those bugs name an oracle.
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tinyvae.checking.models import CASES, check_model
from tinyvae.checking.operations import check_operations
from tinyvae.kernels import numpy_fused, reference
from tinyvae.model.layers import TiedDense
from tinyvae.model.vae import VAE
from tinyvae.ops import activations, adam, dense, gaussian, likelihoods

Plant = Callable[[pytest.MonkeyPatch], None]
Killer = tuple[str, Callable[[], None]]


@dataclass(frozen=True)
class Bug:
    name: str
    plant: Plant
    killer: Killer


# -------------------------------------------------------------------------------------------------------------- killers


def row(name: str) -> Killer:
    """The row of `check_operations`, over a few seeds."""

    def check() -> None:
        for seed in range(3):
            checks = [c for c in check_operations(seed) if c.name == name]
            assert len(checks) == 1
            assert checks[0].passed, checks[0]

    return f"gradcheck row {name!r}", check


def model(case: str, tensor: str, kernels: str = "fused") -> Killer:
    """One parameter of one case of `check_model`."""
    (model_case,) = [c for c in CASES if c.name == case]

    def check() -> None:
        checks = [c for c in check_model(model_case, kernels) if c.name == f"{case}: {tensor}"]
        assert len(checks) == 1
        assert checks[0].passed, checks[0]

    return f"gradcheck of the model {case!r}, {tensor}, {kernels} kernels", check


def named(test: str, *arguments: Any) -> Killer:
    """A test of this suite, as "file::test", called with the arguments of one of its parametrizations."""
    file, _, name = test.partition("::")
    function = getattr(importlib.import_module(file), name)
    return f"{test}{list(arguments) or ''}", lambda: function(*arguments)


# ------------------------------------------------------------------------------------------------------------- planting


def instead(target: Any, name: str, wrong: Callable[..., Any]) -> Plant:
    """`wrong` in the place of target.name."""
    return lambda patch: patch.setattr(target, name, wrong)


def after(target: Any, name: str, change: Callable[[Any], Any]) -> Plant:
    """The result of target.name, changed."""
    truth = getattr(target, name)
    return instead(target, name, lambda *a, **k: change(truth(*a, **k)))


def spoiled(target: Any, name: str, spoil: Callable[..., Any]) -> Plant:
    """target.name, then `spoil` with the same arguments: for functions that write into buffers."""
    truth = getattr(target, name)

    def wrong(*a: Any, **k: Any) -> Any:
        result = truth(*a, **k)
        spoil(*a, **k)
        return result

    return instead(target, name, wrong)


def activation(name: str, forward: Callable[..., Any] | None = None, backward: Any = None) -> Plant:
    truth = activations.ACTIVATIONS[name]
    pair = (forward or truth[0], backward or truth[1])
    return lambda patch: patch.setitem(activations.ACTIVATIONS, name, pair)


def both(*plants: Plant) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        for each in plants:
            each(patch)

    return plant


def scaled(i: int, factor: float) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Result number i of several, times a factor."""
    return lambda results: tuple(r * factor if j == i else r for j, r in enumerate(results))


def halved_kl(dz: Any, head: Any, eps: Any, dkl: Any, *, dhead: Any, work: Any) -> None:
    half = eps.shape[1]
    dhead[:, half:] -= 0.25 * dkl * np.expm1(head[:, half:])  # half of the KL's part is gone


def naive_sigmoid_loss(logits: Any, x: Any) -> Any:
    with np.errstate(all="ignore"):
        p = 1 / (1 + np.exp(-logits))
        return -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1)


def naive_softplus(a: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.log(1 + np.exp(a))


def uncorrected_adam(p: Any, g: Any, m: Any, v: Any, t: int, lr: float, **_: Any) -> Any:
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return p - lr * m / (np.sqrt(v) + 1e-8), m, v


def adam_with_epsilon_inside(p: Any, g: Any, m: Any, v: Any, t: int, lr: float, **_: Any) -> Any:
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return p - lr * m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t) + 1e-8), m, v


def adam_that_forgets_the_last_block(p: Any, g: Any, m: Any, v: Any, t: int, lr: float, *, work: Any) -> None:
    whole = p.size // numpy_fused.ADAM_BLOCK * numpy_fused.ADAM_BLOCK or p.size
    TRUE_FUSED_ADAM(p[:whole], g[:whole], m[:whole], v[:whole], t, lr, work=work)


TRUE_FUSED_ADAM = numpy_fused.adam_step
TRUE_ADAM = adam.adam_step
TRUE_SHARED = TiedDense.add_shared_gradient
TRUE_BACKWARD = VAE.backward
RNG = np.random.default_rng(0)

OPERATIONS = [
    Bug("dense: dx without the last output", instead(dense, "dense_backward", lambda dy, x, W: (
        dy[:, :-1] @ W[:, :-1].T, x.T @ dy, dy.sum(axis=0))), row("dense: x")),
    Bug("dense: dx off by 0.1 %", after(dense, "dense_backward", scaled(0, 1.001)), row("dense: x")),
    Bug("dense: dW off by 0.01 %", after(dense, "dense_backward", scaled(1, 1.0001)), row("dense: W")),
    Bug("dense: dW averaged over the batch", instead(dense, "dense_backward", lambda dy, x, W: (
        dy @ W.T, x.T @ dy / len(x), dy.sum(axis=0))), row("dense: W")),
    Bug("dense: db dropped", after(dense, "dense_backward", scaled(2, 0.0)), row("dense: b")),
    Bug("dense: db of the first row", instead(dense, "dense_backward", lambda dy, x, W: (
        dy @ W.T, x.T @ dy, dy[0])), row("dense: b")),
    Bug("relu: no mask", activation("relu", backward=lambda dy, y: dy), row("relu: a")),
    Bug("relu: slope 1 at 0", activation("relu", backward=lambda dy, y: dy * (y >= 0)),
        named("test_properties::test_the_activations_keep_their_conventions_at_exactly_0",
              0.0, "relu", 0, 0, "float64", "reference")),
    Bug("leaky relu: slope 0.1", activation("leaky-relu", backward=lambda dy, y: dy * np.where(y > 0, 1, 0.1)),
        row("leaky-relu: a")),
    Bug("leaky relu: 0.2 both ways", activation("leaky-relu", lambda a: np.maximum(a, 0.2 * a),
                                                 lambda dy, y: dy * np.where(y > 0, 1, 0.2)),
        named("test_oracles::test_the_activation_and_its_slope_are_the_formula_and_its_derivative", "leaky-relu")),
    Bug("elu: slope y", activation("elu", backward=lambda dy, y: dy * np.where(y > 0, 1, y)), row("elu: a")),
    Bug("tanh: slope 1 - y", activation("tanh", backward=lambda dy, y: dy * (1 - y)), row("tanh: a")),
    Bug("sigmoid: slope e^-y", activation("sigmoid", backward=lambda dy, y: dy * np.exp(-y)), row("sigmoid: a")),
    Bug("softplus: slope e^-y", activation("softplus", backward=lambda dy, y: dy * np.exp(-y)), row("softplus: a")),
    Bug("softplus: naive", activation("softplus", naive_softplus),
        named("test_properties::test_activations_grow_and_never_overflow")),
    Bug("reparameterize: the variance, with a backward that matches", both(
        instead(gaussian, "reparameterize_forward", lambda mu, s, eps: mu + np.exp(s) * eps),
        instead(gaussian, "reparameterize_backward", lambda dz, s, eps: (dz, dz * eps * np.exp(s)))),
        named("test_oracles::test_the_noise_is_scaled_by_the_standard_deviation_and_not_by_the_variance", "reference")),
    Bug("reparameterize: half the noise, with a backward that matches", both(
        instead(gaussian, "reparameterize_forward", lambda mu, s, eps: mu + 0.5 * np.exp(0.5 * s) * eps),
        instead(gaussian, "reparameterize_backward", lambda dz, s, eps: (dz, 0.25 * dz * eps * np.exp(0.5 * s)))),
        named("test_oracles::test_kl_is_the_mean_of_log_q_minus_log_p_over_the_librarys_own_samples",
              "reference", 0.3, -1.9)),
    Bug("reparameterize: no noise in the backward", instead(gaussian, "reparameterize_backward", lambda dz, s, eps: (
        dz, dz * 0.5 * np.exp(0.5 * s))), row("reparameterize: logvar")),
    Bug("reparameterize: the half is missing", after(gaussian, "reparameterize_backward", scaled(1, 2.0)),
        row("reparameterize: logvar")),
    Bug("reparameterize: mu does not reach z", after(gaussian, "reparameterize_backward", scaled(0, 0.0)),
        row("reparameterize: mu")),
    Bug("reparameterize: fresh noise in the backward", instead(
        gaussian, "reparameterize_backward",
        lambda dz, s, eps: (dz, dz * RNG.standard_normal(eps.shape) * 0.5 * np.exp(0.5 * s))),
        named("test_wrong_vaes::test_the_noise_of_the_backward_is_the_noise_that_was_sampled", "reference")),
    Bug("kl: logvar's gradient halved", after(gaussian, "kl_backward", scaled(1, 0.5)), row("kl: logvar")),
    Bug("kl: mu's gradient dropped", after(gaussian, "kl_backward", scaled(0, 0.0)), row("kl: mu")),
    Bug("kl: the wrong sign, both ways", both(
        after(gaussian, "kl_forward", lambda kl: -kl), after(gaussian, "kl_backward", lambda d: (-d[0], -d[1]))),
        named("test_wrong_vaes::test_the_kl_is_a_cost_so_more_beta_costs_more_and_pulls_mu_to_0", "reference")),
    Bug("kl: doubled, both ways", both(
        after(gaussian, "kl_forward", lambda kl: 2 * kl),
        after(gaussian, "kl_backward", lambda d: (2 * d[0], 2 * d[1]))),
        named("test_oracles::test_kl_is_the_integral_of_q_times_log_q_over_p", 2.5, 1.3)),
    Bug("kl: logvar read as log sigma, both ways", both(
        instead(gaussian, "kl_forward", lambda mu, s: 0.5 * (mu * mu + np.expm1(2 * s) - 2 * s)),
        instead(gaussian, "kl_backward", lambda dkl, mu, s: (dkl * mu, dkl * np.expm1(2 * s)))),
        named("test_oracles::test_the_elbo_is_log_p_at_the_true_posterior", "reference")),
    Bug("free bits: not divided by the batch", after(gaussian, "free_bits_backward", lambda d: 5 * d),
        row("free bits: kl")),
    Bug("free bits: charged below the allowance", instead(
        gaussian, "free_bits_backward", lambda d, kl, free: d * np.ones(kl.shape[1]) / len(kl)), row("free bits: kl")),
    Bug("free bits: the smaller of the two, both ways", both(
        instead(gaussian, "free_bits_forward", lambda kl, free: np.minimum(kl.mean(axis=0), free)),
        instead(gaussian, "free_bits_backward", lambda d, kl, free: d * (kl.mean(axis=0) < free) / len(kl))),
        named("test_oracles::test_free_bits_charge_for_the_batch_mean_above_the_allowance")),
    Bug("bernoulli: the gradient of a sigmoid", after(
        likelihoods, "bernoulli_nll_backward", lambda d: d * 0.25), row("bernoulli nll: logits")),
    Bug("bernoulli: x - p", after(likelihoods, "bernoulli_nll_backward", lambda d: -d), row("bernoulli nll: logits")),
    Bug("bernoulli: the mean over pixels, both ways", both(
        instead(likelihoods, "bernoulli_nll_forward", lambda l, x: (np.logaddexp(0, l) - x * l).mean(axis=1)),
        instead(likelihoods, "bernoulli_nll_backward", lambda d, l, x: d * (1 / (1 + np.exp(-l)) - x) / l.shape[1])),
        named("test_wrong_vaes::test_beta_is_1_because_pixels_and_latents_are_both_summed", "reference")),
    Bug("bernoulli: naive", instead(likelihoods, "bernoulli_nll_forward", naive_sigmoid_loss),
        named("test_properties::test_bernoulli_is_finite_and_right_at_logits_of_10000", "float32", "reference")),
    Bug("gaussian: log 2 pi forgotten", instead(likelihoods, "gaussian_nll_forward", lambda m, s, x: (
        0.5 * ((x - m) ** 2 * np.exp(-s) + s)).sum(axis=1)),
        named("test_oracles::test_gaussian_nll_is_scipys_normal_density", False)),
    Bug("gaussian: logvar read as log sigma, both ways", both(
        instead(likelihoods, "gaussian_nll_forward", lambda m, s, x: (
            0.5 * ((x - m) ** 2 * np.exp(-2 * s) + 2 * s + math.log(2 * math.pi))).sum(axis=1)),
        instead(likelihoods, "gaussian_nll_backward", lambda d, m, s, x: (
            d * (m - x) * np.exp(-2 * s), d * (1 - (x - m) ** 2 * np.exp(-2 * s))))),
        named("test_oracles::test_gaussian_nll_is_the_formula_and_its_derivatives")),
    Bug("gaussian: dlogvar without its half", after(likelihoods, "gaussian_nll_backward", scaled(1, 2.0)),
        row("gaussian nll: logvar")),
    Bug("gaussian: the mean's gradient without the precision", instead(
        likelihoods, "gaussian_nll_backward",
        lambda d, m, s, x: (d * (m - x), d * 0.5 * (1 - (x - m) ** 2 * np.exp(-s)))), row("gaussian nll: mean")),
    Bug("adam: no bias correction", instead(adam, "adam_step", uncorrected_adam),
        named("test_properties::test_the_first_step_of_adam_is_the_learning_rate_in_the_direction_of_the_sign")),
    Bug("adam: epsilon inside the root", instead(adam, "adam_step", adam_with_epsilon_inside),
        named("test_oracles::test_adam_is_algorithm_1_of_the_paper", "ops")),
    Bug("adam: t is one too large", instead(
        adam, "adam_step", lambda p, g, m, v, t, lr: TRUE_ADAM(p, g, m, v, t + 1, lr)),
        named("test_oracles::test_adam_is_algorithm_1_of_the_paper", "reference")),
    Bug("adam: the bias correction cancels", instead(
        adam, "bias_correction", lambda beta, t: float(np.float32(1) - np.float32(beta) ** np.float32(t))),
        named("test_properties::test_bias_correction_is_accurate_at_small_t")),
    Bug("clip: lengthens short gradients", instead(adam, "clip_scale", lambda norm2, most: most / np.sqrt(norm2)),
        named("test_properties::test_clipping_never_lengthens_keeps_the_direction_and_meets_the_bound")),
    Bug("clip: by the squared norm", instead(adam, "clip_scale", lambda norm2, most: np.minimum(1, most / norm2)),
        named("test_properties::test_clipping_never_lengthens_keeps_the_direction_and_meets_the_bound")),
]  # fmt: skip


def forgotten_noise(dz: Any, head: Any, eps: Any, dkl: Any, *, dhead: Any, work: Any) -> None:
    half = eps.shape[1]
    dhead[:, half:] += 0.5 * dz * (1 - eps) * np.exp(0.5 * head[:, half:])  # dz sigma / 2, whatever the noise


def doubled_kl(head: Any, eps: Any, *, z: Any, kl: Any, work: Any) -> None:
    kl *= 2  # the half is missing


def unfinished_loss(logits: Any, x: Any, dnll: float, *, nll: Any, dlogits: Any, work: Any) -> None:
    if dlogits is not None:
        dlogits /= dnll  # of one row, not of the mean over the batch


def shared_mean(mean: Any, logvar: Any, x: Any, dnll: float, *, nll: Any, dmean: Any, dlogvar: Any, work: Any) -> None:
    if dlogvar is not None and logvar.ndim == 1:
        dlogvar /= x.size


def stretched_dx(dy: Any, x: Any, W: Any, y: Any, activation: str, *, dx: Any, dW: Any, db: Any, work: Any) -> None:
    if dx is not None:
        dx *= 1.001


def unwritten_tail(logits: Any, x: Any, dnll: float, *, nll: Any, dlogits: Any, work: Any) -> None:
    nll[-1:] = math.nan


FUSED = [
    Bug("fused latent: half of the KL's gradient", spoiled(numpy_fused, "latent_backward", halved_kl),
        model("bernoulli", "encoder.1.weight")),
    Bug("fused latent: the noise is missing", spoiled(numpy_fused, "latent_backward", forgotten_noise),
        named("test_wrong_vaes::test_the_noise_of_the_backward_is_the_noise_that_was_sampled", "fused")),
    Bug("fused latent: the KL without its half", spoiled(numpy_fused, "latent_forward", doubled_kl),
        named("test_oracles::test_kl_is_the_mean_of_log_q_minus_log_p_over_the_librarys_own_samples",
              "fused", 2.5, 1.3)),
    Bug("fused bernoulli: not scaled by the batch", spoiled(numpy_fused, "bernoulli_loss", unfinished_loss),
        model("bernoulli, deep", "decoder.3.weight")),
    Bug("fused bernoulli: the last block is unwritten", spoiled(numpy_fused, "bernoulli_loss", unwritten_tail),
        named("test_kernels::test_bernoulli_loss")),
    Bug("fused gaussian: the shared logvar gets a mean", spoiled(numpy_fused, "gaussian_loss", shared_mean),
        model("gaussian, sigma learned", "likelihood.logvar")),
    Bug("fused dense: dx off by 0.1 %", spoiled(numpy_fused, "dense_backward", stretched_dx),
        model("bernoulli, deep", "encoder.0.weight")),
    Bug("fused dense: elu without its minimum", instead(
        numpy_fused, "_activation_slope", lambda y, dy, name: np.add(y, 1, out=y)),
        named("test_kernels::test_dense_backward")),
    Bug("fused adam: the last block is forgotten", instead(numpy_fused, "adam_step", adam_that_forgets_the_last_block),
        named("test_kernels::test_adam_step")),
    Bug("fused adam: another epsilon", instead(adam, "EPSILON", 1e-6),  # type: ignore[arg-type]  # a number
        named("test_oracles::test_adam_is_algorithm_1_of_the_paper", "fused")),
    Bug("fused clip: the larger factor", instead(numpy_fused, "clip_scale", lambda norm2, most: 0.5),
        named("test_kernels::test_squared_norm_and_clip")),
    Bug("tied: the decoder's share is dropped", instead(TiedDense, "add_shared_gradient", lambda layer: None),
        model("bernoulli, tied", "encoder.0.weight")),
    Bug("tied: the decoder's share counts twice", instead(TiedDense, "add_shared_gradient", lambda layer: (
        TRUE_SHARED(layer), TRUE_SHARED(layer))), model("gaussian, tied", "encoder.1.weight")),
    Bug("model: beta forgotten in the backward", instead(VAE, "backward", lambda m, doutput, eps, dkl: (
        TRUE_BACKWARD(m, doutput, eps, np.full_like(dkl, 1 / len(eps))))),
        model("bernoulli, beta 4", "encoder.0.bias")),
    Bug("model: the KL's gradient not divided by the batch", instead(VAE, "backward", lambda m, doutput, eps, dkl: (
        TRUE_BACKWARD(m, doutput, eps, dkl * len(eps)))),
        model("gaussian, sigma fixed", "encoder.1.bias", "reference")),
    Bug("reference: the KL's part overwrites the part through z", spoiled(
        reference, "latent_backward", lambda dz, head, eps, dkl, *, dhead, work: np.copyto(
            dhead[:, : eps.shape[1]], dkl * head[:, : eps.shape[1]])),
        model("bernoulli, own decoder", "encoder.0.weight", "reference")),
]  # fmt: skip

BUGS = OPERATIONS + FUSED


def test_the_table_is_long_and_names_each_bug_once() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 50


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_named_killer_fails_under_the_bug_and_passes_without(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    killer, check = bug.killer
    check()
    with monkeypatch.context() as patch:
        bug.plant(patch)
        try:
            check()
            noticed = False
        except (AssertionError, ExceptionGroup) as failure:  # Hypothesis may find several ways to fail
            noticed = not isinstance(failure, ExceptionGroup) or failure.split(AssertionError)[1] is None
        assert noticed, f"{killer} does not notice: {bug.name}"
    check()
