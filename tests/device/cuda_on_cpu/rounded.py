"""The gradient of a VAE in float64, each number with a bound on the error that float32 can make in it.

A running error analysis (Higham 2002, section 3.3): every operation passes on the errors of its operands, and adds its
own roundings. What it computes is the textbook's forward and backward, so it is one more oracle for the model, too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from strategies import ULP

from tinyvae.likelihoods.bernoulli import Bernoulli
from tinyvae.likelihoods.gaussian import LOG_2PI
from tinyvae.model.architecture import Architecture
from tinyvae.ops import gaussian
from tinyvae.ops.activations import ACTIVATIONS, sigmoid_forward

EPS = float(np.finfo(np.float32).eps)


class Rounded:
    """value, in float64, and a bound on |what float32 makes of it - value|."""

    __array_ufunc__ = None  # an array on the left leaves the operation to this class

    def __init__(self, value: Any, error: Any = 0.0) -> None:
        self.value = np.asarray(value, np.float64)
        self.error = np.broadcast_to(np.asarray(error, np.float64), self.value.shape)

    def __add__(self, other: Any) -> "Rounded":
        other = rounded(other)
        value = self.value + other.value
        return Rounded(value, self.error + other.error + EPS * (np.abs(self.value) + np.abs(other.value)))

    def __mul__(self, other: Any) -> "Rounded":
        other = rounded(other)
        most = (np.abs(self.value) + self.error) * (np.abs(other.value) + other.error)
        return Rounded(self.value * other.value, most * (1 + EPS) - np.abs(self.value * other.value))

    __radd__, __rmul__ = __add__, __mul__

    def times(self, other: "Rounded", per_factor: float) -> "Rounded":
        """The matrix product, of factors that are themselves rounded by `per_factor` of their size."""
        roundings = self.value.shape[1] * EPS + 2 * per_factor + per_factor**2
        product = np.abs(self.value) @ np.abs(other.value)
        most = (np.abs(self.value) + self.error) @ (np.abs(other.value) + other.error)
        return Rounded(self.value @ other.value, most * (1 + roundings) - product)

    def map(self, f: Callable[[Any], Any], steepest: Any) -> "Rounded":
        """f, whose derivative is at most `steepest` in size around here; two functions and three operations."""
        value = f(self.value)
        return Rounded(value, steepest * self.error + (2 * ULP + 3) * EPS * (np.abs(value) + 1))

    def sum(self, axis: int | None = None) -> "Rounded":
        terms = np.abs(self.value) + self.error
        n = self.value.size if axis is None else self.value.shape[axis]
        return Rounded(self.value.sum(axis=axis), (self.error + n * EPS * terms).sum(axis=axis))

    def __getitem__(self, key: Any) -> "Rounded":
        return Rounded(self.value[key], self.error[key])

    @property
    def T(self) -> "Rounded":  # noqa: N802  # as NumPy calls it
        return Rounded(self.value.T, self.error.T)


def rounded(a: Any) -> Rounded:
    return a if isinstance(a, Rounded) else Rounded(a)


def exp(a: Rounded) -> Rounded:
    return a.map(np.exp, np.exp(a.value + a.error))


def softplus(a: Rounded) -> Rounded:
    return a.map(lambda l: np.logaddexp(0, l), 1)


def gradients(
    architecture: Architecture, params: dict[str, np.ndarray], x: np.ndarray, eps: np.ndarray,
    beta: float, free_bits: float, fixed_logvar: float, tf32: bool,
) -> tuple[dict[str, Rounded], list[Rounded]]:  # fmt: skip
    """The gradient of every parameter, and loss, nll, kl. For smooth activations
    whose slope is said by y: at a kink a bound means nothing."""
    per_factor = 2.0**-11 if tf32 else 0.0
    f, likelihood = ACTIVATIONS[architecture.activation], architecture.likelihood
    rows, data, latent, last = len(x), architecture.data_dim, architecture.latent_dim, len(architecture.hidden)
    weights: dict[str, Rounded] = {}
    for part in ("encoder", "decoder"):
        for i in range(last + 1):
            name = f"{part}.{i}"
            if architecture.tied and part == "decoder":
                V = params[f"encoder.{last - i}.weight"]
                weights[name] = Rounded(V[:, : latent if i == 0 else None].T)
            else:
                weights[name] = Rounded(params[f"{name}.weight"])

    def run(part: str, h: Rounded) -> list[Rounded]:
        ys = [h]
        for i in range(last + 1):
            a = ys[-1].times(weights[f"{part}.{i}"], per_factor) + params[f"{part}.{i}.bias"]
            ys.append(a if i == last else a.map(f.forward, 1))  # no activation is steeper than 1
        return ys

    encoder = run("encoder", Rounded(x))
    mu, logvar = encoder[-1][:, :latent], encoder[-1][:, latent:]
    sigma = exp(logvar * 0.5)
    kl = (mu * mu + logvar.map(np.expm1, np.exp(logvar.value + logvar.error)) + logvar * -1.0) * 0.5
    decoder = run("decoder", mu + sigma * eps)

    g: dict[str, Rounded] = {}
    output, scale = decoder[-1], 1 / rows
    if likelihood == Bernoulli():
        nll = softplus(output) + output * -x
        dy = (output.map(sigmoid_forward, 0.25) + -x) * scale
    else:
        shared = params.get("likelihood.logvar", np.array([fixed_logvar]))
        predicted = len(likelihood.outputs) == 2
        mean, s = (output[:, :data], output[:, data:]) if predicted else (output, Rounded(shared))
        residual, precision = mean + -x, exp(s * -1.0)
        square = residual * residual * precision
        nll = (square + s + LOG_2PI) * 0.5
        dmean, ds = residual * precision * scale, (square * -1.0 + 1.0) * (0.5 * scale)
        dy = Rounded(np.hstack([dmean.value, ds.value]), np.hstack([dmean.error, ds.error])) if predicted else dmean
        if "likelihood.logvar" in params:
            g["likelihood.logvar"] = ds.sum()

    def run_back(part: str, ys: list[Rounded], dy: Rounded) -> Rounded:
        for i in reversed(range(last + 1)):
            if i != last:
                steepness = 2 * (np.abs(ys[i + 1].value) + ys[i + 1].error) + 1  # of f', as a function of y
                dy = dy * ys[i + 1].map(lambda y: f.backward(np.ones_like(y), y), steepness)
            g[f"{part}.{i}.bias"] = Rounded(np.ones((1, rows))).times(dy, per_factor)[0]  # a row of the product, too
            dW = ys[i].T.times(dy, per_factor)
            tied = f"encoder.{last - i}.weight"
            if architecture.tied and part == "decoder":
                value, error = np.zeros(params[tied].shape), np.zeros(params[tied].shape)
                value[:, : len(dW.value)], error[:, : len(dW.value)] = dW.value.T, dW.error.T
                g[tied] = Rounded(value, error)
            else:
                name = f"{part}.{i}.weight"
                g[name] = g[name] + dW if name in g else dW
            dy = dy.times(weights[f"{part}.{i}"].T, per_factor)
        return dy

    dz = run_back("decoder", decoder, dy)
    dkl = gaussian.free_bits_backward(beta, kl.value, free_bits) if free_bits > 0 else beta / rows
    slope = logvar.map(np.expm1, np.exp(logvar.value + logvar.error))
    dmu, dlogvar = dz + mu * dkl, (dz * eps * sigma + slope * dkl) * 0.5
    dhead = Rounded(np.hstack([dmu.value, dlogvar.value]), np.hstack([dmu.error, dlogvar.error]))
    run_back("encoder", encoder, dhead)

    means = kl.sum(axis=0) * scale
    charged = means.map(lambda k: np.maximum(k, free_bits), 1) if free_bits > 0 else means
    nll_mean = nll.sum() * scale
    return g, [nll_mean + charged.sum() * beta, nll_mean, means.sum()]
