"""Watches the event loop: names what keeps it from turning, shows the stack, measures how long.

The loop leaves a beat behind every quarter of the limit; a thread looks at the last one about once
a limit. `Listener` starts both with its run; neither is on an event's way.

A process that was stopped looks like a loop that is blocked: no beat came. But then the thread's
own wait was late as well, so such a wait is no evidence. What keeps the interpreter to itself (a
regular expression, a sort) makes the thread late too; it is told by how long the loop's thread has
computed since its last beat.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from types import FrameType
from typing import Final

from cti_listener.errors import ConfigurationError
from cti_listener.histogram import Histogram
from cti_listener.log import log
from cti_listener.router import Handler

SHORTEST, LONGEST = 0.01, 60.0
"""Beats are so far apart at least, and looks at most, in seconds, whatever the limit."""

APART: Final = 1.0
"""One blockage in so many seconds is logged; all are counted."""

MOST_TEXT: Final = 4000
"""So many characters of a stack are logged, those nearest to where it stands."""

_OUTER, _INNER = 4, 36
"""Of a deep stack so many frames from either end are shown."""

_SURELY: Final = 0.001
"""So much later a limit is past, however its sum was rounded."""

_RUNNERS: Final = frozenset({("asyncio.events", "_run"), ("asyncio.runners", "run")})
_LIBRARIES: Final = frozenset({"asyncio", "cti_listener", "contextlib", "tenacity", "websockets"})
_CALLERS: Final = frozenset({"cti_listener.dispatcher", "cti_listener.router"})
"""Rooms that call a handler, or its `where=`, and have it among their variables then."""


@dataclass(slots=True, eq=False)
class Beat:
    """A moment at which the loop turned.

    Attributes:
        at: When, in seconds of a monotonic clock.
        cpu: For how many seconds the loop's thread had computed by then.
        after: The next one, as soon as there is one.
    """

    at: float
    cpu: float
    after: Beat | None = None


class Evidence:
    """Weighs since when there was no beat against what excuses it. Times are in seconds.

    Args:
        limit: How long the loop may be held up.
        beat: The newest beat.
    """

    def __init__(self, limit: float, beat: Beat) -> None:
        """Suspect nothing yet."""
        self.beat = beat
        self.period = max(limit / 4, SHORTEST)
        """How far beats are apart."""
        self._limit = limit
        self._excused = self._late_wait = 0.0

    def waited(self, asked: float, due: float, now: float) -> None:
        """Excuse all of a wait of the thread's own that ended much later than it was due."""
        self._late_wait = now - asked if now - due > self.period / 2 else 0.0
        self._excused += self._late_wait

    def turned(self, beat: Beat) -> None:
        """Go on from a newer beat, which the last wait may have followed."""
        self.beat, self._excused = beat, self._late_wait

    def pardon(self, now: float, cpu: float) -> None:
        """Excuse everything so far: the loop was not running."""
        self._excused, self.beat.cpu = now - self.beat.at, cpu

    def lost(self, now: float, cpu: float) -> float:
        """Return how long the loop has been held up for certain: since its next beat was due."""
        return max(now - self.beat.at - self._excused, cpu - self.beat.cpu) - self.period

    def next_look(self, now: float) -> float:
        """Return when to look again: at the limit, but once shortly before it as well.

        A stop of the process too short to make a wait late ends there, and the loop has until the
        limit to show that it turns. Nor is a wait longer than the limit, or such a stop might be.
        """
        reached = self.beat.at + self._excused + self.period + self._limit + _SURELY
        due = next((due for due in (reached - self.period, reached) if now < due), inf)
        return min(due, now + self._limit, now + LONGEST)


@dataclass(slots=True)
class _Blockage:
    """One that goes on: for how long for certain, and what was logged of who does it, if it was."""

    seconds: float = 0.0
    about: Mapping[str, str] | None = None


