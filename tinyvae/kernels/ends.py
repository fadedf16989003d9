"""The loops at the ends of a product: bias and activation going forward, the slope of the layer below going back."""

from functools import cache

from tinyvae.formula import Formula, formula
from tinyvae.loop import Loop
from tinyvae.ops.activations import Activation


@formula
def itself(a):
    """a."""
    return a


@formula
def with_bias(a, b):
    """a + b."""
    return a + b


@formula
def with_label(a, v):
    """a + v."""
    return a + v


@formula
def with_bias_and_label(a, b, v):
    """a + b + v."""
    return a + b + v


BEFORE = {
    (False, False): itself,
    (True, False): with_bias,
    (False, True): with_label,
    (True, True): with_bias_and_label,
}
COLUMN_SUMS = Loop(columns=[itself])


@cache
def forward_end(f: Activation, bias: bool, label: bool) -> Loop | None:
    """y = f(a + b + v) from a, b and v; a + b + v itself comes first where f's slope reads it. None: a is y already."""
    before = BEFORE[bias, label]
    if f.identity and before is itself:
        return None
    value = Formula(lambda *numbers: f.forward(before(*numbers)), inputs=before.inputs, name=f"{f.name} of {before}")
    return Loop(outputs=[before, value] if f.reads_a else [value])


@cache
def backward_end(f: Activation) -> Loop | None:
    """da = dy f'(a) from dy, y, and a where it is read. None: the slope is 1."""
    return None if f.identity else Loop(outputs=[f.backward])
