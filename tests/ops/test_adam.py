"""Adam by algorithm 1 of the paper with 40 digits, and clipping: as array code, and as formulas on all kernels."""

import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from planted import Plant, assert_killed, instead
from strategies import DTYPES, EVERY_FUSED, SEEDS, ULP, assert_within, eps_of, normals, numbers, sampled

from tinyvae.backend import get_backend
from tinyvae.formula import maximum, sqrt
from tinyvae.kernels import select
from tinyvae.loop import Loop
from tinyvae.ops import adam

EPS = eps_of("float64")
KERNELS = ("reference", *EVERY_FUSED)
WAYS = ("array code", *KERNELS)


def one_step(way: str, p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, t: int, lr: float) -> Any:
    """The new p, m, v: by `adam_step`, or by the formula with its two numbers, in place."""
    if way == "array code":
        return adam.adam_step(p, g, m, v, t, lr)
    k = select(way, get_backend("numpy"), p.dtype.name)[1]()
    k.begin("adam")
    step, epsilon = adam.step_and_epsilon(t, lr)
    p, g, m, v = (np.array(a)[None] for a in (p, g, m, v))
    k.map(Loop([adam.adam_update]), p=p, g=g, m=m, v=v, step=step, epsilon=epsilon, out=(p, m, v))
    return p[0], m[0], v[0]


def clipped(way: str, g: np.ndarray, max_norm: float) -> np.ndarray:
    """g, shortened."""
    if way == "array code":
        return g * adam.clip_scale(adam.squared_norm(g), max_norm)
    k = select(way, get_backend("numpy"), g.dtype.name)[1]()
    k.begin("clip")
    norm2 = k.squared_norm(g)
    assert_within(norm2, [np.sum(g.astype(float) ** 2)], 32 * eps_of(g.dtype) * np.sum(g.astype(float) ** 2))
    return np.array(k.map(Loop([adam.shortened]), g=g[None], norm2=norm2, max_norm=max_norm))[0]


# ---------------------------------------------------------------------------------------------------------------- Adam


def paper_adam(p: float, gradients: list[float], lr: float, beta1: float, beta2: float, epsilon: float) -> float:
    """Kingma & Ba 2015, algorithm 1, line by line, with 40 digits."""
    with mpmath.workdps(40):
        theta, m, v = mpmath.mpf(p), mpmath.mpf(0), mpmath.mpf(0)
        b1, b2 = mpmath.mpf(beta1), mpmath.mpf(beta2)
        for t, gradient in enumerate(gradients, 1):
            g = mpmath.mpf(gradient)
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            m_hat = m / (1 - b1**t)
            v_hat = v / (1 - b2**t)
            theta = theta - lr * m_hat / (mpmath.sqrt(v_hat) + epsilon)
        return float(theta)


def is_algorithm_1(way: str) -> None:
    steps, lr = 20, 0.1
    rng = np.random.default_rng(13)
    start, gradients = rng.standard_normal(5), rng.standard_normal((steps, 5)) * [1, 1e-3, 1e-8, 30, 1]
    p, m, v = start.copy(), np.zeros(5), np.zeros(5)
    for t, g in enumerate(gradients, 1):
        p, m, v = one_step(way, p, g, m, v, t, lr)
    expected = [paper_adam(start[i], gradients[:, i].tolist(), lr, 0.9, 0.999, 1e-8) for i in range(5)]
    # A step is lr m^ / sqrt(v^). m gathers 4 roundings of max |g| a step, and sqrt(v^) >= max |g| / sqrt(2 t), so the
    # step is off by at most lr 4 t sqrt(2 t) eps, plus 12 t roundings of its own size sqrt(2 t) lr at most.
    bound = sum(lr * 16 * t * math.sqrt(2 * t) * EPS for t in range(1, steps + 1)) + steps * EPS * (np.abs(start) + 2)
    assert_within(p, expected, bound)


@pytest.mark.parametrize("way", WAYS)
def test_it_is_algorithm_1_of_the_paper(way: str) -> None:
    is_algorithm_1(way)


def begins_with_the_learning_rate(seed: int, lr: float, exponent: float, way: str) -> None:
    p, g = normals(seed, (20,), (20,))
    g *= 10.0**exponent
    expected = p - lr * g / (np.abs(g) + adam.EPSILON)
    # 1 - beta and its correction cancel to 4 roundings each, the square root halves; the step is at most lr
    bound = EPS * np.abs(p) + 16 * EPS * lr + EPS * np.abs(p - expected)
    assert_within(one_step(way, p, g, np.zeros(20), np.zeros(20), 1, lr)[0], expected, bound)


@given(SEEDS, numbers(1e-6, 10.0), numbers(-12.0, 3.0), st.sampled_from(WAYS))
@example(0, 1.0, -8.0, "numpy")
def test_the_first_step_is_the_learning_rate_in_the_direction_of_the_sign(
    seed: int, lr: float, exponent: float, way: str
) -> None:
    begins_with_the_learning_rate(seed, lr, exponent, way)


