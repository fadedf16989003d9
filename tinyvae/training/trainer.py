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
from tinyvae.errors import NonFiniteError, UsageError
from tinyvae.kernels.contract import Kernels
from tinyvae.model.vae import VAE
from tinyvae.objectives.objective import Objective, Terms
from tinyvae.ops.adam import step_and_epsilon
from tinyvae.training import streams
from tinyvae.training.adam import Adam
from tinyvae.training.batches import Batches
from tinyvae.training.config import Config
from tinyvae.training.data import Dataset
from tinyvae.training.data.dataset import evenly_spread
from tinyvae.training.data.scale import too_large
from tinyvae.training.graph_step import GraphStep
from tinyvae.training.metrics import Evaluation, Row, evaluate

REMEDY = "try a smaller --lr, or --clip-norm 1; for a Gaussian, --sigma fixed:VALUE or data scaled to unit size"
START_ROWS = 4000  # that say where the likelihood begins
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
    """Trains a model on a data set as a configuration says. `run` returns when done, stopped, or out of patience.

    Raises ValueError for an objective that does not suit the model, UsageError if TF32 is asked of an ordinary step.
    """

    def __init__(self, model: VAE, dataset: Dataset, config: Config, listener: Listener) -> None:
        assert config.epochs is not None  # resolved
        assert config.batch_size is not None
        self.model, self.config, self.epochs, self.listener = model, config, config.epochs, listener
        self.dataset = dataset
        dynamic = config.binarize == "dynamic"
        self.objective = config.objective_part().on(dataset.x_train.shape[0])
        self.objective.check(model.architecture.has_batch_norm)
        draws = self.objective.samples
        self.train_batches = Batches(
            model, dataset.x_train, dataset.scale, config.batch_size, dynamic, dataset.y_train, draws
        )
        self.test_batches = Batches(
            model, dataset.x_test, dataset.scale, config.batch_size, dynamic, dataset.y_test, draws
        )
        xp, zeros, size = model.backend.xp, model.backend.zeros, model.params.flat.size
        self.adam = Adam(model)
        self.m, self.v = self.adam.m, self.adam.v  # (parameters,) each
        self.gathered = zeros(size, model.dtype) if config.accumulate > 1 else None  # the gradient of several batches
        self.graph_step = self._graph_step()
        self.ring = xp.zeros((RING[model.backend.name], 4), dtype=model.dtype)  # loss, nll, kl, |g|^2 of the last steps
        self.ring_rows: list[int] = []
        self.state = RunState()
        self.best_params = model.params.flat.copy()
        self.last_loss = math.nan
        self.seconds = 0.0  # of training so far: measured, so it is no part of the state

    def _graph_step(self) -> GraphStep | None:
        """The whole step as one CUDA graph, where it can be: it has no place for what comes before Adam."""
        config, batches = self.config, self.train_batches
        plain = config.accumulate == 1 and config.clip_norm is None and not batches.missing
        if plain and GraphStep.suits(self.model, self.objective):
            return GraphStep(self.model, batches, self.m, self.v, self.objective, config.tf32)
        if config.tf32:
            raise UsageError(
                "--tf32 rounds in the captured training step alone, which cannot train this model on this data: "
                "leave it away"
            )
        return None

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end. False if `stop`, asked after every update, ended it early."""
        began = time.perf_counter() - self.seconds
        if self.state.updates == 0:
            x = self.dataset.x_train
            self.model.start_at(self.dataset.values(x[evenly_spread(len(x), START_ROWS)]))  # files may be sorted
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
            n = x.shape[0]
            with self.model.lock, self.model.borrowed("step", n) as k:  # others may use it between two steps
                terms = self.model.step(k, x, eps, self.objective_now(), y, self.train_batches.missing)
                state.batch += 1
                state.rows += n
                norm2 = self._look_at(k, terms, n)
                self._accumulate(n / sum(group), is_first=state.batch == first + 1)
                updated = state.batch - first == len(group)
                if updated:
                    self._update(k, norm2)
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
        """The objective's numbers, Adam's step size and epsilon, 1 / rows: of every update of the epoch under way."""
        done = self.state.updates - self.state.batch  # before this epoch
        return np.array(
            [
                (
                    *self.objective_after(done + i).numbers(),
                    *step_and_epsilon(done + i + 1, self.lr_after(done + i)),
                    1 / rows,
                )
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

    def _update(self, k: Kernels, norm2: Array) -> None:
        """Clip, then Adam, on the flat buffer; norm2 (1,) is that of the last batch's gradient."""
        g, clip_norm = self.model.grads.flat, self.config.clip_norm
        if self.gathered is not None:
            g = self.gathered
            norm2 = norm2 if clip_norm is None else k.squared_norm(g)
        lr = self.lr()
        self.adam.t = self.state.updates
        self.adam.update(k, g, lr, clip_norm, norm2)
        self.state.updates += 1

    def updates_per_epoch(self) -> int:
        """How many steps Adam makes in an epoch."""
        return math.ceil(len(self.train_batches) / self.config.accumulate)

    def objective_now(self) -> Objective:
        """The objective of this step: of a warm-up, say."""
        return self.objective_after(self.state.updates)

    def objective_after(self, updates: int) -> Objective:
        """The objective after so many updates."""
        return self.objective.at(updates / self.updates_per_epoch())

    def lr(self) -> float:
        """The step size now."""
        return self.lr_after(self.state.updates)

    def lr_after(self, updates: int) -> float:
        """The step size after so many updates: constant, or half a cosine from `config.lr` to 0 at the last step."""
        if self.config.lr_schedule == "constant":
            return self.config.lr
        done = updates / (self.epochs * self.updates_per_epoch())
        return self.config.lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    # --------------------------------------------------------------------------------------------- watching the numbers

    def _look_at(self, k: Kernels, terms: Terms, rows: int) -> Array:
        """Note a batch's losses and |g|^2 on the device; now and then bring them to the host (at once on NumPy)."""
        norm2 = k.squared_norm(self.model.grads.flat)  # (1,)
        self.model.backend.xp.concatenate((*terms, norm2), out=self.ring[len(self.ring_rows)])  # (4,)
        self.ring_rows.append(rows)
        if len(self.ring_rows) == len(self.ring):
            self._empty_ring()
        return norm2

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
        return (self.model.likelihood.scale_matters and too_large(self.dataset)) or REMEDY

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
        """The test set's losses, by the objective at its end."""
        return evaluate(self.model, self.test_batches, self.objective, self.config.seed)
