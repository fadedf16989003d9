"""Every eager kernel, on the CPU, against the readable one in float64: odd shapes, two orders of the threads."""

import numpy as np
import pytest
from cuda_on_cpu import eager_checks as checks
from cuda_on_cpu.running import compiled
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import SEEDS

from tinyvae.kernels.cuda.table import ACTIVATION_NAMES, KERNELS

ROWS = st.sampled_from((1, 2, 3, 17))
COLUMNS = st.sampled_from((1, 2, 7, 31, 32, 33, 255, 256, 257, 600))
SIZE = st.one_of(COLUMNS, st.integers(1, 3000))
ACTIVATION = st.sampled_from(ACTIVATION_NAMES)


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", ["bytes", "floats"])
@given(SEEDS, ROWS, COLUMNS)
def test_gather_rows(kind: str, seed: int, rows: int, columns: int) -> None:
    checks.check_gather_rows(compiled(), rng_of(seed), kind, rows, columns)


@given(SEEDS, SIZE)
def test_binarize(seed: int, size: int) -> None:
    checks.check_binarize(compiled(), rng_of(seed), size)


@given(SEEDS, ROWS, COLUMNS, ACTIVATION)
def test_bias_activation(seed: int, rows: int, outputs: int, activation: str) -> None:
    checks.check_bias_activation(compiled(), rng_of(seed), rows, outputs, activation)


@given(SEEDS, SIZE, ACTIVATION)
def test_activation_backward(seed: int, size: int, activation: str) -> None:
    checks.check_activation_backward(compiled(), rng_of(seed), size, activation)


@given(SEEDS, ROWS, COLUMNS)
def test_latent_forward(seed: int, rows: int, latent: int) -> None:
    checks.check_latent_forward(compiled(), rng_of(seed), rows, latent)


@given(SEEDS, ROWS, COLUMNS)
def test_latent_gradient(seed: int, rows: int, latent: int) -> None:
    checks.check_latent_gradient(compiled(), rng_of(seed), rows, latent)


@given(SEEDS, ROWS, COLUMNS, st.booleans())
def test_bernoulli_loss(seed: int, rows: int, columns: int, with_gradient: bool) -> None:
    checks.check_bernoulli_loss(compiled(), rng_of(seed), rows, columns, with_gradient)


@given(SEEDS, ROWS, COLUMNS, st.integers(0, 3), st.integers(0, 1), st.booleans(), st.booleans())
def test_gaussian_loss(
    seed: int, rows: int, columns: int, padding: int, shared: int, with_dmean: bool, with_dlogvar: bool
) -> None:
    checks.check_gaussian_loss(compiled(), rng_of(seed), rows, columns, padding, shared, with_dmean, with_dlogvar)


@given(SEEDS, SIZE)
@example(0, 1024 * 256 + 77)  # more than the grid has threads
def test_adam(seed: int, size: int) -> None:
    checks.check_adam_kernel(compiled(), rng_of(seed), size)


def test_every_eager_kernel_has_a_check() -> None:
    names = list(KERNELS)[list(KERNELS).index("gather_rows_bytes") :]
    checked = {name.removeprefix("check_").removesuffix("_kernel") for name in vars(checks)}
    assert {name.removesuffix("_bytes").removesuffix("_floats") for name in names} <= checked


# ------------------------------------------------------------------------------------------------------ extreme numbers


def activated(name: str, a: list[float]) -> np.ndarray:
    y = np.array(a, np.float32)
    arguments = {"b": np.zeros(1, np.float32), "size": len(a), "outputs": 1}
    return compiled().run("bias_activation", {**arguments, "activation": ACTIVATION_NAMES.index(name)}, {"y": y})["y"]


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_activations_overflow_nowhere_and_let_nan_through(name: str) -> None:
    y = activated(name, [-1e4, 1e4, np.nan])
    assert np.all(np.isfinite(y[:2]))
    assert np.isnan(y[2])


def test_bernoulli_is_right_at_logits_of_10000() -> None:
    logits, x = np.array([[1e4], [1e4], [-1e4], [-1e4]], np.float32), np.array([[0], [1], [0], [1]], np.float32)
    arguments = {"logits": logits, "x": x, "dnll": 1.0, "rows": 4, "columns": 1}
    results = compiled().run("bernoulli_loss", arguments, {"nll": (4,), "dlogits": (4, 1)})
    assert results["nll"].tolist() == [1e4, 0, 0, 1e4]
    assert results["dlogits"].ravel().tolist() == [1, 0, 0, -1]


@pytest.mark.parametrize(("name", "at_zero"), [("relu", 0), ("leaky-relu", 0.01), ("elu", 1)])
def test_the_slopes_keep_their_conventions_at_exactly_0(name: str, at_zero: float) -> None:
    arguments = {"y": np.zeros(1, np.float32), "size": 1, "activation": ACTIVATION_NAMES.index(name)}
    da = compiled().run("activation_backward", arguments, {"dy": np.ones(1, np.float32)})["dy"]
    assert da[0] == np.float32(at_zero)
