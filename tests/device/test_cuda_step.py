"""A whole training step as a chain of launches on the CPU, against the model in float64 and Adam.

The chain is written out here once more, for any depth, so that it also shows how the kernels are meant to be used.
"""

from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.checks import check_adam
from cuda_on_cpu.philox import normals, uniforms
from cuda_on_cpu.rounded import gradients
from cuda_on_cpu.running import POISON, Kernels, compiled
from strategies import ULP, assert_within

from tinyvae import VAE
from tinyvae.kernels.cuda.table import (
    ACTIVATION_NAMES,
    EPS_STREAM,
    GROUP,
    KERNELS,
    PAIR,
    UNIFORM_STREAM,
    group_blocks,
    tiles,
)  # fmt: skip
from tinyvae.likelihoods.bernoulli import Bernoulli
from tinyvae.model.architecture import Architecture
from tinyvae.ops import adam

BATCHES, CAPACITY = 3, 37
LAST = 35  # rows of the last batch


def poisoned(*shape: int) -> np.ndarray:
    return np.full(shape, POISON).view(np.float32)


class Chain:
    """Buffers for one model, and the launches of a step."""

    def __init__(self, k: Kernels, model: VAE, data: np.ndarray, dynamic: bool, schedule: np.ndarray) -> None:
        self.k, self.model, self.data, self.dynamic, self.schedule = k, model, data, dynamic, schedule
        assert isinstance(model.architecture, Architecture)
        self.a = model.architecture
        self.p = model.params.flat.astype(np.float32)
        self.m, self.v = np.zeros_like(self.p), np.zeros_like(self.p)
        ends = np.cumsum([view.size for view in model.params.values()])
        self.learned = "likelihood.logvar" in model.params
        self.offsets = dict(zip(self.a.shapes(), [0, *ends[:-1]], strict=True))
        self.seed = 0

    def launch(self, name: str, **arguments: Any) -> None:
        self.seed += 1
        self.k.shim.launch(name, KERNELS[name].grid(arguments), arguments, self.seed)

    def pointer(self, name: str, flat: np.ndarray | None = None) -> int:
        return (self.p if flat is None else flat).ctypes.data + 4 * int(self.offsets[name])

    def weight(self, part: str, i: int) -> dict[str, Any]:
        """W, ldw and transposed of a layer, and b."""
        bias = {"b": self.pointer(f"{part}.{i}.bias")}
        if self.a.tied and part == "decoder":
            name = f"encoder.{len(self.a.hidden) - i}.weight"
            return {"W": self.pointer(name), "ldw": self.a.shapes()[name][1], "transposed": 1, **bias}
        name = f"{part}.{i}.weight"
        return {"W": self.pointer(name), "ldw": self.a.shapes()[name][1], "transposed": 0, **bias}

    def step(self, rows: int, state: np.ndarray, order: np.ndarray, ring: np.ndarray, free_bits: float) -> np.ndarray:
        """One step on the batch that `state` names; -> the gradient."""
        a, latent, last = self.a, self.a.latent_dim, len(self.a.hidden)
        activation = ACTIVATION_NAMES.index(a.activation)
        g = poisoned(self.p.size)
        self.x = x = poisoned(rows, a.data_dim)
        self.launch("gather_floats", data=self.data, order=order, state=state, x=x, rows=rows, capacity=CAPACITY,
                    columns=a.data_dim, scale=1.0, dynamic=int(self.dynamic))  # fmt: skip
        encoder, decoder, widths = [x], [], (a.encoder_widths, a.decoder_widths)
        for i in range(last):
            encoder.append(self.forward("encoder", i, encoder[-1], widths[0], activation))
        head, eps, z, kl = (poisoned(rows, n) for n in (2 * latent, latent, latent, latent))
        W = self.weight("encoder", last)
        self.launch("head_forward", x=encoder[-1], W=W["W"], b=W["b"], state=state, head=head, eps=eps, z=z, kl=kl,
                    rows=rows, inputs=widths[0][-2], latent=latent)  # fmt: skip
        self.eps = eps
        decoder.append(z)
        for i in range(last):
            decoder.append(self.forward("decoder", i, decoder[-1], widths[1], activation))

        W, inputs, parts = self.weight("decoder", last), widths[1][-2], tiles(a.data_dim)
        doutput, logvar, dlogvar_parts = poisoned(rows, widths[1][-1]), None, None
        common: dict[str, Any] = {"x": decoder[-1], "b": W["b"], "target": x, "doutput": doutput, "rows": rows,
                                  "inputs": inputs, "outputs": a.data_dim}  # fmt: skip
        if len(a.likelihood.outputs) == 2:
            parts = tiles(a.data_dim, PAIR)
            nll_parts = poisoned(rows, parts)
            self.launch("output_gaussian_predicted", **common, W=W["W"], nll_parts=nll_parts)
        elif a.likelihood == Bernoulli():
            nll_parts = poisoned(rows, parts)
            self.launch("output_bernoulli", **common | W, nll_parts=nll_parts)
        else:
            nll_parts, dlogvar_parts = poisoned(rows, parts), poisoned(rows, parts)
            fixed = np.array(list(a.likelihood.fixed().values()), np.float32)
            logvar = self.pointer("likelihood.logvar") if self.learned else fixed
            self.launch("output_gaussian", **common | W, logvar=logvar, nll_parts=nll_parts,
                        dlogvar_parts=dlogvar_parts)  # fmt: skip

        dys: dict[str, list[Any]] = {"decoder": [None] * last + [doutput], "encoder": [None] * (last + 1)}
        for i in reversed(range(last)):
            dys["decoder"][i] = self.backward("decoder", i + 1, dys["decoder"][i + 1], decoder[i + 1], widths[1])
        dys["encoder"][last] = dhead = poisoned(rows, 2 * latent)
        W = self.weight("decoder", 0)
        W.pop("b")
        self.launch("latent_backward", dy=dys["decoder"][0], **W, head=head, eps=eps, kl=kl, state=state,
                    schedule=self.schedule, dhead=dhead, rows=rows, latent=latent, outputs=widths[1][1],
                    free_bits=free_bits)  # fmt: skip
        for i in reversed(range(last)):
            dys["encoder"][i] = self.backward("encoder", i + 1, dys["encoder"][i + 1], encoder[i + 1], widths[0])

        groups = self.groups(encoder, decoder, dys)
        block_count = int(groups[-1, -1]) + group_blocks(*(int(n) for n in groups[-1, 1:4]))
        self.launch("weights_and_adam", groups=groups, group_count=len(groups), block_count=block_count, p=self.p,
                    m=self.m, v=self.v, g=g, state=state, schedule=self.schedule, rows=rows)  # fmt: skip
        shared = {
            name: self.pointer("likelihood.logvar", flat) if self.learned else None
            for name, flat in [("logvar", self.p), ("logvar_m", self.m), ("logvar_v", self.v), ("logvar_g", g)]
        }
        self.launch("finish_step", nll_parts=nll_parts, part_count=parts, kl=kl, schedule=self.schedule,
                    free_bits=free_bits, ring=ring, state=state, dlogvar_parts=dlogvar_parts, **shared, rows=rows,
                    latent=latent)  # fmt: skip
        return g

    def forward(self, part: str, i: int, x: np.ndarray, widths: tuple[int, ...], activation: int) -> np.ndarray:
        y = poisoned(len(x), widths[i + 1])
        self.launch("layer_forward", x=x, **self.weight(part, i), y=y, rows=len(x), inputs=widths[i],
                    outputs=widths[i + 1], activation=activation)  # fmt: skip
        return y

    def backward(self, part: str, i: int, dy: np.ndarray, y: np.ndarray, widths: tuple[int, ...]) -> np.ndarray:
        """Through layer i and the activation of the layer below, whose output is y."""
        dx, W = poisoned(*y.shape), self.weight(part, i)
        W.pop("b")
        self.launch("layer_backward", dy=dy, **W, y=y, dx=dx, rows=len(dy), inputs=widths[i], outputs=widths[i + 1],
                    activation=ACTIVATION_NAMES.index(self.a.activation))  # fmt: skip
        return dx

    def groups(self, encoder: list[Any], decoder: list[Any], dys: dict[str, list[Any]]) -> np.ndarray:
        rows, first_block, last = [], 0, len(self.a.hidden)
        for part, xs in [("encoder", encoder), ("decoder", decoder)]:
            for i, dy in enumerate(dys[part]):
                bias_only = self.a.tied and part == "decoder"
                inputs, outputs = 0 if bias_only else xs[i].shape[1], dy.shape[1]
                second = [0, 0, 0, 0, 0]
                if self.a.tied and part == "encoder":
                    x2, dy2 = dys["decoder"][last - i], decoder[last - i]
                    second = [x2.ctypes.data, x2.shape[1], dy2.ctypes.data, dy2.shape[1], dy2.shape[1]]
                offset = self.offsets[f"{part}.{i}.{'bias' if bias_only else 'weight'}"]
                x = (0, 0) if bias_only else (xs[i].ctypes.data, inputs)
                rows.append([offset, inputs, outputs, 1, *x, dy.ctypes.data, outputs, *second, first_block])
                first_block += group_blocks(inputs, outputs, 1)
        table = np.array(rows, np.int64)
        assert table.shape[1] == len(GROUP)
        return table


