"""The kernels for CuPy against the readable ones in float64, on the stand-in: the CUDA source, run on the CPU.

Outputs and scratch start as NaN and lie between guards of NaN, so what is left unwritten, or written beside, shows.
"""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import fake_cuda
import numpy as np
import pytest
from cases import build, inputs, step
from fake_cupy import DeviceArray, FakeCupy
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import FACTORS, SEEDS, ULP, assert_within, eps_of, normals, numbers, sizes

from tinyvae.checking.models import CASES, ROWS, ModelCase
from tinyvae.kernels import cupy_fused, reference, work_size
from tinyvae.kernels.cuda.launch import Launcher, launcher
from tinyvae.kernels.cuda.table import ACTIVATION_NAMES, KERNELS
from tinyvae.ops import adam
from tinyvae.ops.activations import ACTIVATIONS

EPS = eps_of("float32")
GUARD = 64
ACTIVATION = st.sampled_from(list(ACTIVATIONS))


@pytest.fixture(scope="module", autouse=True)
def fake() -> Iterator[FakeCupy]:
    """One stand-in for the module: Hypothesis runs a test many times in one."""
    with pytest.MonkeyPatch.context() as patch:
        fake_cuda.clock.reset()
        cupy = FakeCupy()
        patch.setitem(sys.modules, "cupy", cupy)
        yield cupy


def device(*arrays: np.ndarray) -> list[DeviceArray]:
    return [DeviceArray(a.copy()) for a in arrays]


def doubled(*arrays: np.ndarray) -> list[np.ndarray]:
    return [a.astype(np.float64) for a in arrays]


