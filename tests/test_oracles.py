"""Independent oracles: SciPy, quadrature, Monte Carlo, SymPy, and a model whose log p(x) is known exactly.

Finite differences cannot see a forward pass that is wrong in step with its backward. Nothing here imports a formula to
check it against itself: every expected value comes from another library, another route, or the paper.
"""

import itertools
import math
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy
from scipy import integrate, stats
from strategies import KERNELS, ULP, assert_within, eps_of

import tinyvae
from tinyvae import kernels as kernel_files
from tinyvae.backend import get_backend
from tinyvae.ops import activations, adam, dense, gaussian, likelihoods

EPS = eps_of("float64")
POINTS = [(-3.0, -2.5), (-0.7, 0.4), (0.0, 0.0), (0.3, -1.9), (2.5, 1.3), (0.01, 3.0)]  # (mu, logvar)


def kernels_of(name: str) -> Any:
    return kernel_files.select(name, get_backend("numpy"), "float64")[1]


# ------------------------------------------------------------------ SymPy differentiates the formulas as written

SYMBOLS = sympy.symbols("a mu logvar eps l x m s", real=True)
ACTIVATION_FORMULAS = {
    "linear": "a",
    "relu": "Piecewise((a, a > 0), (0, True))",
    "leaky-relu": "Piecewise((a, a > 0), (a / 100, True))",
    "elu": "Piecewise((a, a > 0), (exp(a) - 1, True))",
    "tanh": "tanh(a)",
    "sigmoid": "1 / (1 + exp(-a))",
    "softplus": "log(1 + exp(a))",
}
Z = "mu + exp(logvar / 2) * eps"
KL = "(mu**2 + exp(logvar) - 1 - logvar) / 2"
BERNOULLI = "-x * log(1 / (1 + exp(-l))) - (1 - x) * log(1 - 1 / (1 + exp(-l)))"
GAUSSIAN = "((x - m)**2 * exp(-s) + s + log(2 * pi)) / 2"


def exact(formula: str, by: str = "", **values: Any) -> np.ndarray:
    """The formula, or its derivative by `by`, at every element of the values, with 40 digits."""
    sympify: Any = sympy.sympify  # its stubs know no strings
    symbols: Any = {str(s): s for s in SYMBOLS}
    expression = sympify(formula, locals=symbols)
    if by:
        expression = sympy.diff(expression, symbols[by])
    f = sympy.lambdify([symbols[name] for name in values], expression, "mpmath")
    with mpmath.workdps(40):
        rows = zip(*(v.ravel() for v in values.values()), strict=True)
        flat = [float(f(*map(mpmath.mpf, map(float, row)))) for row in rows]
    return np.array(flat).reshape(next(iter(values.values())).shape)


def draw(seed: int, *scales: float) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [scale * rng.standard_normal((7, 6)) for scale in scales]


@pytest.mark.parametrize("name", ACTIVATION_FORMULAS)
def test_the_activation_and_its_slope_are_the_formula_and_its_derivative(name: str) -> None:
    a, dy = draw(1, 2.0, 1.0)
    forward, backward = activations.ACTIVATIONS[name]
    formula = ACTIVATION_FORMULAS[name]
    # two terms of at most 1 + |a|, made with at most one transcendental each and 4 more roundings
    bound = 2 * (ULP + 4) * EPS * (1 + np.abs(a))
    assert_within(forward(a), exact(formula, a=a), bound)
    assert_within(backward(dy, forward(a)), dy * exact(formula, "a", a=a), bound * np.abs(dy))


def test_every_activation_has_a_formula() -> None:
    assert set(ACTIVATION_FORMULAS) == set(activations.ACTIVATIONS)


