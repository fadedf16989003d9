"""Adam with bias correction (Kingma & Ba 2015, algorithm 1), and clipping by the global norm (Pascanu et al. 2013).

    m_t = beta1 m + (1 - beta1) g           v_t = beta2 v + (1 - beta2) g^2
    p_t = p - lr m^ / (sqrt(v^) + epsilon)  with m^ = m_t / (1 - beta1^t), v^ = v_t / (1 - beta2^t)

Neither is differentiated, so there is no backward here.
"""

import math

from tinyvae.backend import Array, array_module
from tinyvae.formula import formula, maximum, minimum, sqrt

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
ROUNDED = 2.0**-70  # m + it - it is a multiple of 2^-93 in float32, of 2^-122 in float64
REST = 64  # steps from one such rounding of m to the next


def bias_correction(beta: float, t: int) -> float:
    """1 - beta^t, without the digits that 1 - beta**t loses where beta^t is close to 1."""
    return -math.expm1(t * math.log(beta))


def adam_step(
    p: Array, g: Array, m: Array, v: Array, t: int, lr: float,
    beta1: float = BETA1, beta2: float = BETA2, epsilon: float = EPSILON,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """One step of Adam; t counts from 1. p, g, m, v of one shape -> the new p, m, v."""
    xp = array_module(p, g, m, v)
    m = beta1 * m + (1 - beta1) * g  # the moving mean of the gradient
    v = beta2 * v + (1 - beta2) * g * g  # and of its square
    m_hat = m / bias_correction(beta1, t)
    v_hat = v / bias_correction(beta2, t)
    return p - lr * m_hat / (xp.sqrt(v_hat) + epsilon), m, v


def step_and_epsilon(t: int, lr: float) -> tuple[float, float]:
    """Step t with the bias corrections c1, c2 folded into two numbers, for kernels that take no pass for m^ and v^.

    lr m^ / (sqrt(v^) + epsilon) = step m / (sqrt(v) + epsilon'), step = lr sqrt(c2) / c1, epsilon' = epsilon sqrt(c2).
    """
    root_c2 = math.sqrt(bias_correction(BETA2, t))
    return lr * root_c2 / bias_correction(BETA1, t), EPSILON * root_c2


def squared_norm(g: Array) -> Array:
    """|g|^2 = sum_i g_i^2 over the flat gradient: a 0-d array or scalar."""
    return array_module(g).dot(g, g)


def clip_scale(norm2: Array, max_norm: float) -> Array:
    """min(1, max_norm / |g|): the factor that shortens a gradient of squared norm `norm2` to at most max_norm."""
    xp = array_module(norm2)
    return xp.minimum(1, max_norm / xp.sqrt(xp.maximum(norm2, 1e-30)))


@formula
def adam_update(p, g, m, v, step, epsilon):
    """The new p, m and v: `adam_step` with the corrections in step and epsilon (see `step_and_epsilon`)."""
    m = m + (1 - BETA1) * (g - m)
    v = v + (1 - BETA2) * (g * g - v)
    return p - step * m / (sqrt(v) + epsilon), m, v


@formula
def rested(m):
    """m as a multiple of about 1e-28: 0, where a gradient has stayed 0 for long.

    Else such an m would go down to float32's subnormal numbers and stay there (nine tenths of the smallest are rounded
    to itself), and with these a CPU computes many times as slowly: on MNIST, whose border pixels are hardly ever on,
    there are thousands of them. Done every REST steps: in so many m comes from 1e-28 to 1e-31, which is far from 1e-38.
    """
    return m + ROUNDED - ROUNDED


@formula
def decayed(p, rate):
    """p (1 - rate), rate = lr weight_decay: beside the gradient, not in it (Loshchilov & Hutter 2019)."""
    return p - rate * p


@formula
def shortened(g, norm2, max_norm):
    """g times min(1, max_norm / |g|)."""
    return g * minimum(1, max_norm / sqrt(maximum(norm2, 1e-30)))
