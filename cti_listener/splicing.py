"""Several feeds on an event's way: what is held back and let go, and what is told of them.

`feeds` decides. `Splicing` asks it about each event, has those admitted that need not wait, and
ends each splice when its time is over. Called by `pipeline`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from cti_listener.clock import Clock
from cti_listener.dedupe import Dedupe
from cti_listener.event_base import Delivery
from cti_listener.feeds import Copy, Feeds
from cti_listener.gaps import GapLedger
from cti_listener.lives import Told
from cti_listener.log import log
from cti_listener.notices import FeedsApart
from cti_listener.sightings import FeedStats
from cti_listener.values import plain_int

Later = Callable[[float, Callable[[], None]], None]
"""Has something called after so many seconds."""


class Taken(NamedTuple):
    """An event object on its way.

    Attributes:
        payload: As received.
        device: Its routing key.
        key: Its identity.
        name: What dedupe knows it by.
        delivery: What is ours about it.
        text: The JSON text it was read from, where that is at hand.
    """

    payload: dict[str, Any]
    device: str | None
    key: tuple[Any, ...]
    name: int
    delivery: Delivery
    text: bytes | None


def _told(key: tuple[Any, ...]) -> Told:
    """Return when and as what number an event of this identity was told."""
    serial = key[3]
    if type(serial) is not int and (number := plain_int(serial)) is not None:
        serial = number
    return Told(time=key[5], kind=key[:2], serial=serial)


class Splicing:
    """Keeps several feeds in step.

    Args:
        feeds: Decides who has to wait.
        clock: The one clock.
        ledger: Is told whether the feeds stand for each other.
        dedupe: The window of what was seen.
        hold: For how long a feed that comes back is held back at most, in seconds.
        later: Ends a splice in time; None: only what comes does.
        admit: Has an event handed over, unless it was seen; takes what `Taken` holds.
        tell: Has a notice handed over.
        go_on: Takes what waited until nothing was held back.
    """

    def __init__(
        self,
        feeds: Feeds,
        clock: Clock,
        ledger: GapLedger,
        *,
        dedupe: Dedupe,
        hold: float,
        later: Later | None,
        admit: Callable[..., None],
        tell: Callable[[FeedsApart], None],
        go_on: Callable[[Callable[[], None]], None],
    ) -> None:
        """Hold nothing back yet."""
        self._feeds = feeds
        self._clock = clock
        self._ledger = ledger
        self._dedupe = dedupe
        self._hold = hold
        self._later = later
        self._admit = admit
        self._tell = tell
        self._go_on = go_on
        self._behind: list[Callable[[], None]] = []

    @property
    def holding(self) -> bool:
        """Whether any event is held back."""
        return self._feeds.holding

    def behind(self, call: Callable[[], None]) -> None:
        """Have something go on once nothing is held back."""
        self._behind.append(call)

    # Events

    def take(self, taken: Taken, now: float) -> None:
        """Have an event admitted, unless its feed may be ahead of the others with it.

        Args:
            taken: The event.
            now: Monotonic seconds.
        """
        feeds, feed = self._feeds, taken.delivery.feed
        copy = Copy(taken.device, taken.name, _told(taken.key), taken)
        known = taken.name in self._dedupe
        new = feeds.note(feed, copy, now, known=known)
        for one in feeds.take_proven():
            self._splice(feeds.splice_of(one))
        if feeds.apart is not None and feeds.apart is not self._ledger.apart:
            self._mind_share(apart=feeds.apart)
        if known and not feeds.watching:
            self._admit_in_step(taken, late=False)
            return
        if known or not feeds.holds(feed, copy, now):
            late = feeds.is_late(feed, copy, now, known=known)
            self._admit_in_step(taken, late=late)
            feeds.handled(feed, copy, new=new, in_turn=not (known or late))
        elif feeds.full(feed):
            self._splice(feeds.splice_of(feed))
        self._mind_behind()

    def _admit_in_step(self, taken: Taken, *, late: bool) -> None:
        payload, device, key, name, delivery, text = taken
        if late:
            delivery = replace(delivery, late=True)
        self._admit(payload, device, key, name, delivery, text=text)

    def _splice(self, number: int) -> None:
        """End a splice now, whatever its feed may be ahead of."""
        for one, late in self._feeds.spliced(number, self._clock.monotonic()):
            self._admit_in_step(one.what, late=late)
        self._mind_behind()

    def _mind_behind(self) -> None:
        """Let go on what waits for events that are held back, once none is."""
        if self._behind and not self._feeds.holding:
            calls, self._behind = self._behind, []
            for call in calls:
                self._go_on(call)

    def _mind_share(self, *, apart: bool) -> None:
        """Say so if the feeds bring different events: then each is missed when it is lost."""
        self._ledger.apart = apart
        if apart:
            log.error(
                "feeds_apart",
                share=round(self._feeds.share, 3),
                advice="the server gives each event to one session only, or numbers the events of"
                " each on its own, or one server brings only part of what the other does: two feeds"
                " do not stand for each other here",
            )
            self._tell(FeedsApart(at=self._clock.now(), share=self._feeds.share))

    # Connections

    def stood(self, feed: str) -> None:
        """Note that a feed stands; if others do, it is spliced in."""
        number = self._feeds.stood(feed, self._clock.monotonic())
        if number and self._later is not None:
            self._later(self._hold, partial(self._splice, number))

    def lost(self, feed: str, since: datetime, *, too_large: bool) -> tuple[datetime, list[int]]:
        """Note that a feed stands no more.

        Args:
            feed: Which one.
            since: When its last byte came.
            too_large: A message ended it that will end the others too when they come to it.

        Returns:
            Until when it covers what happened: what it had yet to bring happened before its last
            byte came, and others may lack it. And the splices to `end` then.
        """
        now = self._clock.monotonic()
        silent = now - (self._clock.now() - since).total_seconds()
        covered = self._reached(feed, since, silent)
        return covered, self._feeds.lost(feed, silent, now, too_large=too_large)

    def covered(self, signs: Mapping[str, datetime]) -> Mapping[str, datetime]:
        """Return up to when each feed that stands covers what happened, if it is lost now.

        Args:
            signs: When the last byte came by each.

        Returns:
            Nothing while that is not known: events are held back, and are in memory only, or one of
            them has ended and we are yet to hear of it.
        """
        if self._feeds.holding or signs.keys() != self._feeds.standing:
            return {}
        now, today = self._clock.monotonic(), self._clock.now()
        return {
            feed: self._reached(feed, sign, now - (today - sign).total_seconds())
            for feed, sign in signs.items()
        }

    def _reached(self, feed: str, since: datetime, silent: float) -> datetime:
        """Return up to when a feed brought all that happened, if its last byte came then."""
        if self._ledger.apart:
            return since  # what others brought says nothing of it
        return since - timedelta(seconds=silent - self._feeds.reached(feed, silent, self._hold))

    def end(self, numbers: Iterable[int]) -> None:
        """End these splices."""
        for number in numbers:
            self._splice(number)

    def leave(self) -> None:
        """Hold nothing back any more: what reached us is handled, though nobody else brings it."""
        self.end(self._feeds.leave())

    def stats(self) -> Mapping[str, FeedStats]:
        """Return what each feed brought, by feed."""
        return self._feeds.stats()
