"""Batch normalization: its moments, its gradient by complex steps, training beside evaluation, the running averages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import build, inputs, step
from hypothesis import given
from hypothesis import strategies as st
from strategies import EVERY_FUSED, SEEDS, assert_within, eps_of, normals, numbers
from test_commands import metrics, run

import tinyvae
from tinyvae import kernels as kernel_files
from tinyvae.backend import get_backend
from tinyvae.checking.models import CASES
from tinyvae.model.layers import BatchNorm
from tinyvae.ops import normalization
from tinyvae.ops.normalization import EPSILON, MOMENTUM
from tinyvae.training import checkpoint as checkpoints

EPS = eps_of("float64")
WITH_RUNNING = [case for case in CASES if case.model.get("batch_norm")]
ROWS = st.integers(2, 30)


def columns(seed: int, rows: int, width: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a (rows, width) with columns far from mean 0 and variance 1; scale and shift (width,)."""
    a, center, spread, scale, shift = normals(seed, (rows, width), (width,), (width,), (width,), (width,))
    return 5 * center + np.exp(spread) * a, scale, shift


# ----------------------------------------------------------------------------------------------------------- operation


@given(SEEDS, ROWS)
def test_columns_come_out_with_the_mean_shift_and_the_variance_scale_squared(seed: int, rows: int) -> None:
    a, scale, shift = columns(seed, rows)
    y, h, m, v = normalization.batch_norm_forward(a, scale, shift)
    np.testing.assert_allclose(m, a.mean(axis=0), rtol=0, atol=rows * EPS * np.abs(a).max())
    # v is a mean of squares of numbers that are off by `rows` roundings of the largest of a
    off = (rows + 4) * EPS * np.abs(a).max() * (1 + np.sqrt(v))
    assert_within(v, a.var(axis=0), 4 * off)
    loss = (off + (rows + 9) * EPS) / np.sqrt(v + EPSILON) * (1 + 1 / np.sqrt(v + EPSILON))  # of h, relative to 1
    assert_within(h.mean(axis=0), np.zeros(4), loss * 2)
    assert_within(y.mean(axis=0), shift, 2 * np.abs(scale) * loss + (rows + 2) * EPS * (np.abs(scale) + np.abs(shift)))
    assert_within(y.var(axis=0), scale**2 * v / (v + EPSILON), 20 * (1 + scale**2 + shift**2) * loss)


@given(SEEDS, ROWS, numbers(0.1, 10), st.sampled_from([-1, 1]), numbers(-10, 10))
def test_what_stretches_and_moves_a_column_is_taken_away(
    seed: int, rows: int, factor: float, sign: int, offset: float
) -> None:
    """But for EPSILON: h of c a + d is sign(c) h sqrt((v + EPSILON) / (v + EPSILON / c^2))."""
    a, scale, shift = columns(seed, rows)
    _, h, _, v = normalization.batch_norm_forward(a, scale, shift)
    _, moved, _, _ = normalization.batch_norm_forward(sign * factor * a + offset, scale, shift)
    expected = sign * h * np.sqrt((v + EPSILON) / (v + EPSILON / factor**2))
    # `rows` roundings of numbers below this, beside the standard deviation that they are divided by
    size = np.abs(a).max() + abs(offset) / factor + np.sqrt(rows)
    assert_within(moved, expected, 20 * (rows + 9) * EPS * (1 + size / np.sqrt(v + EPSILON / factor**2)))


@given(SEEDS, ROWS)
def test_the_gradient_is_the_derivative_by_complex_steps(seed: int, rows: int) -> None:
    """Im f(a + i t) / t for a tiny t has no difference to cancel in: exact but for rounding."""
    a, scale, shift = columns(seed, rows)
    (dy,) = normals(seed + 1, a.shape)
    _, h, _, v = normalization.batch_norm_forward(a, scale, shift)
    got = normalization.batch_norm_backward(dy, h, v, scale)
    t = 1e-30
    for grad, i in zip(got, range(3), strict=True):
        exact = np.empty(grad.shape)
        for at in np.ndindex(grad.shape):
            arguments = [p.astype(complex) for p in (a, scale, shift)]
            arguments[i][at] += 1j * t
            exact[at] = (dy * normalization.batch_norm_forward(*arguments)[0]).sum().imag / t
        # `rows` roundings of terms of this size; the deviations from the mean have roundings of a's own size
        size = (1 + np.abs(scale)) * np.abs(dy).max() * (1 + 1 / np.sqrt(v + EPSILON)) * np.sqrt(rows)
        assert_within(grad, exact, 50 * rows * EPS * size * (1 + np.abs(a).max() / np.sqrt(v + EPSILON)))


