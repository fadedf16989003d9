"""Every fused kernel against the readable one: the same signatures, and the same numbers from poisoned buffers.

Outputs and scratch start as NaN, so whatever a kernel reads before writing, or leaves unwritten, shows. A guard of NaN
lies behind the scratch, so whatever it writes beyond `work_size` shows as well.
"""

import importlib
import inspect
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import EVERY_FUSED, FACTORS, SEEDS, ULP, assert_within, eps_of, normals, numbers, sizes

from tinyvae import kernels as kernel_files
from tinyvae.backend import get_backend
from tinyvae.kernels import numpy_fused, reference, work_size
from tinyvae.ops.activations import ACTIVATIONS

BACKEND = get_backend("numpy")
FILES = {name: kernel_files.select(name, BACKEND)[1] for name in EVERY_FUSED}
# (file, dtype): the loops that Numba compiles are in float32 alone
KINDS = [("numpy", "float32"), ("numpy", "float64")] + ([("numba", "float32")] if "numba" in FILES else [])
KIND, EXAMPLES = st.sampled_from(KINDS), KINDS[::2]
ACTIVATION = st.sampled_from(list(ACTIVATIONS))
EVERY_FILE = (reference, *FILES.values())
GUARD = 64


def poisoned(shape: Any, dtype: str) -> np.ndarray:
    return np.full(shape, np.nan, dtype)


class Scratch:
    """A `work` array of exactly the promised size, followed by a guard."""

    def __init__(self, rows: int, widest: int, dtype: str) -> None:
        self.all = poisoned(work_size(rows, widest) + GUARD, dtype)
        self.work = self.all[:-GUARD]

    def assert_guard_untouched(self) -> None:
        assert np.all(np.isnan(self.all[-GUARD:]))


def public_functions(module: Any) -> dict[str, Any]:
    return {
        name: f
        for name, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__.startswith("tinyvae.kernels.") and not name.startswith("_")
    }


# -------------------------------------------------------------------------------------------------------- the contract


def test_numba_is_tested_where_it_is_installed() -> None:
    if "numba" not in FILES:
        pytest.skip("Numba is not installed, so its kernels were not compared: python -m pip install 'tinyvae[numba]'")
    assert FILES["numba"].__name__ == "tinyvae.kernels.numba_fused"


@pytest.mark.parametrize("name", FILES)
def test_every_kernels_file_has_the_functions_of_the_reference_with_the_same_signatures(name: str) -> None:
    expected = {f: inspect.signature(function) for f, function in public_functions(reference).items()}
    assert len(expected) >= 9
    found = {f: inspect.signature(function) for f, function in public_functions(FILES[name]).items()}
    found.pop("announce_compilation", None)  # Numba's own
    assert found == expected


@pytest.mark.parametrize("module", EVERY_FILE)
def test_results_and_scratch_go_by_keyword_only(module: Any) -> None:
    for f in public_functions(module).values():
        kinds = {p.name: p.kind for p in inspect.signature(f).parameters.values()}
        for name in kinds.keys() & {
            "y",
            "z",
            "kl",
            "dhead",
            "nll",
            "dlogits",
            "dmean",
            "dx",
            "dW",
            "db",
            "out",
            "work",
        }:
            if name != "y" or f.__name__ == "dense_forward":  # dense_backward's y is what the forward left
                assert kinds[name] is inspect.Parameter.KEYWORD_ONLY, f"{f.__name__}({name})"


def test_select_gives_the_fused_kernels_where_there_are_some() -> None:
    backend = BACKEND
    assert (
        kernel_files.select(None, backend)
        == kernel_files.select("fused", backend)
        == (EVERY_FUSED[0], FILES[EVERY_FUSED[0]])
    )
    assert kernel_files.select(None, backend, "float64") == ("numpy", numpy_fused)
    assert kernel_files.select("numpy", backend) == ("numpy", numpy_fused)
    assert kernel_files.select("reference", backend) == ("reference", reference)
    with pytest.raises(ValueError, match="kernels must be one of fused, numpy, numba, cuda, reference, not 'fast'"):
        kernel_files.select("fast", backend)
    with pytest.raises(ValueError, match="the cuda kernels cannot be used here: they need the cupy backend, not numpy"):
        kernel_files.select("cuda", backend)
    with pytest.raises(ValueError, match="the numba kernels cannot be used here: they compute in float32, not float64"):
        kernel_files.select("numba", backend, "float64")


