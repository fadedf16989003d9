"""The importance-weighted bound and its estimators: loops written out, complex steps, a model where it is exact.

STL and DReG are no derivatives of the loss. Each is the derivative of a surrogate in which weights and q's own
parameters are held still, by complex steps; and has the mean of the loss's derivative (held in tests/contracts).
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from planted import Plant, assert_killed, instead
from scipy import special, stats
from strategies import EVERY_FUSED, assert_within, eps_of, sampled

import tinyvae
from objectives.oracles import (
    LATENT,
    Pass,
    complex_steps,
    exact_log_p,
    linear_model,
    log_normal,
    noise,
    small,
    written_out,
)
from tinyvae.backend import get_backend
from tinyvae.formula import formula, where
from tinyvae.kernels import select
from tinyvae.loop import Loop
from tinyvae.objectives import iwae
from tinyvae.objectives.iwae import IWAE

EPS = eps_of("float64")
EVERY = ["reference", *EVERY_FUSED]
OFF = 2e3 * EPS  # some hundred roundings of terms that add up to less than 10, and their derivatives


def log_weights(p: Pass, q: Pass | None = None) -> Any:
    """log p(x|z) + log p(z) - log q(z|x), (rows, K); q's parameters from another pass, if they are held still."""
    q = q or p
    ratio = log_normal(p.z, 0.0, 0.0) - log_normal(p.z, q.mu[:, None], q.logvar[:, None])
    return -p.nll + ratio.sum(axis=2)


def bound(p: Pass) -> Any:
    return -np.log(np.exp(log_weights(p)).mean(axis=1)).mean()


def shares(p: Pass) -> np.ndarray:
    return special.softmax(log_weights(p), axis=1)


def decoders(model: tinyvae.VAE) -> np.ndarray:
    """Which numbers of the flat buffer are the decoder's."""
    return np.concatenate([np.full(a.size, name.startswith("decoder")) for name, a in model.params.items()])


# ----------------------------------------------------------------------------------------------------------- gradients


def agrees(draws: int, kernels: str = "reference") -> None:
    model, x = small(kernels=kernels)
    eps = noise(draws)
    losses = model.loss_and_grad(x, eps, objective=IWAE(draws))
    whole = written_out(model, model.params.flat, x, eps)
    kl = (whole.mu**2 + np.exp(whole.logvar) - 1 - whole.logvar).sum(axis=1).mean() / 2
    assert_within(losses, [bound(whole), whole.nll.mean(), kl], OFF)
    assert_within(model.loss(x, eps, objective=IWAE(draws)), losses, OFF)
    f = lambda flat: bound(written_out(model, flat, x, eps))
    assert_within(model.grads.flat, complex_steps(f, model.params.flat), OFF)


@pytest.mark.parametrize("kernels", EVERY)
@pytest.mark.parametrize("draws", [1, 4])
def test_loss_and_gradient_are_those_of_the_loops_written_out(draws: int, kernels: str) -> None:
    agrees(draws, kernels)


def surrogates(model: tinyvae.VAE, x: np.ndarray, eps: np.ndarray, power: int) -> np.ndarray:
    """The encoder's part with the weights to this power, the decoder's with the weights: both held still, as q is."""
    still = written_out(model, model.params.flat, x, eps)
    s, flat = shares(still), model.params.flat
    of_decoder = lambda f: (s * written_out(model, f, x, eps, z=still.z).nll).sum(axis=1).mean()
    of_encoder = lambda f: -(s**power * log_weights(written_out(model, f, x, eps), still)).sum(axis=1).mean()
    return np.where(decoders(model), complex_steps(of_decoder, flat), complex_steps(of_encoder, flat))


def follows_its_surrogate(objective: IWAE, kernels: str = "reference") -> None:
    model, x = small(kernels=kernels)
    eps = noise(objective.draws)
    losses = model.loss_and_grad(x, eps, objective=objective)
    assert_within(losses, model.loss(x, eps, objective=IWAE(objective.draws)), OFF)
    power = {"stl": 1, "dreg": 2}[objective.estimator]
    assert_within(model.grads.flat, surrogates(model, x, eps, power), OFF)