@given(SEEDS, ROWS)
def test_the_gradient_knows_that_moving_and_stretching_change_nothing(seed: int, rows: int) -> None:
    """Sum da = 0, and sum da h = r scale (sum dy h) EPSILON / (v + EPSILON), since sum h^2 = n v / (v + EPSILON)."""
    a, scale, shift = columns(seed, rows)
    (dy,) = normals(seed + 1, a.shape)
    _, h, _, v = normalization.batch_norm_forward(a, scale, shift)
    da, dscale, _ = normalization.batch_norm_backward(dy, h, v, scale)
    r = 1 / np.sqrt(v + EPSILON)
    size = rows * r * np.abs(scale) * np.abs(dy).max() * (1 + np.abs(h).max()) ** 2
    rounding = 20 * rows * EPS * size * (1 + np.abs(a).max() * r)
    assert_within(da.sum(axis=0), np.zeros(4), rounding)
    assert_within((da * h).sum(axis=0), r * scale * dscale * EPSILON / (v + EPSILON), rounding)


def test_one_row_and_a_column_without_variance_come_out_as_the_shift() -> None:
    a, scale, shift = columns(0, 1)
    for rows in (1, 5):
        y, h, _, v = normalization.batch_norm_forward(np.repeat(a, rows, axis=0), scale, shift)
        np.testing.assert_array_equal(y, np.tile(shift, (rows, 1)))
        assert not h.any()
        da, dscale, dshift = normalization.batch_norm_backward(np.ones_like(y), h, v, scale)
        assert np.isfinite(da).all()
        assert not dscale.any()
        np.testing.assert_array_equal(dshift, np.full(4, rows))


def test_evaluation_is_the_same_formula_with_given_moments() -> None:
    a, scale, shift = columns(1, 7)
    y, _, m, v = normalization.batch_norm_forward(a, scale, shift)
    assert_within(normalization.batch_norm_evaluate(a, scale, shift, m, v), y, 8 * EPS * (1 + np.abs(y)))


# --------------------------------------------------------------------------------------------------------------- layer


def layer(width: int, activation: str = "linear") -> BatchNorm:
    zeros = [np.zeros(width) for _ in range(4)]
    return BatchNorm(width, activation, np.ones(width), zeros[0], zeros[1], zeros[2], zeros[3], np.ones(width))


def test_the_running_averages_become_the_datas_moments() -> None:
    """Of N(3, 2^2), in batches of 2 rows: the biased variance would come out as 2, the unbiased one as 4."""
    width, batches = 400, 150
    norm, rng = layer(width), np.random.default_rng(0)
    norm.training = True
    for _ in range(batches):
        norm.forward(3 + 2 * rng.standard_normal((2, width)))
        norm.backward(np.ones((2, width)))
    # The average's variance is that of one batch times MOMENTUM / (2 - MOMENTUM); the start has weight 0.9^150 ~ 1e-7.
    share = MOMENTUM / (2 - MOMENTUM) / width
    assert abs(norm.running_mean.mean() - 3) < 5 * np.sqrt(share * 4 / 2)  # 5 standard errors
    assert abs(norm.running_var.mean() - 4) < 5 * np.sqrt(share * 2 * 4**2)


def test_the_running_averages_follow_their_recursion_and_only_in_backward() -> None:
    norm, rng = layer(3, "tanh"), np.random.default_rng(1)
    mean, var = np.zeros(3), np.ones(3)
    for rows in (5, 2, 1, 8):
        a = rng.standard_normal((rows, 3)) + np.arange(3)
        before = norm.running_mean.copy(), norm.running_var.copy()
        norm.training = False
        norm.forward(a)
        norm.training = True
        norm.forward(a)
        np.testing.assert_array_equal((norm.running_mean, norm.running_var), before)
        norm.backward(rng.standard_normal((rows, 3)))
        mean = 0.9 * mean + 0.1 * a.mean(axis=0)
        var = 0.9 * var + 0.1 * a.var(axis=0, ddof=1) if rows > 1 else var  # one row knows nothing of it
        assert_within(norm.running_mean, mean, 20 * EPS * np.abs(a).max())
        assert_within(norm.running_var, var, 20 * EPS * (1 + np.abs(a).max() ** 2))


def test_a_channel_is_a_column_whatever_the_place() -> None:
    images = np.random.default_rng(2).standard_normal((4, 3, 2, 5))
    norm = BatchNorm(30, "linear", *(np.ones(5) for _ in range(6)))
    norm.training = True
    y = norm.forward(images.reshape(4, -1)).reshape(images.shape)
    assert_within(y.mean(axis=(0, 1, 2)), np.ones(5), 100 * EPS)


# -------------------------------------------------------------------------------------------------------------- models


def moved(seed: int = 0, **options: Any) -> tuple[tinyvae.VAE, np.ndarray, np.ndarray]:
    """A model with some steps behind it, so that its running averages are somewhere; x and eps."""
    model = tinyvae.VAE(6, (5, 4), 2, batch_norm=True, dtype="float64", activation="tanh", seed=seed, **options)
    rng = np.random.default_rng(seed)
    model.params.flat += 0.3 * rng.standard_normal(model.params.flat.shape)
    model.params["encoder.0.running_var"][...] = 0.5
    x, eps = rng.uniform(0, 1, (8, 6)), rng.standard_normal((8, 2))
    for name in (n for n in model.params if n.endswith("running_var")):
        model.params[name][...] = np.abs(model.params[name]) + 0.1
    return model, x, eps


