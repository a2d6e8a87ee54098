"""Probes: does it live, and is it ready.

A keeper restarts what does not live, so liveness asks nothing but ourselves: that the loop turns,
shown by the answer, and that the supervisor does. Whether the server is there is readiness.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cti_listener.stats import Stats

SLOW_COMMIT: Final = 10.0
"""A commit that takes longer, in seconds, says that the journal cannot be written."""

TICK_AGE: Final = 15.0
"""A supervisor that gave no sign for longer, in seconds, hangs."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        ok: Whether it is as it should be.
        detail: For a person: how it stands.
    """

    name: str
    ok: bool
    detail: str


def liveness(tick_age: float | None) -> list[Check]:
    """Look whether we live.

    Args:
        tick_age: How long ago the supervisor gave a sign, in seconds; None: it has yet to begin.
    """
    told = "has yet to begin" if tick_age is None else f"gave a sign {tick_age:.1f} s ago"
    return [
        Check("event_loop", ok=True, detail="turns"),
        Check("supervisor", ok=tick_age is None or tick_age <= TICK_AGE, detail=told),
    ]


def readiness(stats: Stats, now: datetime, max_age: float) -> list[Check]:
    """Look whether events come, and are handled.

    Args:
        stats: How the listener stands.
        now: The time, aware.
        max_age: How old the oldest unhandled event may be, in seconds; 0: any age.
    """
    oldest = stats.oldest_unhandled_at
    age = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
    return [
        Check("subscribed", stats.connected, _subscribed(stats)),
        _journal(stats),
        Check("not_draining", not stats.draining, "stopping" if stats.draining else "running"),
        Check(
            "oldest_unhandled",
            not max_age or age <= max_age,
            "nothing waits" if oldest is None else f"{_behind(stats)} {age:.1f} s behind",
        ),
    ]


def answer(checks: list[Check]) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and body that tell of these checks."""
    well = all(check.ok for check in checks)
    body = {
        "status": "ok" if well else "failing",
        "checks": {one.name: {"ok": one.ok, "detail": one.detail} for one in checks},
    }
    return (200 if well else 503), body


def _subscribed(stats: Stats) -> str:
    if not stats.connected:
        return f"not connected, after {stats.attempts} attempts"
    return f"{stats.subscriptions} subscriptions stand"


def _behind(stats: Stats) -> str:
    """Name the handler that has yet to do the oldest event."""
    name = stats.oldest_unhandled_by or "a handler"
    handler = stats.handlers.get(name)
    halted = handler is not None and handler.halted
    return f"{name}, which halted, is" if halted else f"{name} is"


def _journal(stats: Stats) -> Check:
    kept = stats.journal
    if kept is None:
        return Check("journal", ok=True, detail="there is none")
    if not kept.open:
        return Check("journal", ok=False, detail="is closed, or failed")
    slow = kept.under_way > SLOW_COMMIT
    detail = f"a commit takes {kept.under_way:.1f} s" if slow else f"{kept.pending} events pending"
    return Check("journal", not slow, detail)
