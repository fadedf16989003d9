"""The training loop: batches through the model, Adam on the flat buffer, a measurement after every epoch.

The state between two updates is small and explicit (`RunState`), so that a run can stop at any update and go on later
with the very same numbers.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
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
from tinyvae.training.data import Dataset
from tinyvae.training.data.dataset import Part, evenly_spread
from tinyvae.training.data.scale import too_large
from tinyvae.training.graph_step import GraphStep
from tinyvae.training.metrics import Evaluation, Row, evaluate
from tinyvae.training.options import Training

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
    best_loss: float | None = None  # the smallest validation loss after any epoch; None before the first
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


class Engine:
    """Trains a model on a data set as options say. `run` returns when done, stopped, or out of patience.

    Raises ValueError for an objective or a batch size that does not suit the model, UsageError if TF32 is asked of an
    ordinary step.
    """

    def __init__(self, model: VAE, dataset: Dataset, options: Training, listener: Listener) -> None:
        assert options.epochs is not None  # resolved
        self.model, self.options, self.epochs, self.listener = model, options, options.epochs, listener
        self.dataset = dataset
        self.objective = options.objective_part().on(dataset.x_train.shape[0])
        self.objective.check(model.architecture.has_batch_norm)
        parts = {part.name: part for part in dataset.parts()}
        self.train_batches = self._batches(parts["train"])
        if model.architecture.has_batch_norm and self.train_batches.batch_size == 1:
            raise ValueError("batch normalization needs the variance of a batch: make batch_size larger than 1")
        self.valid_batches: Batches | Any = self._batches(parts["valid"]) if "valid" in parts else None
        xp, zeros, size = model.backend.xp, model.backend.zeros, model.params.flat.size
        self.adam = Adam(model)
        self.m, self.v = self.adam.m, self.adam.v  # (parameters,) each
        self.gathered = zeros(size, model.dtype) if options.accumulate > 1 else None  # the gradient of several batches
        self.graph_step = self._graph_step()
        self.ring = xp.zeros((RING[model.backend.name], 4), dtype=model.dtype)  # loss, nll, kl, |g|^2 of the last steps
        self.ring_rows: list[int] = []
        self.state = RunState()
        self.best_params = model.params.flat.copy()
        self.last_loss = math.nan
        self.seconds = 0.0  # of training so far: measured, so it is no part of the state

    def _batches(self, part: Part) -> Batches:
        options = self.options
        assert options.batch_size is not None  # resolved
        return Batches(
            self.model, part.x, self.dataset.scale, options.batch_size, options.binarize == "dynamic", part.y,
            self.objective.samples,
        )  # fmt: skip

    def _graph_step(self) -> GraphStep | None:
        """The whole step as one CUDA graph, where it can be: it has no place for what comes before Adam."""
        options, batches = self.options, self.train_batches
        plain = options.accumulate == 1 and options.clip_norm is None and not options.weight_decay
        if plain and not batches.missing and batches.data is not None and GraphStep.suits(self.model, self.objective):
            return GraphStep(self.model, batches, self.m, self.v, self.objective, options.tf32)
        if options.tf32:
            raise UsageError(
                "--tf32 rounds in the captured training step alone, which cannot train this model on this data: "
                "leave it away"
            )
        return None

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end. False if `stop`, asked after every update, ended it early."""
        with np.errstate(all="ignore"):  # every step is looked at for non-finite numbers; NumPy need not warn as well
            going = self.going()
            for row in going:
                if row is not None:
                    self.listener.epoch(row)
                if stop() and not self.finished():
                    going.close()
                    return False
        return True

    def going(self, waits: bool = False) -> Generator[Row | None]:
        """Train to the end: None after each update, but for the last of an epoch: its row, when the epoch is measured.

        It may be closed after any of them, and another one goes on from there. waits: so that what comes between two
        updates finds parameters, losses and state as they are then; else a GPU may be steps behind.
        """
        if self.state.updates == 0:
            x = self.dataset.x_train
            self.model.start_at(self.dataset.values(x[evenly_spread(len(x), START_ROWS)]))  # files may be sorted
        while not self.finished():
            began = time.perf_counter()
            try:
                if self.graph_step is None:
                    yield from self._epoch(waits)
                else:
                    yield from self._graph_epoch(self.graph_step, waits)
            finally:
                self.seconds += time.perf_counter() - began
            yield self._close_epoch()

    def restore(self, state: RunState) -> None:
        """Go on from a state. Raises ValueError if no run of this trainer can be in it."""
        sizes, accumulate = self.train_batches.sizes(), self.options.accumulate
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
        patience = self.options.patience
        waited = self.state.epoch - self.state.best_epoch
        return self.state.epoch >= self.epochs or (patience is not None and waited >= patience)

    def _epoch(self, waits: bool = False) -> Iterator[None]:
        """The rest of the epoch under way."""
        state, options = self.state, self.options
        sizes = self.train_batches.sizes()
        try:
            for x, eps, y in self.train_batches.shuffled(options.seed, state.epoch + 1, skip=state.batch):
                first = state.batch - state.batch % options.accumulate  # of the group whose gradients make one update
                group = sizes[first : first + options.accumulate]
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
                    if state.batch < len(sizes):
                        if waits:
                            self._empty_ring()
                        yield
        except GeneratorExit:
            self._empty_ring()
            raise
        self._empty_ring()

    def _graph_epoch(self, step: GraphStep, waits: bool) -> Iterator[None]:
        """The same, where each step is one CUDA graph: nothing is read from the device until the last is under way.

        Other threads wait until it is over, for the device changes the parameters.
        """
        state, seed = self.state, self.options.seed
        sizes, first = self.train_batches.sizes(), state.batch
        looked_at = first  # batches of the epoch whose losses are counted in
        with self.model.lock:
            order = self.train_batches.order(seed, state.epoch + 1)
            key = streams.key(seed, streams.NOISE, state.epoch + 1)
            step.begin_epoch(order, key, self._schedule(sizes), first)
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
                    if state.batch < len(sizes):
                        if waits:
                            looked_at = self._look_back(step, sizes, looked_at)
                        yield
            finally:  # whatever ended the loop: from here on others may read the parameters
                self._look_back(step, sizes, looked_at)
            if not self._finite(self.model.params.flat):  # after a gradient that spoiled them, but not its loss
                raise self._diverged(state.batch, self.last_loss)

    def _look_back(self, step: GraphStep, sizes: list[int], looked_at: int) -> int:
        """Wait for the device, and count in the losses of batch `looked_at` (from 0) and those after it; how many
        batches are done."""
        step.wait()
        done = self.state.batch
        self._add_losses(looked_at, sizes[looked_at:done], step.losses()[looked_at:done].tolist())
        return done

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
        g, clip_norm = self.model.grads.flat, self.options.clip_norm
        if self.gathered is not None:
            g = self.gathered
            norm2 = norm2 if clip_norm is None else k.squared_norm(g)
        self.adam.t = self.state.updates
        lr = self.lr_after(self.state.updates)
        self.adam.update(k, g, lr, clip_norm, norm2, self.options.weight_decay)
        self.state.updates += 1

    def updates_per_epoch(self) -> int:
        """How many steps Adam makes in an epoch."""
        return math.ceil(len(self.train_batches) / self.options.accumulate)

    def objective_now(self) -> Objective:
        """The objective of this step: of a warm-up, say."""
        return self.objective_after(self.state.updates)

    def objective_after(self, updates: int) -> Objective:
        """The objective after so many updates."""
        return self.objective.at(updates / self.updates_per_epoch())

    def lr_after(self, updates: int) -> float:
        """The step size after so many updates. Raises UsageError for a function that gives none."""
        lr = self.options.lr_at(updates / self.updates_per_epoch())
        if not (math.isfinite(lr) and lr >= 0):
            raise UsageError(f"lr says {lr} after {updates / self.updates_per_epoch():g} epochs: it must be at least 0")
        return lr

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
            self.last_loss = numbers[0] + self.train_batches.offset

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
        state, valid = self.state, self.measure()
        if valid is not None and not math.isfinite(valid.loss):
            raise NonFiniteError(
                f"training diverged: after epoch {state.epoch + 1} the validation loss is {valid.loss} "
                f"and {self._culprit()}; {self._remedy()}"
            )
        train_loss, train_nll, train_kl = (s / state.rows for s in state.sums)
        offset = self.train_batches.offset
        state.epoch += 1
        state.batch, state.rows, state.sums = 0, 0, [0.0, 0.0, 0.0]
        row = Row(state.epoch, round(self.seconds, 3), train_loss + offset, train_nll + offset, train_kl)
        if valid is None:
            return row
        if state.best_loss is None or valid.loss < state.best_loss:
            state.best_loss, state.best_epoch = valid.loss, state.epoch
            self.best_params[...] = self.model.params.flat
        return replace(
            row, valid_loss=valid.loss, valid_nll=valid.nll, valid_kl=valid.kl, active_units=valid.active_units
        )  # fmt: skip

    def measure(self) -> Evaluation | Any:
        """The losses of the rows that are held out, by the objective at its end; None where there are none."""
        if self.valid_batches is None:
            return None
        return evaluate(self.model, self.valid_batches, self.objective, self.options.seed)