def test_select_without_numba_takes_numpys_kernels_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_files.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(kernel_files, "numba_problem", kernel_files.numba_problem.__wrapped__)  # not what it remembers
    assert kernel_files.select("fused", BACKEND) == ("numpy", numpy_fused)
    with pytest.raises(ValueError, match=r"Numba is not installed: python -m pip install 'tinyvae\[numba\]'"):
        kernel_files.select("numba", BACKEND)


def test_a_numba_that_does_not_load_leaves_numpys_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> Any:
        if name == "numba":
            raise ImportError("Numba needs NumPy 2.3 or less")
        return importlib.import_module(name)

    fake = SimpleNamespace(import_module=import_module, util=SimpleNamespace(find_spec=lambda name: name))
    monkeypatch.setattr(kernel_files, "importlib", fake)
    monkeypatch.setattr(kernel_files, "numba_problem", kernel_files.numba_problem.__wrapped__)
    assert kernel_files.select(None, BACKEND) == ("numpy", numpy_fused)
    with pytest.raises(ValueError, match=r"Numba does not load \(Numba needs NumPy 2.3 or less\): python -m pip"):
        kernel_files.select("numba", BACKEND)


@pytest.mark.parametrize("module", EVERY_FILE)
def test_an_unknown_activation_is_an_error(module: Any) -> None:
    one = np.ones((1, 1))
    with pytest.raises((ValueError, KeyError), match="swish"):
        module.dense_forward(one, one, one[0], "swish", y=one.copy(), work=np.empty(2))
    with pytest.raises((ValueError, KeyError), match="swish"):
        module.dense_backward(
            one, one, one, one.copy(), "swish", dx=None, dW=one.copy(), db=one[0].copy(), work=np.empty(2)
        )


# --------------------------------------------------------------------------------------------------------------- dense


@given(SEEDS, sizes(3), KIND, ACTIVATION, st.booleans(), numbers(0.1, 4.0))
@example(0, (1, 2, 3), EXAMPLES[-1], "elu", True, 4.0)
@example(0, (5, 1, 3), EXAMPLES[-1], "leaky-relu", False, 1.0)
@example(0, (5, 3, 1), KINDS[1], "softplus", False, 1.0)
def test_dense_forward(seed: int, shape: Any, kind: tuple[str, str], activation: str, tied: bool, scale: float) -> None:
    file, dtype = kind
    rows, fan_in, fan_out = shape
    x, W, V, b = normals(seed, (rows, fan_in), (fan_in, fan_out), (fan_out, 2 * fan_in), (fan_out,), dtype=dtype)
    W = V[:, :fan_in].T if tied else W  # a tied layer's weight: half of the encoder's head, transposed
    x *= dtype_scalar(dtype, scale)
    scratch = Scratch(rows, fan_out, dtype)
    results = []
    for module in (reference, FILES[file]):
        y = poisoned((rows, fan_out), dtype)
        module.dense_forward(x, W, b, activation, y=y, work=scratch.work)
        results.append(y)
    # two orders of a sum of fan_in + 1 terms; activations have slopes of at most 1, and add at most 3 ULP of 1 + |a|
    bound = (2 * (fan_in + 2) + 6 * ULP) * eps_of(dtype) * (np.abs(x) @ np.abs(W) + np.abs(b) + 1)
    assert_within(results[1], results[0], bound)
    scratch.assert_guard_untouched()


@given(SEEDS, sizes(3), KIND, ACTIVATION, st.booleans(), st.booleans())
@example(0, (1, 2, 3), EXAMPLES[-1], "relu", True, True)
@example(0, (4, 3, 1), EXAMPLES[-1], "sigmoid", False, False)
def test_dense_backward(
    seed: int, shape: Any, kind: tuple[str, str], activation: str, tied: bool, needs_dx: bool
) -> None:
    file, dtype = kind
    rows, fan_in, fan_out = shape
    x, W, V, a = normals(seed, (rows, fan_in), (fan_in, fan_out), (fan_out, 2 * fan_in), (rows, fan_out), dtype=dtype)
    W = V[:, :fan_in].T if tied else W
    y = ACTIVATIONS[activation][0](a)
    dy = normals(seed + 1, (rows, fan_out), dtype=dtype)[0]
    scratch = Scratch(rows, fan_out, dtype)
    results = []
    for module in (reference, FILES[file]):
        dx = poisoned((rows, fan_in), dtype) if needs_dx else None
        dW, db = poisoned((fan_in, fan_out), dtype), poisoned((fan_out,), dtype)
        module.dense_backward(dy.copy(), x, W, y.copy(), activation, dx=dx, dW=dW, db=db, work=scratch.work)
        results.append((dx, dW, db))
    # da has at most ULP + 3 roundings of |dy| (slopes are at most 1), then come sums of `terms` products
    da = np.abs(dy)
    for i, (terms, magnitude) in enumerate([(fan_out, da @ np.abs(W).T), (rows, np.abs(x).T @ da), (rows, da.sum(0))]):
        if i > 0 or needs_dx:
            bound = 2 * (terms + ULP + 4) * eps_of(dtype) * magnitude
            assert_within(results[1][i], results[0][i], bound)
    scratch.assert_guard_untouched()


