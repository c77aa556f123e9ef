"""Signals that ask a command to stop: it saves what it has, and its exit code says so."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# EX_TEMPFAIL of sysexits.h: nothing is wrong, run the same command again.
AGAIN = 75
INTERRUPTED = 130  # what shells say of Ctrl-C
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)


class Stop:
    """Whether somebody asked this process to stop.

    Attributes:
        asked: The signal, e.g. ``SIGTERM``; empty if none came.
    """

    def __init__(self) -> None:
        self.asked = ""
        self._deferred = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note a signal; leave at once, unless that is deferred. A second Ctrl-C always does."""
        again, self.asked = self.asked == "SIGINT", signal.Signals(number).name
        if not self._deferred or (again and self.asked == "SIGINT"):
            self.leave()

    def listen(self) -> None:
        """Hear the signals that are not ignored; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self)

    def leave(self) -> None:
        """End the process by way of all ``finally`` and ``with``.

        Raises:
            SystemExit: With the exit code of the signal.
        """
        raise SystemExit(INTERRUPTED if self.asked == "SIGINT" else AGAIN)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note signals meanwhile: whoever works here looks at ``asked`` and leaves."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.asked:
            self.leave()


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Hear the signals, and give them back to whoever heard them before."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    stop.listen()
    try:
        yield stop
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
