"""Ctrl-C, TERM, USR1 and HUP as a flag, so that work can be saved before stopping."""

import signal
import threading
from types import FrameType

SIGNALS = [  # Windows has no USR1 and HUP
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
    if hasattr(signal, name)
]


class StopSignals:
    """A context in which a signal only sets `received`; a second takes its usual effect.

    SLURM sends USR1 and then TERM before it reclaims a machine; a sweep sends TERM to
    training runs that have already received Ctrl-C from the terminal; a terminal that is
    closed sends HUP. A signal that is ignored, as under nohup, stays ignored. Only the
    main thread receives signals; in any other thread, this context does nothing.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self._before: dict = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            heard = [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
            self._before = {n: signal.signal(n, self._receive) for n in heard}
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    def pass_on(self) -> None:
        """Let TERM, USR1 or HUP take its usual effect, now that all work is saved.

        Ctrl-C is not passed on, so that the caller can keep the work done so far.
        """
        self._restore()
        if self.received not in (None, signal.SIGINT):
            signal.raise_signal(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, self._before.pop(number))

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
