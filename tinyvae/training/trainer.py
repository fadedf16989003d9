"""The training loop: batches through the model, Adam on the flat buffer, an evaluation after every epoch.

The state between two updates is small and explicit (`RunState`), so that a run can stop at any update and go on later
with the very same numbers.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from tinyvae.backend import Array, to_host
from tinyvae.errors import NonFiniteError
from tinyvae.model.iwae import iwae_forward_backward
from tinyvae.model.vae import VAE
from tinyvae.ops.adam import step_and_epsilon
from tinyvae.training import streams
from tinyvae.training.batches import Batches
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset
from tinyvae.training.data.scale import too_large
from tinyvae.training.graph_step import GraphStep
from tinyvae.training.metrics import Evaluation, Row, evaluate

REMEDY = "try a smaller --lr, or --clip-norm 1; for a Gaussian, --sigma fixed:VALUE or data scaled to unit size"
RING = {"numpy": 1, "cupy": 64}  # steps between two looks at the losses: each look waits for a GPU


@dataclass
class RunState:
    """Where a run is, between two updates."""

    epoch: int = 0  # epochs completed
    batch: int = 0  # batches done in the epoch under way
    updates: int = 0  # steps that Adam has made
    sums: list[float] = field(
        default_factory=lambda: [0.0, 0.0, 0.0]
    )  # loss, nll, kl of the epoch under way, times rows
    rows: int = 0  # rows seen in the epoch under way
    best_loss: float | None = None  # the smallest test loss after any epoch; None before the first
    best_epoch: int = 0

    def __post_init__(self) -> None:
        for name in ("epoch", "batch", "updates", "rows", "best_epoch"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        if len(self.sums) != 3:
            raise ValueError(f"sums must be three numbers, not {len(self.sums)}")
        if self.best_epoch > self.epoch:
            raise ValueError(f"best_epoch must be at most the {self.epoch} epochs done, not {self.best_epoch}")
        if self.best_loss is not None and not self.best_epoch:
            raise ValueError(f"best_loss is {self.best_loss}, but no epoch is the best")
        looked_for_anew = self.best_epoch == self.epoch and self.batch > 0  # see `Trainer.forget_best`
        if self.best_loss is None and self.best_epoch and not looked_for_anew:
            raise ValueError(f"epoch {self.best_epoch} is the best, but there is no best_loss")

    @property
    def best_is_now(self) -> bool:
        """The best epoch has just ended: its parameters are the current ones."""
        return self.best_epoch == self.epoch and not self.batch

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


class Listener(Protocol):
    """What the trainer tells while it works."""

    def batch(self, state: RunState, loss: float) -> None:
        """An update is done; `loss` is the last one looked at."""

    def epoch(self, row: Row) -> None:
        """An epoch is done and measured."""


class Trainer:
    """Trains a model on a data set as a configuration says. `run` returns when done, stopped, or out of patience."""

    def __init__(self, model: VAE, dataset: Dataset, config: Config, listener: Listener) -> None:
        assert config.epochs is not None  # resolved
        assert config.batch_size is not None
        self.model, self.config, self.epochs, self.listener = model, config, config.epochs, listener
        self.dataset = dataset
        dynamic = config.binarize == "dynamic"
        draws = config.draws()
        self.train_batches = Batches(
            model, dataset.x_train, dataset.scale, config.batch_size, dynamic, dataset.y_train, draws
        )
        self.test_batches = Batches(
            model, dataset.x_test, dataset.scale, config.batch_size, dynamic, dataset.y_test, draws
        )
        xp, zeros, size = model.backend.xp, model.backend.zeros, model.params.flat.size
        self.m, self.v = zeros(size, model.dtype), zeros(size, model.dtype)  # Adam's moments, (parameters,) each
        self.gathered = zeros(size, model.dtype) if config.accumulate > 1 else None  # the gradient of several batches
        self.norm2 = xp.zeros((), dtype=model.dtype)
        self.graph_step = None  # where the whole step is one CUDA graph: that has no place for what comes before Adam
        plain = model.architecture.is_plain and not draws
        if model.kernels_name == "cuda" and config.accumulate == 1 and config.clip_norm is None and plain:
            self.graph_step = GraphStep(model, self.train_batches, self.m, self.v, config.free_bits, config.tf32)
        self.ring = xp.zeros((RING[model.backend.name], 4), dtype=model.dtype)  # loss, nll, kl, |g|^2 of the last steps
        self.ring_rows: list[int] = []
        self.state = RunState()
        self.best_params = model.params.flat.copy()
        self.last_loss = math.nan
        self.seconds = 0.0  # of training so far: measured, so it is no part of the state

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end. False if `stop`, asked after every update, ended it early."""
        began = time.perf_counter() - self.seconds
        with np.errstate(all="ignore"):  # every step is looked at for non-finite numbers; NumPy need not warn as well
            while not self.finished():
                complete = self._epoch(stop)
                self.seconds = time.perf_counter() - began
                if not complete:
                    return False
                self.listener.epoch(self._close_epoch())
                if stop() and not self.finished():
                    return False
        return True

    def restore(self, state: RunState) -> None:
        """Go on from a state. Raises ValueError if no run of this trainer can be in it."""
        sizes, accumulate = self.train_batches.sizes(), self.config.accumulate
        if state.batch >= len(sizes) or state.batch % accumulate:
            raise ValueError(f"batch {state.batch} is not one between two updates of an epoch of {len(sizes)} batches")
        right = {
            "updates": state.epoch * self.updates_per_epoch() + state.batch // accumulate,
            "rows": sum(sizes[: state.batch]),
        }
        for name, number in right.items():
            if getattr(state, name) != number:
                raise ValueError(f"after so many batches {name} is {number}, not {getattr(state, name)}")
        if state.batch == 0 and any(state.sums):
            raise ValueError(f"at the start of an epoch sums are 0, not {state.sums}")
        self.state = state
        self.best_params[...] = self.model.params.flat

    def forget_best(self) -> None:
        """Start anew with finding the best epoch: the next one is. Patience counts from here."""
        self.state.best_loss, self.state.best_epoch = None, self.state.epoch

    def finished(self) -> bool:
        """All epochs are done, or patience has run out."""
        patience = self.config.patience
        waited = self.state.epoch - self.state.best_epoch
        return self.state.epoch >= self.epochs or (patience is not None and waited >= patience)

    def _epoch(self, stop: Callable[[], bool]) -> bool:
        """The rest of the epoch under way. False if it was stopped before its end."""
        if self.graph_step is not None:
            with self.model.lock:  # the device changes the parameters until the epoch is over
                return self._graph_epoch(self.graph_step, stop)
        state, config = self.state, self.config
        sizes = self.train_batches.sizes()
        for x, eps, y in self.train_batches.shuffled(config.seed, state.epoch + 1, skip=state.batch):
            first = state.batch - state.batch % config.accumulate  # of the group whose gradients make one update
            group = sizes[first : first + config.accumulate]
            with self.model.lock:  # another thread may use the model between two steps, and not within one
                if self.train_batches.draws:
                    losses = iwae_forward_backward(self.model, x, eps, y)
                else:
                    losses = self.model.forward_backward(x, eps, self.beta(), config.free_bits, y)
                state.batch += 1
                state.rows += x.shape[0]
                self._look_at(losses, x.shape[0])
                self._accumulate(x.shape[0] / sum(group), is_first=state.batch == first + 1)
                updated = state.batch - first == len(group)
                if updated:
                    self._update()
            if updated:
                self.listener.batch(state, self.last_loss)
                if state.batch < len(sizes) and stop():
                    self._empty_ring()
                    return False
        self._empty_ring()
        return True

    def _graph_epoch(self, step: GraphStep, stop: Callable[[], bool]) -> bool:
        """The same, where each step is one CUDA graph: nothing is read from the device until the last is under way."""
        state, config = self.state, self.config
        sizes, first = self.train_batches.sizes(), state.batch
        order = self.train_batches.order(config.seed, state.epoch + 1)
        step.begin_epoch(order, streams.key(config.seed, streams.NOISE, state.epoch + 1), self._schedule(sizes), first)
        try:
            for rows in sizes[first:]:
                if rows == self.train_batches.batch_size:
                    step.replay()
                else:
                    step.launch(rows)
                state.batch += 1
                state.updates += 1
                state.rows += rows
                self.listener.batch(state, self.last_loss)
                if state.batch < len(sizes) and stop():
                    break
        finally:
            step.wait()  # whatever ended the loop: from here on others may read the parameters
        self._add_losses(first, sizes[first : state.batch], step.losses()[first : state.batch].tolist())
        if not self._finite(self.model.params.flat):  # after a gradient that spoiled them without spoiling its loss
            raise self._diverged(state.batch, self.last_loss)
        return state.batch == len(sizes)

    def _schedule(self, sizes: list[int]) -> np.ndarray:
        """beta, Adam's step size and epsilon, and 1 / rows for every update of the epoch under way: (updates, 4)."""
        done = self.state.updates - self.state.batch  # before this epoch
        return np.array(
            [
                (self.beta_after(done + i), *step_and_epsilon(done + i + 1, self.lr_after(done + i)), 1 / rows)
                for i, rows in enumerate(sizes)
            ]
        )

    def _accumulate(self, weight: float, is_first: bool) -> None:
        """Add the batch's gradient, weighted by its share of the rows, so that the sum is the mean over all rows."""
        if self.gathered is None:
            return
        if is_first:
            self.gathered.fill(0)
        self.model.grads.flat *= weight
        self.gathered += self.model.grads.flat

    def _update(self) -> None:
        """Clip, then Adam, on the flat buffer."""
        model, config = self.model, self.config
        g = model.grads.flat if self.gathered is None else self.gathered
        if config.clip_norm is not None:
            if self.gathered is not None:  # else the norm was taken when the losses were looked at
                model.kernels.squared_norm(g, out=self.norm2)
            model.kernels.clip(g, self.norm2, config.clip_norm)
        lr = self.lr()
        self.state.updates += 1
        model.kernels.adam_step(model.params.flat, g, self.m, self.v, self.state.updates, lr, work=model.work)

    def updates_per_epoch(self) -> int:
        """How many steps Adam makes in an epoch."""
        return math.ceil(len(self.train_batches) / self.config.accumulate)

    def beta(self) -> float:
        """The weight of the KL now."""
        return self.beta_after(self.state.updates)

    def lr(self) -> float:
        """The step size now."""
        return self.lr_after(self.state.updates)

    def beta_after(self, updates: int) -> float:
        """The weight of the KL after so many updates: rising in a straight line to `config.beta` over the warm-up."""
        warmup = self.config.beta_warmup * self.updates_per_epoch()
        return self.config.beta * min(1.0, updates / warmup) if warmup else self.config.beta

    def lr_after(self, updates: int) -> float:
        """The step size after so many updates: constant, or half a cosine from `config.lr` to 0 at the last step."""
        if self.config.lr_schedule == "constant":
            return self.config.lr
        done = updates / (self.epochs * self.updates_per_epoch())
        return self.config.lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    # --------------------------------------------------------------------------------------------- watching the numbers

    def _look_at(self, losses: Array, rows: int) -> None:
        """Note a batch's losses and |g|^2 on the device; now and then bring them to the host (at once on NumPy)."""
        self.model.kernels.squared_norm(self.model.grads.flat, out=self.norm2)
        slot = self.ring[len(self.ring_rows)]  # (4,)
        slot[:3] = losses
        slot[3] = self.norm2
        self.ring_rows.append(rows)
        if len(self.ring_rows) == len(self.ring):
            self._empty_ring()

    def _empty_ring(self) -> None:
        steps = to_host(self.ring[: len(self.ring_rows)]).tolist()
        self._add_losses(self.state.batch - len(steps), self.ring_rows, steps)
        self.ring_rows.clear()

    def _add_losses(self, first: int, rows: list[int], steps: list[list[float]]) -> None:
        """Count in the losses of batch `first` (from 0) and those after it, each with what else must be finite."""
        for i, (n, numbers) in enumerate(zip(rows, steps, strict=True)):
            if not all(map(math.isfinite, numbers)):
                raise self._diverged(first + i + 1, numbers[0])
            for j in range(3):
                self.state.sums[j] += numbers[j] * n
            self.last_loss = numbers[0]

    def _diverged(self, batch: int, loss: float) -> NonFiniteError:
        return NonFiniteError(
            f"training diverged in epoch {self.state.epoch + 1}, batch {batch}: the loss is {loss:g} "
            f"and {self._culprit()}; {self._remedy()}"
        )

    def _culprit(self) -> str:
        """The first parameter or gradient that is not finite, or else the largest gradient."""
        for kind, tensors in [("parameter", self.model.params), ("gradient", self.model.grads)]:
            for name, a in tensors.items():
                if not self._finite(a):
                    return f"the {kind} {name} holds NaN or infinite values"
        if self.graph_step is not None:  # its gradients were never written down
            return "every parameter is finite"
        largest = {name: float(to_host(abs(g).max())) for name, g in self.model.grads.items()}
        name = max(largest, key=lambda name: largest[name])
        if largest[name] > np.sqrt(np.finfo(self.model.dtype).max) / 2:
            return f"the gradient {name} reaches {largest[name]:.1e}, too large to be squared in {self.model.dtype}"
        return "every parameter and gradient is finite"

    def _remedy(self) -> str:
        """What to try: for real data that is far from unit size that is the cause, and no step size helps."""
        gaussian = self.model.architecture.likelihood == "gaussian"
        return (gaussian and too_large(self.dataset)) or REMEDY

    def _finite(self, a: Array) -> bool:
        return bool(to_host(self.model.backend.xp.isfinite(a).all()))

    def check_finite(self) -> None:
        """Raises NonFiniteError if a parameter or one of Adam's moments is NaN or infinite: no such state is saved."""
        for name, a in [*self.model.params.items(), ("Adam's m", self.m), ("Adam's v", self.v)]:
            if not self._finite(a):
                raise NonFiniteError(f"training diverged: {name} holds NaN or infinite values; {self._remedy()}")

    def _close_epoch(self) -> Row:
        state = self.state
        test = self.evaluate_test()
        if not math.isfinite(test.loss):
            raise NonFiniteError(
                f"training diverged: after epoch {state.epoch + 1} the test loss is {test.loss} "
                f"and {self._culprit()}; {self._remedy()}"
            )
        train_loss, train_nll, train_kl = (s / state.rows for s in state.sums)
        state.epoch += 1
        state.batch, state.rows, state.sums = 0, 0, [0.0, 0.0, 0.0]
        if state.best_loss is None or test.loss < state.best_loss:
            state.best_loss, state.best_epoch = test.loss, state.epoch
            self.best_params[...] = self.model.params.flat
        return Row(
            state.epoch, round(self.seconds, 3), train_loss, train_nll, train_kl,
            test.loss, test.nll, test.kl, test.active_units,
        )  # fmt: skip

    def evaluate_test(self) -> Evaluation:
        """The test set's losses, with the final beta."""
        return evaluate(self.model, self.test_batches, self.config.beta, self.config.seed)
