"""A whole training step on a GPU, as one CUDA graph: about ten kernels, replayed without a word from the host.

    gather -> layer_forward* -> head_forward -> layer_forward* -> output_*        x, y, head, z, then loss and doutput
    -> layer_backward* -> latent_backward -> layer_backward* -> weights_and_adam -> finish_step

What changes from step to step lies on the device: `state` says which batch is next, and `finish_step` counts it on.
The rows of that batch come from `order`, its beta and step size from `schedule`, its noise from Philox, named by the
epoch's key and the batch. So each replay of one graph is another step, and a run resumes in mid-epoch by one number.

Order in time. The steps run on a stream of their own, which does not wait for CuPy's default stream, nor the other way
round. They meet twice an epoch: `begin_epoch` lets the stream wait for what the default stream has been given (an
evaluation that reads the parameters), and `wait` lets the host wait for the stream. In between only this class may
touch the parameters and moments.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from tinyvae.backend import Array, to_host
from tinyvae.kernels.cuda.launch import launcher
from tinyvae.kernels.cuda.table import (
    GROUP,
    PAIR,
    SCHEDULE_COLUMNS,
    STATE_WORDS,
    group_blocks,
    tiles,
)
from tinyvae.layers.layer import Bound
from tinyvae.model.vae import VAE
from tinyvae.objectives.objective import Objective
from tinyvae.ops.activations import activation as activation_named
from tinyvae.training.batches import Batches

AHEAD = 32  # the host is at most twice so many steps ahead of the device: see `_keep_pace`

Launch = tuple[str, dict[str, Any]]  # a kernel's name, and its arguments but for `rows`


@dataclass
class Layer:
    """A dense layer's place on the device. `x`, (rows, inputs), is the layer below's y: known once they are chained."""

    inputs: int
    outputs: int
    weight: dict[str, Any]  # W, ldw and transposed, as the kernels take them
    b: Array  # (outputs,)
    y: Array  # (rows, outputs), after the activation; the last layer of the decoder has none
    dy: Array  # (rows, outputs), the gradient before the activation
    x: Array = None


class GraphStep:
    """The training step of a model on its batches.

    m, v (parameters,) are Adam's moments; they and the model's parameters are changed in place. With `tf32` products
    are rounded to TF32. A graph holds `steps_per_graph` steps: more than one is for measuring. Of the objective it
    takes the free bits; beta, which may change, is in the schedule of every epoch.

    Raises ValueError for what `suits` denies, and for data that holds NaN: its kernels take every number for observed.
    """

    @staticmethod
    def suits(model: VAE, objective: Objective) -> bool:
        """Whether it knows this model and objective: dense layers on a GPU, and kernels by hand for the rest.

        A class that inherits from one with a kernel may compute something else, so it must say itself that it has one.
        """
        likelihood = model.likelihood
        name = model.architecture.plain_activation()
        known = name is not None and activation_named(name).captured is not None and likelihood.encoder_input is None
        by_hand = bool(likelihood.captured) and objective.captured
        theirs = all("captured" in vars(type(part)) for part in (likelihood, objective))
        return model.kernels_name == "cuda" and known and by_hand and theirs

    def __init__(
        self, model: VAE, batches: Batches, m: Array, v: Array,
        objective: Objective, tf32: bool = False, steps_per_graph: int = 1,
    ) -> None:  # fmt: skip
        if batches.missing or not self.suits(model, objective):
            raise ValueError("the captured step does not know this model and objective, or data with NaN")
        self.xp = xp = model.backend.xp
        self.model, self.m, self.v = model, m, v
        self.free_bits: float = asdict(objective)["free_bits"]
        self.capacity, self.steps_per_graph = batches.batch_size, steps_per_graph
        self.launch_kernel = launcher(xp, tf32).launch
        self.order = xp.zeros(batches.rows, dtype="int32")  # of the rows in the epoch
        self.state = xp.zeros(STATE_WORDS, dtype="uint32")  # the batch, and the epoch's key
        self.schedule = xp.zeros((len(batches), SCHEDULE_COLUMNS), dtype="float32")
        self.ring = xp.zeros((len(batches), 3), dtype="float32")  # loss, nll, kl of each batch
        self.launches = self._plan(batches)
        self.stream = xp.cuda.Stream(non_blocking=True)
        self.pace, self.unpaced = xp.cuda.Event(block=True, disable_timing=True), 0
        self.graph: Any = None  # captured at the first full batch
        self.left = 0  # batches of the epoch; `begin_epoch` says how many

    # -------------------------------------------------------------------------------------------------------- the epoch

    def begin_epoch(self, order: np.ndarray, key: Sequence[int], schedule: np.ndarray, first_batch: int = 0) -> None:
        """From here on the steps are those of this epoch, from `first_batch` (counted from 0) on.

        order (rows,); key: two words of 32 bits; schedule (batches, 4): see `kernels/cuda/table.py`.
        """
        self.stream.wait_event(self.xp.cuda.get_current_stream().record())
        with self.stream:
            self.order[...] = self.xp.asarray(order, dtype="int32")
            self.schedule[...] = self.xp.asarray(schedule, dtype="float32")
            self.state[...] = self.xp.asarray((first_batch, *key), dtype="uint32")
        self.left = self.ring.shape[0] - first_batch

    def replay(self) -> None:
        """The next step, on a full batch (or the next `steps_per_graph` of them): one call to the driver."""
        self._take(self.steps_per_graph)
        if self.graph is None:
            self.graph = self._capture()
        self.graph.launch(self.stream)
        self._keep_pace()

    def launch(self, rows: int) -> None:
        """The next step, on a batch of `rows` rows, kernel by kernel: the same numbers as a replay, bit for bit."""
        self._take(1)
        with self.stream:
            self._launch_all(rows)
        self._keep_pace()

    def wait(self) -> None:
        """Until every step given so far is done."""
        self.stream.synchronize()

    def losses(self) -> np.ndarray:
        """Loss, nll and kl of each batch of the epoch, (batches, 3); waits first."""
        self.wait()
        return to_host(self.ring)

    def _take(self, steps: int) -> None:
        """Raises RuntimeError if the epoch has not so many batches left: the kernels would write beyond its tables."""
        if steps > self.left:
            raise RuntimeError(f"the epoch has {self.left} batches left, not {steps}: begin another one")
        self.left -= steps

    def _launch_all(self, rows: int) -> None:
        for name, arguments in self.launches:
            self.launch_kernel(name, rows=rows, **arguments)

    def _capture(self) -> Any:
        """The graph of a step on a full batch.

        CUDA loads a kernel when it is first launched, which it cannot do while it captures: so one step is made first,
        and what it changed is put back.
        """
        with self.stream:
            changed = (self.model.params.flat, self.m, self.v, self.state, self.ring)
            kept = [a.copy() for a in changed]
            self._launch_all(self.capacity)
            for a, before in zip(changed, kept, strict=True):
                a[...] = before
            self.stream.begin_capture()
            for _ in range(self.steps_per_graph):
                self._launch_all(self.capacity)
            return self.stream.end_capture()

    def _keep_pace(self) -> None:
        """Every AHEAD steps, wait for the step AHEAD steps ago.

        Without it the host could fill the driver's queue with a thousand steps, and Ctrl-C would be answered after the
        last of them; with it the device still never runs dry.
        """
        self.unpaced += 1
        if self.unpaced == AHEAD:
            self.unpaced = 0
            self.pace.synchronize()  # at once, before it was ever recorded
            self.pace.record(self.stream)

    # --------------------------------------------------------------------------------------------------------- the plan

    def _plan(self, batches: Batches) -> list[Launch]:
        """The kernels of a step with their arguments, in order. All buffers are made here, for a full batch."""
        model = self.model
        latent, data_dim = model.latent_dim, model.data_dim
        name = model.architecture.plain_activation()
        assert name is not None  # see `suits`
        activation = activation_named(name).captured
        assert activation is not None
        x, z, eps, kl = (self._empty(width) for width in (data_dim, latent, latent, latent))
        encoder, decoder = self._layers(model.encoder), self._layers(model.decoder)
        head, output = encoder[-1], decoder[-1]

        gather = "gather_bytes" if batches.data.dtype == np.uint8 else "gather_floats"
        plan: list[Launch] = [(gather, {
            "data": batches.data, "order": self.order, "state": self.state, "x": x, "capacity": self.capacity,
            "columns": data_dim, "scale": batches.scale, "dynamic": batches.dynamic,
        })]  # fmt: skip
        h = x
        for layer in encoder[:-1]:
            plan.append(self._forward(layer, h, activation))
            h = layer.y
        head.x = h
        plan.append(("head_forward", {
            "x": h, "W": head.weight["W"], "b": head.b, "state": self.state, "head": head.y, "eps": eps, "z": z,
            "kl": kl, "inputs": head.inputs, "latent": latent,
        }))  # fmt: skip
        h = z
        for layer in decoder[:-1]:
            plan.append(self._forward(layer, h, activation))
            h = layer.y
        output.x = h
        loss, parts, logvar_parts = self._loss(output, target=x)
        plan.append(loss)

        for layer, below in pairwise(reversed(decoder)):
            plan.append(self._backward(layer, below, activation))
        plan.append(("latent_backward", {
            "dy": decoder[0].dy, **decoder[0].weight, "head": head.y, "eps": eps, "kl": kl, "state": self.state,
            "schedule": self.schedule, "dhead": head.dy, "latent": latent, "outputs": decoder[0].outputs,
            "free_bits": self.free_bits,
        }))  # fmt: skip
        for layer, below in pairwise(reversed(encoder)):
            plan.append(self._backward(layer, below, activation))
        groups, blocks = self._groups(encoder, decoder)
        plan.append(("weights_and_adam", {
            "groups": groups, "group_count": groups.shape[0], "block_count": blocks, "p": model.params.flat,
            "m": self.m, "v": self.v, "g": None, "state": self.state, "schedule": self.schedule,
        }))  # fmt: skip
        learned = [None, None, None]  # the shared logvar and its moments, unless it is fixed or there is none
        if "likelihood.logvar" in model.params:
            place = self._offsets()["likelihood.logvar"]
            learned = [flat[place : place + 1] for flat in (model.params.flat, self.m, self.v)]  # (1,) each
        plan.append(("finish_step", {
            "nll_parts": parts, "part_count": parts.shape[1], "kl": kl, "schedule": self.schedule,
            "free_bits": self.free_bits, "ring": self.ring, "state": self.state, "dlogvar_parts": logvar_parts,
            "logvar": learned[0], "logvar_m": learned[1], "logvar_v": learned[2], "logvar_g": None, "latent": latent,
        }))  # fmt: skip
        return plan

    def _layers(self, half: Sequence[Bound]) -> list[Layer]:
        """The encoder's or the decoder's layers, with their buffers."""
        layers = []
        for layer, p, _ in half:
            transposed = "of.weight" in p  # a tied layer's, which is another's
            W = p["of.weight" if transposed else "weight"]
            weight = {"W": W, "ldw": W.shape[1], "transposed": transposed}
            y = None if layer is self.model.decoder[-1].layer else self._empty(layer.width)
            layers.append(Layer(layer.inputs, layer.width, weight, p["bias"], y, dy=self._empty(layer.width)))
        return layers

    def _forward(self, layer: Layer, x: Array, activation: int) -> Launch:
        layer.x = x
        return "layer_forward", {
            "x": x, **layer.weight, "b": layer.b, "y": layer.y,
            "inputs": layer.inputs, "outputs": layer.outputs, "activation": activation,
        }  # fmt: skip

    def _backward(self, layer: Layer, below: Layer, activation: int) -> Launch:
        return "layer_backward", {
            "dy": layer.dy, **layer.weight, "y": below.y, "dx": below.dy,
            "inputs": layer.inputs, "outputs": layer.outputs, "activation": activation,
        }  # fmt: skip

    def _loss(self, output: Layer, target: Array) -> tuple[Launch, Array, Array]:
        """The output layer with the likelihood; its nll, (rows, tiles), and that of a shared logvar's gradient."""
        likelihood, columns = self.model.likelihood, self.model.data_dim
        kernel = likelihood.captured
        assert kernel is not None  # see `suits`
        parts = self._empty(tiles(columns, PAIR) if len(likelihood.outputs) > 1 else tiles(columns))
        arguments = {
            "x": output.x, "b": output.b, "target": target, "doutput": output.dy, "nll_parts": parts,
            "inputs": output.inputs, "outputs": columns,
        }  # fmt: skip
        if len(likelihood.outputs) > 1:
            return (kernel, {**arguments, "W": output.weight["W"]}), parts, None
        fixed = likelihood.fixed()
        logvar = self.model.own_params.get("logvar")  # (1,), learned
        if logvar is None and not fixed:
            return (kernel, {**arguments, **output.weight}), parts, None
        if logvar is None:
            logvar = self.xp.full(1, fixed["logvar"], dtype="float32")
        logvar_parts = self._empty(tiles(columns))
        shared = {"logvar": logvar, "dlogvar_parts": logvar_parts}
        return (kernel, {**arguments, **output.weight, **shared}), parts, logvar_parts

    def _groups(self, encoder: list[Layer], decoder: list[Layer]) -> tuple[Array, int]:
        """The table of `weights_and_adam` (see GROUP there), and how many blocks it asks for.

        A weight's gradient is x^T dy. A tied decoder has only biases of its own: its x^T dy goes, transposed, to the
        encoder's weight, as a second pair.
        """
        tied, offsets = decoder[0].weight["transposed"], self._offsets()
        rows: list[dict[str, int]] = []
        for i, layer in enumerate(encoder):
            twin = decoder[len(decoder) - 1 - i] if tied else None
            rows.append(_group(offsets[f"encoder.{i}.weight"], layer, twin))
        for i, layer in enumerate(decoder):
            rows.append(
                _bias_group(offsets[f"decoder.{i}.bias"], layer) if tied
                else _group(offsets[f"decoder.{i}.weight"], layer, None)
            )  # fmt: skip
        blocks = [group_blocks(row["inputs"], row["outputs"], row["has_bias"]) for row in rows]
        for row, first_block in zip(rows, accumulate(blocks, initial=0), strict=False):
            row["first_block"] = first_block
        table = [[row[name] for name in GROUP] for row in rows]
        return self.xp.asarray(np.array(table, dtype=np.int64)), sum(blocks)

    def _offsets(self) -> dict[str, int]:
        """Where each tensor begins in the flat buffer."""
        shapes = self.model.params.shapes
        return dict(zip(shapes, accumulate(map(math.prod, shapes.values()), initial=0), strict=False))

    def _empty(self, width: int) -> Array:
        return self.xp.empty((self.capacity, width), dtype="float32")


_NOTHING = dict.fromkeys(GROUP, 0)


def _group(offset: int, layer: Layer, twin: Layer | None) -> dict[str, int]:
    """A weight (inputs, outputs) and the bias behind it; `twin` is the tied layer that uses the weight transposed."""
    row = _NOTHING | {
        "offset": offset, "inputs": layer.inputs, "outputs": layer.outputs, "has_bias": 1,
        "x": layer.x.data.ptr, "ldx": layer.inputs, "dy": layer.dy.data.ptr, "lddy": layer.outputs,
    }  # fmt: skip
    if twin is not None:  # its x is narrower than this dy where only mu, a half of the head, reaches the decoder
        row |= {
            "x2": twin.dy.data.ptr, "ldx2": twin.outputs, "dy2": twin.x.data.ptr, "lddy2": twin.inputs,
            "columns2": twin.inputs,
        }  # fmt: skip
    return row


def _bias_group(offset: int, layer: Layer) -> dict[str, int]:
    """A bias alone."""
    return _NOTHING | {
        "offset": offset, "outputs": layer.outputs, "has_bias": 1, "dy": layer.dy.data.ptr, "lddy": layer.outputs,
    }  # fmt: skip