def empty64(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [np.full(shape, np.nan) for shape in shapes]


class Guarded:
    """Device arrays of NaN, each between two guards."""

    def __init__(self, *shapes: Any) -> None:
        self.all = [np.full(int(np.prod(shape)) + 2 * GUARD, np.nan, np.float32) for shape in shapes]
        self.arrays = [
            DeviceArray(a[GUARD : a.size - GUARD].reshape(shape)) for a, shape in zip(self.all, shapes, strict=True)
        ]

    def results(self) -> list[np.ndarray]:
        """What was written, once the guards are seen to be whole."""
        for a in self.all:
            assert np.isnan(a[:GUARD]).all()
            assert np.isnan(a[-GUARD:]).all()
        return [a._host for a in self.arrays]


# -------------------------------------------------------------------------------------------------------- the contract


def public_functions(module: Any) -> dict[str, Any]:
    return {name: f for name, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__}


def test_the_functions_are_those_of_the_reference_with_the_same_signatures() -> None:
    expected = {name: inspect.signature(f) for name, f in public_functions(reference).items()}
    assert {name: inspect.signature(f) for name, f in public_functions(cupy_fused).items()} == expected


def test_the_activations_are_those_of_the_operations() -> None:
    assert set(ACTIVATION_NAMES) == set(ACTIVATIONS)


# --------------------------------------------------------------------------------------------------------------- dense


@given(SEEDS, sizes(3), ACTIVATION, st.booleans(), numbers(0.1, 4.0))
@example(0, (1, 2, 3), "elu", True, 4.0)
@example(0, (40, 5, 30), "softplus", False, 1.0)
def test_dense_forward(seed: int, shape: Any, activation: str, tied: bool, scale: float) -> None:
    rows, fan_in, fan_out = shape
    x, W, V, b = normals(
        seed, (rows, fan_in), (fan_in, fan_out), (fan_out, 2 * fan_in), (fan_out,), dtype="float32", scale=scale
    )
    out = Guarded((rows, fan_out), work_size(rows, fan_out))
    x_, W_, V_, b_ = device(x, W, V, b)
    cupy_fused.dense_forward(x_, V_[:, :fan_in].T if tied else W_, b_, activation, y=out.arrays[0], work=out.arrays[1])
    W = V[:, :fan_in].T if tied else W
    (expected,) = empty64((rows, fan_out))
    x64, W64, b64 = doubled(x, W, b)
    reference.dense_forward(x64, W64, b64, activation, y=expected, work=expected)
    # a sum of fan_in + 1 terms; activations have slopes of at most 1, and add at most 3 ULP of 1 + |a|
    bound = ((fan_in + 2) + 6 * ULP) * EPS * (np.abs(x) @ np.abs(W) + np.abs(b) + 1)
    assert_within(out.results()[0], expected, bound)


@given(SEEDS, sizes(3), ACTIVATION, st.booleans(), st.booleans())
@example(0, (1, 2, 3), "relu", True, True)
@example(0, (40, 5, 30), "sigmoid", False, False)
def test_dense_backward(seed: int, shape: Any, activation: str, tied: bool, needs_dx: bool) -> None:
    rows, fan_in, fan_out = shape
    x, W, V = normals(seed, (rows, fan_in), (fan_in, fan_out), (fan_out, 2 * fan_in), dtype="float32")
    a, dy = normals(seed + 1, (rows, fan_out), (rows, fan_out), dtype="float32")
    y = ACTIVATIONS[activation][0](a)
    out = Guarded((rows, fan_in), (fan_in, fan_out), (fan_out,), work_size(rows, fan_out))
    dy_, x_, W_, V_, y_ = device(dy, x, W, V, y)
    dx, dW, db, work = out.arrays
    W_ = V_[:, :fan_in].T if tied else W_
    cupy_fused.dense_backward(dy_, x_, W_, y_, activation, dx=dx if needs_dx else None, dW=dW, db=db, work=work)
    W = V[:, :fan_in].T if tied else W
    expected = empty64((rows, fan_in), (fan_in, fan_out), (fan_out,))
    dx64, dW64, db64 = expected
    dy64, x64, W64, y64 = doubled(dy, x, W, y)
    reference.dense_backward(dy64, x64, W64, y64, activation, dx=dx64, dW=dW64, db=db64, work=dx64)
    da = np.abs(dy)  # da has at most ULP + 3 roundings of |dy| (slopes are at most 1), then come sums of products
    terms = [fan_out, rows, rows]
    magnitudes = [da @ np.abs(W).T, np.abs(x).T @ da, da.sum(0)]
    results = out.results()
    assert needs_dx or np.isnan(results[0]).all()
    for i in range(0 if needs_dx else 1, 3):
        assert_within(results[i], expected[i], (terms[i] + ULP + 4) * EPS * magnitudes[i])
    assert np.array_equal(x_._host, x)
    assert np.array_equal(W_._host, W)


def test_an_unknown_activation_is_an_error_before_anything_is_written() -> None:
    out = Guarded((1, 1), 9)
    one = device(np.ones((1, 1), np.float32))[0]
    with pytest.raises(KeyError, match="swish"):
        cupy_fused.dense_forward(one, one, one[0], "swish", y=out.arrays[0], work=out.arrays[1])
    with pytest.raises(KeyError, match="swish"):
        cupy_fused.dense_backward(one, one, one, one, "swish", dx=None, dW=one, db=one[0], work=out.arrays[1])
    assert np.isnan(out.results()[0]).all()
    assert one._host == 1


# -------------------------------------------------------------------------------------------------------------- latent


@given(SEEDS, sizes(2), numbers(0.1, 3.0))
@example(0, (1, 2), 3.0)
@example(0, (70, 5), 1.0)
def test_latent_forward_and_backward(seed: int, shape: Any, scale: float) -> None:
    rows, latent = shape
    (head,) = normals(seed, (rows, 2 * latent), dtype="float32", scale=scale)
    eps, dz, dkl = normals(seed + 1, shape, shape, (latent,), dtype="float32")
    out = Guarded(shape, shape, (rows, 2 * latent), work_size(rows, 2 * latent))
    z, kl, dhead, work = out.arrays
    head_, eps_, dz_, dkl_ = given_ = device(head, eps, dz, dkl)
    cupy_fused.latent_forward(head_, eps_, z=z, kl=kl, work=work)
    cupy_fused.latent_backward(dz_, head_, eps_, dkl_, dhead=dhead, work=work)
    assert all(np.array_equal(a._host, b) for a, b in zip(given_, (head, eps, dz, dkl), strict=True))
    head, eps, dz, dkl = doubled(head, eps, dz, dkl)
    z64, kl64, dhead64 = expected = empty64(shape, shape, (rows, 2 * latent))
    reference.latent_forward(head, eps, z=z64, kl=kl64, work=z64)
    reference.latent_backward(dz, head, eps, dkl, dhead=dhead64, work=z64)
    mu, logvar = np.abs(head[:, :latent]), head[:, latent:]
    sigma, variance, noise, weight = np.exp(logvar / 2), np.exp(logvar), np.abs(eps), np.abs(dkl)
    # each result has at most 2 exponentials (of an argument that is rounded: + |logvar|) and 6 other roundings
    roundings = (2 * ULP + 6 + np.abs(logvar)) * EPS
    results = out.results()
    assert_within(results[0], expected[0], roundings * (mu + sigma * noise))
    assert_within(results[1], expected[1], roundings * (mu * mu + variance + 1 + np.abs(logvar)))
    assert_within(results[2][:, :latent], dhead64[:, :latent], roundings * (np.abs(dz) + weight * mu))
    bound = roundings * (np.abs(dz) * noise * sigma + weight * (variance + 1))
    assert_within(results[2][:, latent:], dhead64[:, latent:], bound)


# --------------------------------------------------------------------------------------------------------- likelihoods

LOSS_SHAPES = st.one_of(sizes(2), st.sampled_from([(3, 256), (2, 257), (1, 700), (300, 2)]))


@given(SEEDS, LOSS_SHAPES, st.booleans(), FACTORS)
@example(0, (2, 784), True, 0.01)
@example(0, (1, 3), False, 0.0)
def test_bernoulli_loss(seed: int, shape: Any, with_gradient: bool, dnll: float) -> None:
    rows, data = shape
    rng = np.random.default_rng(seed)
    logits, x = (5 * rng.standard_normal(shape)).astype("f4"), rng.random(shape).astype("f4")
    out = Guarded(rows, shape, work_size(rows, data))
    nll, dlogits, work = out.arrays
    logits_, x_ = device(logits, x)
    cupy_fused.bernoulli_loss(logits_, x_, dnll, nll=nll, dlogits=dlogits if with_gradient else None, work=work)
    nll64, dlogits64 = empty64((rows,), shape)
    logits64, x64 = doubled(logits, x)
    reference.bernoulli_loss(logits64, x64, dnll, nll=nll64, dlogits=dlogits64, work=nll64)
    # a thread adds every 256th term, then come 5 additions between lanes and 8 between warps
    depth = data / 256 + 14
    magnitude = (1 + np.abs(logits) * (1 + x)).astype(float).sum(axis=1)
    results = out.results()
    assert_within(results[0], nll64, (2 * ULP + 4 + depth) * EPS * magnitude)
    if with_gradient:
        assert_within(results[1], dlogits64, (ULP + 4) * EPS * abs(dnll))
    else:
        assert np.isnan(results[1]).all()


@given(SEEDS, sizes(2), st.sampled_from(["fixed", "learned", "predicted"]), st.booleans(), FACTORS)
@example(0, (1, 2), "predicted", True, 1.0)
@example(0, (3, 300), "learned", True, 1.0)
@example(0, (3, 300), "predicted", True, 0.01)
def test_gaussian_loss(seed: int, shape: Any, sigma: str, with_gradient: bool, dnll: float) -> None:
    rows, data = shape
    output, shared, x = normals(seed, (rows, 2 * data), (1,), shape, dtype="float32")
    halves = sigma == "predicted"  # mean and logvar are the halves of one output, their gradients those of another
    output = output if halves else output[:, :data].copy()
    out = Guarded(rows, output.shape, 1, work_size(rows, 2 * data))
    nll, doutput, dshared, work = out.arrays
    output_, shared_, x_ = device(output, shared, x)
    dlogvar = {"fixed": None, "learned": dshared, "predicted": doutput[:, data:]}[sigma] if with_gradient else None
    cupy_fused.gaussian_loss(
        output_[:, :data], output_[:, data:] if halves else shared_, x_, dnll,
        nll=nll, dmean=doutput[:, :data] if with_gradient else None, dlogvar=dlogvar, work=work,
    )  # fmt: skip
    mean, logvar, x = doubled(output[:, :data], output[:, data:] if halves else shared, x)
    nll64, dmean64, dlogvar64 = empty64((rows,), shape, shape if halves else (1,))
    reference.gaussian_loss(mean, logvar, x, dnll, nll=nll64, dmean=dmean64, dlogvar=dlogvar64, work=nll64)
    precision, depth = np.exp(-logvar), data / 256 + 14
    # (x - m)^2 e^-s has 2 (1 + 1) + ULP + |s| roundings and 2 more; the others come as they are
    each = (np.abs(x) + np.abs(mean)) ** 2 * precision + np.abs(logvar) + 2
    roundings = (2 * ULP + 8 + np.abs(logvar)) * EPS
    results = out.results()
    assert_within(results[0], nll64, ((roundings + depth * EPS) * each).sum(axis=1))
    if with_gradient:
        slope = (np.abs(x) + np.abs(mean)) * precision
        assert_within(results[1][:, :data], dmean64, roundings * abs(dnll) * slope)
    if with_gradient and sigma == "predicted":
        assert_within(results[1][:, data:], dlogvar64, roundings * abs(dnll) * each)
    if with_gradient and sigma == "learned":
        bound = ((roundings + (depth + rows) * EPS) * abs(dnll) * each).sum()
        assert_within(results[2], dlogvar64, bound)


# --------------------------------------------------------------------------------------------------- over flat buffers

FLAT = st.one_of(st.integers(1, 40), st.sampled_from([255, 256, 257]))


@given(SEEDS, FLAT, st.integers(1, 100_000), numbers(1e-5, 1.0), numbers(-6.0, 2.0))
@example(0, 1024 * 256 + 3, 1, 1e-3, -3.0)  # more numbers than threads
@example(0, 257, 1, 1.0, -6.0)
def test_adam_step(seed: int, size: int, t: int, lr: float, exponent: float) -> None:
    p, g, m, v = normals(seed, (size,), (size,), (size,), (size,), dtype="float32")
    unit = np.float32(10.0**exponent)
    g, m, v = g * unit, m * unit, (v * unit) ** 2
    p_, g_, m_, v_ = device(p, g, m, v)
    cupy_fused.adam_step(p_, g_, m_, v_, t, lr, work=Guarded(9).arrays[0])
    assert np.array_equal(g_._host, g)
    p, g, m, v = doubled(p, g, m, v)
    p64, m64, v64 = adam.adam_step(p, g, m, v, t, lr)
    step_m, step_v = np.abs(m) + np.abs(g), v + g * g
    assert_within(m_._host, m64, 3 * EPS * step_m)
    assert_within(v_._host, v64, 4 * EPS * step_v)
    # the step is lr m^ / (sqrt(v^) + epsilon): m with 3 roundings of |m| + |g| (it may cancel), the root of v with half
    # of 4 of v + g^2 >= v_new, over v_new itself, and 8 more
    c1, c2 = 1 - 0.9**t, 1 - 0.999**t
    root = np.sqrt(v64 / c2) + 1e-8
    lost = 3 + 2 * step_v / np.maximum(v64, 1e-300) + 8
    assert_within(p_._host, p64, EPS * (np.abs(p) + lr * step_m / c1 / root * lost + np.abs(p - p64)))


@given(SEEDS, FLAT, numbers(-3.0, 3.0))
def test_squared_norm_and_clip(seed: int, size: int, log_max: float) -> None:
    (g,) = normals(seed, (size,), dtype="float32")
    out = Guarded(())
    g_ = device(g)[0]
    cupy_fused.squared_norm(g_, out=out.arrays[0])
    cupy_fused.clip(g_, out.arrays[0], 10.0**log_max)
    norm2 = (g.astype(float) ** 2).sum()
    assert_within(out.results()[0], norm2, (size + 1) * EPS * norm2)
    factor = min(1.0, 10.0**log_max / np.sqrt(norm2))
    assert_within(g_._host, g * factor, (size + 6) * EPS * np.abs(g) * factor)


# ------------------------------------------------------------------------------------------------------------- batches


@given(SEEDS, sizes(3), st.sampled_from(["uint8", "float32"]))
@example(0, (9, 300, 4), "uint8")
def test_gather(seed: int, shape: Any, stored: str) -> None:
    total, data, batch = shape
    rng = np.random.default_rng(seed)
    scale = 1 / 255 if stored == "uint8" else 1.0
    rows = rng.integers(0, total, batch)
    table = rng.integers(0, 256, (total, data)).astype(stored)
    out = Guarded((batch, data))
    table_, rows_, raw = device(table, rows, np.zeros((batch, data), stored))
    cupy_fused.gather(table_, rows_, scale, x=out.arrays[0], raw=raw)
    expected = table.astype(float)[rows] * scale
    assert_within(out.results()[0], expected, 2 * EPS * expected)


@given(SEEDS, sizes(2))
@example(0, (3, 100))
def test_binarize(seed: int, shape: Any) -> None:
    x, u = np.random.default_rng(seed).random((2, *shape)).astype("f4")
    x.flat[0], x.flat[-1] = 0, 1  # never and always 1, whatever u in [0, 1) is
    u = np.minimum(u, 1 - EPS).astype("f4")
    drawn, u_ = device(x, u)
    cupy_fused.binarize(drawn, u_)
    assert np.array_equal(drawn._host, np.where(u < x, 1, 0))


# --------------------------------------------------------------------------------------------------------- the launcher

ONES = {"x": np.ones(3, np.float32), "u": np.zeros(3, np.float32)}


def ones(**changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {name: device(a)[0] for name, a in ONES.items()} | {"size": 3} | changes
    return {name: value for name, value in arguments.items() if value is not ...}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"x": DeviceArray(np.ones(3))}, "binarize: x must be float32, not float64"),
        ({"u": DeviceArray(np.ones(6, np.float32)[::2])}, "binarize: u must be contiguous"),
        ({"u": ...}, "binarize lacks arguments, or has too many: u"),
        ({"rows": 1}, "binarize lacks arguments, or has too many: rows"),
    ],
)
def test_the_launcher_refuses_wrong_arguments(fake: FakeCupy, changes: Any, named: str) -> None:
    before = len(fake_cuda.clock.launches)
    with pytest.raises(TypeError, match=named):
        launcher(fake).launch("binarize", **ones(**changes))
    assert len(fake_cuda.clock.launches) == before


