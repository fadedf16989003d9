"""One check for each eager kernel, the ones around a product by cuBLAS, against `reference.py` in float64.

As in checks.py: eighths, so that little is rounded, and bounds that count roundings.
"""

from typing import Any

import numpy as np
from cuda_on_cpu.checks import (
    EPS,
    activation_bound,
    check_adam,
    double,
    eighths,
    gaussian_terms,
    moments,
)  # fmt: skip
from cuda_on_cpu.running import Kernels
from numpy.random import Generator
from strategies import ULP, assert_within

from tinyvae.kernels import reference
from tinyvae.kernels.cuda.table import ACTIVATION_NAMES
from tinyvae.ops import activations, likelihoods

NOTHING = np.empty(0)  # scratch, which the reference kernels do not use


def check_gather_rows(k: Kernels, rng: Generator, kind: str, rows: int, columns: int) -> None:
    total = rows + 2
    if kind == "bytes":
        data, scale = rng.integers(0, 256, (total, columns)).astype(np.uint8), 1 / 255
    else:
        data, scale = rng.random((total, columns), dtype=np.float32), 0.5
    order = rng.integers(0, total, rows)
    arguments = {"data": data, "order": order, "rows": rows, "columns": columns, "scale": scale}
    x = k.run(f"gather_rows_{kind}", arguments, {"x": (rows, columns)})["x"]
    assert np.array_equal(x, data[order] * np.float32(scale))


def check_binarize(k: Kernels, rng: Generator, size: int) -> None:
    x, u = np.abs(eighths(rng, size)), np.abs(eighths(rng, size))  # often equal: then the result is 0
    assert np.array_equal(k.run("binarize", {"u": u, "size": size}, {"x": x})["x"], u < x)


def check_bias_activation(k: Kernels, rng: Generator, rows: int, outputs: int, activation: str) -> None:
    y, b = 4 * eighths(rng, rows, outputs), eighths(rng, outputs)
    arguments = {"b": b, "size": y.size, "outputs": outputs, "activation": ACTIVATION_NAMES.index(activation)}
    expected = activations.ACTIVATIONS[activation][0](double(y) + b)
    bound = 0 if activation in ("linear", "relu") else activation_bound(expected)
    assert_within(k.run("bias_activation", arguments, {"y": y})["y"], expected, bound)


def check_activation_backward(k: Kernels, rng: Generator, size: int, activation: str) -> None:
    forward, backward = activations.ACTIVATIONS[activation]
    dy, y = eighths(rng, size), forward(2 * eighths(rng, size))
    arguments = {"y": y, "size": size, "activation": ACTIVATION_NAMES.index(activation)}
    da = k.run("activation_backward", arguments, {"dy": dy})["dy"]
    bound = 0 if activation in ("linear", "relu") else (ULP + 3) * EPS * np.abs(dy)
    assert_within(da, backward(double(dy), double(y)), bound)


def check_latent_forward(k: Kernels, rng: Generator, rows: int, latent: int) -> None:
    head, eps = 2 * eighths(rng, rows, 2 * latent), eighths(rng, rows, latent)
    arguments = {"head": head, "eps": eps, "size": rows * latent, "latent": latent}
    results = k.run("latent_forward", arguments, {"z": (rows, latent), "kl": (rows, latent)})
    z, kl = np.empty((2, rows, latent))
    reference.latent_forward(double(head), double(eps), z=z, kl=kl, work=NOTHING)
    mu, logvar = double(head[:, :latent]), double(head[:, latent:])
    assert_within(results["z"], z, (ULP + 2) * EPS * (np.abs(mu) + np.exp(logvar / 2) * np.abs(eps)))
    assert_within(results["kl"], kl, (ULP + 3) * EPS * (mu**2 + np.abs(np.expm1(logvar)) + np.abs(logvar)))


def check_latent_gradient(k: Kernels, rng: Generator, rows: int, latent: int) -> None:
    dz, eps, head = eighths(rng, rows, latent), eighths(rng, rows, latent), 2 * eighths(rng, rows, 2 * latent)
    dkl = eighths(rng, latent)
    arguments = {"dz": dz, "head": head, "eps": eps, "dkl": dkl, "size": dz.size, "latent": latent}
    dhead = k.run("latent_gradient", arguments, {"dhead": head.shape})["dhead"]
    expected = np.empty(head.shape)
    reference.latent_backward(*map(double, (dz, head, eps, dkl)), dhead=expected, work=NOTHING)
    mu, logvar = double(head[:, :latent]), double(head[:, latent:])
    sizes = [np.abs(dz) + np.abs(dkl * mu), np.abs(dz * eps) * np.exp(logvar / 2) + np.abs(dkl * np.expm1(logvar))]
    assert_within(dhead, expected, (ULP + 4) * EPS * np.concatenate(sizes, axis=1))


