"""The server's serial counters, and when one restarted.

A counter that falls back while the time goes on tells of a server that restarted: what it sent
before we heard the new count may be lost. Holes tell nothing, since a namespace's counter is
shared by all its devices. Several routers may each count, so a counter is followed per line of
numbers: the first event of a second, lower line looks like a restart, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cti_listener.values import read_time, seconds_between

MARGIN: Final = 2.0
"""So many seconds later a lower serial must be stamped to tell of a restart, else it is late."""

FAR: Final = 60.0
"""An event stamped so many seconds later than both its neighbours has an odd time."""

EARLY: Final = timedelta(seconds=MARGIN)
"""What is heard earlier than any before it by more than this has a time that is ahead."""

STALE: Final = timedelta(minutes=10)
"""A line of numbers unheard for so long is forgotten when a new one begins."""

DEAD: Final = timedelta(hours=1)
"""A line of numbers unheard for so long is forgotten."""

LINES: Final = 8
COUNTERS: Final = 1000

EARLIER: Final = 16
"""A line keeps fewer earlier numbers than this, spread evenly over its whole way."""

FEW: Final = 2
"""Fewer earlier numbers than this say nothing: the last time alone does."""


@dataclass(slots=True)
class _Line:
    highest: int
    stamped: str
    heard: datetime
    below: int  # the number beside the highest; its own where there is none
    began: str  # the time of its first
    since: datetime  # when that was heard
    beside: str = ""  # the time of that
    odd: str = ""  # the time of one that was odd
    lag: timedelta | None = None  # how long after its time the first of that time was heard
    least: timedelta | None = None  # the least of these, but for the last, which may be odd
    earlier: list[tuple[int, str]] = field(default_factory=list)  # numbers and their times
    apart: int = 1  # of so many times that went on one is kept
    due: int = 1  # after so many more

    def rise(self, serial: int, stamped: str, heard: datetime) -> None:
        """Take a number above the highest."""
        if stamped == self.stamped:
            self.highest = serial
            return
        lag = _lag(stamped, heard)
        if stamped > self.stamped or _comes_behind(stamped, self.stamped):
            self.below, self.beside = self.highest, self.stamped
            if self.lag is not None and (self.least is None or self.lag < self.least):
                self.least = self.lag
            self.due -= 1
            if not self.due:
                self._keep()
        elif self.is_odd(stamped):
            self.odd = self.stamped
        else:
            self.below, self.beside = serial, stamped
            return
        self.highest, self.stamped, self.lag = serial, stamped, lag

    def left_at(self, serial: int, stamped: str) -> str | None:
        """Return its last time if a number so stamped fell below it; None if it is merely late.

        If it has no time yet, it takes this one.
        """
        highest, before = self.highest, self.stamped
        if self.is_odd(stamped):
            highest, before = self.below, self.beside
        if highest <= serial:
            return None
        apart = seconds_between(before, stamped)
        if apart is not None and apart >= MARGIN:
            return before
        ago = [seconds_between(time, stamped) for number, time in self.earlier if number > serial]
        known = [one for one in ago if one is not None]
        if apart is None and not known:
            self.stamped = stamped
            return None
        if len(known) < FEW:
            left = apart is None
        else:  # whatever the last times say: several of them may be odd
            left = sum(one >= MARGIN for one in known) > len(known) / 2
        return before if left else None

    def came_at(self, stamped: str) -> datetime | None:
        """Return when what was so stamped came, at the earliest, however late it was heard."""
        time = read_time(stamped)
        if time is None or self.least is None:
            return None
        try:
            return (time + self.least).astimezone(UTC)
        except OverflowError:  # beyond the calendar
            return None

    def is_odd(self, stamped: str) -> bool:
        """Tell whether the time of its highest is none, or far ahead on both sides."""
        if self.stamped <= stamped and len(self.stamped) == len(stamped):
            return False
        if read_time(self.stamped) is None:
            return True
        apart = [seconds_between(one, self.stamped) or 0.0 for one in (self.beside, stamped)]
        return min(apart) > FAR

    def _keep(self) -> None:
        """Keep its highest among the earlier ones; of too many, drop every other."""
        self.earlier.append((self.highest, self.stamped))
        if len(self.earlier) == EARLIER:
            del self.earlier[::2]
            self.apart *= 2
        self.due = self.apart


class Counters:
    """Follows the counters of every namespace; `agent` and `csta` count separately.

    Args:
        longest: For how long an event may have been on its way, in seconds.
    """

    def __init__(self, longest: float = 3600.0) -> None:
        """Know no counter yet."""
        self._longest = timedelta(seconds=longest)
        self._lines: dict[tuple[Any, Any], list[_Line]] = {}

    def note(
        self, namespace: Any, event_type: Any, serial: int, stamped: str, heard: datetime
    ) -> datetime | None:
        """Take an event's serial; one without a namespace or a type is of no counter.

        Args:
            namespace: Its namespace, as received.
            event_type: `agent` or `csta`, likewise.
            serial: Its serial.
            stamped: Its `eventTime`, as received.
            heard: When it was received.

        Returns:
            When the counter was last heard before it restarted; None if it did not.
        """
        lines = self._lines.get((namespace, event_type))
        if lines is None:
            named = type(namespace) is str and type(event_type) is str
            if named and len(self._lines) < COUNTERS:
                self._lines[namespace, event_type] = [_begin(serial, stamped, heard)]
            return None
        line = lines[-1]  # the one heard last; nearly always the right one
        if serial < line.highest or len(lines) > 1:
            while len(lines) > 1 and heard - lines[0].heard >= DEAD:
                del lines[0]
            below = [one for one in lines if one.highest <= serial]
            if not below:
                return self._fell_back(lines, serial, stamped, heard)
            line = max(below, key=lambda one: one.highest)
            if serial == line.highest or _late(lines, line, serial, stamped):
                return None
            lines.remove(line)
            lines.append(line)
        if serial > line.highest:
            line.heard = heard
            line.rise(serial, stamped, heard)
        return None

    def _fell_back(
        self, lines: list[_Line], serial: int, stamped: str, heard: datetime
    ) -> datetime | None:
        """Judge a serial below every line: late, or the first of a new line."""
        if read_time(stamped) is None or any(stamped == line.odd for line in lines):
            return None
        times = [line.left_at(serial, stamped) for line in lines]
        last, before = lines[-1], times[-1]
        if before is None or None in times:
            return None
        lines[:] = [line for line in lines if heard - line.heard < STALE][-LINES + 1 :]
        new = _begin(serial, stamped, heard)
        new.below, new.beside = last.highest, last.stamped
        lines.append(new)
        # The last one may have been long on its way.
        came = max(last.came_at(before) or last.heard, last.heard - self._longest)
        return min(heard, last.heard, came)


def _begin(serial: int, stamped: str, heard: datetime) -> _Line:
    return _Line(serial, stamped, heard, serial, stamped, heard, lag=_lag(stamped, heard))


def _lag(stamped: str, heard: datetime) -> timedelta | None:
    time = read_time(stamped)
    return None if time is None else heard - time


def _late(lines: list[_Line], below: _Line, serial: int, stamped: str) -> bool:
    """Tell whether it belongs to a line above, as one that came late or again."""
    return any(
        serial < line.highest
        and stamped <= line.stamped
        and (line.highest < 2 * serial - below.highest or _is_of_old(stamped, line, below))
        for line in lines
    )


def _is_of_old(stamped: str, old: _Line, new: _Line) -> bool:
    """Tell whether it is of a count that was heard no more since a new one began."""
    if old.heard > new.since or old.stamped >= new.began:
        return False
    first, came = old.came_at(new.began), old.came_at(stamped)
    if first is None or first > new.since + EARLY:
        return False
    return came is not None and came < new.since


def _comes_behind(stamped: str, before: str) -> bool:
    """Compare two times as times: they need not be written alike."""
    apart = seconds_between(before, stamped)
    return apart is not None and apart >= 0
