"""tinyvae as `tinyvae train` runs it: the trainer itself, with a listener that looks at the clock."""

import math
import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np

from benchmarks.agreement import EPS, DisagreementError
from benchmarks.shapes import LR, SCALE, Given, Shape
from tinyvae.backend import to_host
from tinyvae.model.vae import VAE
from tinyvae.training.batches import DRAWN, Batch, Batches
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset
from tinyvae.training.engine import Engine, RunState
from tinyvae.training.metrics import Row

EPOCHS = 10**6  # more than any measurement runs


class GivenBatches(Batches):
    """The trainer's batches, with rows, noise and uniforms that are given and not drawn."""

    given: list[Given]

    def sizes(self) -> list[int]:
        return [self.batch_size] * len(self.given)

    def shuffled(self, seed: int, epoch: int, skip: int = 0) -> Iterator[Batch]:
        asarray = self.model.backend.asarray
        for given in self.given:
            rows = asarray(given.rows)
            self.eps[...] = asarray(given.eps).reshape(self.eps.shape)
            self.kernels.begin("batch", self.batch_size)
            self.kernels.gather(self.data, rows, self.scale, self.x)
            if self.dynamic:
                self.kernels.map(DRAWN, x=self.x, u=asarray(given.u), out=(self.x,))
            yield Batch(self.x, self.eps, None if self.labels is None else self.labels[rows])


class Listener:
    """Calls `act` after every update; the number of updates is `count`."""

    def __init__(self, act: Callable[[RunState], None]) -> None:
        self.act, self.count = act, 0

    def batch(self, state: RunState, loss: float) -> None:
        self.count += 1
        self.act(state)

    def epoch(self, row: Row) -> None:
        pass


class Ours:
    """A trainer on the shape's synthetic pixels. Each method begins anew from the initial weights."""

    def __init__(self, shape: Shape, kernels: str | None, backend: str, tf32: bool = False) -> None:
        self.shape, self.kernels, self.backend = shape, kernels, backend
        x, y = shape.pixels(), shape.labels()
        self.dataset = Dataset("synthetic", x, y_train=y, scale=SCALE)
        binarize = "dynamic" if shape.dynamic else "none"
        self.config = Config(
            data="synthetic", backend=backend, hidden=shape.hidden, latent=shape.latent, batch_size=shape.batch,
            activation=shape.activation, conv=shape.conv, batch_norm=shape.batch_norm, conditional=shape.classes > 0,
            lr=LR, epochs=EPOCHS, binarize=binarize, tf32=tf32, objective=shape.objective,
        ).resolved(shape.rows)  # fmt: skip

    def trainer(self, act: Callable[[RunState], None]) -> tuple[Engine, Listener]:
        model = self.shape.model(backend=self.backend, kernels=self.kernels)
        model.start_at = lambda x: None  # type: ignore[method-assign]  # all candidates begin at the same weights
        listener = Listener(act)
        return Engine(model, self.dataset, self.config, listener), listener

    def given_losses(self, batches: list[Given]) -> list[float]:
        losses: list[float] = []
        trainer, listener = self.trainer(lambda _: losses.append(last_loss(trainer)))
        s, data = self.shape, self.dataset
        draws = trainer.objective.samples
        given = GivenBatches(trainer.model, data.x_train, SCALE, s.batch, s.dynamic, data.y_train, draws)
        given.given = batches
        trainer.train_batches = given
        trainer.run(stop=lambda: listener.count == len(batches))
        return losses

    def draws_on_device(self) -> bool:
        """The step is one CUDA graph that draws its own batches and noise: none can be given to it."""
        trainer, _ = self.trainer(lambda _: None)
        return trainer.graph_step is not None

    def drawn_losses(self, steps: int) -> tuple[list[float], list[tuple[np.ndarray, np.ndarray]]]:
        """Such a step's losses, and the batch (x, eps) that it drew for each."""
        losses: list[float] = []
        batches: list[tuple[np.ndarray, np.ndarray]] = []

        def read_back(state: RunState) -> None:
            step = trainer.graph_step
            assert step is not None
            losses.append(float(step.losses()[state.batch - 1, 0]))
            arguments = {name: value for _, launch in step.launches for name, value in launch.items()}
            x = next(launch["x"] for name, launch in step.launches if name.startswith("gather"))
            batches.append((to_host(x).copy(), to_host(arguments["eps"]).copy()))
            if not self.shape.dynamic:
                self.check_rows(trainer, state, batches[-1][0])

        trainer, listener = self.trainer(read_back)
        trainer.run(stop=lambda: listener.count >= steps)
        return losses[:steps], batches[:steps]

    def check_rows(self, trainer: Engine, state: RunState, x: np.ndarray) -> None:
        """Raises DisagreementError unless x is the data's rows that are next in the epoch's order, scaled."""
        start = (state.batch - 1) * self.shape.batch
        rows = trainer.train_batches.order(self.config.seed, state.epoch + 1)[start : start + self.shape.batch]
        if not np.allclose(x, self.dataset.x_train[rows] * np.float32(SCALE), rtol=2 * EPS, atol=0):
            raise DisagreementError(f"batch {state.batch} holds other rows than its epoch's order says")

    def step_times(self, warmup: int, steps: int) -> list[float]:
        """The time between two updates in the same epoch."""
        times: list[float] = []
        last = math.nan

        def look_at_the_clock(state: RunState) -> None:
            nonlocal last
            wait(trainer.model)
            now = time.perf_counter()
            if state.batch > 1:
                times.append(now - last)
            last = now

        trainer, _ = self.trainer(look_at_the_clock)
        trainer.run(stop=lambda: len(times) >= warmup + steps)
        return times[warmup:]

    def throughput(self, steps: int) -> float:
        """Within epochs, from the first step to the last; the median of as many epochs as hold that many steps."""
        marks: list[float] = []
        batches = self.shape.rows // self.shape.batch
        epochs = 1 + -(-steps // batches)  # the first is a warm-up

        def look_at_the_clock(state: RunState) -> None:
            if state.batch in (1, batches):
                wait(trainer.model)
                marks.append(time.perf_counter())

        trainer, _ = self.trainer(look_at_the_clock)
        trainer.run(stop=lambda: trainer.state.epoch == epochs)
        return median((end - start) / (batches - 1) for start, end in zip(marks[2::2], marks[3::2], strict=True))


def last_loss(trainer: Engine) -> float:
    """Of the step that has just been made. The trainer itself looks at a GPU's losses only now and then."""
    return float(to_host(trainer.ring[len(trainer.ring_rows) - 1])[0])


def wait(model: VAE) -> None:
    """Until the GPU has done what it was told; nothing to do on a CPU, which does it at once."""
    if model.backend.name == "cupy":
        model.backend.xp.cuda.Device().synchronize()


def build(shape: Shape, kind: str, backend: str, tf32: bool) -> Ours:
    """kind: "fused" for what the training command takes by default, or the name of some kernels."""
    return Ours(shape, None if kind == "fused" else kind, backend, tf32)
