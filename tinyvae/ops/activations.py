"""Activations, elementwise, each backward right under its forward. What a backward reads is kept between the passes.

    name        y = f(a)                     f'(a)                                at a = 0
    linear      a                            1
    relu        max(a, 0)                    1 if y > 0 else 0                    0 (a subgradient, by convention)
    leaky-relu  a if a > 0 else 0.01 a       1 if y > 0 else 0.01                 0.01 (by convention)
    elu         a if a > 0 else e^a - 1      1 if y > 0 else y + 1                1 (both sides agree)
    tanh        tanh a                       1 - y^2
    sigmoid     1 / (1 + e^-a)               y (1 - y)
    softplus    log(1 + e^a)                 1 - e^-y                             (since e^-y = 1 / (1 + e^a))
    swish       a s, s = 1 / (1 + e^-a)      s + y (1 - s)
    gelu        a (1 + t) / 2, t = tanh u    (1 + t) / 2 + a (1 - t^2) u' / 2     u = sqrt(2 / pi) (a + 0.044715 a^3)

The first seven say their slope by y alone. Swish and gelu fall and rise, so y does not tell a: their backward reads a.

Sources: ReLU, Glorot et al. 2011; leaky ReLU, Maas et al. 2013 (slope 0.01); ELU with alpha = 1, Clevert et al. 2016;
softplus, Dugas et al. 2001; swish, Elfwing et al. 2018 and Ramachandran et al. 2017; gelu, Hendrycks & Gimpel 2016 (the
tanh form of section 2).
"""

import math
from dataclasses import dataclass

from tinyvae.formula import Formula, backward_of, exp, expm1, formula, log1p, maximum, minimum, where
from tinyvae.formula import sigmoid as sigmoid_of
from tinyvae.formula import tanh as tanh_of

LEAKY_SLOPE = 0.01
ROOT = math.sqrt(2 / math.pi)
CUBE = 0.044715


@formula
def linear_forward(a):
    """y = a."""
    return a


@backward_of(linear_forward, "a")
def linear_backward(dy, y):
    """da = dy."""
    return dy


@formula
def relu_forward(a):
    """y = max(a, 0)."""
    return maximum(a, 0)


@backward_of(relu_forward, "a")
def relu_backward(dy, y):
    """da = dy where y > 0, else 0 (at the kink a = 0 the derivative is taken as 0)."""
    return dy * where(y > 0, 1.0, 0.0)


@formula
def leaky_relu_forward(a):
    """y = a where a > 0, else 0.01 a."""
    return maximum(a, LEAKY_SLOPE * a)


@backward_of(leaky_relu_forward, "a")
def leaky_relu_backward(dy, y):
    """da = dy where y > 0, else 0.01 dy (at the kink a = 0 the derivative is taken as 0.01)."""
    return where(y > 0, dy, LEAKY_SLOPE * dy)


@formula
def elu_forward(a):
    """y = a where a > 0, else e^a - 1."""
    return maximum(a, 0) + expm1(minimum(a, 0))  # one of the two terms is always 0


@backward_of(elu_forward, "a")
def elu_backward(dy, y):
    """da = dy where y > 0, else dy (y + 1)."""
    return dy * (minimum(y, 0) + 1)


@formula
def tanh_forward(a):
    """y = tanh a."""
    return tanh_of(a)


@backward_of(tanh_forward, "a")
def tanh_backward(dy, y):
    """da = dy (1 - y^2)."""
    return dy * (1 - y * y)


@formula
def sigmoid_forward(a):
    """y = 1 / (1 + e^-a); it overflows nowhere."""
    return sigmoid_of(a)


@backward_of(sigmoid_forward, "a")
def sigmoid_backward(dy, y):
    """da = dy y (1 - y)."""
    return dy * (y * (1 - y))


@formula
def softplus_forward(a):
    """y = log(1 + e^a), written as max(a, 0) + log(1 + e^-|a|), which overflows nowhere."""
    return maximum(a, 0) + log1p(exp(-abs(a)))


@backward_of(softplus_forward, "a")
def softplus_backward(dy, y):
    """da = dy (1 - e^-y)."""
    return dy * -expm1(-y)


@formula
def swish_forward(a):
    """y = a s with s = 1 / (1 + e^-a)."""
    return a * sigmoid_of(a)


@backward_of(swish_forward, "a")
def swish_backward(dy, a, y):
    """da = dy (s + y (1 - s)), since ds/da = s (1 - s) and a s = y."""
    s = sigmoid_of(a)
    return dy * (s + y * (1 - s))


@formula
def gelu_forward(a):
    """y = a (1 + tanh u) / 2, u = sqrt(2 / pi) (a + 0.044715 a^3)."""
    return 0.5 * a * (1 + tanh_of(ROOT * (a + CUBE * a * a * a)))


@backward_of(gelu_forward, "a")
def gelu_backward(dy, a):
    """da = dy ((1 + t) / 2 + a (1 - t^2) u' / 2), t = tanh u, u' = sqrt(2 / pi) (1 + 3 * 0.044715 a^2)."""
    t = tanh_of(ROOT * (a + CUBE * a * a * a))
    return dy * (0.5 * (1 + t) + 0.5 * a * (1 - t * t) * (ROOT * (1 + 3 * CUBE * a * a)))


@dataclass(frozen=True, eq=False)
class Activation:
    """A pair with its name, and what others must know of it.

    kinked      not differentiable at a = 0: a finite difference across it means nothing
    rectifier   the layer before it starts as He et al. 2015 say, not as Glorot & Bengio 2010
    identity    y = a, with the slope 1: no pass need be made for it
    captured    its number in kernels.cu, where the captured step on a GPU has it
    """

    name: str
    forward: Formula
    backward: Formula
    kinked: bool = False
    rectifier: bool = False
    identity: bool = False
    captured: int | None = None

    @property
    def reads_a(self) -> bool:
        """Whether its backward reads a, which then is kept beside y."""
        return "a" in self.backward.inputs


LINEAR = Activation("linear", linear_forward, linear_backward, identity=True, captured=0)
ACTIVATIONS = {
    activation.name: activation
    for activation in (
        LINEAR,
        Activation("relu", relu_forward, relu_backward, kinked=True, rectifier=True, captured=1),
        Activation("tanh", tanh_forward, tanh_backward, captured=2),
        Activation("sigmoid", sigmoid_forward, sigmoid_backward, captured=3),
        Activation("softplus", softplus_forward, softplus_backward, rectifier=True, captured=4),
        Activation("elu", elu_forward, elu_backward, rectifier=True, captured=5),
        Activation("leaky-relu", leaky_relu_forward, leaky_relu_backward, kinked=True, rectifier=True, captured=6),
        Activation("swish", swish_forward, swish_backward, rectifier=True),
        Activation("gelu", gelu_forward, gelu_backward, rectifier=True),
    )
}


def activation(named: "str | Activation") -> Activation:
    """The activation of that name, or the one given. Raises ValueError for a name that there is not."""
    if isinstance(named, Activation):
        return named
    if named not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {named!r}")
    return ACTIVATIONS[named]