@given(SEEDS, st.integers(1, 2000), st.integers(-30, 30), DTYPES)
@example(0, 1, 30, "float32")
def test_scaling_gradients_and_epsilon_by_a_power_of_two_changes_no_bit(
    seed: int, t: int, power: int, dtype: str
) -> None:
    scale = 2.0**power
    p, g, m = normals(seed, (20,), (20,), (20,), dtype=dtype)
    v = normals(seed + 1, (20,), dtype=dtype)[0] ** 2
    one = adam.adam_step(p, g, m, v, t, 1e-3, epsilon=2.0**-20)
    s = p.dtype.type(scale)
    two = adam.adam_step(p, g * s, m * s, v * s * s, t, 1e-3, epsilon=2.0**-20 * scale)
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1] * s, two[1])
    assert np.array_equal(one[2] * s * s, two[2])


@given(SEEDS, st.integers(1, 100_000), numbers(1e-5, 1.0), numbers(-6.0, 2.0), st.sampled_from(KERNELS), DTYPES)
@example(0, 1, 1.0, -6.0, "numpy", "float32")
def test_kernels_step_as_the_array_code_does_in_float64(
    seed: int, t: int, lr: float, exponent: float, way: str, dtype: str
) -> None:
    """At any t, where the two numbers that kernels get are far from those of the first step."""
    low = normals(seed, (40,), (40,), (40,), (40,), dtype=dtype)
    unit = low[0].dtype.type(10.0**exponent)
    low = [low[0], low[1] * unit, low[2] * unit, (low[3] * unit) ** 2]
    p, g, m, v = (a.astype(float) for a in low)
    new, new_m, new_v = adam.adam_step(p, g, m, v, t, lr)
    got = one_step(way, low[0], low[1], low[2], low[3], t, lr)
    eps, step_m, step_v = eps_of(dtype), np.abs(m) + np.abs(g), v + g * g
    assert_within(got[1], new_m, 3 * eps * step_m)
    assert_within(got[2], new_v, 4 * eps * step_v)
    # the step is lr m^ / (sqrt(v^) + epsilon): m with 3 roundings of |m| + |g| (it may cancel), the root of v with half
    # of 4 of v + g^2 >= v_new, over v_new itself, and 8 more; and a rounding of 1 - beta in its last digit
    c1, root = 1 - 0.9**t, np.sqrt(new_v / (1 - 0.999**t)) + 1e-8
    lost = 3 + 2 * step_v / np.maximum(new_v, 1e-300) + 8
    assert_within(got[0], new, eps * (np.abs(p) + lr * step_m / c1 / root * lost + np.abs(p - new)))


@given(st.sampled_from([0.5, 0.9, 0.99, 0.999, 1 - 2**-30]), st.integers(1, 60))
@example(0.999, 1)
@example(1 - 2**-30, 1)
def test_bias_correction_is_accurate_at_small_t(beta: float, t: int) -> None:
    exact = float(1 - Fraction(beta) ** t)
    # log rounds once, relative to log beta; t log beta once more; expm1 passes relative errors on, and adds its own
    assert_within(adam.bias_correction(beta, t), exact, 2 * ULP * EPS * exact)


# ------------------------------------------------------------------------------------------------------------ clipping


def clips_to_the_bound(seed: int, exponent: float, log_max: float, dtype: str, way: str) -> None:
    before = normals(seed, (30,), dtype=dtype, scale=10.0**exponent)[0]
    max_norm, g = 10.0**log_max, clipped(way, before, 10.0**log_max)
    assert g.dtype == dtype
    length, was = np.linalg.norm(g.astype(float)), np.linalg.norm(before.astype(float))
    assert np.all(np.abs(g) <= np.abs(before))
    # the norm has 32 / 2 roundings, the factor 3, the product 1: of a length of max_norm
    shortest = min(was, max_norm)
    assert_within(length, shortest, 20 * eps_of(dtype) * shortest)
    assert_within(g / length, before / was, 24 * eps_of(dtype))
    if was < max_norm * (1 - 20 * eps_of(dtype)):
        assert np.array_equal(g, before)


@given(SEEDS, numbers(-12.0, 12.0), numbers(-6.0, 6.0), DTYPES, st.sampled_from(WAYS))
@example(0, 0.0, 6.0, "float32", "numpy")
@example(0, 12.0, -6.0, "float32", "numpy")
def test_clipping_never_lengthens_keeps_the_direction_and_meets_the_bound(
    seed: int, exponent: float, log_max: float, dtype: str, way: str
) -> None:
    clips_to_the_bound(seed, exponent, log_max, dtype, way)


@pytest.mark.parametrize("way", WAYS)
def test_a_gradient_of_zeros_survives_clipping(way: str) -> None:
    assert clipped(way, np.zeros(3, np.float32), 1.0).tolist() == [0, 0, 0]


