"""One check for each kernel of the training step: random arguments, and the oracle in float64 (`tinyvae.ops`).

The factors of the products are eighths, at most 1 in size: float32 adds up to 2^18 such products without an error, and
tf32 holds the factors, so whatever is wrong with a product shows at once, and the tolerances are those of the few
operations behind it. `check_rounding` is the one for ordinary numbers.

Tolerances count roundings, of half of eps each: see strategies.py. What must not be read is NaN.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cuda_on_cpu import philox
from cuda_on_cpu.running import Kernels
from numpy.random import Generator
from strategies import ULP, assert_within

from tinyvae.kernels.cuda.table import (
    ACTIVATION_NAMES,
    EPS_STREAM,
    GROUP,
    KERNELS,
    PAIR,
    SCHEDULE_COLUMNS,
    TILE,
    UNIFORM_STREAM,
    group_blocks,
    tiles,
)  # fmt: skip
from tinyvae.likelihoods.bernoulli import bernoulli_nll_backward
from tinyvae.likelihoods.gaussian import LOG_2PI, gaussian_nll_backward
from tinyvae.ops import gaussian
from tinyvae.ops.activations import ACTIVATIONS
from tinyvae.ops.adam import BETA1, BETA2

EPS = float(np.finfo(np.float32).eps)
UPDATES = 4  # of an epoch


def eighths(rng: Generator, *shape: int) -> np.ndarray:
    return (rng.integers(-8, 9, shape) / 8).astype(np.float32)


def double(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64)


def weight(rng: Generator, inputs: int, outputs: int, transposed: int, padding: int) -> tuple[np.ndarray, Any]:
    """W (inputs, outputs), and it or its transpose as the kernels get it, in lines that end with NaN."""
    lines, length = (outputs, inputs) if transposed else (inputs, outputs)
    stored = np.full((lines, length + padding), np.nan, np.float32)
    stored[:, :length] = eighths(rng, lines, length)
    W = stored[:, :length]
    return double(W.T if transposed else W), {"W": stored, "ldw": length + padding, "transposed": transposed}


def clock(rng: Generator, rows: int, batch: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """state and schedule: the batch's line of the schedule holds numbers, the others NaN."""
    state = rng.integers(0, 2**32, 3).astype(np.uint32)
    state[0] = batch
    schedule = np.full((UPDATES, SCHEDULE_COLUMNS), np.nan, np.float32)
    schedule[batch] = [rng.choice([0, 0.25, 1, 4]), 10 ** rng.uniform(-4, -1), 10 ** rng.uniform(-9, -7), 1 / rows]
    return state, schedule


def activation_bound(y: np.ndarray) -> Any:
    """Of f(a) at an exact a: at most two functions and three operations on numbers below |y| + 1."""
    return (2 * ULP + 3) * EPS * (np.abs(y) + 1)


# -------------------------------------------------------------------------------------------------------------- forward


def check_gather(k: Kernels, rng: Generator, kind: str, rows: int, columns: int, dynamic: int, batch: int = 1) -> None:
    capacity, total = rows + int(rng.integers(0, 3)), rows + 3
    if kind == "bytes":
        data, scale = rng.integers(0, 256, (total, columns)).astype(np.uint8), 1 / 255
    else:
        data, scale = rng.random((total, columns), dtype=np.float32), 1.0
    order = rng.integers(0, total, capacity * batch + rows).astype(np.int32)  # this batch's are the last `rows`
    state, _ = clock(rng, rows, batch)
    numbers = {"rows": rows, "capacity": capacity, "columns": columns, "scale": scale, "dynamic": dynamic}
    arguments = {"data": data, "order": order, "state": state, **numbers}
    x = k.run(f"gather_{kind}", arguments, {"x": (rows, columns)})["x"]
    pixels = data[order[capacity * batch :]] * np.float32(scale)
    if dynamic:
        u = philox.uniforms(state, UNIFORM_STREAM, rows * columns).reshape(rows, columns)
        assert np.array_equal(x, u < pixels)
    else:
        assert np.array_equal(x, pixels)


