"""Every pair in `ops` is checked, and right; a wrong one is found in the row of its name."""

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

import numpy as np
import pytest
from planted import Plant, after, assert_killed, instead
from strategies import sampled

from tinyvae import ops
from tinyvae.checking.finite_differences import Check
from tinyvae.checking.operations import check_operations, formula_pairs
from tinyvae.ops import convolution, dense, gaussian, importance, normalization
from tinyvae.ops.activations import ACTIVATIONS


@cache
def checks(seed: int) -> dict[str, Check]:
    return {check.name: check for check in check_operations(seed)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("row", checks(0))
def test_the_gradient_of_the_operation_is_right(row: str, seed: int) -> None:
    assert checks(seed)[row].passed, checks(seed)[row]


def test_every_pair_of_the_folder_has_a_row() -> None:
    """By name: X_backward is the gradient of X_forward. An activation has a check of its own."""
    modules = [importlib.import_module(f"tinyvae.ops.{m.name}") for m in pkgutil.iter_modules(ops.__path__)]
    found = {name.removesuffix("_backward") for m in modules for name in vars(m) if name.endswith("_backward")}
    rows = {name.partition(":")[0].partition(",")[0].replace(" ", "_") for name in checks(0)}
    own = {f"{name.replace('-', '_')}" for name in ACTIVATIONS}
    assert found - own <= rows
    assert {f.__name__ for f in formula_pairs()} >= {"kl_backward", "reparameterize_backward"}
    assert all(f.of is not None and set(f.wrt) <= set(f.of.inputs) for f in formula_pairs())


def row_is_right(name: str) -> None:
    for seed in range(3):
        found = next(check for check in check_operations(seed) if check.name == name)
        assert found.passed, found


def scaled(i: int, factor: float) -> Any:
    return lambda results: tuple(r * factor if j == i else r for j, r in enumerate(results))


def slope(f: Any, wrong: Any) -> Plant:
    """Another function inside of a formula, whoever calls it."""
    return instead(f, "function", wrong)


TRUE_KL, TRUE_DRAW = gaussian.kl_backward.function, gaussian.reparameterize_backward.function
BUGS: dict[str, tuple[str, Plant]] = {
    "dense: dx by W": ("dense: x", after(dense, "dense_backward", scaled(0, 0.999))),
    "dense: dW averaged": ("dense: W", after(dense, "dense_backward", scaled(1, 0.2))),
    "dense: the bias forgotten": ("dense: b", after(dense, "dense_backward", scaled(2, 0.0))),
    "reparameterize: the half is missing": ("reparameterize: logvar", slope(
        gaussian.reparameterize_backward, lambda dz, logvar, eps: scaled(1, 2.0)(TRUE_DRAW(dz, logvar, eps)))),
    "reparameterize: mu does not reach z": ("reparameterize: mu", slope(
        gaussian.reparameterize_backward, lambda dz, logvar, eps: scaled(0, 0.0)(TRUE_DRAW(dz, logvar, eps)))),
    "reparameterize: no noise in the backward": ("reparameterize: logvar", slope(
        gaussian.reparameterize_backward, lambda dz, logvar, eps: TRUE_DRAW(dz, logvar, 1 + 0 * eps))),
    "kl: logvar's gradient halved": ("kl: logvar", slope(
        gaussian.kl_backward, lambda dkl, mu, logvar: scaled(1, 0.5)(TRUE_KL(dkl, mu, logvar)))),
    "kl: mu's gradient dropped": ("kl: mu", slope(
        gaussian.kl_backward, lambda dkl, mu, logvar: scaled(0, 0.0)(TRUE_KL(dkl, mu, logvar)))),
    "free bits: not divided by the batch": ("free bits: kl", after(gaussian, "free_bits_backward", lambda d: 5 * d)),
    "free bits: charged below the allowance": ("free bits: kl", instead(
        gaussian, "free_bits_backward", lambda d, kl, free: d * np.ones(kl.shape[1]) / len(kl))),
    "bound: not normalized": ("bound: log_w", after(importance, "bound_backward", lambda d: 1.1 * d)),
    "log prior over q: z forgotten": ("log prior over q: z", after(
        importance, "log_prior_over_q_backward", scaled(0, 0.0))),
    "log prior over q: the half is missing": ("log prior over q: logvar", after(
        importance, "log_prior_over_q_backward", scaled(1, 2.0))),
    "batch norm: the mean stands still": ("batch norm: a", instead(
        normalization, "batch_norm_backward", lambda dy, h, v, scale: (
            dy * scale / np.sqrt(v + 1e-5), (dy * h).sum(axis=0), dy.sum(axis=0)))),
    "conv2d: dW averaged": ("conv2d, stride 3, pad 0: W", after(convolution, "conv2d_backward", scaled(1, 0.5))),
    "conv transpose2d: the bias averaged": ("conv transpose2d, stride 2, pad 1: b", after(
        convolution, "conv_transpose2d_backward", scaled(2, 1 / 35))),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed_in_its_row(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row, plant = BUGS[bug]
    assert_killed(monkeypatch, plant, lambda: row_is_right(row))


def test_rows_have_names_of_their_own() -> None:
    names = [check.name for check in check_operations(1)]
    assert len(names) == len(set(names))
    assert inspect.isgenerator(check_operations(0))  # nothing is looked at before it is asked for
