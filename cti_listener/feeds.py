"""Several feeds of the same events: what each brings, and how one that comes back is spliced in.

Feeds that stand side by side need no care: each has every device's events in order, the first copy
to arrive is handled, and dedupe takes the others for repeats. A feed that comes back begins in the
middle. If it runs ahead of the others, what it brings would overtake what came before it began: so
`Feeds` holds its events back until another feed has brought them too, until so many were brought by
both that the others cannot be behind where it began, or for a short time. What then comes too late
all the same is told to be.

What each feed brings is measured in `sightings`.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, NamedTuple

from cti_listener.lives import WINDOW, Life, Told
from cti_listener.sightings import FeedStats, Sightings

MOST_HELD: Final = 10_000
"""How many events are held back for one feed; with more, it is spliced in at once."""

PROOF: Final = 100
"""After so many events that came by both, since it stood, a feed is in step with another.

One is not enough: a server that repeats an old event shows what another feed, if that is behind,
has yet to bring.
"""

STALE: Final = 60.0
"""For how long an event is looked for that the other feed has overtaken, in seconds."""

APART: Final = 0.5
"""Feeds that share less than this part of their events are not two of one stream."""

HALVES: Final = 0.05
"""Those that share less than this are two halves of one, and each may be numbered on its own."""


class Copy(NamedTuple):
    """An event, as one feed brought it.

    Attributes:
        device: Whose it is.
        key: Its identity's hash.
        told: When and as what number the server told it.
        what: The caller's own.
    """

    device: str | None
    key: int
    told: Told
    what: Any


@dataclass(slots=True)
class _Joining:
    """A life of a feed that is being spliced in."""

    number: int
    life: Life
    shared: int = 0  # events that another feed brought as well, since it stands
    held: dict[int, Copy] = field(default_factory=dict)  # in order of arrival
    by_device: dict[str | None, dict[int, None]] = field(default_factory=dict)
    passed: set[int] = field(default_factory=set)  # held, and behind what was handled already

    @property
    def feed(self) -> str:
        """Whose life it is."""
        return self.life.feed


@dataclass(slots=True)
class _Overtaken:
    """A device of which one feed brought these in one life, and another has not yet."""

    by: str
    life: int
    until: float
    told: OrderedDict[int, Told] = field(default_factory=OrderedDict)  # by key, as they arrived

    def came_by(self, copy: Copy) -> None:
        """Note what the other feed brings: it has yet to bring none told before that."""
        self.told.pop(copy.key, None)
        while self.told and self.told[next(iter(self.told))].precedes(copy.told):
            self.told.popitem(last=False)


class Feeds:
    """Holds back what would overtake, and measures; times are monotonic seconds.

    Args:
        names: What the feeds are called.

    Attributes:
        watching: Whether any feed is being spliced in, or has yet to bring what another overtook.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Start with none that stands."""
        self.watching = False
        self._standing: dict[str, Life] = {}
        self._alone_since = inf  # when the last but one was found lost; inf: none stands alone
        self._early: dict[str, Life] = {}  # of feeds that bring events before they stand
        self._numbers = itertools.count(1)
        self._leaving = False
        self._joining: dict[int, _Joining] = {}
        self._current: dict[str, _Joining] = {}  # of feeds that stand; a lost one's is held too
        self._proven: list[str] = []
        # Spliced in, though no other may have come as far as where they began.
        self._ahead: dict[str, _Joining] = {}
        self._overtaken: dict[str | None, _Overtaken] = {}
        self._sightings = Sightings(names)

    def __repr__(self) -> str:
        held = sum(len(one.held) for one in self._joining.values())
        return f"<Feeds {sorted(self._standing)} standing, {held} events held back>"

    # Connections

    @property
    def standing(self) -> AbstractSet[str]:
        """The feeds that stand."""
        return self._standing.keys()

    def stood(self, feed: str, now: float) -> int:
        """Note that a feed stands.

        Args:
            feed: Which one.
            now: Monotonic seconds.

        Returns:
            The number of its splice, if it has to be spliced in because others stand; else 0.
        """
        others = self._in_step()
        self._early.pop(feed, None)
        life = self._standing[feed] = Life(feed, now)
        self._alone_since = now if len(self._standing) == 1 else inf
        if not others or self._leaving:
            return 0
        joining = _Joining(next(self._numbers), life)
        self._joining[joining.number] = self._current[feed] = joining
        self.watching = True
        return joining.number

    def lost(self, feed: str, silent: float, now: float, *, too_large: bool = False) -> list[int]:
        """Note that a feed stands no more.

        What is held back for it stays held.

        Args:
            feed: Which one.
            silent: When its last byte came.
            now: Monotonic seconds.
            too_large: A message ended it that will end the others too when they come to it.

        Returns:
            The splices to end now, since no feed is left that they could wait for.
        """
        life = self._standing.pop(feed)
        life.until = silent
        if too_large and self._awaited(life, silent) is None:  # else it is what others met before
            for other in self._standing.values():
                if other.since <= silent:
                    recent = [at for at in other.awaiting if at >= silent - WINDOW]
                    other.awaiting = [*recent, silent]
        self._alone_since = now if len(self._standing) == 1 else inf
        if len(self._standing) == 1:
            self._sightings.stood_in_name(silent)
        self._current.pop(feed, None)
        self._ahead.pop(feed, None)
        left = self._in_step()
        self._ahead = {one: life for one, life in self._ahead.items() if left - {one}}
        self._overtaken = {
            device: one for device, one in self._overtaken.items() if left - {one.by}
        }
        self._mind()
        return [] if left else list(self._joining)

    def leave(self) -> list[int]:
        """Hold nothing back from now on; return the splices to end now."""
        self._leaving = True
        return list(self._joining)

    def splice_of(self, feed: str) -> int:
        """Return the number of a feed's splice; 0 if it is not being spliced in."""
        joining = self._current.get(feed)
        return 0 if joining is None else joining.number

    def take_proven(self) -> list[str]:
        """Return the feeds that turned out to be in step since the last call."""
        found, self._proven = self._proven, []
        return found

    def reached(self, feed: str, silent: float, hold: float) -> float:
        """Return how far a feed has come, at least: it brought all that came until then.

        Beside one that had not stood for `WINDOW` when its last byte came, it may have come only to
        where that one is held back from, unless it has been seen to have come as far as that one
        began. It surely came so far where it brought what that one did, and as far as the server's
        clock had gone on by the last it brought; but not so far as a message that ended another
        feed and has yet to end it.

        Args:
            feed: Which one.
            silent: When its last byte came.
            hold: For how long a feed is held back, in seconds.
        """
        mine = self._standing[feed]
        reached = self._sightings.reached(mine, silent, self._alone_since)
        for joining in (*self._current.values(), *self._ahead.values()):
            since = joining.life.since
            new = since <= silent <= since + WINDOW
            if joining.feed == feed or not new or joining.shared >= PROOF:
                continue
            if not joining.shared or not mine.has_reached(joining.life):
                reached = min(reached, max(since - hold, silent - WINDOW))
        for life in self._standing.values():
            if reached < life.since <= silent and self._sightings.came_to(mine, life.since):
                reached = life.since
        for life in self._standing.values():
            if reached < silent and life.since > max(mine.since, silent - WINDOW):
                reached = max(reached, min(silent, self._sightings.told_until(mine, life)))
        awaited = self._awaited(mine, silent)
        return reached if awaited is None else min(reached, awaited)

    def _awaited(self, life: Life, silent: float) -> float | None:
        """Return when another met the message that a feed has yet to come to; None: there is none.

        It came past that, and so began behind it, if it brought what others did that began since,
        or if it stood for longer than it can be behind.
        """
        for at in life.awaiting:
            if at >= silent - WINDOW and not self._sightings.came_to(life, at):
                return at
        return None

    def spliced(self, number: int, now: float) -> list[tuple[Copy, bool]]:
        """End a splice: hold nothing back for it any more.

        Unless it is proven, the others' events may now come too late.

        Returns:
            What was held, in order, what an earlier life of its feed left first; and whether it is
            too late by now, since a later event of its device was handled already.
        """
        ending = self._joining.get(number)
        if ending is None:
            return []
        feed = ending.feed
        if self._current.get(feed) is ending:
            del self._current[feed]
            if self._in_step() - {feed} and ending.shared < PROOF:
                self._ahead[feed] = ending
        found: list[tuple[Copy, bool]] = []
        for other, joining in list(self._joining.items()):
            if joining.feed == feed and other <= number:
                del self._joining[other]
                found += self._let_go(joining)
                self._overtake(joining, now)
        self._mind()
        return found

    def _let_go(self, joining: _Joining) -> list[tuple[Copy, bool]]:
        """Take what a life held for handled: what a later one held is judged by it."""
        found = [(one, self._was_passed(joining, one)) for one in joining.held.values()]
        for one, late in found:
            self._hold_no_more(one)
            if not late:
                self._sightings.note_handled(one.device, one.key)
        return found

    def _was_passed(self, joining: _Joining, copy: Copy) -> bool:
        return copy.key in joining.passed or self._is_behind(joining.life, copy)

    def _is_behind(self, life: Life, copy: Copy) -> bool:
        """Tell whether a later event of its device was handled, to which this life has yet to come.

        The numbers of two halves of a stream may not be comparable.
        """
        share = self._sightings.share
        halves = share is not None and share < HALVES
        return not halves and self._sightings.is_behind(life, copy.device, copy.told)

    def _overtake(self, joining: _Joining, now: float) -> None:
        """Remember what another feed, which may be behind, has yet to bring."""
        if joining.shared < PROOF and self._in_step() - {joining.feed}:
            for device, keys in joining.by_device.items():
                told = OrderedDict((key, joining.held[key].told) for key in keys)
                self._overtaken[device] = _Overtaken(
                    joining.feed, joining.number, now + STALE, told
                )

    def _in_step(self) -> set[str]:
        return self._standing.keys() - self._current.keys()

    # Events

    def holds(self, feed: str, copy: Copy, now: float) -> bool:
        """Hold an event back if its feed may be ahead with it; tell whether it is held.

        Args:
            feed: Who brought it; no other feed has yet.
            copy: The event.
            now: Monotonic seconds.
        """
        if feed in self._ahead:
            life = self._ahead[feed].number
            overtaken = self._overtaken.get(copy.device)
            if overtaken is None or overtaken.life != life or now >= overtaken.until:
                overtaken = self._overtaken[copy.device] = _Overtaken(feed, life, now + STALE)
            overtaken.told[copy.key] = copy.told
        joining = self._current.get(feed)
        if joining is None:
            return False
        if self._is_behind(joining.life, copy) or self._will_be_behind(joining, copy):
            joining.passed.add(copy.key)
        joining.held.setdefault(copy.key, copy)
        joining.by_device.setdefault(copy.device, {}).setdefault(copy.key)
        return True

    def _will_be_behind(self, joining: _Joining, copy: Copy) -> bool:
        """Tell whether an earlier life of its feed, let go before it, holds what was told later."""
        return any(
            copy.told.precedes(earlier.held[key].told)
            for earlier in self._joining.values()
            if earlier.feed == joining.feed and earlier is not joining
            for key in earlier.by_device.get(copy.device, ())
        )

    @property
    def holding(self) -> bool:
        """Whether anything is held back."""
        return any(one.held for one in self._joining.values())

    @property
    def overtaken(self) -> int:
        """How many events are looked for that a feed which was ahead brought."""
        return sum(len(one.told) for one in self._overtaken.values())

    def full(self, feed: str) -> bool:
        """Tell whether more is held back for a feed than should be."""
        joining = self._current.get(feed)
        return joining is not None and len(joining.held) > MOST_HELD

    def handled(self, feed: str, copy: Copy, *, new: bool, in_turn: bool) -> None:
        """Note that an event is handled, or was before: no copy of it needs to be held back.

        Args:
            feed: Who brought it now.
            copy: The event.
            new: It is the first time that this feed brings it.
            in_turn: It is handled now, and not late.
        """
        self._hold_no_more(copy)
        if in_turn:
            self._sightings.note_handled(copy.device, copy.key)
        joining = self._current.get(feed)
        if (
            joining is None
            or not new
            or not self._sightings.came_since(copy.key, joining.life.since)
        ):
            return
        # On this very feed they came before it.
        self._pass(joining, copy, joining.by_device.get(copy.device, ()))

    def _hold_no_more(self, copy: Copy) -> None:
        """Give up what is held of an event that is handled; what was held before it is passed."""
        for joining in self._joining.values():
            keys = joining.by_device.get(copy.device)
            if keys is None or copy.key not in keys:
                continue
            self._pass(joining, copy, itertools.takewhile(lambda key: key != copy.key, keys))
            del keys[copy.key], joining.held[copy.key]
            joining.passed.discard(copy.key)
            if not keys:
                del joining.by_device[copy.device]

    def _pass(self, joining: _Joining, copy: Copy, keys: Iterable[int]) -> None:
        """Note that these came before one that is handled; unless that is an old one repeated."""
        for key in keys:
            if not copy.told.precedes(joining.held[key].told):
                joining.passed.add(key)

    def is_late(self, feed: str, copy: Copy, now: float, *, known: bool) -> bool:
        """Tell whether an event comes after such as should have followed it.

        Args:
            feed: Who brought it.
            copy: The event.
            now: Monotonic seconds.
            known: Whether it came before.
        """
        if not known and self._is_behind(self._life(feed, now), copy):
            return True
        overtaken = self._overtaken.get(copy.device)
        if overtaken is None or overtaken.by == feed:
            return False
        overtaken.came_by(copy)
        if not overtaken.told or now >= overtaken.until:
            del self._overtaken[copy.device]  # the slower feed is where the faster one is
            self._mind()
            return False
        return not known

    def _mind(self) -> None:
        self.watching = bool(self._joining or self._overtaken or self._ahead)

    # What each brings

    def note(self, feed: str, copy: Copy, now: float, *, known: bool = False) -> bool:
        """Take note of an event as it comes; tell whether it is new on this feed.

        Args:
            feed: Who brought it.
            copy: The event.
            now: Monotonic seconds.
            known: Whether it came before, in this run or an earlier one.
        """
        both, life = len(self._standing) > 1, self._life(feed, now)
        seen = self._sightings.note(life, copy.key, copy.told, now, both=both, known=known)
        if seen is None:
            return False
        if self.watching and seen.shared:
            for name in {life.feed for life in seen.lives}:
                self._mind_proof(name, seen.at)
        return True

    def _life(self, feed: str, now: float) -> Life:
        life = self._standing.get(feed) or self._early.get(feed)
        if life is None:
            life = self._early[feed] = Life(feed, now)
        return life

    def _mind_proof(self, feed: str, at: float) -> None:
        """Count an event that this feed and another brought; it came first at that time."""
        joining = self._current.get(feed) or self._ahead.get(feed)
        if joining is not None and at >= joining.life.since:
            joining.shared += 1
            if joining.shared == PROOF:
                self._proven.append(feed)
                self._ahead.pop(feed, None)
                self._mind()

    @property
    def apart(self) -> bool | None:
        """Whether the feeds bring different events; None while too few have come to say."""
        share = self._sightings.share
        return None if share is None else share < APART

    @property
    def share(self) -> float:
        """Which part of the latest events came by more than one feed."""
        return self._sightings.share or 0.0

    def stats(self) -> Mapping[str, FeedStats]:
        """Return a frozen snapshot, by feed."""
        return self._sightings.stats(self._standing)
