"""A layer of one's own: the gated linear unit (Dauphin et al. 2017), y = u * v with u = x W + b, v = sigmoid(x V + c).

du = dy v        dg = dy u v (1 - v), the gradient before the sigmoid        dx = du W^T + dg V^T
"""

from dataclasses import dataclass

import numpy as np

from tinyvae.checking.contracts import check_layer
from tinyvae.formula import formula
from tinyvae.kernels.contract import Rows
from tinyvae.layers import Dense, Layer, Param
from tinyvae.layers.starts import weights
from tinyvae.loop import Loop
from tinyvae.ops.activations import ACTIVATIONS, LINEAR


@formula
def gated(u, v):
    """y = u v."""
    return u * v


@formula
def gated_backward(dy, u, v):
    """du = dy v, dg = dy u v (1 - v)."""
    return dy * v, dy * u * (v * (1 - v))


@formula
def both(a, b):
    """a + b."""
    return a + b


FORWARD, BACKWARD, SUM = Loop([gated]), Loop([gated_backward]), Loop([both])


@dataclass(frozen=True, eq=False)
class Gated(Layer):
    """y = (x W + b) sigmoid(x V + c).  x (rows, inputs) -> (rows, width)."""

    inputs: int
    width: int

    def params(self):
        """weight, gate (inputs, width); bias, gate_bias (width,)."""
        shape = (self.inputs, self.width)
        yield Param("weight", shape, weights(shape, *shape, LINEAR))
        yield Param("bias", (self.width,), 0.0)
        yield Param("gate", shape, weights(shape, *shape, LINEAR))
        yield Param("gate_bias", (self.width,), 0.0)

    def forward(self, k, p, x, context):
        """Two products and a loop; back: the loop's mirror, and the products'."""
        u = k.product(x.y, p["weight"], p["bias"], LINEAR).y
        v = k.product(x.y, p["gate"], p["gate_bias"], ACTIVATIONS["sigmoid"]).y
        y = k.map(FORWARD, u=u, v=v)

        def backward(dy, g):
            du, dg = k.map(BACKWARD, dy=dy, u=u, v=v)
            k.gradient(x.y, du, g["weight"], g["bias"])
            k.gradient(x.y, dg, g["gate"], g["gate_bias"])
            if x.f is None:  # data: nobody asks for its gradient
                return None
            before = Rows(x.y, LINEAR)
            return k.end(k.map(SUM, a=k.back(du, p["weight"], before), b=k.back(dg, p["gate"], before)), x)

        return Rows(y, LINEAR), backward


if __name__ == "__main__":
    import tinyvae

    check_layer(Gated(5, 3))
    model = tinyvae.VAE(
        encoder=[Gated(64, 32), Dense(32, 2 * 4, gain=0.1)], decoder=[Gated(4, 32), Dense(32, 64, gain=0.1)]
    )
    rng = np.random.default_rng(0)
    print(model.loss_and_grad(rng.uniform(size=(10, 64)), rng.standard_normal((10, 4))))