class Watchdog:
    """Watches one loop, from `start()` to `stop()`.

    Args:
        limit: A loop held up for so many seconds is told of; 0: never. One held up for up to a
            quarter more may go unnoticed.

    Attributes:
        blocked: How many times it was.
        longest: For how many seconds at the most.
        lag: How much later than they were due its beats came.

    Raises:
        ConfigurationError: The limit is negative, or no number of seconds.
    """

    def __init__(self, limit: float) -> None:
        """Watch nothing yet."""
        if not 0 <= limit < inf:
            raise ConfigurationError("block_limit", "must be 0 or more")
        self.blocked = 0
        self.longest = 0.0
        self.lag = Histogram()
        self._limit = limit
        self._loop: asyncio.AbstractEventLoop
        self._loops_thread = 0
        self._cpu: Callable[[], float]
        self._last: Beat
        self._timer: asyncio.TimerHandle | None = None
        self._rung = threading.Event()
        self._ran = True  # the loop did at the last look
        self._stopped = False
        self._now: _Blockage | None = None
        self._logged_at, self._left_out = -inf, 0

    def __repr__(self) -> str:
        state = "off" if not self._limit else "idle" if self._timer is None else "watching"
        counts = f"blocked {self.blocked} times, {self.longest:.3g} s at the longest"
        return f"<Watchdog of {self._limit:g} s, {state}, {counts}>"

    # In the loop's thread

    def start(self) -> None:
        """Watch the running loop; the thread is a daemon and keeps no process alive."""
        if not self._limit:
            return
        self._loop = asyncio.get_running_loop()
        self._loops_thread = threading.get_ident()
        self._cpu = _cpu_clock()
        self._last = Beat(time.monotonic(), self._cpu())
        evidence = Evidence(self._limit, self._last)
        self._timer = self._loop.call_later(evidence.period, self._beat, evidence.period)
        watch = partial(contextvars.copy_context().run, self._watch, evidence)
        try:
            threading.Thread(target=watch, name="cti-watchdog", daemon=True).start()
        except RuntimeError as error:  # there are too many threads; listening needs none
            log.warning("watchdog_failed", problem=str(error))

    def stop(self) -> None:
        """Watch no longer; the thread ends at once, and is not waited for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._turn()
            self._stopped = True
            self._rung.set()

    def _beat(self, period: float) -> None:
        since = self._turn()
        self.lag.note(max(0.0, since - period))
        if since >= self._limit + period:
            self._rung.set()
        self._timer = self._loop.call_later(period, self._beat, period)

    def _turn(self) -> float:
        """Leave a beat; return how long after the one before."""
        before, self._last = self._last, Beat(time.monotonic(), self._cpu())
        before.after = self._last
        return self._last.at - before.at

    # In its own thread

    def _watch(self, evidence: Evidence) -> None:
        now, stopped = time.monotonic(), False
        with suppress(OSError):  # the loop's thread is gone, and its clock
            while not (stopped or self._loop.is_closed()):
                due = evidence.next_look(now)
                self._rung.wait(max(0.0, due - time.monotonic()))
                self._rung.clear()
                asked, now = now, time.monotonic()
                evidence.waited(asked, due, now)
                stopped = self._stopped  # before the look, which then sees the last beat
                self._look(evidence, now)

    def _look(self, evidence: Evidence, now: float) -> None:
        cpu = self._cpu()
        first = evidence.beat.after
        if first is not None:
            if self._now is not None:
                self._end(self._now, evidence.lost(first.at, first.cpu))
            evidence.turned(self._last)
        ran, self._ran = self._ran, self._loop.is_running()
        if not (ran and self._ran):
            evidence.pardon(now, cpu)
        lost = evidence.lost(now, cpu)
        if lost >= self._limit:
            if self._now is None:
                self._begin(lost, now)
            else:
                self._grow(self._now, lost)

    def _begin(self, lost: float, now: float) -> None:
        self._now = _Blockage()
        self._grow(self._now, lost)
        self.blocked += 1
        if now - self._logged_at < APART:
            self._left_out += 1
            return
        more = {"left_out": self._left_out} if self._left_out else {}
        self._logged_at, self._left_out = now, 0
        with suppress(Exception):  # a log that cannot be written ends no watch
            frames = sys._current_frames()  # noqa: SLF001 - there is no other way to another thread
            about, stack = _explain(frames.get(self._loops_thread))
            self._now.about = about
            log.warning("loop_blocked", seconds=round(lost, 3), **about, **more, stack=stack)

    def _grow(self, blockage: _Blockage, lost: float) -> None:
        blockage.seconds = max(blockage.seconds, lost)
        self.longest = max(self.longest, blockage.seconds)

    def _end(self, blockage: _Blockage, lost: float) -> None:
        self._grow(blockage, lost)
        self._now = None
        if blockage.about is not None:
            with suppress(Exception):
                log.info("loop_unblocked", seconds=round(blockage.seconds, 3), **blockage.about)


def _cpu_clock() -> Callable[[], float]:
    """Return what tells any thread how long this one has computed; always 0 where nothing can."""
    try:
        return partial(time.clock_gettime, time.pthread_getcpuclockid(threading.get_ident()))
    except (AttributeError, OSError):
        return lambda: 0.0


def _explain(innermost: FrameType | None) -> tuple[dict[str, str], str]:
    """Return what can be told of who blocks, and where it stands, without a variable's value."""
    frames: list[tuple[FrameType, int]] = []
    while innermost is not None:
        frames.append((innermost, innermost.f_lineno or 0))
        innermost = innermost.f_back
    frames.reverse()
    names = [(_room(frame), frame.f_code.co_name) for frame, _ in frames]
    begins = max((index for index, name in enumerate(names, 1) if name in _RUNNERS), default=0)
    inside = frames[begins:] or frames
    about: dict[str, str] = {}
    for frame, _ in inside:
        if (handler := _handler_in(frame)) is not None:
            about = {"handler": handler}  # whose function is further inside
        elif "function" not in about and _room(frame).split(".")[0] not in _LIBRARIES:
            about["function"] = frame.f_code.co_qualname
    return about, _text(inside)


def _room(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _handler_in(frame: FrameType) -> str | None:
    if _room(frame) not in _CALLERS:
        return None
    return next((one.name for one in frame.f_locals.values() if isinstance(one, Handler)), None)


def _text(frames: Sequence[tuple[FrameType, int]]) -> str:
    """Write a stack as a traceback is written, the innermost call last."""
    shown, more = list(frames), len(frames) - _OUTER - _INNER
    if more > 0:
        shown[_OUTER:-_INNER] = []
    lines = list(map(str, traceback.StackSummary.extract(iter(shown)).format()))
    if more > 0:
        lines.insert(_OUTER, f"  ... {more} more ...\n")
    return "".join(lines).rstrip()[-MOST_TEXT:]
