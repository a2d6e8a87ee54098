"""What follows from events: tracking, from when somebody asks, and its notices on their way.

Beside the pipeline, which gives each event here when it is distinct. What follows from it goes
right behind it: at once, or, with a journal, as its next rows in the same commit. The journal also
keeps what was known every few thousand events, and the next run folds what came after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from cti_listener.clock import Clock
from cti_listener.commits import Commits
from cti_listener.derived import Derived
from cti_listener.event_base import Event
from cti_listener.handover import Handover
from cti_listener.journal import Opened
from cti_listener.log import log
from cti_listener.notices import Gap
from cti_listener.tracking import Tracking

KEPT_EVERY: Final = 5000
"""After so many events what is known is kept anew, and after `KEPT_PER_LEG` for each device in a
call: keeping it costs that much more."""

KEPT_PER_LEG: Final = 20


class Following:
    """Tracks, once somebody asks, and hands over what follows.

    Args:
        make: Makes the tracking.
        handover: To whom.
        clock: The one clock.
        commits: What commits each event first; None: there is no journal.
    """

    def __init__(
        self,
        make: Callable[[], Tracking],
        handover: Handover,
        clock: Clock,
        commits: Commits | None,
    ) -> None:
        """Wait for somebody to ask."""
        self.tracking: Tracking | None = None
        self._make = make
        self._handover = handover
        self._clock = clock
        self._commits = commits
        self._unkept = 0  # events since what is known was kept
        self._open = commits is None

    def begin(self) -> Tracking:
        """Track from now on, if nobody asked before."""
        if self.tracking is None:
            self.tracking = self._make()
            if self._open:
                self._keep()
        return self.tracking

    async def resume(self, opened: Opened) -> None:
        """Go on where the journal's last run ended, if that tracked as this one does."""
        self._open = True
        tracking, commits = self.tracking, self._commits
        if commits is None:
            return
        if tracking is None:
            commits.keep_tracking(None)  # what comes now is not folded
            return
        if opened.tracked is not None:
            try:
                tracking.remember(opened.tracked)
            except (KeyError, TypeError, ValueError):  # of another version
                log.warning("tracking_not_resumed", advice="every device is uncertain for a while")
                self.tracking = tracking = self._make()
            else:
                for event in await asyncio.to_thread(commits.events_after, opened.tracked_seq):
                    tracking.apply(event)
        self._keep()

    # Events

    def fold(self, event: Event, key: tuple[Any, ...]) -> Sequence[Derived]:
        """Return what follows from an event."""
        return () if self.tracking is None else self.tracking.apply(event, key)

    def give(self, notices: Sequence[Derived]) -> None:
        """Hand over what follows from the event that was given last, behind it."""
        for notice in notices:
            if self._commits is None:
                self._handover.follow(notice)
                continue
            handlers = self._handover.handlers.match_notice(notice)
            if any(one.durable for one in handlers):
                self._commits.append_notice(notice, handlers)
            else:
                self._commits.behind(partial(self._handover.follow, notice))
        if self._commits is not None and self.tracking is not None:
            self._unkept += 1
            if self._unkept >= KEPT_EVERY + KEPT_PER_LEG * self.tracking.legs:
                self._keep()

    def missed(self, gap: Gap) -> None:
        """Doubt what is known of whomever a gap concerns."""
        if self.tracking is not None:
            self.tracking.missed(gap)

    def expire(self) -> None:
        """Give up the calls that have shown no sign for too long."""
        if self.tracking is not None:
            self.give(self.tracking.expire(self._clock.now()))

    def leave(self) -> None:
        """Keep what is known for the next run; nothing more comes."""
        if self._open and self.tracking is not None:
            self._keep()

    def _keep(self) -> None:
        self._unkept = 0
        if self._commits is not None and self.tracking is not None:
            self._commits.keep_tracking(self.tracking.remembered())
