"""The journal on an event's way: what comes is committed before anybody is given it.

Between the pipeline and the hand-over. An event is appended with the names of the durable handlers
that want it; once it is on disk it is handed over, and what came behind it, notices and
acknowledgements, has its turn. What becomes of it then stands in the `books`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, tzinfo
from typing import Any, Final

from cti_listener.books import Books, read_event
from cti_listener.clock import Clock
from cti_listener.derived import Derived, read_derived
from cti_listener.dispatcher import Dispatcher
from cti_listener.event_base import Delivery, Event
from cti_listener.handover import Handover
from cti_listener.journal import OURS, Entry, Journal, JournalStats, Opened, encode
from cti_listener.notices import Gap
from cti_listener.router import Handler
from cti_listener.values import NO_CALLS, plain_text

UNDER_WAY: Final = 20_000
"""How many events wait for their commit before reading is paused; it goes on at half as many."""

TURN: Final = 64
"""How many events are handed over before the handlers have their turn."""

MOST_SETS: Final = 1000
"""How many sets of handlers that want the same event are remembered."""

INTERVAL: Final = 1.0
"""How often a sign of life is kept, and retries are looked for, in seconds."""


_OVER: Final = object()
"""Stands for the turn that a group does not need."""


class Commits:
    """Has each event committed, then handed over.

    Args:
        journal: Where to; not open yet.
        handover: To whom, then.
        clock: The one clock.
        zone: Where the server's clock hangs.
        pressure: Called with True when too many wait for the disk, with False when no longer.
        failed: Called once, with what makes going on impossible.

    Attributes:
        given: The place in the journal up to which all was handed over.
        identity: Tells the journal from one in its place; None before it is open.
    """

    def __init__(
        self,
        journal: Journal,
        handover: Handover,
        *,
        clock: Clock,
        zone: tzinfo,
        pressure: Callable[[bool], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Wait to be opened."""
        self._journal = journal
        self._handover = handover
        self._dispatcher: Dispatcher
        self._clock = clock
        self._books = Books(journal, zone=zone, failed=self._broke)
        self._pressure = pressure
        self._pressing = False
        self._failed = failed
        self._appended = self._landed = 0
        self.given = 0
        self.identity: str | None = None
        self._behind: deque[tuple[int, Callable[[], None]]] = deque()
        self._arrived: deque[Iterator[None]] = deque()  # on disk, and not all handed over
        self._sets: dict[tuple[Handler, ...], tuple[tuple[Handler, ...], tuple[str, ...]]] = {}
        self._settled: asyncio.Future[None] | None = None
        self._broken = False
        journal.committed = self._committed
        journal.retried = self._retried
        journal.failed = self._broke

    def __repr__(self) -> str:
        return f"<Commits {self._appended - self._landed} under way in {self._journal!r}>"

    # Life

    async def open(self, dispatcher: Dispatcher) -> Opened:
        """Open the journal for the durable handlers there are, and go on where it ended.

        What an earlier run left undone stays in the journal, and its lanes refill from there before
        they take anything new; it is marked as redelivered.

        Raises:
            JournalError: It cannot be used as it is.
        """
        durable = self._durable()
        opened = await self._journal.open(list(durable))
        if any(issubclass(kind, Derived) for one in durable.values() for kind in one.wish.classes):
            await asyncio.to_thread(read_derived, {})  # so that it is quick when it is needed
        self._dispatcher = dispatcher
        self._books.open(dispatcher, durable, opened.unfinished)
        self.given, self.identity = opened.last_seq, opened.identity
        return opened

    async def run(self, last_sign: Callable[[], datetime | None]) -> None:
        """Keep signs of life and refill lanes, until cancelled.

        Args:
            last_sign: Tells up to when nothing was missed by a connection that stands, if one does.
        """
        async with asyncio.TaskGroup() as self._books.tasks:
            while True:
                self.note_life(last_sign())
                await self._clock.sleep(INTERVAL)

    def note_life(self, sign: datetime | None) -> None:
        """Keep a sign of life, if there is one; look whether anybody asked for retries."""
        if sign is None:
            self._journal.poll_retries()
        else:
            self._journal.alive(sign)

    async def settle(self, timeout: float) -> None:
        """Wait until all that was appended is handed over, or the time is over."""
        if self._appended > self._landed and timeout > 0 and not self._broken:
            self._settled = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._settled], timeout=timeout)

    async def close(self) -> None:
        """Write what is left to write, and close the journal."""
        await self._journal.close()

    # What comes

    def append(
        self,
        payload: dict[str, Any],
        device: str | None,
        delivery: Delivery,
        *,
        event: Event | None,
        kind: type[Event],
        handlers: Sequence[Handler],
        text: bytes | None,
    ) -> None:
        """Have an event committed, then handed over to these handlers.

        Args:
            payload: The object as received.
            device: Its routing key.
            delivery: What is ours about it.
            event: Its model, if it had to be read; else it is read when it is handed over, from
                its text if that is at hand. An event that waits is then one piece of memory, where
                thousands may wait, which the garbage collector would go over again and again, and
                which fall out of the processor's cache.
            kind: Its class.
            handlers: Who wants it.
            text: The JSON text it was read from, where that is at hand.
        """
        wanting, owed = self._who(handlers)
        call = payload.get("callId")
        if type(call) is not str:
            call = plain_text(call)
        if event is None and text is not None:
            what: Any = text
        else:
            what = payload if event is None else event
        self._journal.append(
            what,
            kind,
            device,
            delivery,
            wanting,
            device=device,
            call=None if call in NO_CALLS else call,
            received_at=delivery.received_at or self._clock.now(),
            feed=delivery.feed,
            text=encode(payload) if text is None else text,
            owed=owed,
            late=delivery.late,
        )
        self._appended += 1
        if not self._pressing and self._appended - self._landed > UNDER_WAY:
            self._pressing = True
            self._pressure(True)  # noqa: FBT003 - the name of the callback says it

    def append_notice(self, notice: Derived, handlers: Sequence[Handler]) -> None:
        """Have what follows from the event appended last committed with it, then handed over.

        Args:
            notice: What follows.
            handlers: Who wants it.
        """
        wanting, owed = self._who(handlers)
        told = getattr(notice, "call", None)
        call = told if told is None or isinstance(told, str) else told.id
        self._journal.append(
            notice,
            None,
            notice.device,
            None,
            wanting,
            device=notice.device,
            call=None if call in NO_CALLS else call,
            received_at=notice.at,
            feed=OURS,
            text=encode(notice.as_wire()),
            owed=owed,
        )
        self._appended += 1

    def keep_tracking(self, known: bytes | None) -> None:
        """Keep what is known of calls and agents by what was appended so far; None: nothing is."""
        self._journal.keep_tracking(known)

    def events_after(self, seq: int) -> Iterator[Event | None]:
        """Yield what is behind this event: events as they first came, None for all else.

        It waits for the disk: call it in a thread.

        Raises:
            JournalError: The file cannot be read.
        """
        return self._books.events_after(seq)

    def _who(self, handlers: Sequence[Handler]) -> tuple[tuple[Handler, ...], tuple[str, ...]]:
        """Return the handlers, and the names of the durable ones; the same tuples for the same.

        So an event on its way keeps nothing of its own that the garbage collector looks at.
        """
        wanting = tuple(handlers)
        known = self._sets.get(wanting)
        if known is None:
            if len(self._sets) > MOST_SETS:
                self._sets.clear()
            names = tuple([one.name for one in wanting if one.durable])
            known = self._sets[wanting] = wanting, names
        return known

    def behind(self, call: Callable[[], None]) -> None:
        """Call once all that was appended before is committed; at once, if it is."""
        if self._appended == self._landed:
            call()
        else:
            self._behind.append((self._appended, call))

    def keep(self, gap: Gap) -> None:
        """Keep a gap, or what became of it."""
        self._journal.gap(gap)

    def queues_empty(self, names: Sequence[str], at: datetime | None) -> None:
        """Keep when these queues of a broker were known to be empty; None: forget it."""
        self._journal.queues_empty(names, at)

    def seated(self, agent: str, seat: tuple[str, str] | None) -> None:
        """Keep where an asked agent sits, and since when; None: forget it."""
        self._journal.seated(agent, seat)

    # What is on disk

    def _committed(self, first: int, contexts: list[Any]) -> None:
        self._arrive(self._hand_over(first, contexts))

    def _retried(self, entries: list[tuple[str, Entry]]) -> None:
        self._arrive(self._try_again(entries))

    def _arrive(self, group: Iterator[None]) -> None:
        self._arrived.append(group)
        if len(self._arrived) == 1:
            self._go_on()

    def _go_on(self) -> None:
        """Hand over some of what is on disk; the handlers have their turn before the next."""
        try:
            while self._arrived:
                if next(self._arrived[0], _OVER) is not _OVER:
                    asyncio.get_running_loop().call_soon(self._go_on)
                    break
                self._arrived.popleft()
        except Exception as error:  # noqa: BLE001 - a bug of ours; all is on disk, so go no further
            self._arrived.clear()
            self._broke(error)
            return
        if self._pressing and self._appended - self._landed <= UNDER_WAY // 2:
            self._pressing = False
            self._pressure(False)  # noqa: FBT003 - as above
        if self._appended == self._landed:
            self._tell_settled()

    def _hand_over(self, first: int, contexts: list[Any]) -> Iterator[None]:
        """Hand a group over, a turn at a time."""
        behind, give = self._behind, self._handover.give
        each, left = iter(contexts), TURN
        for seq, (what, kind, device, delivery, handlers) in enumerate(
            zip(each, each, each, each, each, strict=True), first
        ):
            if not left:
                yield
                left = TURN
            left -= 1
            self._landed += 1
            self.given = seq
            if delivery is None:
                self._handover.follow(what, handlers, seq)
            else:
                unread = type(what) is bytes or type(what) is dict
                event = read_event(what, device, delivery, kind) if unread else what
                if event is not None:
                    give(event, device, handlers, seq)
            while behind and behind[0][0] <= self._landed:
                behind.popleft()[1]()

    def _try_again(self, entries: list[tuple[str, Entry]]) -> Iterator[None]:
        """Put dead letters at the tail of their lanes: somebody asked on the command line."""
        durable = self._durable()
        for number, (name, entry) in enumerate(entries):
            if number and number % TURN == 0:
                yield
            event = self._books.event_of(entry)
            if name in durable and event is not None:
                self._dispatcher.put(durable[name], entry.device, event, entry.seq)

    def _broke(self, error: BaseException) -> None:
        self._broken = True
        self._behind.clear()  # nothing is acknowledged that is not on disk
        self._tell_settled()
        self._failed(error)

    def _tell_settled(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def _durable(self) -> dict[str, Handler]:
        return {one.name: one for one in self._handover.handlers if one.durable}

    def stats(self) -> JournalStats:
        """Return a frozen snapshot of the journal."""
        return self._journal.stats()
