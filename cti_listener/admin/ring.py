"""The ring: what was handed over last, for all who read along.

What is handed over is put here once, as cheaply as an append, whoever reads and however slowly; it
is written as JSON when the first reader comes to it, and once. With nobody reading nothing is put.
Beyond what the quickest reader has yet to take events pass by unseen, and are counted afterwards:
kept alive, they would be gone over by the garbage collector again and again, which cost a quarter
of the rate when tried.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from cti_listener.admin.showing import Shown, to_json
from cti_listener.event_base import Event
from cti_listener.listener import Listener
from cti_listener.notices import Notice
from cti_listener.streams import Tail

SIZE: Final = 4096
"""How many happenings the ring holds; a power of two."""

ROOM: Final = SIZE - 256
"""How many of them events may be that the quickest reader has yet to take; the rest is for notices,
which are few, and which nobody is to miss for a burst of events."""

_MASK: Final = SIZE - 1

TICK: Final = 0.05
"""Readers are woken so often at most, in seconds."""


class Ring:
    """What was handed over last, for as long as anybody reads.

    Args:
        listener: Whose.
        shown: What may be shown of it.

    Attributes:
        end: How many things were put into it; each has its number below.
        over: Nothing more will come.
        lost: How many happenings readers lost, all of them together.
        readers: How many there are.
    """

    def __init__(self, listener: Listener, shown: Shown) -> None:
        """Hold nothing; nobody reads."""
        self.end = self.lost = self.readers = 0
        self.over = False
        self._listener = listener
        self._shown = shown
        self._tails: tuple[Tail, ...] = ()
        self._read = 0  # up to here the quickest reader has come
        self._counted = 0  # while events pass by: how many of those handed over are told of
        self._hole = -1  # the number of the last mark of what was dropped
        self._items: list[Event | Notice | int] = [0] * SIZE
        self._seqs = [0] * SIZE
        self._befores = [0] * SIZE
        self._count = 0  # how many happenings all of them are, those that passed by among them
        self._texts: list[bytes | None] = [None] * SIZE
        self._waiting: list[asyncio.Future[None]] = []
        self._woken = False

    def __repr__(self) -> str:
        return f"<Ring {self.end} put, {self.readers} readers, {self.lost} lost>"

    # Filling

    def enter(self) -> None:
        """Take a reader in; the first one opens the taps.

        Raises:
            NotRunningError: The listener is stopped.
        """
        if not self._tails:
            self._tails = tuple(
                self._listener.tail(kind, self._take, self.close) for kind in (Event, Notice)
            )
        self.readers += 1

    def leave(self) -> None:
        """Let a reader go; with the last one nothing more costs anything."""
        self.readers -= 1
        if not self.readers:
            for tail in self._tails:
                tail.close()
            self._tails = ()
            self._items = [0] * SIZE
            self._texts = [None] * SIZE

    def close(self) -> None:
        """Say that nothing more will come."""
        self.over = True
        self._wake()

    def _take(self, happening: Event | Notice, seq: int) -> None:
        events, _ = self._tails
        if events.paused:
            self._mark()
        self._put(happening, seq)
        if self.end - self._read >= ROOM and not events.paused:
            events.pause()
            self._counted = self._listener.handed_over
        if self._waiting and not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_later(TICK, self._wake)

    def _put(self, item: Event | Notice | int, seq: int) -> None:
        at = self.end & _MASK
        self._items[at] = item
        self._seqs[at] = seq
        self._texts[at] = None
        self._befores[at] = self._count
        self._count += item if isinstance(item, int) else 1
        self.end += 1

    def _mark(self) -> None:
        """Put how many passed by where they would have stood, with the place of the last."""
        if count := self._passing:
            self._counted += count
            self._hole = self.end
            self._put(count, self._listener.given)

    # Reading

    def begin(self) -> int:
        """Return the number of the oldest that is there."""
        return max(0, self.end - SIZE)

    def at(self, number: int) -> tuple[Event | Notice | int, int]:
        """Return one that is there, and its place in the journal; 0: it has none.

        A number in its stead is of so many that passed by, the last of them of that place.
        """
        return self._items[number & _MASK], self._seqs[number & _MASK]

    def before(self, number: int) -> int:
        """Return how many happenings came before one that is there, or is the next to come."""
        return self._count if number == self.end else self._befores[number & _MASK]

    def text(self, number: int, item: Event | Notice, seq: int) -> bytes:
        """Return one that is there as it is sent: written once, for all readers."""
        at = number & _MASK
        text = self._texts[at]
        if text is None:
            if isinstance(item, Event):
                body = self._shown.body(item.as_received())
            else:
                body = self._shown.ours(item.as_wire())
            text = self._texts[at] = message(body, self.place(seq) if seq else None)
        return text

    def place(self, seq: int) -> str:
        """Return how a place in the journal is told, so that it is one of this journal alone."""
        return f"{self._listener.journal_id}-{seq}"

    def passed(self, number: int) -> None:
        """Note that a reader has come so far; where that makes room, take events again."""
        self._read = max(self._read, number)
        events, _ = self._tails
        if events.paused and self.end - self._read < ROOM:
            self._mark()
            events.resume()

    def now(self) -> int:
        """Return the number of what is handed over next, for one who has come to it."""
        self.passed(self.end)
        return self.end

    @property
    def _passing(self) -> int:
        """How many events have passed by since the last thing was put."""
        events, _ = self._tails
        return self._listener.handed_over - self._counted if events.paused else 0

    def lacks(self, number: int) -> bool:
        """Tell whether something of what came from this number on is not there."""
        return number < self.begin() or self._hole >= number or self._passing > 0

    def up_to(self, number: int, seq: int) -> list[int]:
        """Return the numbers from this one on that are of events up to this place."""
        return [one for one in range(number, self.end) if 0 < self._seqs[one & _MASK] <= seq]

    async def changed(self, number: int, timeout: float) -> bool:
        """Wait until there is more than up to this number; tell whether there is, in time."""
        if self.end > number or self.over:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await asyncio.wait((waiter,), timeout=timeout)
        finally:  # one that goes while it waits is not kept until the next happening
            if not waiter.done():
                self._waiting.remove(waiter)
        return waiter.done()

    def _wake(self) -> None:
        self._woken = False
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)


def message(body: dict[str, Any], place: str | None) -> bytes:
    """Write an event or a notice; with its place in the journal, if it has one."""
    return b"%sdata: %s\n\n" % (_head(place), to_json(body))


def said(name: str, body: dict[str, Any], place: str | None = None) -> bytes:
    """Write what is said of the stream itself."""
    return b"event: %s\n%sdata: %s\n\n" % (name.encode(), _head(place), to_json(body))


def _head(place: str | None) -> bytes:
    return b"" if place is None else b"id: %s\n" % place.encode()
