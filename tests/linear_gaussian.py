"""A linear-Gaussian model, x = z W + b + sigma noise: log p(x), the ELBO and q's best are known exactly."""

import itertools

import numpy as np
from scipy import stats

import tinyvae

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


def at_the_posterior(kernels: str) -> tuple[tinyvae.VAE, np.ndarray]:
    """A model whose q(z|x) is the posterior, and some x."""
    model, x = linear_model(kernels, 1, orthogonal=True)
    W, b = model.params["decoder.0.weight"], model.params["decoder.0.bias"]
    variances = np.diag(posterior(model, x)[1])
    gain = W.T * variances / SIGMA**2  # (data, latent)
    model.params["encoder.0.weight"][...] = np.concatenate([gain, np.zeros((DATA, LATENT))], axis=1)
    model.params["encoder.0.bias"][...] = np.concatenate([-b @ gain, np.log(variances)])
    return model, x


def nearly_exact_model(gap: float) -> tuple[tinyvae.VAE, np.ndarray]:
    """The linear-Gaussian model with its own posterior for q(z|x), but for a shift of mu that costs `gap` nats."""
    model, x = linear_model("reference", 1, orthogonal=True)
    W, b = model.params["decoder.0.weight"], model.params["decoder.0.bias"]
    variances = np.diag(posterior(model, x)[1])  # (latent,): the covariance is diagonal, as W W^T is
    gain = W.T * variances / SIGMA**2  # (data, latent)
    shift = np.sqrt(2 * gap / LATENT * variances)  # KL(q || posterior) = sum shift^2 / variance / 2
    model.params["encoder.0.weight"][...] = np.concatenate([gain, np.zeros((DATA, LATENT))], axis=1)
    model.params["encoder.0.bias"][...] = np.concatenate([-b @ gain + shift, np.log(variances)])
    return model, x
