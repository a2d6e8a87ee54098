"""Server-sent events: what is handed over, for whoever reads along.

A reader takes what it can from the ring that all share. One that is too slow loses what was
overwritten, or had no room, and is told how much. With a journal, an event's `id` is its place
there, and who comes back with `Last-Event-ID` gets what it missed from the file first.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Self, TypeVar

from cti_listener.admin.ring import TICK, Ring, message, said
from cti_listener.admin.showing import Shown
from cti_listener.event_base import Event
from cti_listener.journal.reader import Kept, Reader
from cti_listener.listener import Listener
from cti_listener.notices import Gap, Notice

A = TypeVar("A")
B = TypeVar("B")

AT_ONCE: Final = 100
"""How many happenings a reader is sent in a tick: 2,000 a second."""

MOST_BYTES: Final = 1 << 18
"""After so many bytes in a tick the rest waits for the next, however few these were."""

KEPT: Final = 1000
"""So many gaps of the journal are looked at, the latest; as many as a run remembers."""

CHUNK: Final = 500
"""How many rows are read from the journal at once."""

HEARTBEAT: Final = 15.0
"""After so many quiet seconds a comment is sent, so that both sides know of each other."""

SIGN: Final = b": still here\n\n"

HELLO, LOST, GAP, BYE = "hello", "lost", "gap", "bye"
"""Names of what is said of the stream itself; all else is a `message`."""


_PLACE: Final = re.compile(r"(?:([0-9a-f]{12})-)?([0-9]{1,18})")


class Place(NamedTuple):
    """A place in a journal, as an `id` tells it.

    Attributes:
        journal: Which one; None: it does not say, and is taken for one in ours.
        seq: The event's number there.
    """

    journal: str | None
    seq: int

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Read one; None: it is none."""
        found = _PLACE.fullmatch(text)
        return None if found is None else cls(found[1], int(found[2]))

    def __str__(self) -> str:
        return str(self.seq) if self.journal is None else f"{self.journal}-{self.seq}"


@dataclass(frozen=True, slots=True)
class Filter:
    """What a reader wants.

    Attributes:
        devices: Only of these, as full ids; none: of all. A notice of all devices passes.
        names: Only of these names, notices included; none: all.
    """

    devices: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    def admits(self, happening: Event | Notice) -> bool:
        """Tell whether it is wanted."""
        if self.names and happening.event_name not in self.names:
            return False
        if not self.devices:
            return True
        if isinstance(happening, Event):
            return happening.device in self.devices
        return not happening.concerns or not self.devices.isdisjoint(happening.concerns)

    def admits_row(self, device: str | None, name: object) -> bool:
        """Tell the same of an event in the journal."""
        return (not self.names or name in self.names) and (
            not self.devices or device in self.devices
        )