def test_reparameterize_is_the_formula_and_its_derivatives() -> None:
    mu, logvar, eps, dz = draw(2, 1.0, 1.5, 1.0, 1.0)
    values: dict[str, Any] = {"mu": mu, "logvar": logvar, "eps": eps}
    # one exponential, whose argument is exact, and 4 roundings of terms of this sum
    bound = (ULP + 4) * EPS * (np.abs(mu) + np.exp(logvar / 2) * np.abs(eps))
    assert_within(gaussian.reparameterize_forward(mu, logvar, eps), exact(Z, **values), bound)
    dmu, dlogvar = gaussian.reparameterize_backward(dz, logvar, eps)
    assert_within(dmu, dz * exact(Z, "mu", **values), EPS * np.abs(dz))
    assert_within(dlogvar, dz * exact(Z, "logvar", **values), bound * np.abs(dz))


def test_kl_is_the_formula_and_its_derivatives() -> None:
    mu, logvar, dkl = draw(3, 1.0, 1.5, 1.0)
    # one exponential and 5 roundings of terms of this sum
    bound = (ULP + 5) * EPS * (mu * mu + np.exp(logvar) + 1 + np.abs(logvar))
    assert_within(gaussian.kl_forward(mu, logvar), exact(KL, mu=mu, logvar=logvar), bound)
    dmu, dlogvar = gaussian.kl_backward(dkl, mu, logvar)
    assert_within(dmu, dkl * exact(KL, "mu", mu=mu, logvar=logvar), EPS * np.abs(dkl * mu))
    assert_within(dlogvar, dkl * exact(KL, "logvar", mu=mu, logvar=logvar), bound * np.abs(dkl))


def test_bernoulli_is_the_formula_and_its_derivative() -> None:
    l, dnll = draw(4, 3.0, 1.0)
    x = np.random.default_rng(5).uniform(0, 1, l.shape)
    # each of the 6 terms of a row: an exponential, a logarithm and 4 more roundings; then 5 roundings of the sum
    bound = (2 * ULP + 9) * EPS * (1 + 2 * np.abs(l))
    assert_within(likelihoods.bernoulli_nll_forward(l, x), exact(BERNOULLI, l=l, x=x).sum(axis=1), bound.sum(axis=1))
    dlogits = likelihoods.bernoulli_nll_backward(dnll[:, :1], l, x)
    assert_within(dlogits, dnll[:, :1] * exact(BERNOULLI, "l", l=l, x=x), bound * np.abs(dnll[:, :1]))


def test_gaussian_nll_is_the_formula_and_its_derivatives() -> None:
    m, s, x, dnll = draw(6, 1.0, 1.5, 1.0, 1.0)
    values: dict[str, Any] = {"m": m, "s": s, "x": x}
    dnll = dnll[:, :1]
    precision = np.exp(-s)
    # r^2 / sigma^2 with 8 roundings, since r = x - m counts twice; then 7 roundings of the sum over 6 terms
    bound = (ULP + 15) * EPS * ((np.abs(x) + np.abs(m)) ** 2 * precision + np.abs(s) + 2)
    nll = likelihoods.gaussian_nll_forward(m, s, x)
    assert_within(nll, exact(GAUSSIAN, **values).sum(axis=1), bound.sum(axis=1))
    dmean, dlogvar = likelihoods.gaussian_nll_backward(dnll, m, s, x)
    slope_bound = (ULP + 4) * EPS * (np.abs(x) + np.abs(m)) * precision * np.abs(dnll)
    assert_within(dmean, dnll * exact(GAUSSIAN, "m", **values), slope_bound)
    assert_within(dlogvar, dnll * exact(GAUSSIAN, "s", **values), bound * np.abs(dnll))


def test_dense_is_the_sum_over_inputs_and_its_derivatives() -> None:
    rng = np.random.default_rng(7)
    x, W, b, dy = (rng.integers(-8, 9, shape) / 4 for shape in [(2, 4), (4, 3), (3,), (2, 3)])  # exact in binary
    X, V, c = (sympy.symarray(name, a.shape) for name, a in [("x", x), ("W", W), ("b", b)])
    values: Any = dict(zip([*X.flat, *V.flat, *c.flat], [*x.flat, *W.flat, *b.flat], strict=True))
    y = [[sum(X[n, i] * V[i, j] for i in range(4)) + c[j] for j in range(3)] for n in range(2)]
    loss = sum(dy[n, j] * y[n][j] for n in range(2) for j in range(3))
    assert dense.dense_forward(x, W, b).tolist() == [[float(term.subs(values)) for term in row] for row in y]
    for gradient, tensor in zip(dense.dense_backward(dy, x, W), (X, V, c), strict=True):
        derivatives = [float(sympy.diff(loss, t).subs(values)) for t in tensor.flat]
        assert gradient.ravel().tolist() == derivatives


