"""What the listener itself says: connected, cut off, what may have been missed, what was dropped.

Notices go through the same handlers as events, to those that ask for them by class. They are facts
about our listening, never about a call, so they share no model with the events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal

from cti_listener.records import as_wire
from cti_listener.values import EventKey

GapReason = Literal[
    "disconnected",
    "half_open",
    "listener_down",
    "server_restarted",
    "oversized",
    "slow_consumer",
    "refused",
]
"""Why something may have been missed.

- `disconnected`: the connection ended, or could not be made.
- `half_open`: the server went silent without closing.
- `listener_down`: the listener itself was not there, from the last sign of life in its journal.
- `server_restarted`: a serial counter fell back while the time went on; for the whole namespace.
- `oversized`: a message above `soft_size` was left out, or one that holds more than events of its
  length could; or one above `max_size` ended the connection (WebSocket 1009).
- `slow_consumer`: reading was paused for a full lane, and the connection was cut meanwhile; or a
  broker's queue overflowed before we had taken what was in it.
- `refused`: the server refuses a destination, or us.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What every notice has.

    Attributes:
        at: When it was known, aware.
    """

    event_name: ClassVar[str] = "notice"

    at: datetime

    @property
    def concerns(self) -> frozenset[str]:
        """The devices it is about; empty means all that are listened to."""
        return frozenset()

    def as_wire(self) -> dict[str, Any]:
        """Return it as the object that the command line prints: times in ISO 8601 with zone."""
        return {"eventType": "listener", "eventName": self.event_name, **as_wire(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(Notice):
    """Every subscription stands: what happens from now on reaches us.

    Attributes:
        feed: Which connection, `a` for the first.
        url: The endpoint, without credentials.
        confirmed: The server said so (a RECEIPT each). False where it never does (JSON, brokers
            without receipts): then the handshake or SUBSCRIBE and a short grace have passed.
        attempts: How many it took, this one included.
    """

    event_name: ClassVar[str] = "connected"

    feed: str
    url: str
    confirmed: bool
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected(Notice):
    """A subscribed connection ended; a `Gap` follows when it stands again.

    Attributes:
        feed: Which connection.
        url: The endpoint, without credentials.
        since: The last sign of life, from which events may be missing.
        reason: As for the gap to come.
        detail: What was seen, for a person.
    """

    event_name: ClassVar[str] = "disconnected"

    feed: str
    url: str
    since: datetime
    reason: GapReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionRefused(Notice):
    """The server refuses one destination; the others go on, this one is retried slowly.

    An open gap: its `Gap` follows when the destination is taken after all.

    Attributes:
        feed: Which connection.
        destination: What was refused.
        devices: The devices it would have brought; empty means all that are listened to.
        since: From when its events may be missing.
        detail: The server's words.
    """

    event_name: ClassVar[str] = "subscriptionRefused"

    feed: str
    destination: str
    devices: frozenset[str] = frozenset()
    since: datetime
    detail: str

    @property
    def concerns(self) -> frozenset[str]:
        """The devices it is about; empty means all that are listened to."""
        return self.devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap(Notice):
    """A time in which events may have been missed.

    Attributes:
        id: Counts the gaps, from 1: of this run, or, with a journal, of all runs on it.
        since: The last sign of life before it, aware.
        until: When every subscription stood again; None while it is open (in `stats()` only).
        reason: Why.
        devices: Whose events; empty means all that are listened to.
        destination: The refused destination, for `refused`.
        recovered: The broker kept what came meanwhile, and all of it has come since (durable
            subscriptions only); then nothing is missing.
        last_before: The last event before it. None: there was none, or it is not known, as of a
            gap of several feeds that was over when it turned out.
        first_after: The first after it. A gap is told at once, ahead of what comes, so this is None
            in a handler, but for `server_restarted`; `stats().gaps` has it when it came. Where the
            run ended before that, the journal has it when the next one's first event came.
    """

    event_name: ClassVar[str] = "gap"

    id: int
    since: datetime
    until: datetime | None
    reason: GapReason
    devices: frozenset[str] = frozenset()
    destination: str | None = None
    recovered: bool = False
    last_before: EventKey | None = None
    first_after: EventKey | None = None

    @property
    def concerns(self) -> frozenset[str]:
        """The devices it is about; empty means all that are listened to."""
        return self.devices

    def as_wire(self) -> dict[str, Any]:
        """Return it as the object that the command line prints, no shorter than it is.

        To the millisecond, `since` is cut and `until` rounded up.
        """
        if self.until is None:
            return Notice.as_wire(self)
        up = timedelta(microseconds=-self.until.microsecond % 1000)
        return Notice.as_wire(replace(self, until=self.until + up))


@dataclass(frozen=True, slots=True, kw_only=True)
class Overflow(Notice):
    """A lane was full and dropped its oldest events; it stands where they stood.

    Attributes:
        handler: Whose lane.
        device: Which device's, None for a lane of all devices.
        dropped: How many events.
        first: The first one dropped.
        last: The last one dropped.
    """

    event_name: ClassVar[str] = "overflow"

    handler: str
    device: str | None
    dropped: int
    first: EventKey | None
    last: EventKey | None

    @property
    def concerns(self) -> frozenset[str]:
        """The devices it is about; empty means all that are listened to."""
        return frozenset() if self.device is None else frozenset({self.device})


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedsApart(Notice):
    """Two feeds bring different events: neither stands for the other; the loss of each is a gap.

    The server gives each event to one of its sessions only, or numbers the events of each session
    on its own, so that every event is handled twice; or one server brings less than half of what
    the other does.

    Attributes:
        share: Which part of the latest events came by both.
    """

    event_name: ClassVar[str] = "feedsApart"

    share: float