def test_in_evaluation_a_row_is_alone_and_in_training_it_is_not() -> None:
    model, x, eps = moved()
    nll, kl = model.rows_loss(x, eps)
    for i in range(len(x)):
        alone = model.rows_loss(x[i : i + 1], eps[i : i + 1])
        assert_within(alone[0], nll[i : i + 1], 200 * EPS * np.abs(nll[i]))
        assert_within(alone[1], kl[i : i + 1], 200 * EPS * (1 + np.abs(kl[i])))
    assert model.loss(x, eps).loss == pytest.approx(float(nll.mean() + kl.sum(axis=1).mean()), rel=1e-13)
    training = model.loss(x, eps, training=True)
    assert abs(training.loss - model.loss(x, eps).loss) > 1e-3
    assert training == model.loss_and_grad(x, eps)


def test_a_look_changes_nothing_and_a_step_moves_every_running_average() -> None:
    model, x, eps = moved()
    before = model.params.flat.copy()
    model.loss(x, eps, training=True)
    model.loss(x, eps)
    model.encode(x)
    np.testing.assert_array_equal(model.params.flat, before)
    old = {name: p.copy() for name, p in model.params.items()}
    model.loss_and_grad(x, eps)
    for name, p in model.params.items():
        assert np.any(p != old[name]) == (".running_" in name), name


def test_the_first_layers_running_averages_are_those_of_its_own_products() -> None:
    model, x, eps = moved()
    old = {part: model.params[f"encoder.0.running_{part}"].copy() for part in ("mean", "var")}
    model.loss_and_grad(x, eps)
    a = x @ model.params["encoder.0.weight"]
    for part, new in [("mean", a.mean(axis=0)), ("var", a.var(axis=0, ddof=1))]:
        got = model.params[f"encoder.0.running_{part}"]
        assert_within(got, (1 - MOMENTUM) * old[part] + MOMENTUM * new, 100 * EPS * (1 + np.abs(a).max() ** 2))


@pytest.mark.parametrize("kernels", ["reference", *EVERY_FUSED])
@pytest.mark.parametrize("case", WITH_RUNNING, ids=lambda case: case.name)
def test_adam_and_clipping_leave_the_running_averages_alone(case: Any, kernels: str) -> None:
    model = build(case, kernels=kernels)
    used = kernel_files.select(kernels, get_backend("numpy"))[1]
    x, eps, y = inputs(case, 8)
    x, eps = x.astype("float32"), eps.astype("float32")
    m, v = np.zeros_like(model.params.flat), np.zeros_like(model.params.flat)
    norm2 = np.zeros((), "float32")
    for t in range(1, 4):
        step(model, case, x, eps, y)
        running = {name: p.copy() for name, p in model.params.items() if ".running_" in name}
        assert running
        used.squared_norm(model.grads.flat, out=norm2)
        used.clip(model.grads.flat, norm2, 0.5)
        used.adam_step(model.params.flat, model.grads.flat, m, v, t, 0.1, work=model.work)
        for name, p in running.items():
            assert not model.grads[name].any()
            np.testing.assert_array_equal(model.params[name], p)
            assert np.isfinite(p).all()


# ---------------------------------------------------------------------------------------------------------------- runs

SMALL = ["--batch-norm", "--hidden", "12", "--latent", "2", "--batch-size", "300", "--no-figures", "--quiet"]
TRAIN = ["train", "--data", "digits", *SMALL, "--epochs", "4", "--backend", "numpy"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("normalized") / "run"
    assert run(*TRAIN, "--lr", "0.02", "--out", folder) == 0
    return folder


def test_running_averages_are_saved_with_the_last_and_the_best_epoch(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tinyvae.load(trained)
    assert np.all(model.params["encoder.0.running_var"] != 1)
    assert np.any(model.params["encoder.0.running_mean"] != 0)
    rows = metrics(trained)
    losses = [float(row["test_loss"]) for row in rows]
    for which, loss in [("last", losses[-1]), ("best", min(losses))]:  # measured with the running averages
        assert run("evaluate", trained, "--checkpoint", which, "--nll-samples", "0", "--json") == 0
        assert json.loads(capsys.readouterr().out)["loss"] == loss


def test_a_run_goes_on_with_its_running_averages_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    assert run(*TRAIN, "--lr", "0.02", "--epochs", "2", "--out", parts) == 0
    assert run("train", "--resume", parts, "--epochs", "4", "--no-figures", "--quiet") == 0
    once, again = (checkpoints.read_last(path)[0] for path in (trained, parts))
    assert set(once.params) == set(again.params)
    assert any(".running_" in name for name in once.params)
    for name, p in once.params.items():
        assert p.tobytes() == again.params[name].tobytes(), name
