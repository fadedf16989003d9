"""Activations, elementwise. Each backward needs only the output y, so nothing but y is kept between the passes.

    name        y = f(a)                     f'(a), written with y          at a = 0
    linear      a                            1
    relu        max(a, 0)                    1 if y > 0 else 0              0 (a subgradient, by convention)
    leaky-relu  a if a > 0 else 0.01 a       1 if y > 0 else 0.01           0.01 (by convention)
    elu         a if a > 0 else e^a - 1      1 if y > 0 else y + 1          1 (both sides agree)
    tanh        tanh a                       1 - y^2
    sigmoid     1 / (1 + e^-a)               y (1 - y)
    softplus    log(1 + e^a)                 1 - e^-y                       (since e^-y = 1 / (1 + e^a))

Sources: ReLU, Glorot et al. 2011; leaky ReLU, Maas et al. 2013 (slope 0.01); ELU with alpha = 1, Clevert et al. 2016;
softplus, Dugas et al. 2001.
"""

from collections.abc import Callable

from tinyvae.backend import Array, array_module

LEAKY_SLOPE = 0.01


def linear_forward(a: Array) -> Array:
    """y = a."""
    return a


def linear_backward(dy: Array, y: Array) -> Array:
    """da = dy."""
    array_module(dy, y)
    return dy


def relu_forward(a: Array) -> Array:
    """y = max(a, 0)."""
    return array_module(a).maximum(a, 0)


def relu_backward(dy: Array, y: Array) -> Array:
    """da = dy where y > 0, else 0 (at the kink a = 0 the derivative is taken as 0)."""
    array_module(dy, y)
    return dy * (y > 0)


def leaky_relu_forward(a: Array) -> Array:
    """y = a where a > 0, else 0.01 a."""
    return array_module(a).maximum(a, LEAKY_SLOPE * a)


def leaky_relu_backward(dy: Array, y: Array) -> Array:
    """da = dy where y > 0, else 0.01 dy (at the kink a = 0 the derivative is taken as 0.01)."""
    xp = array_module(dy, y)
    return dy * xp.where(y > 0, xp.ones_like(y), LEAKY_SLOPE)


def elu_forward(a: Array) -> Array:
    """y = a where a > 0, else e^a - 1."""
    xp = array_module(a)
    return xp.maximum(a, 0) + xp.expm1(xp.minimum(a, 0))  # one of the two terms is always 0


def elu_backward(dy: Array, y: Array) -> Array:
    """da = dy where y > 0, else dy (y + 1)."""
    xp = array_module(dy, y)
    return dy * (xp.minimum(y, 0) + 1)


def tanh_forward(a: Array) -> Array:
    """y = tanh a."""
    return array_module(a).tanh(a)


def tanh_backward(dy: Array, y: Array) -> Array:
    """da = dy (1 - y^2)."""
    array_module(dy, y)
    return dy * (1 - y * y)


def sigmoid_forward(a: Array) -> Array:
    """y = 1 / (1 + e^-a), written as (1 + tanh(a / 2)) / 2, which overflows nowhere."""
    return 0.5 * (1 + array_module(a).tanh(0.5 * a))


def sigmoid_backward(dy: Array, y: Array) -> Array:
    """da = dy y (1 - y)."""
    array_module(dy, y)
    return dy * y * (1 - y)


def softplus_forward(a: Array) -> Array:
    """y = log(1 + e^a), written as max(a, 0) + log(1 + e^-|a|), which overflows nowhere."""
    xp = array_module(a)
    return xp.maximum(a, 0) + xp.log1p(xp.exp(-xp.abs(a)))


def softplus_backward(dy: Array, y: Array) -> Array:
    """da = dy (1 - e^-y)."""
    xp = array_module(dy, y)
    return dy * -xp.expm1(-y)


ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "linear": (linear_forward, linear_backward),
    "relu": (relu_forward, relu_backward),
    "tanh": (tanh_forward, tanh_backward),
    "sigmoid": (sigmoid_forward, sigmoid_backward),
    "softplus": (softplus_forward, softplus_backward),
    "elu": (elu_forward, elu_backward),
    "leaky-relu": (leaky_relu_forward, leaky_relu_backward),
}

KINKED = ("relu", "leaky-relu")  # not differentiable at a = 0: a finite difference across it means nothing
