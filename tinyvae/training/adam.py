"""Adam on a model's flat buffer: the one place where parameters change. The formulas are in `ops.adam`."""

from typing import Any

from tinyvae.backend import Array
from tinyvae.kernels.contract import Kernels
from tinyvae.loop import Loop
from tinyvae.model.vae import VAE
from tinyvae.ops.adam import REST, adam_update, decayed, rested, shortened, step_and_epsilon

UPDATE, SHORTEN, RESTED, DECAY = Loop([adam_update]), Loop([shortened]), Loop([rested]), Loop([decayed])


class Adam:
    """Adam's moments m and v (parameters,), and `t`, the steps made so far.

    model.loss_and_grad(x, eps)
    adam.step(lr=1e-3)
    """

    def __init__(self, model: VAE) -> None:
        zeros, size = model.backend.zeros, model.params.flat.size
        self.model, self.t = model, 0
        self.m, self.v = zeros(size, model.dtype), zeros(size, model.dtype)
        self._set_up()

    def _set_up(self) -> None:
        weights = [p for p in self.model.params.values() if p.ndim > 1]  # what decays
        self.matrices = [W.reshape(W.shape[0], -1) for W in weights]  # a convolution's as well: views
        self.seen: tuple[list[Array], list[Array]] = [], []  # arrays, and views on them as rows

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("seen", "matrices")}  # views would come back as copies

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._set_up()

    def step(self, lr: float, clip_norm: float | None = None, weight_decay: float = 0.0) -> None:
        """One step along the model's `grads`, which are first shortened to clip_norm, if they are longer.

        weight_decay: every weight matrix also shrinks by lr weight_decay of itself (AdamW); biases and the like do not.
        """
        with self.model.lock, self.model.borrowed("adam") as k:
            g = self.model.grads.flat
            self.update(k, g, lr, clip_norm, None if clip_norm is None else k.squared_norm(g), weight_decay)

    def update(
        self, k: Kernels, g: Array, lr: float, clip_norm: float | None = None, norm2: Any = None,
        weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        """The same with kernels at hand, the gradient g (parameters,), and its squared norm (1,) if it is clipped."""
        self.t += 1
        step, epsilon = step_and_epsilon(self.t, lr)
        p, g, m, v = self._as_rows([self.model.params.flat, g, self.m, self.v])
        if clip_norm is not None:
            k.map(SHORTEN, g=g, norm2=norm2, max_norm=clip_norm, out=(g,))
        if weight_decay:
            for W in self.matrices:
                k.map(DECAY, p=W, rate=lr * weight_decay, out=(W,))
        k.map(UPDATE, p=p, g=g, m=m, v=v, step=step, epsilon=epsilon, out=(p, m, v))
        if self.t % REST == 0:
            k.map(RESTED, m=m, out=(m,))

    def _as_rows(self, arrays: list[Array]) -> list[Array]:
        """Views (1, parameters): the same ones while the arrays are the same, so that kernels quickly compare them."""
        if [*map(id, self.seen[0])] != [*map(id, arrays)]:
            self.seen = arrays, [a.reshape(1, -1) for a in arrays]
        return self.seen[1]
