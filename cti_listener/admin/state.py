"""How things stand, as JSON: the connection, feeds, gaps, agents, calls, and the rate of late.

Made once a second at most, however many ask, and in parts between which the loop turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from datetime import datetime, tzinfo
from itertools import islice
from typing import Any, Final
from zoneinfo import ZoneInfo

from cti_listener.admin.showing import Shown, to_json
from cti_listener.clock import Clock
from cti_listener.listener import Listener
from cti_listener.records import as_wire, plain
from cti_listener.stats import HandlerStats, Stats

INTERVAL: Final = 5.0
"""The rate is taken so often, in seconds."""

SAMPLES: Final = 120
"""So many of these are remembered: ten minutes."""

MOST_AGENTS: Final = 1000
MOST_CALLS: Final = 500
MOST_GAPS: Final = 50
AGE: Final = 0.9
"""For how long an answer is given again, in seconds."""

PART: Final = 50
"""After so many agents or calls the loop has its turn."""


class Rate:
    """How many distinct events came in each of the last intervals."""

    def __init__(self) -> None:
        """Begin with none."""
        self._counts: deque[int] = deque(maxlen=SAMPLES)
        self._before: int | None = None

    def note(self, distinct: int) -> None:
        """Take how many came in all by the end of an interval."""
        if self._before is not None:
            self._counts.append(distinct - self._before)
        self._before = distinct

    @property
    def counts(self) -> list[int]:
        """What came in each interval, the oldest first."""
        return list(self._counts)


class State:
    """Tells how a listener stands.

    Args:
        listener: Which one.
        clock: The one clock.
        shown: What may be shown.
        rate: How many events came of late.
        version: Ours.
    """

    def __init__(
        self, listener: Listener, clock: Clock, shown: Shown, rate: Rate, version: str
    ) -> None:
        """Look at this listener."""
        self._listener = listener
        self._clock = clock
        self._shown = shown
        self._rate = rate
        self._version = version
        self._began = clock.now()
        self._lock = asyncio.Lock()
        self._made_at: float | None = None
        self._text = b""

    async def text(self) -> bytes:
        """Return it as JSON, at most a second old."""
        async with self._lock:
            now = self._clock.monotonic()
            if self._made_at is None or now >= self._made_at + AGE:
                body = await self._made()
                self._text = await asyncio.to_thread(to_json, body)
                self._made_at = now
        return self._text

    async def _made(self) -> dict[str, Any]:
        stats = self._listener.stats()
        agents, calls = self._listener.agents, self._listener.calls
        return {
            "version": self._version,
            "now": plain(self._clock.now()),
            "startedAt": plain(self._began),
            "masked": self._shown.masked,
            "namespace": self._listener.namespace,
            "zone": _zone(self._listener.zone, self._clock.now()),
            "connection": _connection(stats),
            "feeds": [_feed(name, stats) for name in stats.stands],
            "gaps": [self._shown.ours(gap.as_wire()) for gap in reversed(stats.gaps[-MOST_GAPS:])],
            "counts": _counts(stats),
            "handlers": {name: _handler(one) for name, one in stats.handlers.items()},
            "journal": _journal(stats),
            "rate": {"interval": INTERVAL, "counts": self._rate.counts},
            "agentsTotal": len(agents),
            "agentModes": agents.modes(),
            "agents": await self._some(agents, MOST_AGENTS),
            "callsTotal": len(calls),
            "callStates": calls.states(),
            "calls": await self._some(calls, MOST_CALLS),
        }

    async def _some(self, view: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
        """Return the first of a view's snapshots."""
        found: list[dict[str, Any]] = []
        for number, name in enumerate(tuple(islice(view, most)), 1):
            one = view.get(name)
            if one is not None:  # it may have gone meanwhile
                found.append(self._shown.ours(as_wire(one)))
            if number % PART == 0:
                await asyncio.sleep(0)
        return found


def _zone(zone: tzinfo, now: datetime) -> dict[str, Any]:
    """Tell where the server's clock hangs: the zone's name, and its seconds ahead of UTC now."""
    ahead = now.astimezone(zone).utcoffset()
    name = zone.key if isinstance(zone, ZoneInfo) and zone.key else now.astimezone(zone).tzname()
    return {"name": name, "ahead": 0 if ahead is None else round(ahead.total_seconds())}


def _connection(stats: Stats) -> dict[str, Any]:
    return {
        "connected": stats.connected,
        "since": plain(stats.connected_since),
        "url": stats.url,
        "attempts": stats.attempts,
        "connections": stats.connections,
        "subscriptions": stats.subscriptions,
        "lastFrameAt": plain(stats.last_frame_at),
        "lastEventAt": plain(stats.last_event_at),
        "draining": stats.draining,
    }


def _feed(name: str, stats: Stats) -> dict[str, Any]:
    stand, seen = stats.stands[name], stats.feeds.get(name)
    return {
        "name": name,
        "connected": stand is not None,
        "url": None if stand is None else stand.url,
        "since": None if stand is None else plain(stand.since),
        "seen": None if seen is None else seen.seen,
        "first": None if seen is None else seen.first,
        "lag": None if seen is None else round(seen.lag, 4),
    }


def _counts(stats: Stats) -> dict[str, Any]:
    return {
        "frames": stats.frames,
        "received": stats.received,
        "distinct": stats.distinct,
        "repeated": stats.repeated,
        "notAskedFor": stats.not_asked_for,
        "unrouted": stats.unrouted,
        "waiting": stats.waiting,
        "bad": sum(stats.bad.values()),
        "dropped": sum(one.dropped for one in stats.handlers.values()),
        "failed": sum(one.failed for one in stats.handlers.values()),
    }


def _handler(one: HandlerStats) -> dict[str, int]:
    return {
        "handled": one.handled,
        "failed": one.failed,
        "dropped": one.dropped,
        "waiting": one.waiting,
    }


def _journal(stats: Stats) -> dict[str, Any] | None:
    kept = stats.journal
    if kept is None:
        return None
    oldest: datetime | None = kept.oldest_undone
    return {
        "pending": kept.pending,
        "committed": kept.committed,
        "lastSeq": kept.last_seq,
        "bytes": kept.bytes,
        "maxBytes": kept.max_bytes,
        "dead": kept.dead,
        "oldestUndone": plain(oldest),
    }
