"""Proof of teeth, as in `test_planted_bugs`: convolution, batch normalization, importance weights, labels."""

import math
from typing import Any

import numpy as np
import pytest
import test_steering
from test_planted_bugs import Bug, Killer, after, both, instead, model, named, scaled
from test_planted_bugs import test_the_named_killer_fails_under_the_bug_and_passes_without as kill

from tinyvae.checking.operations import check_operations
from tinyvae.model import init, iwae
from tinyvae.model.layers import BatchNorm, ConvTranspose, Dense, LabelledDense
from tinyvae.model.vae import VAE
from tinyvae.ops import convolution, importance, normalization
from tinyvae.ops.normalization import EPSILON


def row(name: str) -> Killer:
    """As `test_planted_bugs.row`, without the rows behind it."""

    def check() -> None:
        for seed in range(3):
            found = next(c for c in check_operations(seed) if c.name == name)
            assert found.passed, found

    return f"gradcheck row {name!r}", check


TRUE_PATCHES = convolution.patches
TRUE_CONV, TRUE_CONV_BACKWARD = convolution.conv2d_forward, convolution.conv2d_backward
TRUE_NORM_FORWARD, TRUE_NORM_BACKWARD = BatchNorm.forward, BatchNorm.backward
TRUE_BOUND_BACKWARD = importance.bound_backward
TRUE_LIKELIHOOD_BACKWARD = iwae._likelihood_backward
TRUE_RUN_BACK, TRUE_ONEHOT = VAE.run_back, VAE.onehot


# ---------------------------------------------------------------------------------------------------------- convolution


def folded(rows: Any, shape: tuple[int, int], stride: int, pad: int, add: bool = True, crop: int | None = None) -> Any:
    n, down, across, kernel, _, c = rows.shape
    (h, w), crop = shape, pad if crop is None else crop
    padded = np.zeros((n, h + 2 * pad, w + 2 * pad, c), rows.dtype)
    for i, j in np.ndindex(kernel, kernel):
        at = padded[:, i : i + stride * down : stride, j : j + stride * across : stride]
        at[...] = (at if add else 0) + rows[:, :, :, i, j]
    return padded[:, crop : crop + h, crop : crop + w]


def padded_at_the_end(x: Any, kernel: int, stride: int, pad: int) -> Any:
    return TRUE_PATCHES(np.pad(x, [(0, 0), (0, 2 * pad), (0, 2 * pad), (0, 0)]), kernel, stride, 0)


def untransposed(x: Any, W: Any, b: Any, shape: tuple[int, int], stride: int, pad: int) -> Any:
    k, _, channels, out = W.shape
    rows = x.reshape(-1, out) @ W.reshape(out, -1)  # the right shape, the wrong order
    return convolution.fold(rows.reshape(*x.shape[:3], k, k, channels), shape, stride, pad) + b


def linear_transpose(layer: ConvTranspose, dy: Any) -> Any:
    da = dy.reshape(-1, *layer.image)  # without the slope of the activation
    dx, layer.dW[...], layer.db[...] = convolution.conv_transpose2d_backward(da, layer.x, layer.W, 2, 1)
    return dx.reshape(len(dy), -1)


def flipped_backward(dy: Any, x: Any, W: Any, stride: int, pad: int) -> Any:
    dx, dW, db = TRUE_CONV_BACKWARD(dy, x, W[::-1, ::-1], stride, pad)
    return dx, dW[::-1, ::-1], db


def dx_of_the_flipped(dy: Any, x: Any, W: Any, stride: int, pad: int) -> Any:
    return (flipped_backward(dy, x, W, stride, pad)[0], *TRUE_CONV_BACKWARD(dy, x, W, stride, pad)[1:])


