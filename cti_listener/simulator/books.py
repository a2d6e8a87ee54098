"""What the counters and the ledger say about one session.

The ledger is for an audit of gaps, so it goes by what reached the client as far as a server can
know: an event is noted when its last byte is out, and a life ends with the last byte that got out
before the connection was lost. What a session that is stalled, frozen or cut off never wrote is
not sent, but counted as lost.
"""

from __future__ import annotations

from datetime import datetime

from cti_listener.clock import Clock
from cti_listener.simulator.records import Ledger, Life, Sent, Stats
from cti_listener.simulator.stream_faults import Message


class Books:
    """Keeps the books of one session.

    Args:
        number: Which session.
        clock: Tells the time.
        stats: Where to count.
        ledger: Where to note what was sent, if anywhere.
    """

    def __init__(self, number: int, *, clock: Clock, stats: Stats, ledger: Ledger | None) -> None:
        """Begin before the first subscription."""
        self._number = number
        self._clock = clock
        self._stats = stats
        self._ledger = ledger
        self._life: Life | None = None
        self._confirmed = False

    @property
    def subscribed(self) -> bool:
        """Whether the session is subscribed to anything now."""
        return self._life is not None

    def begin(self, *, told: bool) -> None:
        """Note a subscription where there was none; it lives when it is confirmed.

        Args:
            told: Whether there is nothing to say to the client first, so that it lives already.
        """
        self._life = Life(self._number, self._clock.now())
        self._confirmed = False
        if told:
            self.confirm()

    def confirm(self) -> None:
        """Note that the client knows of its subscription, as far as it is ever told."""
        if self._life is not None and not self._confirmed:
            self._confirmed = True
            self._life.since = self._clock.now()
            if self._ledger is not None:
                self._ledger.lives.append(self._life)

    def end(self, last_out: datetime | None) -> None:
        """Note the end of the last subscription: with the last byte out, or None: just now."""
        if self._life is not None:
            self._life.until = max(last_out or self._clock.now(), self._life.since)
            self._life = None

    def sent(self, message: Message | None, at: datetime) -> None:
        """Note what is out; only events are noted, heart-beats and replies pass."""
        if message is None:
            return
        self._stats.sent += 1
        self._stats.repeated += message.repeat
        if message.body is not None:
            self._stats.malformed += 1
        elif self._ledger is not None:
            self._ledger.sent.append(
                Sent(at, self._number, message.event, message.repeat, message.number)
            )

    def lost(self, message: Message | None) -> None:
        """Count what was queued and will never be out."""
        self._stats.lost += message is not None