def test_the_launcher_is_made_once_and_tf32_is_another(fake: FakeCupy) -> None:
    assert launcher(fake) is launcher(fake)
    assert launcher(fake, tf32=True) is not launcher(fake)
    assert set(Launcher(fake).functions) == set(KERNELS)


def test_a_number_too_large_for_32_bits_is_refused(fake: FakeCupy) -> None:
    with pytest.raises(OverflowError):
        launcher(fake).launch("binarize", **ones(size=2**31))


def test_no_kernel_waits_for_the_device_or_copies(fake: FakeCupy) -> None:
    """Each function on well-formed arguments; the stand-in refuses a hidden copy, and counts the others."""
    x, W, b = device(np.ones((4, 3), "f4"), np.ones((3, 2), "f4"), np.ones(2, "f4"))
    y, dx, dW, db, work = Guarded((4, 2), (4, 3), (3, 2), 2, 99).arrays
    fake.reset_copies()
    fake_cuda.clock.synchronizations = 0
    cupy_fused.dense_forward(x, W, b, "tanh", y=y, work=work)
    cupy_fused.dense_backward(y, x, W, y, "tanh", dx=dx, dW=dW, db=db, work=work)
    fake_cuda.clock.operations.clear()
    cupy_fused.dense_forward(x, W, b, "tanh", y=y, work=work)
    cupy_fused.dense_backward(y, x, W, y, "tanh", dx=dx, dW=dW, db=db, work=work)
    assert fake_cuda.clock.operations == ["calling cuBLAS API", "calling cuBLAS API", "cupy.sum", "calling cuBLAS API"]
    assert (fake.host_copies, fake.device_copies, fake_cuda.clock.synchronizations) == (0, 0, 0)


