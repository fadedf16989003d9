"""beta-TC: a plain double loop, its gradient by complex steps, the ELBO at beta = 1, and where q(z) is known."""

import math
from typing import Any

import numpy as np
import pytest
from planted import Plant, assert_killed, instead
from scipy import stats
from strategies import EVERY_FUSED, assert_within, eps_of, sampled

from objectives.oracles import LATENT, Pass, complex_steps, log_normal, noise, small, written_out
from tinyvae.kernels.reference import Reference
from tinyvae.objectives import beta_tc
from tinyvae.objectives.beta_tc import BetaTC
from tinyvae.objectives.objective import Posterior

EVERY = ["reference", *EVERY_FUSED]
OFF = 2e3 * eps_of("float64")  # some hundred roundings of terms that add up to less than 10, and their derivatives
BOTH = [BetaTC(beta=4.0), BetaTC(beta=0.3, rows=100)]


def double_loop(objective: BetaTC, p: Pass) -> Any:
    """Equation S3 of Chen et al. 2018, for each row, dimension and other row."""
    n, N = len(p.mu), objective.rows or len(p.mu)
    total: Any = 0
    for i in range(n):
        z = p.z[i, 0]
        each = np.array(
            [[np.exp(log_normal(z[j], p.mu[m, j], p.logvar[m, j])) for m in range(n)] for j in range(LATENT)]
        )
        log_q = np.log(sum(each[0, m] * each[1, m] for m in range(n)) / (n * N))
        log_product = sum(np.log(sum(each[j]) / (n * N)) for j in range(LATENT))
        log_q_x = sum(log_normal(z[j], p.mu[i, j], p.logvar[i, j]) for j in range(LATENT))
        log_p = sum(log_normal(z[j], 0.0, 0.0) for j in range(LATENT))
        information, correlation, dimensions = log_q_x - log_q, log_q - log_product, log_product - log_p
        total += p.nll[i, 0] + information + objective.beta * correlation + dimensions
    return total / n


def agrees(objective: BetaTC, kernels: str = "reference") -> None:
    model, x = small(kernels=kernels)
    eps = noise(1)
    losses = model.loss_and_grad(x, eps, objective=objective)
    whole = written_out(model, model.params.flat, x, eps)
    kl = (whole.mu**2 + np.exp(whole.logvar) - 1 - whole.logvar).sum(axis=1).mean() / 2
    assert_within(losses, [double_loop(objective, whole), whole.nll.mean(), kl], OFF)
    f = lambda flat: double_loop(objective, written_out(model, flat, x, eps))
    assert_within(model.grads.flat, complex_steps(f, model.params.flat), OFF)


@pytest.mark.parametrize("kernels", EVERY)
@pytest.mark.parametrize("objective", BOTH, ids=repr)
def test_loss_and_gradient_are_those_of_the_double_loop(objective: BetaTC, kernels: str) -> None:
    agrees(objective, kernels)


@pytest.mark.parametrize("rows", [None, 7, 60_000])
def test_at_beta_1_it_is_the_elbo_with_the_kl_at_the_draw(rows: int | None) -> None:
    model, x = small()
    eps = noise(1)
    look = model.look(x, eps)
    sigma = np.exp(look.logvar / 2)
    ratio = stats.norm.logpdf(look.z, look.mu, sigma) - stats.norm.logpdf(look.z)
    losses = model.loss(x, eps, objective=BetaTC(1.0, rows))
    assert_within(losses.loss, (look.nll + ratio.sum(axis=1)).mean(), OFF)


def test_the_size_of_the_data_set_moves_the_loss_by_a_constant_and_no_gradient() -> None:
    model, x = small()
    eps = noise(1)
    found = []
    for rows in (10, 1000):
        losses = model.loss_and_grad(x, eps, objective=BetaTC(3.0, rows))
        found.append((losses.loss, model.grads.flat.copy()))
    assert found[1][0] - found[0][0] == pytest.approx((3 - 1) * (LATENT - 1) * math.log(100), rel=1e-12)
    assert_within(found[1][1], found[0][1], OFF)


