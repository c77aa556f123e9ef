"""What waits to be sent to a tracking server, in order, without holding up the training.

No thread: each call sends what it can within a time limit. While the server is away, records wait
here and calls return at once, but for one attempt after each pause.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

PAUSE_SECONDS = 30.0
# An attempt that hung for 20 s is followed by 100 s of rest, so that a server which swallows
# requests costs training no more than a sixth of its time.
REST_PER_ATTEMPT = 5.0


@dataclass(frozen=True)
class Record:
    """One thing to send.

    Args:
        what: What it is, for messages, e.g. ``metrics of step 3``.
        send: Sends it, or raises.
    """

    what: str
    send: Callable[[], None]


class Outbox:
    """Records in the order in which they came.

    Args:
        is_refusal: Tells whether an error means that the server answered and said no. Such a
            record is dropped; after any other error it waits.
        on_refused: Told the record and the error.
        on_outage: Told the error when the server stops answering.
        on_return: Told the number of waiting records when it answers again.
        clock: Seconds, ever growing.
    """

    def __init__(
        self,
        *,
        is_refusal: Callable[[Exception], bool],
        on_refused: Callable[[Record, Exception], None],
        on_outage: Callable[[Exception], None],
        on_return: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_refusal = is_refusal
        self._on_refused = on_refused
        self._on_outage = on_outage
        self._on_return = on_return
        self._clock = clock
        self._waiting: deque[Record] = deque()
        self._rest_until: float | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def resting(self) -> bool:
        """Whether the last attempt failed."""
        return self._rest_until is not None

    def put(self, record: Record) -> None:
        """Add a record to the end."""
        self._waiting.append(record)

    def flush(self, seconds: float, *, insist: bool = False) -> None:
        """Send records until none waits, the server fails, or the time is up.

        Args:
            seconds: No record is begun after this time.
            insist: Also try while resting after a failure.
        """
        now = self._clock()
        if self._rest_until is not None and now < self._rest_until and not insist:
            return
        deadline = now + seconds
        while self._waiting and self._clock() <= deadline:
            if not self._send_first():
                return

    def _send_first(self) -> bool:
        record, begun = self._waiting[0], self._clock()
        try:
            record.send()
        except Exception as error:
            # Any error at all: whatever tracking does, the training must go on.
            if not self._is_refusal(error):
                self._rest(error, begun)
                return False
            self._waiting.popleft()
            self._on_refused(record, error)
            return True
        self._waiting.popleft()
        if self._rest_until is not None:
            self._rest_until = None
            self._on_return(len(self._waiting))
        return True

    def _rest(self, error: Exception, begun: float) -> None:
        now = self._clock()
        if self._rest_until is None:
            self._on_outage(error)
        self._rest_until = now + max(PAUSE_SECONDS, REST_PER_ATTEMPT * (now - begun))