def check_layer_forward(
    k: Kernels, rng: Generator, rows: int, inputs: int, outputs: int,
    activation: str = "linear", transposed: int = 0, padding: int = 0,
) -> None:  # fmt: skip
    x, b = eighths(rng, rows, inputs), eighths(rng, outputs)
    W, stored = weight(rng, inputs, outputs, transposed, padding)
    sizes = {"rows": rows, "inputs": inputs, "outputs": outputs, "activation": ACTIVATION_NAMES.index(activation)}
    y = k.run("layer_forward", {"x": x, **stored, "b": b, **sizes}, {"y": (rows, outputs)})["y"]
    expected = ACTIVATIONS[activation].forward(x @ W + b)
    assert_within(y, expected, 0 if activation in ("linear", "relu") else activation_bound(expected))


def check_head_forward(k: Kernels, rng: Generator, rows: int, inputs: int, latent: int, batch: int = 0) -> None:
    x, W, b = eighths(rng, rows, inputs), eighths(rng, inputs, 2 * latent), eighths(rng, 2 * latent)
    W[:, latent:] /= 8  # so that e^logvar stays within a few powers of ten
    state, _ = clock(rng, rows, batch)
    arguments = {"x": x, "W": W, "b": b, "state": state, "rows": rows, "inputs": inputs, "latent": latent}
    outputs = {"head": (rows, 2 * latent), **dict.fromkeys(("eps", "z", "kl"), (rows, latent))}
    results = k.run("head_forward", arguments, outputs)
    head, eps, z, kl = (double(results[name]) for name in ("head", "eps", "z", "kl"))
    assert np.array_equal(head, double(x) @ W + b)
    expected = philox.normals(state, EPS_STREAM, rows * latent).reshape(rows, latent)
    assert_within(eps, expected, (2 * ULP + 2) * EPS * np.abs(expected))  # log, a root, cos or sin, two products
    mu, logvar = head[:, :latent], head[:, latent:]
    expected = gaussian.reparameterize_forward(mu, logvar, eps)
    assert_within(z, expected, (ULP + 2) * EPS * (np.abs(mu) + np.exp(logvar / 2) * np.abs(eps)))
    expected = gaussian.kl_forward(mu, logvar)
    assert_within(kl, expected, (ULP + 3) * EPS * (mu**2 + np.abs(np.expm1(logvar)) + np.abs(logvar)))


def in_tiles(terms: np.ndarray, width: int) -> np.ndarray:
    """Sums of (rows, columns) over every tile's columns: (rows, tiles)."""
    return np.add.reduceat(terms, np.arange(0, terms.shape[1], width), axis=1)


def check_output_bernoulli(
    k: Kernels, rng: Generator, rows: int, inputs: int, outputs: int, transposed: int = 0, padding: int = 0
) -> None:
    x, b, target = eighths(rng, rows, inputs), eighths(rng, outputs), rng.random((rows, outputs), dtype=np.float32)
    W, stored = weight(rng, inputs, outputs, transposed, padding)
    sizes = {"rows": rows, "inputs": inputs, "outputs": outputs}
    results = k.run("output_bernoulli", {"x": x, **stored, "b": b, "target": target, **sizes},
                    {"doutput": (rows, outputs), "nll_parts": (rows, tiles(outputs))})  # fmt: skip
    logits, target = x @ W + b, double(target)
    assert_within(results["doutput"], bernoulli_nll_backward(1 / rows, logits, target), (ULP + 4) * EPS / rows)
    nll = np.logaddexp(0, logits) - target * logits
    size = (2 * ULP + 3) * (np.logaddexp(0, logits) + target * np.abs(logits)) + 5 * np.abs(nll)  # 5: of 32 terms
    assert_within(results["nll_parts"], in_tiles(nll, TILE), EPS * in_tiles(size, TILE))