def test_dense_backward_leaves_the_input_and_the_weights_alone() -> None:
    for module in EVERY_FILE:
        x, W, y, dy = normals(0, (3, 4), (4, 2), (3, 2), (3, 2))
        kept = x.copy(), W.copy()
        module.dense_backward(
            dy, x, W, y, "tanh", dx=np.empty((3, 4)), dW=np.empty((4, 2)), db=np.empty(2), work=np.empty(12)
        )
        assert np.array_equal(x, kept[0])
        assert np.array_equal(W, kept[1])


# -------------------------------------------------------------------------------------------------------------- latent


@given(SEEDS, sizes(2), KIND, numbers(0.1, 3.0))
@example(0, (1, 2), EXAMPLES[-1], 3.0)
@example(0, (2, 1), EXAMPLES[-1], 3.0)
def test_latent_forward_and_backward(seed: int, shape: Any, kind: tuple[str, str], scale: float) -> None:
    file, dtype = kind
    rows, latent = shape
    head = normals(seed, (rows, 2 * latent), dtype=dtype, scale=scale)[0]
    eps, dz = normals(seed + 1, shape, shape, dtype=dtype)
    dkl = normals(seed + 2, (latent,), dtype=dtype)[0]
    scratch = Scratch(rows, 2 * latent, dtype)
    kept = head.copy(), eps.copy(), dz.copy(), dkl.copy()
    results = []
    for module in (reference, FILES[file]):
        z, kl, dhead = poisoned(shape, dtype), poisoned(shape, dtype), poisoned(head.shape, dtype)
        module.latent_forward(head, eps, z=z, kl=kl, work=scratch.work)
        module.latent_backward(dz, head, eps, dkl, dhead=dhead, work=scratch.work)
        results.append((z, kl, dhead[:, :latent], dhead[:, latent:]))
    assert all(np.array_equal(a, b) for a, b in zip((head, eps, dz, dkl), kept, strict=True))
    mu, logvar = np.abs(head[:, :latent]), head[:, latent:]
    sigma, variance, noise, weight = np.exp(logvar / 2), np.exp(logvar), np.abs(eps), np.abs(dkl)
    # each result has at most 2 exponentials and 6 other roundings of these terms, on both sides
    roundings = 2 * (2 * ULP + 6) * eps_of(dtype)
    assert_within(results[1][0], results[0][0], roundings * (mu + sigma * noise))
    assert_within(results[1][1], results[0][1], roundings * (mu * mu + variance + 1 + np.abs(logvar)))
    assert_within(results[1][2], results[0][2], roundings * (np.abs(dz) + weight * mu))
    assert_within(results[1][3], results[0][3], roundings * (np.abs(dz) * noise * sigma + weight * (variance + 1)))
    scratch.assert_guard_untouched()


# --------------------------------------------------------------------------------------------------------- likelihoods

LOSS_SHAPES = st.one_of(
    sizes(2),
    st.sampled_from([(75, 900), (37, 1024), (2, 65539), (1, 65536)]),  # far wider than high
)


