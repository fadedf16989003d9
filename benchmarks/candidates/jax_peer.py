"""JAX at full strength: the whole step is one compiled function, noise and Adam included, its state donated."""

import math
import time
from collections.abc import Iterator
from itertools import islice, repeat
from typing import Any

import jax  # pyright: ignore[reportMissingImports]  # not installed for the type checker, here and below
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

from benchmarks.candidates import timing
from benchmarks.shapes import LR, SCALE, Given, Shape
from tinyvae.ops.adam import BETA1, BETA2, EPSILON


class JaxPeer:
    """`loss` and `step` are the whole of it."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.activation = getattr(jax.nn, shape.activation)
        self.on_gpu = jax.default_backend() == "gpu"
        self.data = jnp.asarray(shape.pixels())  # (rows, data), bytes
        self.free = jax.jit(self.step, donate_argnums=0)
        self.reset()

    def reset(self) -> None:
        """The initial weights (in, out), Adam's moments, the number of steps made, and the random key."""
        p = [jnp.array(a) for a in self.shape.weights().values()]
        m, v = ([jnp.zeros_like(a) for a in p] for _ in range(2))
        self.state = (p, m, v, jnp.zeros((), jnp.int32), jax.random.key(0))

    def loss(self, parameters: list[Any], x: Any, eps: Any) -> Any:
        """Minus the ELBO, mean over the batch.  x (batch, data), eps (batch, latent)."""
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        encoder, decoder = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        h = x
        for W, b in encoder[:-1]:
            h = self.activation(h @ W + b)
        W, b = encoder[-1]
        mu, logvar = jnp.split(h @ W + b, 2, axis=1)
        h = mu + jnp.exp(0.5 * logvar) * eps
        for W, b in decoder[:-1]:
            h = self.activation(h @ W + b)
        W, b = decoder[-1]
        logits = h @ W + b
        nll = jnp.sum(jax.nn.softplus(logits) - x * logits)
        kl = -0.5 * jnp.sum(1 + logvar - mu**2 - jnp.exp(logvar))
        return (nll + kl) / x.shape[0]

    def step(self, state: Any, data: Any, order: Any, eps: Any = None, u: Any = None) -> tuple[Any, Any]:
        """One training step; noise that is not given is drawn. -> the new state, the loss.

        order: the rows of an epoch, on the device; the number of steps made says which of them are next.
        """
        p, m, v, t, key = state
        batch = self.shape.batch
        rows = jax.lax.dynamic_slice(order, (t % (order.shape[0] // batch) * batch,), (batch,))
        key, key_eps, key_u = jax.random.split(key, 3)
        x = data[rows].astype(jnp.float32) * SCALE  # (batch, data)
        if self.shape.dynamic:
            u = jax.random.uniform(key_u, x.shape) if u is None else u
            x = (u < x).astype(jnp.float32)
        eps = jax.random.normal(key_eps, (x.shape[0], self.shape.latent)) if eps is None else eps
        loss, g = jax.value_and_grad(self.loss)(p, x, eps)
        t = t + 1
        m = [BETA1 * m_ + (1 - BETA1) * g_ for m_, g_ in zip(m, g, strict=True)]
        v = [BETA2 * v_ + (1 - BETA2) * g_**2 for v_, g_ in zip(v, g, strict=True)]
        c1, c2 = (-jnp.expm1(t.astype(jnp.float32) * math.log(beta)) for beta in (BETA1, BETA2))  # 1 - beta^t
        p = [p_ - LR * (m_ / c1) / (jnp.sqrt(v_ / c2) + EPSILON) for p_, m_, v_ in zip(p, m, v, strict=True)]
        return (p, m, v, t, key), loss

    def given_losses(self, batches: list[Given]) -> list[float]:
        self.reset()
        losses = []
        for batch in batches:
            self.state, loss = self.free(self.state, self.data, *batch)
            losses.append(float(loss))
        return losses

    def orders(self) -> Iterator[Any]:
        """For each step, the order of its epoch."""
        for order in self.shape.orders():
            yield from repeat(jnp.asarray(order, jnp.int32), len(order) // self.shape.batch)

    def free_step(self, order: Any) -> Any:
        self.state, loss = self.free(self.state, self.data, order)
        return loss

    def step_times(self, warmup: int, steps: int) -> list[float]:
        self.reset()
        wait = jax.block_until_ready if self.on_gpu else float
        return timing.step_times(self.free_step, self.orders(), wait, warmup, steps)

    def throughput(self, steps: int) -> float:
        self.reset()
        return timing.throughput(self.free_step, self.orders(), jax.block_until_ready, steps)


class ScanPeer(JaxPeer):
    """A whole epoch in one call: `lax.scan` over its steps. There is no latency of a single one."""

    def given_losses(self, batches: list[Given]) -> list[float]:
        def steps(state: Any, data: Any, given: Any) -> Any:
            return jax.lax.scan(lambda state, batch: self.step(state, data, *batch), state, given)

        self.reset()
        given = tuple(jnp.stack(arrays) for arrays in zip(*batches, strict=True))
        return jax.jit(steps)(self.state, self.data, given)[1].tolist()

    def step_times(self, warmup: int, steps: int) -> list[float]:
        return []

    def throughput(self, steps: int) -> float:
        self.reset()
        epoch_steps = self.shape.rows // self.shape.batch

        def epoch(state: Any, data: Any, order: Any) -> tuple[Any, Any]:
            return jax.lax.scan(lambda state, _: self.step(state, data, order), state, length=epoch_steps)

        run = jax.jit(epoch, donate_argnums=0)
        epochs = -(-steps // epoch_steps)
        first, *orders = (jnp.asarray(order, jnp.int32) for order in islice(self.shape.orders(), 1 + epochs))
        self.state, losses = run(self.state, self.data, first)  # compiles
        jax.block_until_ready((losses, orders))
        began = time.perf_counter()
        for order in orders:
            self.state, losses = run(self.state, self.data, order)
        losses.block_until_ready()
        return (time.perf_counter() - began) / (epochs * epoch_steps)


def build(shape: Shape, kind: str, backend: str, tf32: bool) -> JaxPeer:
    """kind: jit or scan."""
    jax.config.update("jax_platforms", "cuda" if backend == "cupy" else "cpu")
    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "highest")
    return (ScanPeer if kind == "scan" else JaxPeer)(shape)
