"""What the simulator remembers of its own doings: counters, and a ledger for who wants one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from cti_listener.values import Payload


@dataclass(slots=True)
class Stats:
    """Counters since the server was made.

    Attributes:
        connections: WebSocket connections accepted.
        rejected: Handshakes answered with 401 or 404.
        published: Events that happened, repeats and malformed messages included.
        unwanted: Those of them that no live subscription asked for.
        sent: Messages with events handed to connections, one a subscription.
        repeated: Those of them that were repeats.
        malformed: Those of them that were malformed on purpose.
        dropped: Connections ended by a fault.
        slow: Connections ended for not taking what they were sent.
    """

    connections: int = 0
    rejected: int = 0
    published: int = 0
    unwanted: int = 0
    sent: int = 0
    repeated: int = 0
    malformed: int = 0
    dropped: int = 0
    slow: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """One event handed to one connection.

    Attributes:
        at: When, aware.
        session: The number of the session.
        event: The event, as it happened.
        repeat: Whether it was sent before.
    """

    at: datetime
    session: int
    event: Payload
    repeat: bool


@dataclass(slots=True)
class Life:
    """A time in which a session was subscribed to something.

    Attributes:
        session: Its number.
        since: From when, aware.
        until: Until when; None while it lives.
    """

    session: int
    since: datetime
    until: datetime | None = None


@dataclass(slots=True)
class Ledger:
    """All that was sent to live subscriptions, and when there were any.

    Attributes:
        sent: The events, in the order they were sent.
        lives: The sessions' times under subscription, in the order they began.
    """

    sent: list[Sent] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
