"""Signals that stop a run: the first asks the trainer to finish its step and save, the second ends the process at once.

Before there is anything to save they end the process at once, with one line.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a polite kill, and a terminal that goes away


class StopRequest:
    """While entered, `received` is the number of the first signal that came, else None.

    A SIGHUP that is ignored (nohup) stays ignored, and is never the second that ends the process: a terminal that goes
    away can send it twice.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> "StopRequest":
        wanted = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._handle) for number in wanted}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as a shell has it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.received or 0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if number == signal.SIGHUP:
                return
            if sys.stdout is not None and sys.stdout.isatty():
                os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # show the cursor that the progress bar hides
            os._exit(128 + number)
        self.received = number


@contextmanager
def interrupted_at_once(program: str) -> Iterator[None]:
    """While entered, Ctrl-C ends the process with one line: there is nothing to save, and a half-imported module that
    sees a KeyboardInterrupt may say anything."""

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, f"{program}: interrupted\n".encode())
        os._exit(128 + number)

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """While entered, Ctrl-C is noted, for whoever asks; a second one is raised.

    What was noted stays known afterwards. Only where it would have been raised, and in the main thread: elsewhere
    nothing is changed, and nothing noted.
    """
    noted: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return

    def note(number: int, frame: FrameType | None) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Terminated(KeyboardInterrupt):
    """SIGTERM came, where it means the same as Ctrl-C."""

    exit_code = 128 + signal.SIGTERM


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """SIGTERM raises `Terminated` while this is entered, so that what is half done is taken back.

    Only where it would have ended the process at once, and in the main thread: no other may set handlers.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