CONVOLUTION = [
    Bug("fold: the last patch overwrites the others", instead(
        convolution, "fold", lambda *a: folded(*a, add=False)),
        named("test_convolution::test_each_is_the_others_adjoint")),
    Bug("fold: no += in a model", instead(convolution, "fold", lambda *a: folded(*a, add=False)),
        model("conv", "decoder.0.weight")),
    Bug("fold: the border is cut off at the end", instead(convolution, "fold", lambda *a: folded(*a, crop=0)),
        row("conv transpose2d, stride 1, pad 1: x")),
    Bug("patches: the border is added at the end, both ways", both(
        instead(convolution, "patches", padded_at_the_end),
        instead(convolution, "fold", lambda *a: folded(*a, crop=0))),
        named("test_convolution::test_conv2d_is_scipys_correlation_of_each_pair_of_channels")),
    Bug("conv2d: a flipped kernel, both ways", both(
        instead(convolution, "conv2d_forward", lambda x, W, b, stride, pad: TRUE_CONV(
            x, W[::-1, ::-1], b, stride, pad)),
        instead(convolution, "conv2d_backward", flipped_backward)),
        named("test_convolution::test_conv2d_is_four_loops")),
    Bug("conv2d: a flipped kernel in dx", instead(convolution, "conv2d_backward", dx_of_the_flipped),
        row("conv2d, stride 2, pad 1: x")),
    Bug("conv2d: dW averaged over the images", after(convolution, "conv2d_backward", scaled(1, 0.5)),
        row("conv2d, stride 3, pad 0: W")),
    Bug("conv2d: db of the first place of each image", instead(
        convolution, "conv2d_backward", lambda dy, *a: (*TRUE_CONV_BACKWARD(dy, *a)[:2], dy[:, 0, 0].sum(axis=0))),
        row("conv2d, stride 1, pad 0: b")),
    Bug("output size: the border counts once", instead(
        convolution, "output_size", lambda size, kernel, stride, pad: (size + pad - kernel) // stride + 1),
        named("test_convolution::test_shapes_whatever_remainder_the_stride_leaves")),
    Bug("conv transpose: W not transposed", instead(convolution, "conv_transpose2d_forward", untransposed),
        named("test_convolution::test_the_transposed_convolution_is_the_transposed_matrix")),
    Bug("conv transpose: the bias gradient averaged", after(
        convolution, "conv_transpose2d_backward", scaled(2, 1 / 35)), model("conv", "decoder.conv0.bias")),
    Bug("conv transpose: no slope of the activation", instead(ConvTranspose, "backward", linear_transpose),
        model("conv, deep, sigma learned", "decoder.conv0.weight")),
    Bug("initial weights: a transposed convolution's inputs counted as a convolution's", instead(
        init, "_fans", lambda name, shape: shape if len(shape) == 2 else (16 * shape[-1], 4 * shape[-2])),
        named("test_convolution::test_initial_weights_keep_the_mean_square_before_a_rectifier_at_twice_the_inputs")),
]  # fmt: skip


# -------------------------------------------------------------------------------------------------- batch normalization


def norm_backward(mean: bool, along: bool) -> Any:
    def backward(dy: Any, h: Any, v: Any, scale: Any) -> Any:
        dscale, dshift, n = (dy * h).sum(axis=0), dy.sum(axis=0), len(dy)
        da = scale / np.sqrt(v + EPSILON) * (dy - mean * dshift / n - along * h * dscale / n)
        return da, dscale, dshift

    return backward


def norm_forward(a: Any, scale: Any, shift: Any, ddof: int = 0, outside: float = 0.0) -> Any:
    m, v = a.mean(axis=0), a.var(axis=0, ddof=ddof)
    h = (a - m) / (np.sqrt(v) + outside if outside else np.sqrt(v + EPSILON))
    return scale * h + shift, h, m, v


def biased(norm: BatchNorm, dy: Any) -> Any:
    old = norm.running_var.copy()
    dx = TRUE_NORM_BACKWARD(norm, dy)
    norm.running_var[...] = normalization.running_average(old, norm.var)
    return dx


def eager(norm: BatchNorm, x: Any) -> Any:
    y = TRUE_NORM_FORWARD(norm, x)
    if norm.training:
        norm.running_mean[...] = normalization.running_average(norm.running_mean, norm.mean)
    return y


NORMALIZATION = [
    Bug("batch norm: the gradient forgets that the mean moves", instead(
        normalization, "batch_norm_backward", norm_backward(mean=False, along=True)), row("batch norm: a")),
    Bug("batch norm: the gradient forgets that the variance moves", instead(
        normalization, "batch_norm_backward", norm_backward(mean=True, along=False)), row("batch norm: a")),
    Bug("batch norm: dscale without h", instead(normalization, "batch_norm_backward", lambda dy, h, v, scale: (
        norm_backward(mean=True, along=True)(dy, h, v, scale)[0], dy.sum(axis=0), dy.sum(axis=0))),
        row("batch norm: scale")),
    Bug("batch norm: the unbiased variance in the batch", instead(
        normalization, "batch_norm_forward", lambda *a: norm_forward(*a, ddof=1)),
        named("test_normalization::test_the_first_layers_running_averages_are_those_of_its_own_products")),
    Bug("batch norm: epsilon outside of the root", instead(
        normalization, "batch_norm_forward", lambda *a: norm_forward(*a, outside=EPSILON)),
        named("test_normalization::test_evaluation_is_the_same_formula_with_given_moments")),
    Bug("batch norm: the biased variance in the running average", instead(BatchNorm, "backward", biased),
        named("test_normalization::test_the_running_averages_become_the_datas_moments")),
    Bug("batch norm: the newest batch has weight 0.9", instead(
        normalization, "running_average", lambda average, new: 0.1 * average + 0.9 * new),
        named("test_normalization::test_the_running_averages_follow_their_recursion_and_only_in_backward")),
    Bug("batch norm: a look moves the running averages", instead(BatchNorm, "forward", eager),
        named("test_normalization::test_a_look_changes_nothing_and_a_step_moves_every_running_average")),
    Bug("batch norm: the batch's moments in evaluation", instead(
        normalization, "batch_norm_evaluate", lambda a, scale, shift, mean, var: norm_forward(a, scale, shift)[0]),
        named("test_normalization::test_in_evaluation_a_row_is_alone_and_in_training_it_is_not")),
]  # fmt: skip


# ------------------------------------------------------------------------------------------- importance-weighted bound


def naive_bound(log_w: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.log(np.exp(log_w).mean(axis=1))


def averaged_draws(m: VAE, layers: Any, dh: Any) -> Any:
    return TRUE_RUN_BACK(m, layers, dh * (len(dh) / len(m.z)) if layers is m.encoder else dh)


def first_draw(m: VAE, layers: Any, dh: Any) -> Any:
    """What reaches z from the decoder, of the first draw of each row only."""
    dz = TRUE_RUN_BACK(m, layers, dh)
    if layers is m.decoder:
        k = len(m.z) // len(m.head)
        dz = dz * (np.arange(len(dz)) % k == 0)[:, None]
    return dz


IMPORTANCE = [
    Bug("iwae: the weights are not normalized", instead(
        importance, "bound_backward", lambda d, log_w: d * np.exp(log_w - log_w.max(axis=1, keepdims=True))),
        row("bound: log_w")),
    Bug("iwae: every draw weighs the same", instead(
        importance, "bound_backward", lambda d, log_w: np.broadcast_to(d / log_w.shape[1], log_w.shape) + 0.0),
        model("iwae, K 5", "decoder.0.weight")),
    Bug("iwae: the weights squared", instead(
        importance, "bound_backward", lambda d, log_w: TRUE_BOUND_BACKWARD(d, 2 * log_w)),
        named("test_importance::test_loss_and_gradient_are_those_of_loops_by_complex_steps", 4)),
    Bug("iwae: not divided by the batch", instead(
        importance, "bound_backward", lambda d, log_w: TRUE_BOUND_BACKWARD(d * len(log_w), log_w)),
        named("test_importance::test_rows_and_draws_given_twice_change_neither_loss_nor_gradient", {}, "reference")),
    Bug("iwae: log K forgotten", instead(importance, "bound_forward", lambda log_w: (
        np.logaddexp.reduce(log_w, axis=1))),
        named("test_importance::test_at_the_true_posterior_the_bound_is_log_p_whatever_the_draws", "reference", 2)),
    Bug("iwae: the mean of the log-weights", instead(importance, "bound_forward", lambda log_w: log_w.mean(axis=1)),
        named("test_importance::test_on_average_the_bound_rises_with_the_draws_towards_log_p")),
    Bug("iwae: the weights overflow", instead(importance, "bound_forward", naive_bound),
        named("test_importance::test_huge_weights_stay_finite", 1e4, "float64")),
    Bug("iwae: z does not reach the prior", after(importance, "log_prior_over_q_backward", scaled(0, 0.0)),
        model("iwae, K 1", "encoder.0.weight")),
    Bug("iwae: the entropy of q forgotten", after(importance, "log_prior_over_q_backward", scaled(1, 0.0)),
        row("log prior over q: logvar")),
    Bug("iwae: logvar's gradient without its half", after(importance, "log_prior_over_q_backward", scaled(1, 2.0)),
        model("iwae, tied", "encoder.1.bias")),
    Bug("iwae: the prior over q without eps^2", instead(
        importance, "log_prior_over_q_forward", lambda z, logvar, eps: 0.5 * (logvar - z * z).sum(axis=1)),
        named("test_importance::test_log_prior_over_q_is_scipys")),
    Bug("iwae: the draws of a row averaged and not summed", instead(VAE, "run_back", averaged_draws),
        model("iwae, K 5", "encoder.0.weight")),
    Bug("iwae: the first draw alone reaches the encoder", instead(VAE, "run_back", first_draw),
        named("test_importance::test_loss_and_gradient_are_those_of_loops_by_complex_steps", 4)),
    Bug("iwae: the likelihood's gradient has the other sign", instead(
        iwae, "_likelihood_backward", lambda m, x, dnll: TRUE_LIKELIHOOD_BACKWARD(m, x, -dnll)),
        model("iwae, K 1", "decoder.1.weight")),
    Bug("iwae: a learned sigma weighs every draw alike", instead(
        iwae, "_likelihood_backward", lambda m, x, dnll: TRUE_LIKELIHOOD_BACKWARD(
            m, x, np.full_like(dnll, 1 / len(dnll)))), model("iwae, sigma learned", "likelihood.logvar")),
]  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- labels


def labels_part_first(layer: LabelledDense, dy: Any) -> Any:
    dx = Dense.backward(layer, dy)
    return None if dx is None else dx[:, layer.onehot.shape[1] :].copy()


def stale_labels(layer: LabelledDense, x: Any) -> Any:
    joined = layer.joined[: len(x)]
    joined[:, : x.shape[1]] = x
    joined[:, x.shape[1] :] = layer.onehot[0]  # of the first row, for all
    return Dense.forward(layer, joined)


def unrepeated(m: VAE, y: Any) -> Any:
    """The labels of 8 rows, laid end to end for 3 draws instead of side by side."""
    return TRUE_ONEHOT(m, y.reshape(8, 3).T.ravel() if len(y) == 24 else y)


def unnormalized_arc(a: Any, b: Any, steps: int, path: str = "line") -> Any:
    t = np.linspace(0, 1, steps)[:, None]
    w = math.acos(float(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)))
    return (np.sin((1 - t) * w) * a + np.sin(t * w) * b) / np.sin(w)


LABELS = [
    Bug("labels: off by one", instead(VAE, "onehot", lambda m, y: TRUE_ONEHOT(m, (y + 1) % m.architecture.classes)),
        named("test_conditional::test_the_first_layer_of_each_half_adds_a_row_of_its_weights_for_the_label",
              "reference")),
    Bug("labels: one number and no one-hot row", instead(VAE, "onehot", lambda m, y: TRUE_ONEHOT(m, y) * y[:, None]),
        named("test_conditional::test_other_names_for_the_labels_change_nothing")),
    Bug("labels: those of the first row for all", instead(LabelledDense, "forward", stale_labels),
        named("test_conditional::test_the_first_layer_of_each_half_adds_a_row_of_its_weights_for_the_label",
              "numpy")),
    Bug("labels: not repeated for the draws", instead(VAE, "onehot", unrepeated),
        named("test_conditional::test_every_draw_of_a_row_has_the_label_of_its_row")),
    Bug("labels: dz holds the labels' part", instead(LabelledDense, "backward", labels_part_first),
        model("conditional", "encoder.0.weight")),
    Bug("steering: an arc through points of other lengths", instead(test_steering, "interpolate", unnormalized_arc),
        named("test_steering::test_the_sphere_turns_evenly_and_its_length_goes_over_evenly")),
]  # fmt: skip

BUGS = CONVOLUTION + NORMALIZATION + IMPORTANCE + LABELS


def test_the_table_is_long_and_names_each_bug_once() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 40


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_named_killer_fails_under_the_bug(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(bug, monkeypatch)