def test_free_bits_charge_for_the_batch_mean_above_the_allowance() -> None:
    kl = np.array([[0.25, 3.0, 1.0], [0.25, 1.0, 0.5]])  # means 0.25, 2, 0.75
    assert gaussian.free_bits_forward(kl, 0.5).tolist() == [0.5, 2.0, 0.75]
    assert gaussian.free_bits_backward(3.0, kl, 0.5).tolist() == [0.0, 1.5, 1.5]  # 3 / batch, or nothing


# --------------------------------------------------------------------------------------------- SciPy's distributions


@pytest.mark.parametrize("shared", [False, True])
def test_gaussian_nll_is_scipys_normal_density(shared: bool) -> None:
    mean, logvar, x = draw(8, 1.0, 1.0, 2.0)
    logvar = np.array([0.7]) if shared else logvar
    expected = -stats.norm.logpdf(x, mean, np.sqrt(np.exp(logvar))).sum(axis=1)
    # both sides: two transcendentals and 16 roundings of terms of this sum
    terms = (np.abs(x) + np.abs(mean)) ** 2 * np.exp(-logvar) + np.abs(logvar) + 2
    bound = 2 * (2 * ULP + 16) * EPS * terms.sum(axis=1)
    assert_within(likelihoods.gaussian_nll_forward(mean, logvar, x), expected, bound)


def test_bernoulli_nll_is_scipys_mass_function() -> None:
    (logits,) = draw(9, 2.0)
    x = (np.random.default_rng(9).random(logits.shape) < 0.5).astype(float)
    p = 1 / (1 + np.exp(-logits))
    expected = -stats.bernoulli.logpmf(x, p).sum(axis=1)
    # where x = 0, 1 - p loses p eps of 1 - p, so its logarithm e^l eps
    bound = (2 * ULP + 9) * EPS * (3 + np.exp(logits) + 2 * np.abs(logits)).sum(axis=1)
    assert_within(likelihoods.bernoulli_nll_forward(logits, x), expected, bound)


def test_the_activations_are_scipys() -> None:
    (a,) = draw(10, 5.0)
    bound = 2 * (ULP + 4) * EPS * (1 + np.abs(a))
    assert_within(activations.ACTIVATIONS["sigmoid"][0](a), stats.logistic.cdf(a), bound)
    assert_within(activations.ACTIVATIONS["softplus"][0](a), -stats.logistic.logsf(a), bound)


# ------------------------------------------------------------------------------------ the KL and the sampler, together


@pytest.mark.parametrize(("mu", "logvar"), POINTS)
def test_kl_is_the_integral_of_q_times_log_q_over_p(mu: float, logvar: float) -> None:
    q: Any = stats.norm(mu, math.exp(logvar / 2))
    p: Any = stats.norm(0, 1)
    # 40 standard deviations hold all of q that a float64 can; the integrand is smooth, so quad meets its own estimate
    low, high = mu - 40 * q.std(), mu + 40 * q.std()
    integrand = lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z))
    integral, estimate = integrate.quad(integrand, low, high, points=[mu], epsabs=1e-12, epsrel=1e-12, limit=200)
    assert estimate < 1e-9
    assert_within(gaussian.kl_forward(np.array([mu]), np.array([logvar])), [integral], 1e-9)


