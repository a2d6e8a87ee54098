"""What follows from events: tracking, from when somebody asks, and its notices on their way.

Beside the pipeline, which gives each event here when it is distinct. What follows from it goes
right behind it: at once, or, with a journal, as its next rows in the same commit. The journal also
keeps what was known every few thousand events, and the next run folds what came after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Final

from cti_listener.clock import Clock
from cti_listener.commits import Commits
from cti_listener.derived import Derived
from cti_listener.errors import BadMessageError
from cti_listener.event_base import Event
from cti_listener.handover import Handover
from cti_listener.journal import Opened
from cti_listener.log import log
from cti_listener.notices import Gap
from cti_listener.snapshots import DeviceSnapshot
from cti_listener.tracking import Tracking

KEPT_EVERY: Final = 5000
"""After so many events what is known is kept anew, and after `KEPT_PER_LEG` for each device in a
call: keeping it costs that much more."""

KEPT_PER_LEG: Final = 20

SHARE: Final = 100.0
"""By what came, what is known is kept no sooner than after so many times as long as that took."""

KEPT_FOR: Final = 60.0
"""After so many seconds, too, if anything came."""


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
        self._kept_at = 0.0
        self._unkept = 0  # events since what is known was kept
        self._untold = False  # something besides has changed what is known
        self._rest = 0.0  # for how long it is not kept again, in seconds
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
        tracking, commits = self.tracking, self._commits
        if commits is None:
            return
        if tracking is None:
            self._open = True
            commits.keep_tracking(None)  # what comes now is not folded
            return
        if opened.tracked is not None:
            try:
                await asyncio.to_thread(self._fold_again, tracking, opened)
            except (LookupError, TypeError, ValueError, BadMessageError):
                log.warning("tracking_not_resumed", advice="every device is uncertain for a while")
                tracking.forget()
        self._open = True
        self._keep()

    def _fold_again(self, tracking: Tracking, opened: Opened) -> None:
        """Fold what came after the last keeping; it waits for the disk.

        Raises:
            ValueError: What was kept is of another version, or events behind it are gone.
        """
        assert opened.tracked is not None  # noqa: S101 - for the type checker
        assert self._commits is not None  # noqa: S101 - for the type checker
        tracking.remember(opened.tracked)
        count = opened.tracked_seq
        for event in self._commits.events_after(opened.tracked_seq):
            count += 1
            if event is not None:
                tracking.apply(event)
        if count != opened.last_seq:
            raise ValueError(count)

    # Events

    def fold(self, event: Event, key: tuple[Any, ...]) -> Sequence[Derived]:
        """Return what follows from an event; a bug of ours there costs no event."""
        if self.tracking is None:
            return ()
        try:
            return self.tracking.apply(event, key)
        except Exception:  # noqa: BLE001 - told, and the event goes its way
            log.exception("tracking_failed", event_name=event.event_name, call=event.call_id)
            return ()

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
                self._keep_soon()

    @property
    def devices(self) -> Sequence[str]:
        """The devices that were heard of."""
        return () if self.tracking is None else self.tracking.devices

    def adopt(self, device: str, snapshot: DeviceSnapshot) -> None:
        """Take what somebody says of a device, and hand over what differs."""
        if self.tracking is None:
            return
        try:
            notices = self.tracking.adopt(device, snapshot, self._clock.now())
        except Exception:  # noqa: BLE001 - a bug of ours; the device's events go on
            log.exception("tracking_failed", event_name="snapshot", device=device)
        else:
            self.give(notices)
            if notices:
                self._keep_soon()

    def passed(self, device: str, snapshot: DeviceSnapshot) -> None:
        """Be sure of a device by what was said of it, now that what waited for that has passed."""
        if self.tracking is not None:
            self.tracking.confirm(device, snapshot)

    def missed(self, gap: Gap) -> None:
        """Doubt what is known of whomever a gap concerns."""
        if self.tracking is not None:
            self.tracking.missed(gap)
            if self._open and not gap.recovered:
                self._keep_soon()

    def expire(self) -> None:
        """Give up the calls that have shown no sign for too long."""
        if self.tracking is None or not self._open:
            return
        now = self._clock.monotonic()
        if notices := self.tracking.expire(self._clock.now()):
            self.give(notices)
        if notices or (self._unkept and now >= self._kept_at + KEPT_FOR):
            self._keep()  # so no run folds again what was told, nor what is no longer there
        elif self._untold:
            self._keep_soon()

    def leave(self) -> None:
        """Keep what is known for the next run: nothing more comes, or what came is in no event."""
        if self._open and self.tracking is not None:
            self._keep()

    def _keep_soon(self) -> None:
        """Keep what is known; later, if it was kept just now."""
        self._untold = self._clock.monotonic() < self._kept_at + self._rest
        if not self._untold:
            self._keep()

    def _keep(self) -> None:
        self._unkept = 0
        self._untold = False
        self._kept_at = self._clock.monotonic()
        if self._commits is None or self.tracking is None:
            return
        began = perf_counter()
        try:
            known = self.tracking.remembered()
        except ValueError as error:  # a number of more digits than Python writes out
            log.warning("tracking_not_kept", problem=str(error))
            known = None
        self._rest = SHARE * (perf_counter() - began)
        self._commits.keep_tracking(known)
