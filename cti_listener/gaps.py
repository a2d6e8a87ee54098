"""The ledger of what may have been missed.

The listener tells it when listening stopped and stood again; it answers with the `Gap` to send
round. A gap is told at once, and completed here when the first event after it comes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import Final

from cti_listener.notices import Gap, GapReason
from cti_listener.values import EventKey

KEPT: Final = 1000
"""How many gaps the ledger remembers; the oldest are forgotten first."""


@dataclass(frozen=True, slots=True)
class _Loss:
    since: datetime
    reason: GapReason
    last_before: EventKey | None
    devices: frozenset[str] = frozenset()


class GapLedger:
    """Remembers the gaps of one run, open ones included."""

    def __init__(self) -> None:
        """Start with nothing missed: before the first connection there was nothing to miss."""
        self._ids = count(1)
        self._closed: deque[Gap] = deque(maxlen=KEPT)
        self._lost: tuple[int, _Loss] | None = None
        self._refused: dict[str, tuple[int, _Loss]] = {}
        self.awaiting = False
        """Whether a gap still lacks its first event after; spares the hot path a call."""

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Every gap remembered, the open ones last, with `until` None."""
        open_ones = [_open(*entry, None) for entry in [self._lost] if entry]
        open_ones += [_open(*entry, name) for name, entry in self._refused.items()]
        return (*self._closed, *open_ones)

    def lost(self, since: datetime, reason: GapReason, last_before: EventKey | None) -> None:
        """Note that listening stopped at `since`; a loss within a loss changes nothing."""
        if self._lost is None:
            self._lost = next(self._ids), _Loss(since, reason, last_before)

    def regained(self, at: datetime, first_after: EventKey | None) -> Gap | None:
        """Note that every subscription stands; return the gap this closes."""
        entry, self._lost = self._lost, None
        return self._close(entry, at, first_after) if entry else None

    def refused(
        self,
        destination: str,
        since: datetime,
        last_before: EventKey | None,
        devices: frozenset[str] = frozenset(),
    ) -> None:
        """Note that a destination is refused; once is enough."""
        if destination not in self._refused:
            loss = _Loss(since, "refused", last_before, devices)
            self._refused[destination] = next(self._ids), loss

    def accepted(self, destination: str, at: datetime) -> Gap | None:
        """Note that a refused destination was taken after all, or is wanted no more."""
        entry = self._refused.pop(destination, None)
        return self._close(entry, at, None, destination) if entry else None

    def restarted(self, since: datetime, at: datetime, first_after: EventKey) -> Gap:
        """Note that the server restarted its counter between two events."""
        loss = _Loss(since, "server_restarted", None)
        return self._close((next(self._ids), loss), at, first_after)

    def left_out(self, at: datetime, last_before: EventKey | None) -> Gap:
        """Note that a message was too large to be taken, and the connection lives."""
        return self._close((next(self._ids), _Loss(at, "oversized", last_before)), at, None)

    def note(self, event: EventKey) -> None:
        """Complete the gaps that await their first event after."""
        self.awaiting = False
        for index, gap in enumerate(self._closed):
            if gap.first_after is None:
                self._closed[index] = replace(gap, first_after=event)

    def _close(
        self,
        entry: tuple[int, _Loss],
        at: datetime,
        first_after: EventKey | None,
        destination: str | None = None,
    ) -> Gap:
        number, loss = entry
        gap = Gap(
            at=at,
            id=number,
            since=loss.since,
            until=at,
            reason=loss.reason,
            devices=loss.devices,
            destination=destination,
            last_before=loss.last_before,
            first_after=first_after,
        )
        self._closed.append(gap)
        self.awaiting = self.awaiting or first_after is None
        return gap


def _open(number: int, loss: _Loss, destination: str | None) -> Gap:
    return Gap(
        at=loss.since,
        id=number,
        since=loss.since,
        until=None,
        reason=loss.reason,
        devices=loss.devices,
        destination=destination,
        last_before=loss.last_before,
    )