ESTIMATORS = [IWAE(1, "stl"), IWAE(1, "dreg"), IWAE(2, "dreg"), IWAE(5, "dreg")]


@pytest.mark.parametrize("kernels", EVERY)
@pytest.mark.parametrize("objective", ESTIMATORS, ids=repr)
def test_an_estimator_is_the_derivative_of_its_surrogate(objective: IWAE, kernels: str) -> None:
    follows_its_surrogate(objective, kernels)


def test_the_decoders_gradient_is_that_of_the_bound_whatever_the_estimator() -> None:
    model, x = small()
    found = []
    for estimator in ("iwae", "dreg"):
        model.loss_and_grad(x, noise(5), objective=IWAE(5, estimator))
        found.append(model.grads.flat[decoders(model)].copy())
    assert_within(found[1], found[0], OFF)


@pytest.mark.parametrize("objective", [IWAE(1, "stl"), IWAE(5, "dreg")], ids=repr)
def test_at_the_true_posterior_the_encoders_gradient_has_no_noise_at_all(objective: IWAE) -> None:
    """All weights are equal at every z, so d log w / dz is 0: Roeder et al. 2017, section 3. The bound's is not."""
    model, x = linear_model()
    eps = noise(objective.draws)
    encoder = ~decoders(model)
    model.loss_and_grad(x, eps, objective=objective)
    assert_within(model.grads.flat[encoder], np.zeros(encoder.sum()), 1e4 * EPS)  # terms below 1e3
    model.loss_and_grad(x, eps, objective=IWAE(objective.draws))
    assert np.abs(model.grads.flat[encoder]).max() > 0.01


# ----------------------------------------------------------------------------------------------------------- the bound


@pytest.mark.parametrize("draws", [1, 2, 7])
@pytest.mark.parametrize("kernels", EVERY)
def test_at_the_true_posterior_it_is_log_p_whatever_the_draws(kernels: str, draws: int) -> None:
    model, x = linear_model(kernels=kernels)
    off = 50 * 1e3 * EPS  # sums of some 50 terms below 1e3
    assert_within(model.loss(x, noise(draws), objective=IWAE(draws)).loss, -exact_log_p(model, x).mean(), off)


def test_on_average_it_rises_with_the_draws_towards_log_p() -> None:
    model, x = linear_model(at_posterior=False)
    truth, repeats, most = exact_log_p(model, x)[0], 200, 16
    eps = np.random.default_rng(0).standard_normal((repeats, most, LATENT))

    def bounds(draws: int) -> np.ndarray:
        """On the same draws for all: the mean of those of each `draws` of a repeat. (repeats,)"""
        parts = eps.reshape(-1, 1, draws, LATENT)
        found = [-model.loss(x[:1], part, objective=IWAE(draws)).loss for part in parts]
        return np.reshape(found, (repeats, -1)).mean(axis=1)

    found = [bounds(draws) for draws in (1, 4, 16)]
    for fewer, more in itertools.pairwise(found):
        gain = more - fewer
        assert gain.mean() > 5 * gain.std(ddof=1) / math.sqrt(repeats)  # standard errors
    error = found[-1].std(ddof=1) / math.sqrt(repeats)
    assert found[-1].mean() < truth + 5 * error
    assert truth - found[-1].mean() < 0.2 * (truth - found[0].mean())


def test_it_is_below_the_mean_of_its_draws_alone_by_jensen() -> None:
    model, x = small()
    eps = noise(6)
    alone = [model.loss(x, eps[:, k : k + 1], objective=IWAE(1)).loss for k in range(6)]
    assert model.loss(x, eps, objective=IWAE(6)).loss < np.mean(alone) - 1e-6  # strictly, as the weights differ


@pytest.mark.parametrize("kernels", EVERY)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "gaussian:sigma=columns", "gaussian:sigma=predicted"])
def test_rows_and_draws_given_twice_change_neither_loss_nor_gradient(likelihood: str, kernels: str) -> None:
    model, x = small(kernels=kernels, likelihood=likelihood)
    eps = noise(4)
    once, grad = model.loss_and_grad(x, eps, objective=IWAE(4)), model.grads.flat.copy()
    off = 500 * EPS * max(1, abs(once.loss), np.abs(grad).max())
    order = np.random.default_rng(3).permutation(4)
    for x_, eps_ in [(np.tile(x, (2, 1)), np.tile(eps, (2, 1, 1))), (x, np.tile(eps, (1, 2, 1))), (x, eps[:, order])]:
        again = model.loss_and_grad(x_, eps_, objective=IWAE(eps_.shape[1]))
        assert_within(again, once, off)
        assert_within(model.grads.flat, grad, off)