class Stream:
    """What one reader is sent, from its beginning to its end.

    Args:
        ring: What is handed over.
        listener: Whose.
        shown: What may be shown.
        wanted: What the reader wants.
        after: Its `Last-Event-ID`; None: it has none.
        catching_up: Held for each look into the journal, and never while what was found is sent:
            all who catch up cost as much as one, and take turns.
    """

    def __init__(
        self,
        ring: Ring,
        listener: Listener,
        shown: Shown,
        *,
        wanted: Filter,
        after: Place | None,
        catching_up: asyncio.Lock,
    ) -> None:
        """Begin with nothing sent; the reader has entered the ring."""
        self._ring = ring
        self._listener = listener
        self._shown = shown
        self._wanted = wanted
        self._after = after
        self._catching_up = catching_up
        self._number: int
        self._had: int  # how many happenings came before that number
        self._known: list[int] = []  # numbers from there on of what was sent from the file
        self._go_to(ring.now())
        self._seq = listener.given  # up to here it has had all, or asked for no more
        self._since: datetime | None = None  # when the last event came that it had before
        self._earlier: list[Gap] = []  # of all runs on this journal
        self._told: set[tuple[int, datetime]] = set()  # gaps that were told ahead of the ring

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what to send, some at a time; each is sent before the next is asked for."""
        path = self._listener.journal
        if path is None:
            yield said(HELLO, {"resumable": False, "masked": self._shown.masked})
            yield b": there is no journal, so no Last-Event-ID can be resumed from\n\n"
        else:
            # One that resumes has had nothing of what follows: its own id is as good until then.
            here = self._ring.place(self._seq) if self._after is None else None
            yield said(HELLO, {"resumable": True, "masked": self._shown.masked}, here)
        if path is not None and self._after is not None:
            async for chunk in _with_signs(self._missed(Reader(path), self._after)):
                yield chunk
        async for chunk in self._live():
            yield chunk

    # From the journal

    async def _missed(self, reader: Reader, after: Place) -> AsyncIterator[bytes]:
        """Yield what is in the journal behind a place, until all is sent that the ring lacks."""
        given = self._seq
        try:
            if after.journal not in (None, self._listener.journal_id):
                self._seq = 0  # the whole of this one is behind whatever was had of another
                yield self._unknown(after)
            else:
                self._since = await self._look(reader.came, after.seq)
                if after.seq > given and self._since is None:
                    yield self._unknown(after)
                    return
                self._seq = after.seq  # what is in the file may have yet to be handed over
            self._earlier = await self._look(reader.gaps, KEPT)
            behind = True
            while behind:
                async for chunk in self._on_disk(reader):
                    yield chunk
                # What is committed by now and not in the ring was in the journal; what is handed
                # over from now on is in the ring, and skipped if it was sent from here.
                behind = self._ring.lacks(self._number)
                if behind:
                    given = self._listener.given
                    self._go_to(self._ring.now())
            self._known = self._ring.up_to(self._number, self._seq)
            if self._seq < given:
                yield self._erased(self._seq + 1, given)
                self._seq = given
        finally:
            await asyncio.to_thread(reader.close)

    async def _on_disk(self, reader: Reader) -> AsyncIterator[bytes]:
        """Yield what is in the journal behind what was sent, until there is no more.

        A gap is told ahead of what came after it, for who breaks off behind that is told of it no
        more.
        """
        more = True
        while more:
            chunk, more = await self._look(self._next, reader)
            yield self._gaps() + chunk

    async def _look(self, look: Callable[[A], B], given: A) -> B:
        """Look into the journal in a thread; one reader at a time does."""
        async with self._catching_up:
            return await asyncio.to_thread(look, given)

    def _next(self, reader: Reader) -> tuple[bytes, bool]:
        """Return some more of what was missed as it is sent, and whether there may be more."""
        rows, more = reader.kept_after(self._seq, CHUNK)
        return self._written(rows), more

    def _written(self, rows: Collection[Kept]) -> bytes:
        """Write rows as they are sent, and a gap wherever some are missing between two."""
        parts = []
        for row in rows:
            if row.seq > self._seq + 1:
                parts.append(self._erased(self._seq + 1, row.seq - 1))
            self._seq = row.seq
            if row.event is None:  # it cannot be read any more
                parts.append(self._erased(row.seq, row.seq))
            elif not row.ours and self._wanted.admits_row(row.device, row.event.get("eventName")):
                parts.append(message(self._shown.body(row.event), self._ring.place(row.seq)))
        return b"".join(parts)

    def _gaps(self) -> bytes:
        """Write the gaps that were told by now and not here; their `id` tells what was had."""
        parts = []
        known = {gap.id: gap for gap in (*self._earlier, *self._listener.stats().gaps)}
        for gap in known.values():
            new = (gap.id, gap.at) not in self._told and gap.until is not None
            if new and (self._since is None or gap.at >= self._since):
                self._told.add((gap.id, gap.at))
                if self._wanted.admits(gap):
                    parts.append(message(self._shown.ours(gap.as_wire()), None))
        return b"".join(parts)

    # From the ring

    async def _live(self) -> AsyncIterator[bytes]:
        ring = self._ring
        while not (ring.over and self._number == ring.end):
            if not await ring.changed(self._number, HEARTBEAT):
                yield SIGN
                continue
            chunk, full = self._some()
            if chunk:
                yield chunk
            if full:
                await asyncio.sleep(TICK)
        yield said(BYE, {})

    def _some(self) -> tuple[bytes, bool]:
        """Return the next to send, and whether there is more than may be sent at once."""
        ring, parts = self._ring, []
        if self._number < (begin := ring.begin()):
            if lost := ring.before(begin) - self._had - bisect_left(self._known, begin):
                parts.append(self._lost(lost))
            self._number = begin
        left, room = AT_ONCE, MOST_BYTES
        while self._number < ring.end and left > 0 < room:
            item, seq = ring.at(self._number)
            if isinstance(item, int):
                if not seq or seq > self._seq:  # else it was in the journal
                    parts.append(self._lost(item))
            elif (not seq or seq > self._seq) and self._wanted.admits(item):
                text = ring.text(self._number, item, seq)
                parts.append(text)
                left, room = left - 1, room - len(text)
            self._seq = max(self._seq, seq)
            self._number += 1
        self._go_to(self._number)
        ring.passed(self._number)
        return b"".join(parts), left <= 0 or room <= 0

    def _go_to(self, number: int) -> None:
        """Have what comes from this number on be the next."""
        self._number, self._had = number, self._ring.before(number)
        if self._known:
            self._known = self._known[bisect_left(self._known, number) :]

    def _lost(self, count: int) -> bytes:
        """Say how many were lost, and with a journal from where they can be had."""
        self._ring.lost += count
        if self._listener.journal is None:
            return said(LOST, {"lost": count})
        return said(LOST, {"lost": count, "resumeFrom": self._ring.place(self._seq)})

    # Gaps of the stream's own

    def _erased(self, first: int, last: int) -> bytes:
        gone = {"reason": "retention", "from": first, "to": last, "count": last - first + 1}
        return said(GAP, gone, self._ring.place(last))

    def _unknown(self, after: Place) -> bytes:
        told = {"reason": "unknown_id", "id": str(after)}
        return said(GAP, told, self._ring.place(self._seq))


async def _with_signs(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what there is to send of these, and a sign of life where that takes long."""
    loop = asyncio.get_running_loop()
    while True:
        coming = loop.create_task(_filled(chunks), name="cti-admin-missed")
        try:
            while not (await asyncio.wait((coming,), timeout=HEARTBEAT))[0]:
                yield SIGN
        finally:
            coming.cancel()  # where this ends before it came
        if not (chunk := coming.result()):
            return
        yield chunk


async def _filled(chunks: AsyncIterator[bytes]) -> bytes:
    """Return the next of these that is not empty; an empty one: there is none."""
    async for chunk in chunks:
        if chunk:
            return chunk
    return b""
