"""An objective of one's own: the KL is held at a capacity C that rises (Burgess et al. 2018, equation 8).

    loss = mean nll + gamma |KL - C|,     KL = mean over the rows of sum_j KL_j

    dKL_ij = gamma sign(KL - C) / n

`at(epochs)` is where an objective changes on its way through training; training asks for it before every step.
"""

from dataclasses import dataclass, replace

import numpy as np

from tinyvae.checking.contracts import check_objective
from tinyvae.objectives.objective import Objective, Partials, Terms
from tinyvae.ops.gaussian import kl_backward, kl_forward


@dataclass(frozen=True)
class Capacity(Objective):
    """nll + gamma |KL - C|, where C rises to `capacity` nats within `rise` epochs."""

    capacity: float = 10.0
    gamma: float = 30.0
    rise: float = 0.0

    def at(self, epochs):
        """C after so many epochs."""
        if not self.rise:
            return self
        return replace(self, capacity=self.capacity * min(1.0, epochs / self.rise), rise=0.0)

    def forward(self, k, nll, q):
        """Array code: `k.xp` is NumPy or CuPy, and formulas are functions of arrays."""
        n, xp = q.mu.shape[0], k.xp
        kl = kl_forward(q.mu, q.logvar).sum() / n
        mean = nll.mean()
        terms = Terms(*(xp.reshape(a, 1) for a in (mean + self.gamma * abs(kl - self.capacity), mean, kl)))

        def backward():
            dkl = self.gamma * xp.sign(kl - self.capacity) / n
            return Partials(*kl_backward(dkl, q.mu, q.logvar))

        return terms, backward


if __name__ == "__main__":
    import tinyvae

    check_objective(Capacity(capacity=2.0, gamma=4.0))
    model = tinyvae.VAE(6, hidden=(16,), latent_dim=2)
    rng = np.random.default_rng(0)
    x, eps = rng.uniform(size=(10, 6)), rng.standard_normal((10, 2))
    print(model.loss_and_grad(x, eps, objective=Capacity(capacity=1.0)))