def test_training_fills_in_the_size_once() -> None:
    assert BetaTC().on(50) == BetaTC(rows=50)
    assert BetaTC(rows=50).on(8) == BetaTC(rows=50)
    model, x = small()
    alone, said = (model.loss(x, noise(1), objective=BetaTC(rows=rows)) for rows in (None, len(x)))
    assert alone == said


def test_the_estimates_are_right_where_all_rows_have_one_posterior() -> None:
    """q(z) = q(z|x) then, and factorizes: no correlation, and sum_m over n equal terms is n times one of them."""
    k, rng, n = Reference(np, "float64"), np.random.default_rng(0), 5
    mu, logvar = (np.repeat(rng.standard_normal((1, LATENT)), n, axis=0) for _ in range(2))
    eps = rng.standard_normal((n, LATENT))
    q = Posterior(mu, logvar, eps, mu + np.exp(logvar / 2) * eps)
    nll = rng.standard_normal(n)
    losses = [BetaTC(beta, rows=1).forward(k, nll, q)[0].loss[0] for beta in (0.0, 1.0, 50.0)]
    assert_within(losses, np.full(3, losses[1]), OFF)


def test_it_is_finite_and_right_in_float32_where_posteriors_are_far_apart() -> None:
    """Of n rows each alone near its z: log q(z) is log q(z|x) / (n N), and the others have no slope."""
    n = 4
    mu = np.array([[1e4 * i, -1e3 * i] for i in range(n)], "float32")
    logvar = np.full((n, LATENT), -60.0, "float32")
    q = Posterior(mu, logvar, np.ones_like(mu), mu + np.exp(logvar / 2))
    terms, back = BetaTC(6.0, rows=n).forward(Reference(np, "float32"), np.zeros(n, "float32"), q)
    d = back()
    assert all(a.dtype == np.float32 for a in (*terms, d.mu, d.logvar, d.z))  # pyright: ignore[reportOptionalMemberAccess]
    assert all(np.isfinite(a).all() for a in (*terms, d.mu, d.logvar, d.z))  # pyright: ignore[reportCallIssue, reportArgumentType]
    g = np.float64(stats.norm.logpdf(q.z.astype("float64"), mu, np.exp(-30.0)))  # (n, latent): z is mu, in float32
    log_p = stats.norm.logpdf(q.z.astype("float64"))  # (n, latent)
    expected = (g - log_p).sum(axis=1).mean() + (6 - 1) * (LATENT - 1) * math.log(n * n)
    assert terms.loss[0] == pytest.approx(expected, rel=1e-6)


def test_more_than_one_draw_is_refused() -> None:
    model, x = small()
    assert BetaTC().samples == 1
    with pytest.raises(ValueError, match=r"eps must have shape \(4, 1, 2\)"):
        model.loss_and_grad(x, noise(3), objective=BetaTC())
    look = model.look(x, noise(3))
    q = Posterior(look.mu, look.logvar, noise(3).reshape(-1, LATENT), look.z)
    with pytest.raises(ValueError, match="beta-tc takes one draw of z for each row, not 3"):
        BetaTC().forward(Reference(np, "float64"), look.nll, q)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -0.1}, "beta must be at least 0"),
        ({"beta": math.inf}, "finite, not inf"),
        ({"rows": 0}, "rows must be"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BetaTC(**options)


TRUE_LOG_SUM = beta_tc._log_sum


def over_rows_of_z(xp: Any, a: Any) -> Any:
    """Of all z under one posterior, in place of one z under all."""
    log_sum, shares = TRUE_LOG_SUM(xp, np.moveaxis(a, 0, 1))
    return log_sum, np.moveaxis(shares, 0, 1)


BUGS: dict[str, Plant] = {
    "the sum over z in place of the posteriors": instead(beta_tc, "_log_sum", over_rows_of_z),
    "the mean in place of the log of the mean": instead(
        beta_tc, "_log_sum", lambda xp, a: (a.mean(axis=1), np.full(a.shape, 1 / a.shape[1]))),
    "the shares are not normalized": instead(
        beta_tc, "_log_sum", lambda xp, a: (TRUE_LOG_SUM(xp, a)[0], np.exp(a - a.max(axis=1, keepdims=True)))),
    "u is cut off too early": instead(beta_tc, "FAR", 0.5),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, BUGS[bug], lambda: agrees(BOTH[0]))
