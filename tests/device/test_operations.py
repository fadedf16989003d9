"""Every formula of the package and every operation of `tinyvae.ops` on CuPy's arrays, through its stand-in."""

import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from both_backends import BACKENDS, D, K, N, assert_close, moved, normal, uniform
from fake_cupy import fake_cupy_fixture as fake_cupy_fixture

from tinyvae.backend import get_backend
from tinyvae.formula import Formula
from tinyvae.likelihoods.bernoulli import bernoulli_nll_forward
from tinyvae.likelihoods.gaussian import gaussian_nll_forward
from tinyvae.loop import Loop, Number

OPERATIONS: dict[str, tuple[Any, ...]] = {
    "dense_forward": (normal(N, D), normal(D, K), normal(K)),
    "dense_backward": (normal(N, K), normal(N, D), normal(D, K)),
    "free_bits_forward": (uniform(N, K), 0.5),
    "free_bits_backward": (normal(K), uniform(N, K), 0.5),
    "adam_step": (normal(D), normal(D), normal(D), uniform(D), 3, 1e-3),
    "squared_norm": (normal(D),),
    "clip_scale": (uniform(), 0.1),
    "batch_norm_forward": (normal(N, D), normal(D), normal(D)),
    "batch_norm_backward": (normal(N, D), normal(N, D), uniform(D), normal(D)),
    "batch_norm_evaluate": (normal(N, D), normal(D), normal(D), normal(D), uniform(D)),
    "log_prior_over_q_forward": (normal(N, K), normal(N, K), normal(N, K)),
    "log_prior_over_q_backward": (normal(N, 1), normal(N, K)),
    "bound_forward": (normal(N, K),),
    "bound_backward": (normal(N, 1), normal(N, K)),
    "patches": (normal(2, 7, 6, 2), 3, 2, 1),
    "fold": (normal(2, 4, 3, 3, 3, 2), (7, 6), 2, 1),
    "conv2d_forward": (normal(2, 7, 6, 2), normal(3, 3, 2, 4), normal(4), 2, 1),
    "conv2d_backward": (normal(2, 4, 3, 4), normal(2, 7, 6, 2), normal(3, 3, 2, 4), 2, 1),
    "conv_transpose2d_forward": (normal(2, 4, 3, 4), normal(3, 3, 2, 4), normal(2), (7, 6), 2, 1),
    "conv_transpose2d_backward": (normal(2, 7, 6, 2), normal(2, 4, 3, 4), normal(3, 3, 2, 4), 2, 1),
    "bernoulli_nll_forward": (normal(N, D), uniform(N, D)),
    **{
        name: (*(normal(N, D) for _ in range(arrays)), (D - 1, 1))
        for name, arrays in {
            "group_max": 1,
            "group_sum": 1,
            "group_sum_backward": 1,
            "log_sum_exp_forward": 1,
            "softmax": 1,
            "log_sum_exp_backward": 2,
        }.items()
    },
    "gaussian_nll_forward": (normal(N, D), normal(1), normal(N, D)),
}


def modules(package: Any) -> Iterator[Any]:
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not info.name.endswith("__main__"):
            yield import_module(info.name)


def takes_arrays(function: Callable[..., Any]) -> bool:
    annotations = [p.annotation for p in inspect.signature(function).parameters.values()]
    return any(a is Any or Any in typing.get_args(a) for a in annotations)  # `Array` is Any


FUNCTIONS = {
    name: function
    for module in modules(import_module("tinyvae.ops"))
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_") and takes_arrays(function)
}
FUNCTIONS |= {f.__name__: f for f in (bernoulli_nll_forward, gaussian_nll_forward)}
FLOORS = ("ops", "layers", "likelihoods", "objectives", "model", "training")
FORMULAS: dict[str, Formula] = {
    f"{f.__module__}: {f.__name__}": f
    for floor in FLOORS
    for module in modules(import_module(f"tinyvae.{floor}"))
    for f in vars(module).values()
    if isinstance(f, Formula)
}


def test_every_operation_is_tested_here() -> None:
    assert set(OPERATIONS) == set(FUNCTIONS)
    assert len(FORMULAS) > 50


def run(fake: Any, function: Callable[..., Any], arguments: tuple[Any, ...], dtype: str) -> None:
    on_numpy, on_cupy = (moved(get_backend(b), arguments, dtype) for b in BACKENDS)
    expected = function(*on_numpy)
    fake.reset_copies()
    actual = function(*on_cupy)
    assert (fake.host_copies, fake.device_copies) == (0, 0)
    if not isinstance(expected, tuple):
        expected, actual = (expected,), (actual,)
    for a, e in zip(actual, expected, strict=True):
        assert isinstance(a, fake.ndarray)
        assert_close(a, e)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_on_cupy(fake_cupy: Any, name: str, dtype: str) -> None:
    run(fake_cupy, FUNCTIONS[name], OPERATIONS[name], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FORMULAS)
def test_every_formula_on_cupy(fake_cupy: Any, name: str, dtype: str) -> None:
    """Its inputs between 0.1 and 0.9, where all of them are defined."""
    rng = np.random.default_rng(0)
    run(fake_cupy, FORMULAS[name], tuple(rng.uniform(0.1, 0.9, (N, D)) for _ in FORMULAS[name].inputs), dtype)


@pytest.mark.parametrize(
    "name", [n for n, arguments in OPERATIONS.items() if sum(isinstance(a, np.ndarray) for a in arguments) > 1]
)
def test_every_operation_refuses_a_mixture(fake_cupy: Any, name: str) -> None:
    host, device = (moved(get_backend(b), OPERATIONS[name]) for b in BACKENDS)
    refuse_mixtures(fake_cupy, FUNCTIONS[name], host, device)


def read_by(f: Formula) -> set[str]:
    """The names of the inputs that it reads: the slope of a straight line reads no y."""
    return {a.args[0] for n in Loop([f]).program for a in n.args if isinstance(a, Number) and a.op == "input"}


@pytest.mark.parametrize("name", [name for name, f in FORMULAS.items() if len(read_by(f)) == len(f.inputs) > 1])
def test_every_formula_refuses_a_mixture(fake_cupy: Any, name: str) -> None:
    arguments = [uniform(N, D) for _ in FORMULAS[name].inputs]
    refuse_mixtures(fake_cupy, FORMULAS[name], *(moved(get_backend(b), arguments) for b in BACKENDS))


def refuse_mixtures(fake: Any, function: Callable[..., Any], host: list[Any], device: list[Any]) -> None:
    fake.reset_copies()
    for i in (i for i, a in enumerate(host) if isinstance(a, np.ndarray)):
        for one, rest in [(host, device), (device, host)]:
            with pytest.raises(TypeError, match="mixed"):
                function(*rest[:i], one[i], *rest[i + 1 :])
    assert (fake.host_copies, fake.device_copies) == (0, 0)