def test_one_draw_is_the_elbo_with_the_prior_over_q_of_that_draw() -> None:
    model, x = small()
    eps = noise(1)
    look = model.look(x, eps)
    sigma = np.exp(look.logvar / 2)
    ratio = (stats.norm.logpdf(look.z) - stats.norm.logpdf(look.z, look.mu, sigma)).sum(axis=1)
    loss, nll, kl = model.loss(x, eps, objective=IWAE(1))
    assert_within([loss, nll, kl], [(look.nll - ratio).mean(), look.nll.mean(), look.kl.sum(axis=1).mean()], OFF)


@pytest.mark.parametrize("kernels", EVERY)
def test_huge_differences_of_weights_stay_finite_in_float32(kernels: str) -> None:
    """Of counts of a thousand, one draw weighs all, and e^log w is 0 in any precision: log w is -1e5."""
    model, x = small(kernels=kernels, dtype="float32", likelihood="gaussian:sigma=fixed:0.001")
    eps = noise(5).astype("float32")
    losses = model.loss_and_grad(x, eps, objective=IWAE(5))
    assert losses.loss > 1e4
    assert np.isfinite(losses).all()
    assert np.isfinite(model.grads.flat).all()
    look = model.look(x, eps)
    best = look.nll.reshape(len(x), 5).min(axis=1).astype("float64")
    # of the rest of log w, which is below 50, and of log 5
    assert_within(losses.loss, best.mean(), 100 + 20 * eps_of("float32") * best.max())