def is_rounded(way: str, dtype: str) -> None:
    """What is large keeps its digits, what is tiny becomes 0, and nothing is left among float32's smallest numbers.

    Two roundings, each by half of 2^-93 where m is small, by half of m's last digit where it is large. In float64 the
    multiples are of 2^-122, or of 2^-123 below ROUNDED; float32's normal numbers end at 2^-126.
    """
    m = np.concatenate([sign * np.logspace(-44, 3, 300) for sign in (1, -1)]).astype(dtype)
    k = select(way, get_backend("numpy"), dtype)[1]()
    k.begin("rest")
    got = np.array(k.map(Loop([adam.rested]), m=m[None]))[0]
    assert_within(got, m, 2.0**-92 + 2 * eps_of(dtype) * np.abs(m))
    assert np.all((got == 0) | (np.abs(got) > 2.0**-124))
    assert not got[np.abs(m) < 1e-38].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", KERNELS)
def test_a_tiny_moment_becomes_0(way: str, dtype: str) -> None:
    is_rounded(way, dtype)


# -------------------------------------------------------------------------------------------------------- planted bugs

TRUE_STEP, TRUE_NUMBERS = adam.adam_step, adam.step_and_epsilon
FIRST = lambda: begins_with_the_learning_rate(0, 0.1, 0.0, "array code")
B1, B2 = adam.BETA1, adam.BETA2


def uncorrected(p: Any, g: Any, m: Any, v: Any, t: int, lr: float, **_: Any) -> Any:
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return p - lr * m / (np.sqrt(v) + 1e-8), m, v


def epsilon_inside(p: Any, g: Any, m: Any, v: Any, t: int, lr: float, **_: Any) -> Any:
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return p - lr * m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t) + 1e-8), m, v


def updated(p: Any, g: Any, m: Any, v: Any, step: Any, epsilon: Any) -> Any:
    """The formula with epsilon within the root."""
    m, v = m + (1 - B1) * (g - m), v + (1 - B2) * (g * g - v)
    return p - step * m / sqrt(v + epsilon), m, v


def old_moments(p: Any, g: Any, m: Any, v: Any, step: Any, epsilon: Any) -> Any:
    """The step of the moments before this gradient."""
    return p - step * m / (sqrt(v) + epsilon), m + (1 - B1) * (g - m), v + (1 - B2) * (g * g - v)


def clips(way: str) -> None:
    """Gradients that are longer, as long, and shorter than is allowed, by far and by little."""
    for exponent in (-3.0, 0.0, 3.0):
        for log_max in (-4.0, -0.5, 0.5, 2.0, 4.0):
            clips_to_the_bound(1, exponent, log_max, "float64", way)


ARRAYS, FORMULA = (lambda: is_algorithm_1("array code")), (lambda: is_algorithm_1("reference"))
CLIP, KERNELS_CLIP = (lambda: clips("array code")), (lambda: clips("reference"))
BUGS: dict[str, tuple[Plant, Any]] = {
    "no bias correction": (instead(adam, "adam_step", uncorrected), FIRST),
    "epsilon inside the root": (instead(adam, "adam_step", epsilon_inside), ARRAYS),
    "t is one too large": (
        instead(adam, "adam_step", lambda p, g, m, v, t, lr, **k: TRUE_STEP(p, g, m, v, t + 1, lr, **k)), ARRAYS),
    "another epsilon": (instead(adam, "EPSILON", 1e-6), FORMULA),
    "the bias correction cancels": (
        instead(adam, "bias_correction", lambda beta, t: float(np.float32(1) - np.float32(beta) ** np.float32(t))),
        test_bias_correction_is_accurate_at_small_t),
    "kernels: t is one too large": (
        instead(adam, "step_and_epsilon", lambda t, lr: TRUE_NUMBERS(t + 1, lr)), FORMULA),
    "kernels: epsilon without its correction": (
        instead(adam, "step_and_epsilon", lambda t, lr: (TRUE_NUMBERS(t, lr)[0], adam.EPSILON)), FORMULA),
    "kernels: epsilon inside the root": (instead(adam.adam_update, "function", updated), FORMULA),
    "kernels: m goes on to the smallest numbers": (
        instead(adam, "ROUNDED", 0.0), lambda: is_rounded("reference", "float32")),
    "kernels: m becomes 0 too soon": (
        instead(adam, "ROUNDED", 2.0**-40), lambda: is_rounded("reference", "float32")),
    "kernels: the moments of the step before": (instead(adam.adam_update, "function", old_moments), FORMULA),
    "clip lengthens short gradients": (
        instead(adam, "clip_scale", lambda norm2, most: most / np.sqrt(norm2)), CLIP),
    "clip by the squared norm": (
        instead(adam, "clip_scale", lambda norm2, most: np.minimum(1, most / norm2)), CLIP),
    "kernels: clip lengthens": (
        instead(adam.shortened, "function", lambda g, norm2, most: g * (most / sqrt(maximum(norm2, 1e-30)))),
        KERNELS_CLIP),
    "kernels: half of it": (
        instead(adam.shortened, "function", lambda g, norm2, most: 0.5 * g + 0 * norm2 + 0 * most), KERNELS_CLIP),
}  # fmt: skip


@pytest.mark.parametrize("bug", sampled(BUGS, 3))
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_killed(monkeypatch, *BUGS[bug])
