"""The snapshot that `Listener.stats()` returns; metrics, health and repr read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cti_listener.errors import BadReason
from cti_listener.journal.base import JournalStats
from cti_listener.notices import Gap
from cti_listener.sightings import FeedStats
from cti_listener.snapshots import SnapshotStats


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerStats:
    """How one handler fares.

    Attributes:
        handled: Happenings it has finished.
        failed: Happenings it raised on, retries included.
        dropped: Events that its full lanes dropped.
        waiting: Happenings in its lanes now, the one it is at included.
        halted: It raised `HaltError`, and is not called again.
    """

    handled: int
    failed: int
    dropped: int
    waiting: int
    halted: bool = field(default=False, repr=False)


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