@pytest.mark.parametrize(("mu", "logvar"), POINTS)
@pytest.mark.parametrize("kernels", KERNELS)
def test_kl_is_the_mean_of_log_q_minus_log_p_over_the_librarys_own_samples(
    kernels: str, mu: float, logvar: float
) -> None:
    n = 200_000
    head = np.tile([mu, logvar], (n, 1))
    eps = np.random.default_rng(11).standard_normal((n, 1))
    z, kl = np.empty((2, n, 1))
    kernels_of(kernels).latent_forward(head, eps, z=z, kl=kl, work=np.empty(2 * n))
    logs = stats.norm.logpdf(z, mu, math.exp(logvar / 2)) - stats.norm.logpdf(z)
    # The mean of n independent terms is normal with this deviation: beyond 5 of them once in two million draws. At the
    # standard normal itself every term is 0 and only rounding is left.
    bound = 5 * logs.std() / math.sqrt(n) + 10 * EPS
    assert abs(logs.mean() - kl[0, 0]) <= bound
    # Nor is the sampler's spread the variance: the standard error of a sample variance is sigma^2 sqrt(2 / n).
    assert abs(z.var() / math.exp(logvar) - 1) <= 5 * math.sqrt(2 / n)


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_noise_is_scaled_by_the_standard_deviation_and_not_by_the_variance(kernels: str) -> None:
    mu, logvar = draw(12, 1.0, 2.0)
    z, kl = np.empty((2, *mu.shape))
    head = np.concatenate([mu, logvar], axis=1)
    kernels_of(kernels).latent_forward(head, np.ones(mu.shape), z=z, kl=kl, work=np.empty(mu.size))
    sigma = np.sqrt(np.exp(logvar))
    assert_within(z - mu, sigma, (2 * ULP + 3) * EPS * (np.abs(mu) + sigma))
    assert_within(
        gaussian.reparameterize_forward(mu, logvar, np.ones(mu.shape)) - mu,
        np.exp(logvar / 2),
        8 * EPS * (np.abs(mu) + sigma),
    )


# ---------------------------------------------------------------------------------------------------------------- Adam


def paper_adam(p: float, gradients: list[float], lr: float, beta1: float, beta2: float, epsilon: float) -> float:
    """Kingma & Ba 2015, algorithm 1, line by line, with 40 digits."""
    with mpmath.workdps(40):
        theta, m, v = mpmath.mpf(p), mpmath.mpf(0), mpmath.mpf(0)
        b1, b2 = mpmath.mpf(beta1), mpmath.mpf(beta2)
        for t, gradient in enumerate(gradients, 1):
            g = mpmath.mpf(gradient)
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            m_hat = m / (1 - b1**t)
            v_hat = v / (1 - b2**t)
            theta = theta - lr * m_hat / (mpmath.sqrt(v_hat) + epsilon)
        return float(theta)


@pytest.mark.parametrize("step", ["ops", *KERNELS])
def test_adam_is_algorithm_1_of_the_paper(step: str) -> None:
    steps, lr = 20, 0.1
    rng = np.random.default_rng(13)
    start, gradients = rng.standard_normal(5), rng.standard_normal((steps, 5)) * [1, 1e-3, 1e-8, 30, 1]
    p, m, v = start.copy(), np.zeros(5), np.zeros(5)
    for t, g in enumerate(gradients, 1):
        if step == "ops":
            p, m, v = adam.adam_step(p, g, m, v, t, lr)
        else:
            kernels_of(step).adam_step(p, g, m, v, t, lr, work=np.empty(5))
    expected = [paper_adam(start[i], gradients[:, i].tolist(), lr, 0.9, 0.999, 1e-8) for i in range(5)]
    # A step is lr m^ / sqrt(v^). m gathers 4 roundings of max |g| a step, and sqrt(v^) >= max |g| / sqrt(2 t), so the
    # step is off by at most lr 4 t sqrt(2 t) eps, plus 12 t roundings of its own size sqrt(2 t) lr at most.
    bound = sum(lr * 16 * t * math.sqrt(2 * t) * EPS for t in range(1, steps + 1)) + steps * EPS * (np.abs(start) + 2)
    assert_within(p, expected, bound)


# ------------------------------------------------------- a linear-Gaussian model, where log p(x) and q(z|x) are exact

DATA, LATENT, SIGMA = 5, 2, 0.5