@given(SEEDS, LOSS_SHAPES, KIND, st.booleans(), FACTORS)
@example(0, (75, 900), EXAMPLES[-1], True, 0.01)
@example(0, (2, 32771), EXAMPLES[-1], False, 0.01)
@example(0, (1, 3), EXAMPLES[-1], False, 0.0)
def test_bernoulli_loss(seed: int, shape: Any, kind: tuple[str, str], with_gradient: bool, dnll: float) -> None:
    file, dtype = kind
    rows, data = shape
    rng = np.random.default_rng(seed)
    logits, x = (5 * rng.standard_normal(shape)).astype(dtype), rng.random(shape).astype(dtype)
    scratch = Scratch(rows, data, dtype)
    kept = logits.copy(), x.copy()
    results = []
    for module in (reference, FILES[file]):
        nll, dlogits = poisoned(rows, dtype), poisoned(shape, dtype) if with_gradient else None
        module.bernoulli_loss(logits, x, dnll, nll=nll, dlogits=dlogits, work=scratch.work)
        results.append((nll, dlogits))
    assert np.array_equal(logits, kept[0])
    assert np.array_equal(x, kept[1])
    # NumPy sums pairwise in blocks of 128: a term passes at most 128 / 8 + 8 + log2(data) additions
    depth = 24 + math.ceil(math.log2(data + 1))
    magnitude = (1 + np.abs(logits) * (1 + x)).astype(float).sum(axis=1)
    assert_within(results[1][0], results[0][0], 2 * (2 * ULP + 4 + depth) * eps_of(dtype) * magnitude)
    if with_gradient:
        assert_within(results[1][1], results[0][1], 2 * (ULP + 4) * eps_of(dtype) * abs(dnll))
    scratch.assert_guard_untouched()


@given(SEEDS, sizes(2), KIND, st.sampled_from(["fixed", "learned", "predicted"]), st.booleans(), FACTORS)
@example(0, (1, 2), EXAMPLES[-1], "predicted", True, 1.0)
@example(0, (2, 1), EXAMPLES[-1], "learned", True, 1.0)
@example(0, (70, 784), EXAMPLES[-1], "predicted", True, 0.01)
def test_gaussian_loss(
    seed: int, shape: Any, kind: tuple[str, str], sigma: str, with_gradient: bool, dnll: float
) -> None:
    file, dtype = kind
    rows, data = shape
    output, shared = normals(seed, (rows, 2 * data), (1,), dtype=dtype)
    x = normals(seed + 1, shape, dtype=dtype)[0]
    # a predicted sigma: mean and logvar are the halves of one output, their gradients the halves of another
    mean, logvar = output[:, :data], output[:, data:] if sigma == "predicted" else shared
    scratch = Scratch(rows, 2 * data if sigma == "predicted" else data, dtype)
    kept = output.copy(), x.copy(), shared.copy()
    results = []
    for module in (reference, FILES[file]):
        nll, doutput, dshared = poisoned(rows, dtype), poisoned(output.shape, dtype), poisoned(1, dtype)
        dmean = doutput[:, :data] if with_gradient else None
        dlogvar = {"fixed": None, "learned": dshared, "predicted": doutput[:, data:]}[sigma] if with_gradient else None
        module.gaussian_loss(mean, logvar, x, dnll, nll=nll, dmean=dmean, dlogvar=dlogvar, work=scratch.work)
        results.append((nll, dmean, dlogvar))
    assert all(np.array_equal(a, b) for a, b in zip((output, x, shared), kept, strict=True))
    eps, depth = eps_of(dtype), 24 + math.ceil(math.log2(rows * data + 1))
    precision = np.exp(-logvar).astype(float)
    # r = (x - m) e^(-s/2) has ULP + 3 roundings, its square twice as many and one more; the others come as they are
    each = (np.abs(x) + np.abs(mean)).astype(float) ** 2 * precision + np.abs(logvar) + 2
    roundings = 2 * (2 * ULP + 8) * eps
    assert_within(results[1][0], results[0][0], (roundings + 2 * depth * eps) * each.sum(axis=1))
    if with_gradient:
        slope = (np.abs(x) + np.abs(mean)) * precision
        assert_within(results[1][1], results[0][1], roundings * abs(dnll) * slope)
    if with_gradient and sigma == "predicted":
        assert_within(results[1][2], results[0][2], roundings * abs(dnll) * each)
    if with_gradient and sigma == "learned":
        assert_within(results[1][2], results[0][2], (roundings + 2 * depth * eps) * abs(dnll) * each.sum())
    scratch.assert_guard_untouched()


# --------------------------------------------------------------------------------------------------- over flat buffers

FLAT = st.one_of(st.integers(1, 40), st.sampled_from([numpy_fused.ADAM_BLOCK + d for d in (-1, 0, 1)] + [70_001]))


