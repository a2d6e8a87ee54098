"""What the handlers of a listener are given, kept for the audit."""

from __future__ import annotations

from datetime import datetime

from bench.audit import BEGINNING, END, Handled, Span
from bench.stage import MARKER
from cti_listener import Connected, Disconnected, Event, Gap, Listener


class Seen:
    """What the handlers of a listener were given.

    Attributes:
        handled: Every call of the events' handler.
        gaps: Every gap told.
        began: When it was first connected.
        notices: Every notice of connections and gaps.
    """

    def __init__(self, listener: Listener) -> None:
        self.handled: list[Handled] = []
        self.gaps: list[Gap] = []
        self.notices: list[Connected | Disconnected | Gap] = []
        self.began: datetime | None = None
        self._outages: list[Span] = []
        self._down: dict[str, datetime] = {}
        self._ever: set[str] = set()

        @listener.on(name="chaos")  # with a journal, one that it keeps events for
        async def keep(event: Event) -> None:
            if event.event_name != MARKER:
                self.handled.append(_handled(event))

        @listener.on(Connected, Disconnected, Gap)
        async def learn(notice: Connected | Disconnected | Gap) -> None:
            self.notices.append(notice)
            match notice:
                case Gap():
                    self.gaps.append(notice)
                case Disconnected():
                    self._down[notice.feed] = notice.since
                case Connected():
                    self.began = self.began or notice.at
                    since = notice.at if notice.feed in self._ever else BEGINNING
                    self._ever.add(notice.feed)
                    self._outages.append(Span(self._down.pop(notice.feed, since), notice.at))

    @property
    def outages(self) -> list[Span]:
        """When one feed or another was not connected."""
        return [*self._outages, *(Span(since, END) for since in self._down.values())]


def _handled(event: Event) -> Handled:
    key = (
        event.namespace,
        event.event_type,
        event.device,
        event.serial,
        event.event_name,
        event.event_time_text,
        event.call_id,
    )
    delivery = event.delivery
    assert delivery.received_at is not None
    return Handled(key, delivery.received_at, delivery.late, delivery.feed)