def linear_model(kernels: str, seed: int, orthogonal: bool) -> tuple[tinyvae.VAE, np.ndarray]:
    """x = z W + b + sigma noise, with random W (orthogonal rows if asked), and some x drawn from it."""
    model = tinyvae.VAE(
        DATA, (), LATENT, likelihood="gaussian", sigma=f"fixed:{SIGMA}", dtype="float64", kernels=kernels, seed=seed
    )
    rng = np.random.default_rng(seed)
    model.params.flat[...] = 0.4 * rng.standard_normal(model.params.flat.shape)
    if orthogonal:
        rows = np.linalg.qr(rng.standard_normal((DATA, LATENT)))[0].T  # (latent, data)
        model.params["decoder.0.weight"][...] = np.array([[0.8], [1.7]]) * rows
    W, b = model.params["decoder.0.weight"], model.params["decoder.0.bias"]
    x = rng.standard_normal((4, LATENT)) @ W + b + SIGMA * rng.standard_normal((4, DATA))
    return model, x


def posterior(model: tinyvae.VAE, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p(z|x) of the linear-Gaussian model: the means (rows, latent) and the covariance (latent, latent)."""
    W, b = model.params["decoder.0.weight"], model.params["decoder.0.bias"]
    covariance = np.linalg.inv(np.eye(LATENT) + W @ W.T / SIGMA**2)
    return (x - b) @ W.T @ covariance / SIGMA**2, covariance


def exact_log_p(model: tinyvae.VAE, x: np.ndarray) -> np.ndarray:
    W, b = model.params["decoder.0.weight"], model.params["decoder.0.bias"]
    return stats.multivariate_normal(b, W.T @ W + SIGMA**2 * np.eye(DATA)).logpdf(x)


def exact_elbo(model: tinyvae.VAE, x: np.ndarray) -> np.ndarray:
    """The ELBO of each row: its nll is quadratic in eps, so two Gauss-Hermite nodes (+-1) a dimension are exact."""
    nodes = [np.tile(node, (x.shape[0], 1)) for node in itertools.product([-1.0, 1.0], repeat=LATENT)]
    nlls, kls = zip(*(model.rows_loss(x, eps) for eps in nodes), strict=True)
    return -np.mean(nlls, axis=0) - kls[0].sum(axis=1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kernels", KERNELS)
def test_the_elbo_is_log_p_minus_the_kl_to_the_true_posterior(kernels: str, seed: int) -> None:
    model, x = linear_model(kernels, seed, orthogonal=False)
    mean, covariance = posterior(model, x)
    mu, logvar = model.encode(x)
    precision, logdet = np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1]
    trace = (np.diag(precision) * np.exp(logvar)).sum(axis=1)
    gap = 0.5 * (
        trace + np.einsum("ni,ij,nj->n", mean - mu, precision, mean - mu) - LATENT + logdet - logvar.sum(axis=1)
    )
    assert np.all(gap > 0.01)  # or the inequality would say nothing
    # Sums of some 50 terms below 1e3, of matrices with condition numbers below 100
    assert_within(exact_elbo(model, x), exact_log_p(model, x) - gap, 50 * 1e3 * 100 * EPS)
    assert np.all(exact_elbo(model, x) < exact_log_p(model, x))


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_elbo_is_log_p_at_the_true_posterior(kernels: str) -> None:
    model, x = linear_model(kernels, 1, orthogonal=True)
    W, b = model.params["decoder.0.weight"], model.params["decoder.0.bias"]
    _, covariance = posterior(model, x)
    variances = np.diag(covariance)
    assert np.abs(covariance - np.diag(variances)).max() < 10 * EPS  # as W W^T is diagonal
    gain = W.T * variances / SIGMA**2  # (data, latent)
    model.params["encoder.0.weight"][...] = np.concatenate([gain, np.zeros((DATA, LATENT))], axis=1)
    model.params["encoder.0.bias"][...] = np.concatenate([-b @ gain, np.log(variances)])
    assert_within(exact_elbo(model, x), exact_log_p(model, x), 50 * 1e3 * 100 * EPS)