# ------------------------------------------------------------------------------------------------------- whole models


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_whole_models_losses_and_gradients(fake: FakeCupy, case: ModelCase) -> None:
    """In float32 beside the readable kernels in float64; a number has at most some hundred roundings behind it."""
    truth = build(case, dtype="float64", kernels="reference")
    model = build(case, backend="cupy")
    assert model.kernels is cupy_fused
    rng = np.random.default_rng(0)
    weights = (truth.params.flat + 0.2 * rng.standard_normal(truth.params.flat.shape)).astype("f4")
    truth.params.flat[...] = weights
    model.params.flat[...] = fake.asarray(weights)
    moments = [fake.zeros(weights.size, "float32") for _ in range(2)]
    for t, rows in enumerate([5, ROWS, 3], start=1):  # the buffers are made, made larger, and used again
        x, eps, y = inputs(case, rows, seed=t)
        x, eps = x.astype("f4"), eps.astype("f4")
        x_, eps_, y_ = fake.asarray(x), fake.asarray(eps), None if y is None else fake.asarray(y)
        fake.reset_copies()
        losses = step(model, case, x_, eps_, y_)
        assert (fake.host_copies, fake.device_copies) == (0, 0)
        expected = step(truth, case, x.astype(float), eps.astype(float), y)
        assert_within(losses._host, expected, 256 * EPS * (np.abs(expected).max() + 1))
        for name, g in truth.grads.items():
            assert_within(model.grads[name]._host, g, 256 * EPS * (np.abs(g).max() + 1))
        model.kernels.adam_step(model.params.flat, model.grads.flat, *moments, t, 1e-3, work=model.work)
        truth.params.flat[...] = model.params.flat._host
