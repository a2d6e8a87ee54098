"""One client's connection: its words go to its door, what it is sent goes through a queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed

from cti_listener.clock import Clock
from cti_listener.simulator.doors import Door, Outgoing, Subscription
from cti_listener.simulator.faults import Act, Cue
from cti_listener.simulator.records import Ledger, Life, Sent, Stats
from cti_listener.simulator.stream_faults import Message

_BATCH: Final = 32
"""How many messages are written before the connection is asked whether it can take more."""

_EARLY: Final = 0.8
"""Heart-beats go out this much sooner than promised, since timers are late and never early."""

_GRACE: Final = 2.0
"""How many times its interval a client may be silent."""

_LAST_WORDS: Final = 2.0
"""How long a connection that is to be closed may take for what it was sent before, in seconds."""

HEARTBEAT: Final = b"\n"


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
        connection: ServerConnection,
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
        self._ledger = ledger
        self._on_change = on_change
        self._life: Life | None = None
        self._heard = clock.monotonic()
        self._queue: deque[_Queued] = deque()
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()  # set whenever the queue got shorter, or the session ended
        self._unwritten = 0  # queued, or on its way into the connection
        self._beside: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        state = "over" if self.over.is_set() else "subscribed" if self.subscribed else "open"
        return f"<Session {self.number} {self.wire} {state}, {self._unwritten} queued>"

    @property
    def wire(self) -> str:
        """`stomp` or `json`."""
        return self._door.wire

    @property
    def path(self) -> str:
        """The path and query of the handshake."""
        request = self._connection.request
        return request.path if request is not None else ""

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers of the handshake, by lower-case name."""
        request = self._connection.request
        items = request.headers.raw_items() if request is not None else ()
        return {name.lower(): value for name, value in items}

    @property
    def subscriptions(self) -> Sequence[Subscription]:
        """What it is subscribed to now."""
        return () if self.over.is_set() else self._door.subscriptions

    @property
    def subscribed(self) -> bool:
        """Whether it is subscribed to anything now."""
        return self._life is not None

    @property
    def backlog(self) -> int:
        """How many messages wait to be written."""
        return self._unwritten

    # Life

    async def run(self, faults: Iterable[Iterator[Cue]]) -> None:
        """Serve the client until the connection ends."""
        self._note_subscriptions()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._beside = [tasks.create_task(self._perform(cues)) for cues in faults]
                self._beside.append(tasks.create_task(self._write()))
                await self._read(tasks)
                for task in self._beside:
                    task.cancel()
        finally:
            self._end()

    def abort(self) -> None:
        """End the TCP connection at once, without a closing handshake."""
        self._connection.transport.abort()
        self._end()

    async def close(self, code: int) -> None:
        """Close the WebSocket with a code."""
        await self._connection.close(code)
        self._end()

    def _end(self) -> None:
        self.over.set()
        self._queue.clear()
        self._unwritten = 0
        self._moved.set()
        self._note_subscriptions()

    def _note_subscriptions(self) -> None:
        """Begin or end the time under subscription, if that changed."""
        if bool(self.subscriptions) == self.subscribed:
            return
        now = self._clock.now()
        if self._life is None:
            self._life = Life(self.number, now)
            if self._ledger is not None:
                self._ledger.lives.append(self._life)
        else:
            self._life.until, self._life = now, None
        self._on_change()

    # Sending

    def offer(self, outgoing: Outgoing) -> int:
        """Queue a message for each subscription that wants it; return how many do."""
        messages = () if self.over.is_set() else self._door.messages(outgoing)
        for data in messages:
            self._put(_Queued(data, text=True, message=outgoing.message))
        return len(messages)

    def put_raw(self, data: bytes | str) -> None:
        """Queue a WebSocket message as it is: text for `str`, binary for `bytes`."""
        if isinstance(data, str):
            self._put(_Queued(data.encode(), text=True))
        else:
            self._put(_Queued(data, text=False))

    async def until_backlog(self, most: int, limit: float) -> bool:
        """Wait until no more than so many messages are queued; False if that takes too long."""
        try:
            async with asyncio.timeout(limit):
                while self._unwritten > most:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def _put(self, queued: _Queued) -> None:
        if not self.over.is_set():
            self._queue.append(queued)
            self._unwritten += 1
            self._wake.set()

    async def _write(self) -> None:
        """Move the queue into the connection, as fast as the client takes it."""
        queue = self._queue
        while True:
            await self._wake.wait()
            self._wake.clear()
            while queue:
                batch = [queue.popleft() for _ in range(min(_BATCH, len(queue)))]
                for queued in batch:
                    self._note(queued)
                try:
                    for queued in batch[:-1]:
                        broadcast((self._connection,), queued.data, text=queued.text)
                    await self._connection.send(batch[-1].data, text=batch[-1].text)
                except ConnectionClosed:
                    return
                self._unwritten -= len(batch)
                self._moved.set()

    def _note(self, queued: _Queued) -> None:
        message = queued.message
        if message is None:
            return
        stats = self._stats
        stats.sent += 1
        stats.repeated += message.repeat
        if message.body is not None:
            stats.malformed += 1
        elif self._ledger is not None:
            self._ledger.sent.append(
                Sent(self._clock.now(), self.number, message.event, message.repeat)
            )

    # Receiving

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        beating = False
        try:
            while True:
                data = await self._connection.recv(decode=False)
                self._heard = self._clock.monotonic()
                replies = self._door.receive(data)
                for reply in replies.data:
                    self._put(_Queued(reply, text=True))
                self._note_subscriptions()
                if replies.close:
                    await self.until_backlog(0, _LAST_WORDS)
                    await self._connection.close()
                elif not beating and any(self._door.heartbeat):
                    beating = True
                    self._beside += [
                        tasks.create_task(self._beat()),
                        tasks.create_task(self._watch()),
                    ]
        except ConnectionClosed:
            return

    async def _beat(self) -> None:
        """Send a heart-beat as often as was agreed."""
        every, _ = self._door.heartbeat
        while every:
            await self._clock.sleep(every * _EARLY)
            self._put(_Queued(HEARTBEAT, text=True))

    async def _watch(self) -> None:
        """Drop a client that is silent for longer than was agreed."""
        _, every = self._door.heartbeat
        while every:
            silent = self._clock.monotonic() - self._heard
            if silent > every * _GRACE:
                self.abort()
                return
            await self._clock.sleep(every * _GRACE - silent + 0.001)

    # Faults

    async def _perform(self, cues: Iterator[Cue]) -> None:
        """Do to the connection what a fault says, when it says so."""
        for cue in cues:
            await self._clock.sleep(cue.after)
            match cue.act:
                case Act.DROP:
                    self._stats.dropped += 1
                    self.abort()