@given(SEEDS, FLAT, KIND, st.integers(1, 100_000), numbers(1e-5, 1.0), numbers(-6.0, 2.0))
@example(0, numpy_fused.ADAM_BLOCK + 1, EXAMPLES[-1], 1, 1e-3, -3.0)
@example(0, 70_001, EXAMPLES[-1], 1000, 1e-3, -3.0)
def test_adam_step(seed: int, size: int, kind: tuple[str, str], t: int, lr: float, exponent: float) -> None:
    file, dtype = kind
    p, g, m, v = normals(seed, (size,), (size,), (size,), (size,), dtype=dtype)
    unit = dtype_scalar(dtype, 10.0**exponent)
    g, m, v = g * unit, m * unit, (v * unit) ** 2
    scratch = Scratch(1, 1, dtype)
    results = []
    for module in (reference, FILES[file]):
        new = p.copy(), g.copy(), m.copy(), v.copy()
        module.adam_step(*new, t, lr, work=scratch.work)
        assert np.array_equal(new[1], g)
        results.append(new)
    eps = eps_of(dtype)
    step_m, step_v = np.abs(m) + np.abs(g), v + g * g
    assert_within(results[1][2], results[0][2], 6 * eps * step_m)
    assert_within(results[1][3], results[0][3], 8 * eps * step_v)
    # the step is lr m^ / (sqrt(v^) + epsilon): m with 6 roundings of |m| + |g| (it may cancel), the root of v with half
    # of 8 of v + g^2 >= v_new, over v_new itself, and 8 more
    c1, c2 = 1 - 0.9**t, 1 - 0.999**t
    new_v = results[0][3].astype(float)
    root = np.sqrt(new_v / c2) + 1e-8
    lost = 6 + 4 * step_v / np.maximum(new_v, 1e-300) + 8
    bound = 2 * eps * (np.abs(p) + lr * step_m / c1 / root * lost) + eps * np.abs(p - results[0][0])
    assert_within(results[1][0], results[0][0], bound)
    scratch.assert_guard_untouched()


@given(SEEDS, FLAT, KIND, numbers(-3.0, 3.0))
def test_squared_norm_and_clip(seed: int, size: int, kind: tuple[str, str], log_max: float) -> None:
    file, dtype = kind
    g = normals(seed, (size,), dtype=dtype)[0]
    results = []
    for module in (reference, FILES[file]):
        norm2, clipped = poisoned((), dtype), g.copy()
        module.squared_norm(g, out=norm2)
        module.clip(clipped, norm2, 10.0**log_max)
        results.append((norm2, clipped))
    # both are the same BLAS call and the same factor, which is 1 exactly where the norm is small enough
    assert np.array_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])


# ------------------------------------------------------------------------------------------------------------- batches


@given(SEEDS, sizes(3), KIND, st.sampled_from(["uint8", "float32"]))
def test_gather(seed: int, shape: Any, kind: tuple[str, str], stored: str) -> None:
    file, dtype = kind
    total, data, batch = shape
    rng = np.random.default_rng(seed)
    scale = 1 / 255 if stored == "uint8" else 1.0
    rows = rng.integers(0, total, batch)
    table = rng.integers(0, 256, (total, data)).astype(stored)
    for module in (reference, FILES[file]):
        x = poisoned((batch, data), dtype)
        module.gather(table, rows, scale, x=x, raw=np.zeros((batch, data), stored))
        assert_within(x, table.astype(float)[rows] * scale, 2 * eps_of(dtype) * table.astype(float)[rows] * scale)


@given(SEEDS, sizes(2), KIND)
def test_binarize(seed: int, shape: Any, kind: tuple[str, str]) -> None:
    file, dtype = kind
    x, u = np.random.default_rng(seed).random((2, *shape)).astype(dtype)
    x.flat[0], x.flat[-1] = 0, 1  # never and always 1, whatever u in [0, 1) is
    u = np.minimum(u, 1 - eps_of(dtype)).astype(dtype)
    u.flat[0] = 0  # a tie draws 0
    for module in (reference, FILES[file]):
        drawn = x.copy()
        module.binarize(drawn, u)
        assert np.array_equal(drawn, np.where(u < x, 1, 0))
        assert drawn.flat[-1] == 1
        assert drawn.size == 1 or drawn.flat[0] == 0


def dtype_scalar(dtype: str, value: float) -> Any:
    return np.dtype(dtype).type(value)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", FILES)
def test_nan_goes_through_every_layer_so_that_a_diverging_run_is_seen(name: str, activation: str) -> None:
    x, W, b = np.ones((1, 1), np.float32), np.ones((1, 40), np.float32), np.zeros(40, np.float32)
    b[::3] = np.nan
    y, work = np.zeros((1, 40), np.float32), np.zeros(work_size(1, 40), np.float32)
    FILES[name].dense_forward(x, W, b, activation, y=y, work=work)
    assert np.array_equal(np.isnan(y[0]), np.isnan(b))
