"""Ctrl-C, TERM and USR1 as a flag: the work goes on to a point where it can be saved."""

import signal
import threading
from types import FrameType

SIGNALS = [  # Windows has no USR1
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1")
    if hasattr(signal, name)
]


class StopSignals:
    """While entered, a signal only sets `received`; the same one again acts at once.

    SLURM sends USR1 and then TERM before it takes a machine away; a sweep sends TERM
    to trainings that had the terminal's Ctrl-C already. Signals reach the main thread
    alone; entered in another thread this does nothing.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self._before: dict = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._note) for n in SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    def pass_on(self) -> None:
        """Let a received TERM or USR1 act as it would have, now that all is saved.

        Ctrl-C is not passed on: who called keeps what is done so far.
        """
        self._restore()
        if self.received not in (None, signal.SIGINT):
            signal.raise_signal(self.received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, self._before.pop(number))

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