def adds(columns: int) -> int:
    """How often a term of a block's sum over a row is rounded: in its thread, its warp, and among the warps."""
    return columns // 256 + 1 + 5 + 8


def check_bernoulli_loss(k: Kernels, rng: Generator, rows: int, columns: int, with_gradient: bool) -> None:
    logits, x, dnll = 8 * eighths(rng, rows, columns), rng.random((rows, columns), dtype=np.float32), 1 / rows
    outputs = {"nll": (rows,), "dlogits": (rows, columns) if with_gradient else None}
    arguments = {"logits": logits, "x": x, "dnll": dnll, "rows": rows, "columns": columns}
    results = k.run("bernoulli_loss", arguments, outputs)
    nll, dlogits = np.empty(rows), np.empty((rows, columns))
    reference.bernoulli_loss(double(logits), double(x), dnll, nll=nll, dlogits=dlogits, work=NOTHING)
    size = np.logaddexp(0, double(logits)) + double(x) * np.abs(logits)
    assert_within(results["nll"], nll, (2 * ULP + 3 + adds(columns)) * EPS * size.sum(axis=1))
    if with_gradient:
        assert_within(results["dlogits"], dlogits, (ULP + 4) * EPS * dnll)


def check_gaussian_loss(
    k: Kernels, rng: Generator, rows: int, columns: int, padding: int,
    shared: int = 0, with_dmean: bool = True, with_dlogvar: bool = True,
) -> None:  # fmt: skip
    stride, dnll = columns + padding, 1 / rows
    mean, logvar = np.full((2, rows, stride), np.nan, np.float32)
    mean[:, :columns], logvar[:, :columns] = eighths(rng, rows, columns), 2 * eighths(rng, rows, columns)
    if shared:
        logvar = eighths(rng, 1)
    x = eighths(rng, rows, columns)
    wide = (rows, stride)
    outputs = {
        "nll": (rows,), "dmean": wide if with_dmean else None,
        "dlogvar": ((rows,) if shared else wide) if with_dlogvar else None,
    }  # fmt: skip
    sizes = {"rows": rows, "columns": columns, "stride": stride, "shared": shared}
    results = k.run("gaussian_loss", {"mean": mean, "logvar": logvar, "x": x, "dnll": dnll, **sizes}, outputs)
    m, target = double(mean[:, :columns]), double(x)
    s: Any = double(logvar) if shared else double(logvar[:, :columns])
    nll, size = gaussian_terms(m, s, target)
    assert_within(results["nll"], nll.sum(axis=1), (ULP + 5 + adds(columns)) * EPS * size.sum(axis=1))
    dmean, dlogvar = likelihoods.gaussian_nll_backward(dnll, m, s, target)
    if with_dmean:
        assert_within(results["dmean"][:, :columns], dmean, (ULP + 3) * EPS * np.abs(dmean))
        assert np.all(np.isnan(results["dmean"][:, columns:]))
    if with_dlogvar and shared:
        size = (np.abs(dlogvar) + dnll).sum(axis=1)
        assert_within(results["dlogvar"], dlogvar.sum(axis=1), (ULP + 5 + adds(columns)) * EPS * size)
    elif with_dlogvar:
        assert_within(results["dlogvar"][:, :columns], dlogvar, (ULP + 5) * EPS * (np.abs(dlogvar) + dnll))
        assert np.all(np.isnan(results["dlogvar"][:, columns:]))


def check_adam_kernel(k: Kernels, rng: Generator, size: int) -> None:
    before, g = moments(rng, size), rng.standard_normal(size) * 10 ** rng.uniform(-5, 0, size)
    g = g.astype(np.float32)
    step, epsilon = float(np.float32(10 ** rng.uniform(-4, -1))), float(np.float32(10 ** rng.uniform(-9, -7)))
    after = k.run("adam", {"g": g, "size": size, "step_size": step, "epsilon": epsilon}, before)
    check_adam(before, after, g, step, epsilon)