CASES: dict[str, dict[str, Any]] = {
    "bernoulli": {"hidden": (19,), "activation": "tanh"},
    "bernoulli, binarized": {"hidden": (19,), "activation": "softplus", "dynamic": True},
    "bernoulli, two hidden layers, free bits": {"hidden": (34, 19), "activation": "elu", "free_bits": 0.02},
    "bernoulli, no hidden layer": {"hidden": (), "activation": "tanh"},
    "bernoulli, tied": {"hidden": (19,), "activation": "tanh", "tied": True},
    "gaussian, learned": {"hidden": (19,), "activation": "sigmoid", "likelihood": "gaussian", "sigma": "learned"},
    "gaussian, fixed": {"hidden": (19,), "activation": "tanh", "likelihood": "gaussian", "sigma": "fixed:0.5"},
    "gaussian, predicted": {"hidden": (19,), "activation": "tanh", "likelihood": "gaussian", "sigma": "predicted"},
    "gaussian, tied, two hidden layers": {
        "hidden": (34, 19), "activation": "tanh", "likelihood": "gaussian", "sigma": "learned", "tied": True,
    },
}  # fmt: skip


def check_steps(k: Kernels, case: str) -> None:
    options = dict(CASES[case])
    dynamic, free_bits = options.pop("dynamic", False), options.pop("free_bits", 0.0)
    model = VAE(data_dim=37, latent_dim=5, kernels="reference", dtype="float64", seed=1, **options)
    rng = np.random.default_rng(2)
    data = rng.random((120, 37), dtype=np.float32)
    total = CAPACITY * (BATCHES - 1) + LAST
    order = rng.permutation(len(data))[:total].astype(np.int32)
    schedule = np.array([
        [2.0, *adam.step_and_epsilon(t + 1, 0.01), 1 / (CAPACITY if t + 1 < BATCHES else LAST)] for t in range(BATCHES)
    ], np.float32)  # fmt: skip
    state, ring = np.array([0, 77, 88], np.uint32), poisoned(BATCHES, 3)
    chain = Chain(k, model, data, dynamic, schedule)
    model.params.flat[...] = chain.p
    for batch in range(BATCHES):
        rows = CAPACITY if batch + 1 < BATCHES else LAST
        now = state.copy()
        before = {"p": chain.p.copy(), "m": chain.m.copy(), "v": chain.v.copy()}
        model.params.flat[...] = chain.p
        g = chain.step(rows, state, order, ring, free_bits)
        assert state.tolist() == [batch + 1, 77, 88]

        x = data[order[batch * CAPACITY :][:rows]]
        if dynamic:
            x = uniforms(now, UNIFORM_STREAM, x.size).reshape(x.shape) < x
        assert np.array_equal(chain.x, x)
        eps = normals(now, EPS_STREAM, rows * 5).reshape(rows, 5)
        assert_within(chain.eps, eps, (2 * ULP + 2) * np.finfo(np.float32).eps * np.abs(eps))
        x, eps = chain.x.astype(np.float64), chain.eps.astype(np.float64)
        losses = model.loss_and_grad(x, eps, beta=2.0, free_bits=free_bits)
        fixed = float(np.float32(2 * np.log(0.5)))
        params = {name: view.copy() for name, view in model.params.items()}
        bounds, losses_bound = gradients(chain.a, params, x, eps, 2.0, free_bits, fixed, k.tf32)
        for name, exact in model.grads.items():
            np.testing.assert_allclose(bounds[name].value.reshape(exact.shape), exact, rtol=1e-6, atol=1e-9)
            start = int(chain.offsets[name])
            mine = g[start : start + exact.size].reshape(exact.shape)
            assert_within(mine, bounds[name].value.reshape(exact.shape), bounds[name].error.reshape(exact.shape))
        np.testing.assert_allclose([float(b.value) for b in losses_bound], losses, rtol=1e-6)
        assert_within(ring[batch], [b.value for b in losses_bound], [b.error for b in losses_bound])
        after = {"p": chain.p, "m": chain.m, "v": chain.v}
        check_adam(before, after, g, float(schedule[batch, 1]), float(schedule[batch, 2]))


@pytest.mark.parametrize("macros", [(), ("TF32",)], ids=["float32", "tf32"])
@pytest.mark.parametrize("case", CASES)
def test_three_steps_of_training(case: str, macros: tuple[str, ...]) -> None:
    check_steps(compiled(*macros), case)


def test_the_bounds_of_float32_are_tight_enough_to_mean_something() -> None:
    """Of the gradients' own size they are at most thousandths, in every tensor."""
    model = VAE(data_dim=37, hidden=(19,), latent_dim=5, kernels="reference", dtype="float64", activation="tanh")
    rng = np.random.default_rng(0)
    params = {name: view.copy() for name, view in model.params.items()}
    x, eps = rng.random((37, 37)), rng.standard_normal((37, 5))
    assert isinstance(model.architecture, Architecture)
    bounds, _ = gradients(model.architecture, params, x, eps, 2.0, 0.0, 0.0, tf32=False)
    for name, bound in bounds.items():
        assert np.linalg.norm(bound.error) < 1e-3 * np.linalg.norm(bound.value), name