def gaussian_terms(mean: np.ndarray, logvar: Any, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nll of every number, and the sum of the sizes of its parts."""
    square = (target - mean) ** 2 * np.exp(-logvar) / 2
    rest = np.broadcast_to(logvar, mean.shape) / 2
    constant = LOG_2PI / 2
    return square + rest + constant, square + np.abs(rest) + constant


def check_output_gaussian(
    k: Kernels, rng: Generator, rows: int, inputs: int, outputs: int, transposed: int = 0, padding: int = 0
) -> None:
    x, b, target = eighths(rng, rows, inputs), eighths(rng, outputs), eighths(rng, rows, outputs)
    W, stored = weight(rng, inputs, outputs, transposed, padding)
    logvar = rng.uniform(-3, 1, 1).astype(np.float32)
    sizes = {"rows": rows, "inputs": inputs, "outputs": outputs}
    parts = (rows, tiles(outputs))
    results = k.run("output_gaussian", {"x": x, **stored, "b": b, "target": target, "logvar": logvar, **sizes},
                    {"doutput": (rows, outputs), "nll_parts": parts, "dlogvar_parts": parts})  # fmt: skip
    mean, s, target = x @ W + b, double(logvar), double(target)
    dmean, dlogvar = gaussian_nll_backward(1 / rows, mean, s, target)
    assert_within(results["doutput"], dmean, (ULP + 3) * EPS * np.abs(dmean))  # the residual is exact
    nll, size = gaussian_terms(mean, s, target)
    assert_within(results["nll_parts"], in_tiles(nll, TILE), (ULP + 10) * EPS * in_tiles(size, TILE))
    size = (np.abs(dlogvar) + 1 / rows) * (ULP + 10)
    assert_within(results["dlogvar_parts"], in_tiles(dlogvar, TILE), EPS * in_tiles(size, TILE))


def check_output_gaussian_predicted(k: Kernels, rng: Generator, rows: int, inputs: int, outputs: int) -> None:
    x, target = eighths(rng, rows, inputs), eighths(rng, rows, outputs)
    W, b = eighths(rng, inputs, 2 * outputs), eighths(rng, 2 * outputs)
    W[:, outputs:] /= 8
    sizes = {"rows": rows, "inputs": inputs, "outputs": outputs}
    results = k.run("output_gaussian_predicted", {"x": x, "W": W, "b": b, "target": target, **sizes},
                    {"doutput": (rows, 2 * outputs), "nll_parts": (rows, tiles(outputs, PAIR))})  # fmt: skip
    output, target = double(x) @ W + b, double(target)
    mean, logvar = output[:, :outputs], output[:, outputs:]
    dmean, dlogvar = gaussian_nll_backward(1 / rows, mean, logvar, target)
    assert_within(results["doutput"][:, :outputs], dmean, (ULP + 3) * EPS * np.abs(dmean))
    assert_within(results["doutput"][:, outputs:], dlogvar, (ULP + 5) * EPS * (np.abs(dlogvar) + 1 / rows))
    nll, size = gaussian_terms(mean, logvar, target)
    assert_within(results["nll_parts"], in_tiles(nll, PAIR), (ULP + 9) * EPS * in_tiles(size, PAIR))


# ------------------------------------------------------------------------------------------------------------- backward


def check_layer_backward(
    k: Kernels, rng: Generator, rows: int, inputs: int, outputs: int,
    activation: str = "linear", transposed: int = 0, padding: int = 0,
) -> None:  # fmt: skip
    dy = eighths(rng, rows, outputs)
    W, stored = weight(rng, inputs, outputs, transposed, padding)
    f = ACTIVATIONS[activation]  # one whose slope is said by y
    y = f.forward(2 * eighths(rng, rows, inputs))  # 0 among them
    sizes = {"rows": rows, "inputs": inputs, "outputs": outputs, "activation": ACTIVATION_NAMES.index(activation)}
    dx = k.run("layer_backward", {"dy": dy, **stored, "y": y, **sizes}, {"dx": (rows, inputs)})["dx"]
    product = dy @ W.T
    bound = (ULP + 3) * EPS * np.abs(product)  # a slope of at most 1 comes from numbers of at most 1
    assert_within(dx, f.backward(product, double(y)), 0 if activation in ("linear", "relu") else bound)


def check_latent_backward(
    k: Kernels, rng: Generator, rows: int, latent: int, outputs: int,
    free_bits: float = 0.0, transposed: int = 0, padding: int = 0, batch: int = 0,
) -> None:  # fmt: skip
    dy, head, eps = eighths(rng, rows, outputs), 2 * eighths(rng, rows, 2 * latent), eighths(rng, rows, latent)
    W, stored = weight(rng, latent, outputs, transposed, padding)
    kl = np.abs(eighths(rng, rows, latent))  # eighths: a mean of them is right at the allowance, or far from it
    state, schedule = clock(rng, rows, batch)
    arguments = {"dy": dy, **stored, "head": head, "eps": eps, "kl": kl, "state": state, "schedule": schedule}
    sizes = {"rows": rows, "latent": latent, "outputs": outputs, "free_bits": free_bits}
    dhead = k.run("latent_backward", {**arguments, **sizes}, {"dhead": (rows, 2 * latent)})["dhead"]
    beta = float(schedule[batch, 0])
    dkl: Any = gaussian.free_bits_backward(beta, double(kl), free_bits) if free_bits > 0 else beta / rows
    dz, mu, logvar = dy @ W.T, double(head[:, :latent]), double(head[:, latent:])
    _, through_z = gaussian.reparameterize_backward(dz, logvar, eps)
    dmu_from_kl, dlogvar_from_kl = gaussian.kl_backward(dkl, mu, logvar)
    assert_within(dhead[:, :latent], dz + dmu_from_kl, 4 * EPS * (np.abs(dz) + np.abs(dmu_from_kl)))
    bound = (ULP + 4) * EPS * (np.abs(through_z) + np.abs(dlogvar_from_kl))
    assert_within(dhead[:, latent:], through_z + dlogvar_from_kl, bound)


# -------------------------------------------------------------------------------------------------- weights and the end


def check_adam(
    before: dict[str, np.ndarray], after: dict[str, Any], g: np.ndarray, step: float, epsilon: float
) -> None:
    """p, m and v after a step with the gradient g; each from what the kernel made of the others."""
    p, m, v, g = double(before["p"]), double(before["m"]), double(before["v"]), double(g)
    new_m, new_v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
    assert_within(after["m"], new_m, EPS * (np.abs(new_m) + 2 * (1 - BETA1) * (np.abs(g) + np.abs(m))))
    assert_within(after["v"], new_v, EPS * (new_v + 2 * (1 - BETA2) * (g * g + v)))
    update = step * double(after["m"]) / (np.sqrt(double(after["v"])) + epsilon)
    assert_within(after["p"], p - update, EPS * (np.abs(p - update) + 2 * np.abs(update)))


def moments(rng: Generator, size: int) -> dict[str, np.ndarray]:
    """p, m and v; a part of v is 0, as before the first step: then epsilon counts, and every digit of 1 - beta2."""
    numbers = rng.standard_normal((3, size), dtype=np.float32)
    return {"p": numbers[0], "m": numbers[1], "v": np.where(rng.random(size) < 0.5, np.float32(0), np.abs(numbers[2]))}


Layer = tuple[int, int, int, int]  # inputs, outputs, has_bias, columns2 (of a tied decoder's share; 0: there is none)


def check_weights_and_adam(
    k: Kernels, rng: Generator, rows: int, layers: Sequence[Layer], with_g: bool = True, batch: int = 0
) -> None:
    groups, arrays, expected = [], [], []
    offset, first_block = 3, 0  # three parameters that no group has, and two more at the end
    for inputs, outputs, has_bias, columns2 in layers:
        x, x2 = np.full((2, rows, inputs + 2), np.nan, np.float32)  # rows with two NaN more
        dy, dy2 = np.full((2, rows, outputs + 1), np.nan, np.float32)
        x[:, :inputs], dy[:, :outputs] = eighths(rng, rows, inputs), eighths(rng, rows, outputs)
        x2[:, :inputs], dy2[:, :columns2] = eighths(rng, rows, inputs), eighths(rng, rows, columns2)
        dW = np.zeros((inputs + has_bias, outputs))
        dW[:inputs] = double(x[:, :inputs]).T @ dy[:, :outputs]
        dW[:inputs, :columns2] += double(x2[:, :inputs]).T @ dy2[:, :columns2]
        dW[inputs:] = double(dy[:, :outputs]).sum(axis=0)
        second = (x2.ctypes.data, inputs + 2, dy2.ctypes.data, outputs + 1, columns2) if columns2 else (0, 0, 0, 0, 0)
        groups.append([offset, inputs, outputs, has_bias, x.ctypes.data if inputs else 0, inputs + 2, dy.ctypes.data,
                       outputs + 1, *second, first_block])  # fmt: skip
        arrays += [x, dy, x2, dy2]
        expected.append(dW.ravel())
        offset += dW.size
        first_block += group_blocks(inputs, outputs, has_bias)
    before = moments(rng, offset + 2)
    state, schedule = clock(rng, rows, batch)
    table = np.array(groups, np.int64).reshape(-1, len(GROUP))
    sizes = {"group_count": len(groups), "block_count": first_block, "rows": rows}
    after = k.run("weights_and_adam", {"groups": table, "state": state, "schedule": schedule, **sizes},
                  {**before, "g": (offset + 2,) if with_g else None})  # fmt: skip
    mine, g = slice(3, offset), np.concatenate(expected)
    if with_g:
        assert np.array_equal(after["g"][mine], g)
        assert np.all(np.isnan(after["g"][[0, 1, 2, -2, -1]]))
    step, epsilon = float(schedule[batch, 1]), float(schedule[batch, 2])
    check_adam({n: a[mine] for n, a in before.items()}, {n: after[n][mine] for n in "pmv"}, g, step, epsilon)
    for name in "pmv":
        assert np.array_equal(after[name][[0, 1, 2, -2, -1]], before[name][[0, 1, 2, -2, -1]])


def check_finish_step(
    k: Kernels, rng: Generator, rows: int, latent: int, part_count: int,
    free_bits: float = 0.0, learned: bool = False, with_g: bool = True, batch: int = 0,
) -> None:  # fmt: skip
    parts, dparts = rng.standard_normal((2, rows, part_count), dtype=np.float32) + np.float32(1)
    kl = np.abs(rng.standard_normal((rows, latent), dtype=np.float32))
    state, schedule = clock(rng, rows, batch)
    arguments = {"nll_parts": parts, "part_count": part_count, "kl": kl, "schedule": schedule, "free_bits": free_bits}
    shared: dict[str, Any] = moments(rng, 1) if learned else dict.fromkeys("pmv")
    ring = np.full((UPDATES, 3), np.nan, np.float32)
    results = k.run(
        "finish_step",
        {**arguments, "dlogvar_parts": dparts if learned else None, "rows": rows, "latent": latent},
        {"ring": ring, "state": state, "logvar": shared["p"], "logvar_m": shared["m"], "logvar_v": shared["v"],
         "logvar_g": (1,) if learned and with_g else None},
    )  # fmt: skip
    adds = rows * part_count // 256 + 1 + 5 + 8  # of a thread, of the lanes of a warp, of the warps
    nll, size = double(parts).sum() / rows, np.abs(double(parts)).sum() / rows
    kl_adds = rows // 32 + 1 + 5 + latent // 8 + 1 + 8
    kl_mean = double(kl).sum() / rows
    charged = gaussian.free_bits_forward(double(kl), free_bits).sum() if free_bits > 0 else kl_mean
    beta, step, epsilon = (float(number) for number in schedule[batch, :3])
    expected = [nll + beta * charged, nll, kl_mean]
    bounds = EPS * np.array([adds * size + (kl_adds + 3) * beta * charged + size, adds * size, kl_adds * kl_mean])
    assert_within(results["ring"][batch], expected, bounds)
    assert np.all(np.isnan(np.delete(results["ring"], batch, axis=0)))
    assert np.array_equal(results["state"], [batch + 1, *state[1:]])
    if learned:
        g = double(dparts).sum(keepdims=True).ravel()
        if with_g:
            assert_within(results["logvar_g"], g, adds * EPS * np.abs(double(dparts)).sum())
            g = results["logvar_g"]
        after = {"p": results["logvar"], "m": results["logvar_m"], "v": results["logvar_v"]}
        if with_g:
            check_adam({n: shared[n] for n in "pmv"}, after, g, step, epsilon)


# ------------------------------------------------------------------------------------------------------------- rounding


def check_rounding(k: Kernels, rng: Generator, rows: int, inputs: int, outputs: int) -> None:
    """With ordinary numbers: as many roundings as there are terms, and in tf32 those of the factors to 11 bits."""
    x, W = (rng.standard_normal(shape, dtype=np.float32) for shape in ((rows, inputs), (inputs, outputs)))
    b = np.zeros(outputs, np.float32)
    sizes = {"rows": rows, "inputs": inputs, "outputs": outputs, "activation": 0}
    weight = {"W": W, "ldw": outputs, "transposed": 0}
    y = k.run("layer_forward", {"x": x, **weight, "b": b, **sizes}, {"y": (rows, outputs)})["y"]
    per_factor = 2.0**-11 if k.tf32 else 0.0
    bound = (2 * per_factor + per_factor**2 + (inputs + 1) * EPS) * (np.abs(double(x)) @ np.abs(double(W)))
    assert_within(y, double(x) @ double(W), bound)
    if k.tf32 and rows * outputs > 100:  # among so many numbers, some have lost digits: the factors were rounded
        assert np.max(np.abs(y - double(x) @ double(W)) / bound) > 0.01


Check = Callable[..., None]
ALL_CHECKED = {name.removeprefix("check_") for name in globals() if name.removeprefix("check_") in KERNELS}
