"""One client's connection: its words go to its door, what it is sent goes through a queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from websockets.asyncio.server import broadcast
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from cti_listener.clock import Clock
from cti_listener.simulator import handshake, mishaps, pulse
from cti_listener.simulator.books import Books
from cti_listener.simulator.connection_faults import Cue
from cti_listener.simulator.doors import Door, Outgoing, Subscription
from cti_listener.simulator.outlet import Connection
from cti_listener.simulator.records import Ledger, Stats
from cti_listener.simulator.stream_faults import Message
from cti_listener.simulator.topics import Route

_BATCH: Final = 32
"""How many messages are written before the connection is asked whether it can take more."""

_LAST_WORDS: Final = 2.0
"""How long a connection that is to be closed may take for what it was sent before, in seconds."""


class _Queued(NamedTuple):
    data: bytes
    text: bool
    message: Message | None = None


class Session:
    """A client's connection, from its handshake to its end.

    Args:
        connection: The WebSocket.
        door: What is spoken over it.
        number: Counts the server's sessions, from 1.
        clock: Tells the time.
        stats: Where to count.
        ledger: Where to note what was sent, if anywhere.
        on_change: Called when it is subscribed for the first time or no longer.

    Attributes:
        number: Counts the server's sessions, from 1.
        over: Set when it has ended.
    """

    def __init__(
        self,
        connection: Connection,
        door: Door,
        number: int,
        *,
        clock: Clock,
        stats: Stats,
        ledger: Ledger | None,
        on_change: Callable[[], None],
    ) -> None:
        """Take a connection that has just been accepted."""
        self.number = number
        self.over = asyncio.Event()
        self._connection = connection
        self._door = door
        self._clock = clock
        self._stats = stats
        self._books = Books(number, clock=clock, stats=stats, ledger=ledger)
        self._on_change = on_change
        self._outlet = connection.outlet
        self._outlet.clock = clock
        self._deflates = bool(connection.protocol.extensions)
        self._live = True  # false from when nothing it is offered reaches the client
        self._heard = clock.monotonic()
        self._queue: deque[_Queued] = deque()
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()  # set whenever the queue got shorter, or the session ended
        self._unwritten = 0  # queued, or not yet out
        self._written: deque[tuple[int, _Queued]] = deque()  # not yet out; up to which byte
        self._beside: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        state = "over" if self.over.is_set() else "frozen" if self._outlet.frozen else "open"
        state = "subscribed" if self.subscribed else state
        return f"<Session {self.number} {self.wire} {state}, {self._unwritten} queued>"

    @property
    def wire(self) -> str:
        """`stomp` or `json`."""
        return self._door.wire

    @property
    def path(self) -> str:
        """The path and query of the handshake."""
        return handshake.target(self._connection)

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers of the handshake, by lower-case name."""
        return handshake.headers(self._connection)

    @property
    def subscriptions(self) -> Sequence[Subscription]:
        """What it is subscribed to now."""
        return self._door.subscriptions if self._live else ()

    @property
    def subscribed(self) -> bool:
        """Whether it is subscribed to anything now."""
        return self._books.subscribed

    @property
    def queued(self) -> int:
        """How many messages wait to be written."""
        return len(self._queue)

    @property
    def backlog(self) -> int:
        """How many messages are not yet out."""
        return self._unwritten

    # Life

    async def run(self, faults: Iterable[AsyncIterator[Cue]]) -> None:
        """Serve the client until the connection ends."""
        self._note_subscriptions()
        try:
            async with asyncio.TaskGroup() as tasks:
                perform = partial(mishaps.perform, stats=self._stats, clock=self._clock)
                self._beside = [tasks.create_task(perform(c, self, self._outlet)) for c in faults]
                self._beside.append(tasks.create_task(self._write()))
                await self._read(tasks)
                for task in self._beside:
                    task.cancel()
        finally:
            self._end()

    def abort(self) -> None:
        """End the TCP connection at once, without a closing handshake."""
        self._note_out()
        self._connection.transport.abort()
        self._end()

    def reset(self) -> None:
        """End the TCP connection by a reset."""
        self._note_out()
        self._outlet.reset()
        self._end()

    def freeze(self) -> None:
        """Neither read nor write any more: what it is sent from now on is lost."""
        self._outlet.freeze()
        self._retire()

    async def close(self, code: int) -> None:
        """Close the WebSocket with a code."""
        self._live = False
        await self._connection.close(code)
        self._end()

    async def throw_out(self, why: str) -> None:
        """Send an ERROR, where there is such a thing, and close."""
        words = self._door.error(why)
        for word in words:
            self._put_text(word)
        await self._leave(1000 if words else 1011)

    async def _leave(self, code: int) -> None:
        """Close behind what was queued before; nothing comes in between."""
        self._live = False
        await self.until_backlog(0, _LAST_WORDS)
        await self._connection.close(code)

    def _end(self) -> None:
        self.over.set()
        self._retire()

    def _retire(self) -> None:
        """Give up what is not out, and end the time under subscription."""
        self._live = False
        self._note_out()
        for queued in (*(queued for _, queued in self._written), *self._queue):
            self._books.lost(queued.message)
        self._written.clear()
        self._queue.clear()
        self._unwritten = 0
        self._moved.set()
        self._note_subscriptions()

    def _note_subscriptions(self) -> None:
        """Begin or end the time under subscription, if that changed."""
        if bool(self.subscriptions) == self.subscribed:
            return
        if not self.subscribed:
            self._books.begin(told=not self._unwritten)
        else:
            self._books.end(None if self._live else self._outlet.last_out)
        self._on_change()

    # Sending

    def wants(self, route: Route) -> bool:
        """Tell whether anything sent this way would reach the client now."""
        return self._live and self._door.wants(route)

    def offer(self, outgoing: Outgoing) -> int:
        """Queue a message for each subscription that wants it; return how many do."""
        if not self._live or (outgoing.message.bomb and not self._deflates):
            return 0
        messages = self._door.messages(outgoing)
        for data in messages:
            self._put(_Queued(data, text=True, message=outgoing.message))
        return len(messages)

    def put_raw(self, data: bytes | str) -> None:
        """Queue a WebSocket message as it is: text for `str`, binary for `bytes`."""
        raw = data.encode() if isinstance(data, str) else data
        self._put(_Queued(raw, text=isinstance(data, str)))

    async def until_backlog(self, most: int, limit: float) -> bool:
        """Wait until no more than so many messages are not out; False if that takes too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while self._unwritten > most:
                    self._moved.clear()
                    await self._moved.wait()
        return self._unwritten <= most

    def _put_text(self, data: bytes) -> None:
        self._put(_Queued(data, text=True))

    def _put(self, queued: _Queued) -> None:
        if not self.over.is_set() and not self._outlet.frozen:
            self._queue.append(queued)
            self._unwritten += 1
            self._wake.set()

    async def _write(self) -> None:
        """Move the queue into the connection, as fast as the client takes it."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue or self._written:
                for _ in range(min(_BATCH, len(self._queue)) if self._outlet.room else 0):
                    if self._connection.state is not State.OPEN:
                        return
                    queued = self._queue.popleft()
                    broadcast((self._connection,), queued.data, text=queued.text)
                    self._written.append((self._outlet.given, queued))
                self._note_out()
                if not self._outlet.room or (self._written and not self._queue):
                    await self._outlet.stir()

    def _note_out(self) -> None:
        """Note what has got out to the client since the last time."""
        out = self._outlet.note()
        while self._written and self._written[0][0] <= out:
            self._books.confirm()
            _, queued = self._written.popleft()
            self._unwritten -= 1
            self._books.sent(queued.message, self._outlet.last_out)
        self._moved.set()

    # Receiving

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        beating = False
        try:
            while True:
                data = await self._connection.recv(decode=False)
                self._heard = self._clock.monotonic()
                replies = self._door.receive(data)
                for reply in replies.data:
                    self._put_text(reply)
                self._note_subscriptions()
                if replies.close:
                    await self._leave(1000)
                elif not beating and any(self._door.heartbeat):
                    beating = True
                    self._beside += self._pulse(tasks)
        except ConnectionClosed:
            return

    def _pulse(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        sends, expects = self._door.heartbeat
        sending = pulse.beat(sends, self._put_text, self._clock)
        missing = pulse.watch(expects, lambda: self._heard, self._lose_patience, self._clock)
        return [tasks.create_task(sending), tasks.create_task(missing)]

    def _lose_patience(self) -> None:
        """Drop a client that is silent for too long; who is deaf cannot tell."""
        if not self._outlet.frozen:
            self.abort()
