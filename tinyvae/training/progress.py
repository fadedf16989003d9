"""What a training run prints: a live bar in a terminal, plain lines in a file, nothing when quiet.

If the output goes away (a closed pipe, a full disk), the run goes on without it: the run directory holds everything.
"""

import contextlib
import math
import os
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from tinyvae.training.engine import RunState
from tinyvae.training.metrics import Row

LINES = 25  # about how many epochs are printed in a run; metrics.csv has them all
REFRESH = 0.1  # seconds


class Reporter:
    """Prints a run's progress; it is the trainer's listener. every: epochs between two printed lines."""

    def __init__(self, quiet: bool = False, every: int | None = None) -> None:
        self.quiet, self.asked_every = quiet, every
        self.console = Console(highlight=False, soft_wrap=True, emoji=False)
        self.live = self.console.is_terminal and not quiet

    def line(self, text: str = "") -> None:
        """Print a line."""
        if not self.quiet:
            self._guarded(lambda: self.console.print(text, markup=False))

    def warn(self, problem: str | None) -> None:
        """A line for what is no reason to stop, if there is any."""
        if problem is not None:
            self.line(f"warning: {problem}")

    def start(self, state: RunState, epochs: int, updates_per_epoch: int) -> None:
        """Before the first batch."""
        self.epochs, self.updates_per_epoch = epochs, updates_per_epoch
        self.every = self.asked_every or max(1, epochs // LINES)
        self.first_update, self.began, self.shown = state.updates, time.perf_counter(), 0.0
        self.line("         train                       held out                     steps  active")
        self.line(" epoch     loss      nll      kl     loss      nll      kl     per s   units      left")
        if self.live:
            self.bar = Progress(
                TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(),
                TextColumn("loss {task.fields[loss]}  {task.fields[rate]:.0f} steps/s  {task.fields[left]} left"),
                console=self.console,
                transient=True,
                auto_refresh=False,
            )
            total = epochs * updates_per_epoch
            self.task = self.bar.add_task(
                "", total=total, epoch=state.epoch + 1, epochs=epochs, loss="?", rate=0.0, left="?"
            )
            self.bar.start()

    def batch(self, state: RunState, loss: float) -> None:
        """An update is done."""
        now = time.perf_counter()
        if self.live and now - self.shown > REFRESH:
            self.shown = now
            rate, left = self._speed(state.updates)
            known = f"{loss:.2f}" if math.isfinite(loss) else "?"  # on a GPU none is, until an epoch is done
            self.bar.update(
                self.task, completed=state.updates, epoch=state.epoch + 1, loss=known, rate=rate, left=left,
                refresh=True,
            )  # fmt: skip

    def epoch(self, row: Row) -> None:
        """An epoch is done and measured."""
        if self.quiet:
            return
        if row.epoch % self.every and row.epoch not in (1, self.epochs):
            return
        rate, left = self._speed(row.epoch * self.updates_per_epoch)
        train, units = f"{row.train_loss:8.2f} {row.train_nll:8.2f} {row.train_kl:7.2f}", row.active_units
        valid = f"{'-':>8} {'-':>8} {'-':>7}"
        if row.valid_loss is not None:
            valid = f"{row.valid_loss:8.2f} {row.valid_nll:8.2f} {row.valid_kl:7.2f}"
        self.line(f"{row.epoch:6} {train} {valid} {rate:9.0f} {'-' if units is None else units:>7} {left:>9}")

    def stop(self) -> None:
        """After the last batch, whatever ended it."""
        if self.live and hasattr(self, "bar"):
            self.bar.stop()

    def download(self, file: str) -> Any:
        """A progress bar for a download, or None."""
        self.line(f"downloading {file}")
        return DownloadBar(self.console) if self.live else None

    def _speed(self, updates: int) -> tuple[float, str]:
        """Steps per second so far, and the time left at that speed."""
        rate = (updates - self.first_update) / max(time.perf_counter() - self.began, 1e-9)
        left = (self.epochs * self.updates_per_epoch - updates) / rate if rate else 0.0
        return rate, f"{int(left // 60)}:{int(left % 60):02}"

    def _guarded(self, write: Any) -> None:
        """Write; if nobody can read it any more, say nothing from now on."""
        try:
            write()
            self.console.file.flush()
        except (OSError, SystemExit, ValueError):  # rich raises SystemExit on a broken pipe
            self.quiet = True
            if self.live:
                with contextlib.suppress(Exception):
                    self.bar.stop()
            self.live = False
            silence_stdout()


class DownloadBar:
    """The little interface that a download drives, over rich's bar."""

    def __init__(self, console: Console) -> None:
        self.bar = Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console, transient=True)
        self.task = self.bar.add_task("", total=None)
        self.bar.start()

    @property
    def total(self) -> int | None:
        """Bytes to come."""
        return None

    @total.setter
    def total(self, total: int) -> None:
        self.bar.update(self.task, total=total)

    def update(self, n: int) -> None:
        """n more bytes came."""
        self.bar.advance(self.task, n)

    def close(self) -> None:
        """Done."""
        self.bar.stop()


def silence_stdout() -> None:
    """Send what is still buffered, and anything printed later, nowhere: Python would complain at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(null, sys.stdout.fileno())
    os.close(null)
