"""The hand-over: an event or a notice into the lanes and ears of whoever wants it.

The pipeline matches an event when it comes, and has it handed over at once, or, with a journal,
once it is committed; notices wait behind what they came after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from cti_listener.derived import Derived
from cti_listener.dispatcher import Dispatcher
from cti_listener.event_base import Event
from cti_listener.lanes import NOTICES
from cti_listener.notices import Notice
from cti_listener.router import Handler, Happening, Router
from cti_listener.stats import HandlerStats
from cti_listener.streams import Tap


class Handover:
    """Knows who wants what, and gives it to them.

    Attributes:
        handlers: The registered functions.
        taps: Streams and expectations.
        events: How many events were handed over.
        unrouted: How many of them nobody wanted.
        wanted: How many of them ask for each class or name.
    """

    def __init__(self) -> None:
        """Begin with nobody; `attach` the lanes before anything comes."""
        self.wanted: Counter[type[Happening] | str] = Counter()
        self.handlers: Router[Handler] = Router(self.wanted)
        self.taps: Router[Tap] = Router(self.wanted)
        self.events = self.unrouted = 0
        self._dispatcher: Dispatcher

    def attach(self, dispatcher: Dispatcher) -> None:
        """Put into this dispatcher's lanes."""
        self._dispatcher = dispatcher

    @property
    def waiting(self) -> int:
        """How many happenings are in all lanes now."""
        return self._dispatcher.waiting

    @property
    def oldest(self) -> tuple[datetime, str] | None:
        """When the oldest happening came that is in a lane, and which handler's lane that is."""
        return self._dispatcher.oldest

    def give(
        self, event: Event, device: str | None, handlers: Sequence[Handler], seq: int = 0
    ) -> None:
        """Hand an event over.

        Args:
            event: The event.
            device: Its routing key.
            handlers: Who wants it.
            seq: Its place in the journal; 0 without one.
        """
        self.events += 1
        for handler in handlers:
            self._dispatcher.put(handler, device, event, seq)
        taps = self.taps.match(event, device) if self.taps.any else ()
        if not (handlers or any(tap.counts for tap in taps)):
            self.unrouted += 1
        if taps:
            for tap in list(taps):  # one that has what it waited for goes away
                tap.offer(event, seq)

    def follow(
        self, notice: Derived, handlers: Sequence[Handler] | None = None, seq: int = 0
    ) -> None:
        """Hand over what follows from an event, right behind it in its device's lanes.

        Args:
            notice: What follows.
            handlers: Who wants it; None: whoever does now.
            seq: Its place in the journal; 0 without one.
        """
        for handler in self.handlers.match_notice(notice) if handlers is None else handlers:
            self._dispatcher.put(handler, notice.device, notice, seq)
        for tap in self.taps.match_notice(notice) if self.taps.any else ():
            tap.offer(notice, seq)

    def tell(self, notice: Notice, but: Handler | None = None) -> None:
        """Put a notice into the lanes it concerns.

        A handler without a device has a lane of its own for notices, one with a device gets them in
        that device's lane.

        Args:
            notice: What to tell.
            but: Who knows already.
        """
        for handler in self.handlers.match_notice(notice):
            if handler is not but:
                self._dispatcher.put(handler, handler.wish.device or NOTICES, notice)
        for tap in self.taps.match_notice(notice):
            tap.offer(notice, 0)

    def stats(self) -> dict[str, HandlerStats]:
        """Return how each handler fares, by name."""
        return {
            one.name: HandlerStats(
                handled=one.handled,
                failed=one.failed,
                dropped=one.dropped,
                waiting=one.waiting,
                halted=one.halted,
                withheld=one.withheld,
                durations=one.durations.distribution(),
            )
            for one in self.handlers
        }
