"""What a tracker is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from cti_listener.derived import Derived
from cti_listener.event_base import Event


class Tracker(Protocol):
    """Folds events, one at a time, in the order in which each device sent them.

    Pure: it has no clock but what it is told, and does nothing but remember. It never fails on an
    event, however odd: what cannot follow is believed, and said.
    """

    def apply(self, event: Event) -> Sequence[Derived]:
        """Take an event; return what follows from it, in order."""

    def missed(self, devices: frozenset[str]) -> None:
        """Doubt what is known of these devices, of all if there are none: events were missed."""

    def expire(self, now: datetime) -> Sequence[Derived]:
        """Give up what has shown no sign for too long; return what follows from that."""