# ------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws must be at least 1, not 0"),
        ({"estimator": "rws"}, "estimator must be one of iwae, stl, dreg, not 'rws'"),
        ({"draws": 5, "estimator": "stl"}, "estimator stl is biased with 5 draws: take dreg, or draws=1"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IWAE(**options)


def test_dreg_is_refused_where_batch_normalization_mixes_the_rows() -> None:
    model, x = small(batch_norm=True)
    with pytest.raises(ValueError, match="estimator dreg needs independent rows, which batch normalization mixes"):
        model.loss_and_grad(x, noise(3), objective=IWAE(3, "dreg"))
    model.loss_and_grad(x, noise(3), objective=IWAE(3))


@pytest.mark.parametrize("shape", [(4, 2), (4, 0, 2), (4, 3, 3), (3, 3, 2), (4, 2, 2)])
def test_noise_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    model, x = small()
    with pytest.raises(ValueError, match=r"eps must have shape \(4, 3, 2\): noise for every draw"):
        model.loss_and_grad(x, np.zeros(shape), objective=IWAE(3))


# ---------------------------------------------------------------------------------------------------------------- bugs


def shares_are_exact_or_gone(kernels: str, dtype: str) -> None:
    """Weights from 1 down to what underflows: a share is right to its last digits, or 0 where no digit shows it.

    What is negligible is below 2^-54, which is 5.6e-17: between the two bounds here.
    """
    k = select(kernels, get_backend("numpy"), dtype)[1]()
    w = np.exp(-np.arange(0.0, 120.0).reshape(6, 20)).astype(dtype)
    total = np.full((6, 1), 2, dtype)
    found = k.map(iwae.SHARE, w=w, total=total).astype(float)
    true = w.astype(float) / total
    assert_within(found[true > 1e-16], true[true > 1e-16], 2 * eps_of(dtype) * true[true > 1e-16])
    assert np.all((found == 0) | (found > 1e-17))
    assert not found[true < 1e-17].any()
    assert (true < 1e-17).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernels", EVERY)
def test_a_share_that_no_digit_shows_is_0(kernels: str, dtype: str) -> None:
    shares_are_exact_or_gone(kernels, dtype)


@pytest.mark.parametrize("estimator", ["iwae", "dreg"])
def test_a_draw_that_explains_nothing_leaves_no_number_below_what_float32_is_made_for(estimator: Any) -> None:
    """Sums of such numbers are a hundred times as slow. The second draw of each row is far from mu."""
    model = tinyvae.VAE(30, (20,), 4, activation="tanh", dtype="float32", kernels="numpy", seed=0)
    rng = np.random.default_rng(0)
    x, eps = (rng.uniform(size=(8, 30)) < 0.5).astype("f4"), rng.standard_normal((8, 2, 4)).astype("f4")
    for far in np.linspace(1, 14, 40):
        eps[:, 1] = far
        with model.borrowed("step") as k:
            model.forward_backward(k, x, eps.reshape(-1, 4), IWAE(2, estimator))
            made = [a for call in vars(k)["under_way"].calls for a in arrays_of(call.result)]
        tiny = sum(int(((a != 0) & (abs(a) < np.finfo("f4").tiny)).sum()) for a in [*made, *model.grads.values()])
        assert tiny <= 8, far  # the weights of the far draws themselves, one for each row


def arrays_of(result: Any) -> list[Any]:
    results = result if isinstance(result, tuple) else (result,)
    return [a for a in results if isinstance(a, np.ndarray)]


BUGS: dict[str, tuple[Plant, Any]] = {
    "the weights are not normalized": (
        instead(iwae, "SHARE", Loop([formula(lambda w, total: w + 0 * total)])), lambda: agrees(4)),
    "small shares left out": (
        instead(iwae, "SHARE", Loop([formula(lambda w, total: where(w / total < 1e-9, 0, w / total))])),
        lambda: shares_are_exact_or_gone("numpy", "float64")),
    "the smallest shares kept": (
        instead(iwae, "SHARE", Loop([formula(lambda w, total: w / total)])),
        lambda: shares_are_exact_or_gone("numpy", "float64")),
    "every draw weighs the same": (
        instead(iwae, "SHARE", Loop([formula(lambda w, total: 0.25 + 0 * (w + total))])), lambda: agrees(4)),
    "the weights squared": (
        instead(iwae, "RELATIVE", Loop([formula(lambda log_w, largest: iwae.relative(2 * log_w, 2 * largest))])),
        lambda: agrees(4)),
    "log K forgotten": (
        instead(iwae, "BOUND", Loop([formula(lambda largest, total, log_K: (
            iwae.minus_bound(largest, total, 0 * log_K)))])), lambda: agrees(4)),
    "the entropy of q forgotten": (
        instead(iwae, "SLOPES", Loop([formula(lambda share, z, each: (
            iwae.slopes_of_loss(share, z, each)[0], 0 * z))])), lambda: agrees(1)),
    "z does not reach the prior": (
        instead(iwae, "SLOPES", Loop([formula(lambda share, z, each: (
            0 * z, iwae.slopes_of_loss(share, z, each)[1]))])), lambda: agrees(1)),
    "not divided by the rows": (
        instead(iwae, "SLOPES", Loop([formula(lambda share, z, each: iwae.slopes_of_loss(share, z, 4 * each))])),
        lambda: agrees(4)),
    "the prior over q without eps^2": (
        instead(iwae, "LOG_RATIO", Loop(sums=[formula(lambda z, logvar, eps: 0.5 * (logvar - z * z) + 0 * eps)])),
        lambda: agrees(1)),
    "stl: sigma in place of 1 / sigma": (
        instead(iwae, "SLOPE", Loop([formula(lambda share, z, eps, logvar, each: (
            iwae.slope_with_q_still(share, z, eps, -logvar, each)))])),
        lambda: follows_its_surrogate(ESTIMATORS[0])),
    "dreg: the weights not squared": (
        instead(IWAE, "forward", lambda self, k, nll, q, true=IWAE.forward: scaled_once(*true(self, k, nll, q))),
        lambda: follows_its_surrogate(ESTIMATORS[3])),
}  # fmt: skip


def scaled_once(terms: Any, back: Any) -> Any:
    return terms, lambda: back()._replace(z_scale=None)


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, killer = BUGS[bug]
    assert_killed(monkeypatch, plant, killer)
