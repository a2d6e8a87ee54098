"""What the simulator remembers of its own doings: counters, and a ledger for who wants one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from cti_listener.values import Payload


@dataclass(slots=True)
class Stats:
    """Counters since the server was made.

    Attributes:
        connections: WebSocket connections accepted.
        rejected: Handshakes answered with 401 or 404.
        turned_away: Connections accepted, and closed at once by a fault.
        published: Events that happened, repeats and malformed messages included.
        unwanted: Those of them that no live subscription asked for.
        sent: Messages with events that got out to clients, one a subscription.
        lost: Those that were queued for a client and did not.
        repeated: Those of them that were repeats.
        malformed: Those of them that were malformed on purpose.
        dropped: Connections ended by a fault of theirs.
        frozen: Connections left half-open by a fault.
        outages: Times in which a fault held the whole server.
        slow: Connections ended for not taking what they were sent.
    """

    connections: int = 0
    rejected: int = 0
    turned_away: int = 0
    published: int = 0
    unwanted: int = 0
    sent: int = 0
    lost: int = 0
    repeated: int = 0
    malformed: int = 0
    dropped: int = 0
    frozen: int = 0
    outages: int = 0
    slow: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """One event that got out to one client, to its last byte.

    Attributes:
        at: When that was known, aware.
        session: The number of the session.
        event: The event, as it happened.
        repeat: Whether it was published before; to this client or another, or to nobody.
        number: What whoever told the stream called it (`Message.number`).
    """

    at: datetime
    session: int
    event: Payload
    repeat: bool
    number: int | None = None


@dataclass(slots=True)
class Life:
    """A time in which a session was subscribed to something, as its client can know it.

    Attributes:
        session: Its number.
        since: When the answer to the subscription was out, or if none is sent: when it was taken.
        until: When the last byte got out before the connection was lost, froze or was closed; when
            the client unsubscribed. None while it lives.
    """

    session: int
    since: datetime
    until: datetime | None = None


@dataclass(slots=True)
class Ledger:
    """All that was sent to live subscriptions, and when there were any.

    Every `Sent` lies within a `Life` of its session, but for what was still queued when the client
    unsubscribed. What was published while a session was frozen, or was not out when it ended, is in
    neither: to that client it is lost. An event behind a message that ends the connection (too
    large, a bomb) is sent, for all the server knows.

    Attributes:
        sent: The events, in the order they got out.
        lives: The sessions' times under subscription, in the order they began.
    """

    sent: list[Sent] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)


def uncovered(
    lives: Iterable[Life], since: datetime, until: datetime
) -> list[tuple[datetime, datetime]]:
    """Find when no subscription lived, between two times: what the lives leave open.

    Args:
        lives: Of one ledger, or of several that stand for each other.
        since: Where to begin.
        until: Where to end; lives that go on are taken to reach it.
    """
    found = []
    for life in sorted(lives, key=lambda life: life.since):
        if since < life.since:
            found.append((since, min(life.since, until)))
        since = max(since, life.until or until)
        if since >= until:
            return found
    return [*found, (since, until)]
