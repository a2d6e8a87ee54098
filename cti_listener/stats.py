"""The snapshot that `Listener.stats()` returns; metrics, health and repr read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from cti_listener.errors import BadReason
from cti_listener.histogram import Distribution, Histogram
from cti_listener.journal.base import JournalStats
from cti_listener.notices import Gap, GapReason
from cti_listener.sightings import FeedStats
from cti_listener.snapshots import SnapshotStats
from cti_listener.wire.base import WireName

Outcome = Literal["subscribed", "refused", "untrusted", "failed"]
"""How an attempt to connect ended. A closed set, fit for a metric's label.

- `subscribed`: every destination stands.
- `refused`: the server said no: credentials, path, or all destinations.
- `untrusted`: its certificate is not to be trusted, or ours is not taken.
- `failed`: anything else: nobody answers, it takes too long, it is no WebSocket.
"""

_NONE: Final = Histogram().distribution()


@dataclass(frozen=True, slots=True)
class Stand:
    """A feed whose every subscription stands.

    Attributes:
        url: Where.
        since: Since when.
    """

    url: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerStats:
    """How one handler fares.

    Attributes:
        handled: Happenings it has finished.
        failed: Happenings it raised on, retries included.
        dropped: Events that its full lanes dropped.
        waiting: Happenings in its lanes now, the one it is at included.
        halted: It raised `HaltError`, and is not called again.
        withheld: What it would not take when it halted, and what it has not been given since.
        durations: How long it took, of one run in sixteen.
    """

    handled: int
    failed: int
    dropped: int
    waiting: int
    halted: bool = field(default=False, repr=False)
    withheld: int = field(default=0, repr=False)
    durations: Distribution = field(default=_NONE, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A listener at one moment; counts are since its making.

    Every event received is one of: not asked for, repeated, or distinct.

    Attributes:
        connected: Whether every subscription stands now.
        connected_since: Since when, aware; None when not connected.
        url: The endpoint now or last, without credentials.
        attempts: Connections tried.
        connections: Connections subscribed.
        frames: WebSocket messages received.
        received: Event objects received.
        not_asked_for: Of these, about others than were asked for.
        repeated: Of these, repeats of one seen.
        distinct: Of these, handed to whoever wants them.
        unrouted: Distinct events that nobody wanted.
        bad: Messages left out, by reason.
        remembered: Events in the window that repeats are told by.
        waiting: Happenings in all lanes now.
        handlers: By name.
        last_frame_at: When the last message came, aware.
        last_event_at: When the last distinct event came, aware.
        gaps: Every gap of this run, the latest 1,000, oldest first; the open ones, with `until`
            None, last. With a journal, those that earlier runs left open are among them.
        feeds: What each feed brought, by name; empty where there is only one.
        journal: How the journal stands; None without one.
        blocked: How often the event loop was held up for longer than `block_limit`.
        longest_block: For how many seconds at the most.
        inconsistencies: Steps of calls and agents that could not follow what was known.
        snapshots: How the questions how devices stand fare; None without `snapshot`.
        frames_by_wire: `frames`, by what they are in.
        received_by_name: `received`, by the catalogue's names; what the sum lacks is others.
        outcomes: How the attempts ended.
        disconnects: Subscribed connections that ended, by reason.
        gaps_by_reason: Gaps that began in this run, open ones included.
        lag: How old events were when they came, by the server's clock of whole seconds: of one
            in a twentieth of a second at most.
        loop_lag: How much later than due the event loop turned, four times each `block_limit`.
        stands: Each feed, and since when and where it stands; None: it does not.
        subscriptions: Destinations that stand now, of all feeds; over JSON, the messages that ask
            for them, or the one URL.
        oldest_unhandled_at: When the oldest event came that a handler has yet to do; None: there is
            none. With a journal it may be a second old.
        oldest_unhandled_by: Which handler.
        draining: It was told to stop.
    """

    connected: bool
    connected_since: datetime | None
    url: str | None
    attempts: int
    connections: int
    frames: int
    received: int
    not_asked_for: int
    repeated: int
    distinct: int
    unrouted: int
    bad: Mapping[BadReason, int]
    remembered: int
    waiting: int
    handlers: Mapping[str, HandlerStats]
    last_frame_at: datetime | None
    last_event_at: datetime | None
    gaps: tuple[Gap, ...]
    feeds: Mapping[str, FeedStats]
    journal: JournalStats | None
    blocked: int = 0
    longest_block: float = 0.0
    inconsistencies: int = 0
    snapshots: SnapshotStats | None = None
    frames_by_wire: Mapping[WireName, int] = field(default_factory=dict)
    received_by_name: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    disconnects: Mapping[GapReason, int] = field(default_factory=dict)
    gaps_by_reason: Mapping[GapReason, int] = field(default_factory=dict)
    lag: Distribution = _NONE
    loop_lag: Distribution = _NONE
    stands: Mapping[str, Stand | None] = field(default_factory=dict)
    subscriptions: int = 0
    oldest_unhandled_at: datetime | None = None
    oldest_unhandled_by: str | None = None
    draining: bool = False
