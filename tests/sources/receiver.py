"""A receiver that keeps what a source tells it, and servers that misbehave as told."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from websockets.asyncio.server import Server

from cti_listener.clock import Clock
from cti_listener.errors import ConnectError
from cti_listener.event_base import Delivery
from cti_listener.interest import Interest
from cti_listener.notices import GapReason
from cti_listener.sources.options import ConnectionOptions
from cti_listener.sources.past import OUTLIVES, held_by
from cti_listener.sources.websocket import WebSocketSource
from cti_listener.wire.base import MessageBad, WireName
from tests.examples import NAMESPACE

PATIENCE = 10.0
"""The longest a test waits for what must happen, in seconds."""


@dataclass
class Lost:
    """The end of a subscribed connection, as told."""

    since: datetime
    reason: GapReason
    detail: str


@dataclass
class Kept:
    """A `Receiver` that keeps everything."""

    events: list[dict[str, Any]] = field(default_factory=list)
    destinations: list[str | None] = field(default_factory=list)
    bad: list[MessageBad] = field(default_factory=list)
    messages: int = 0
    connected: list[tuple[str, bool, int]] = field(default_factory=list)
    lost_: list[Lost] = field(default_factory=list)
    failed: list[ConnectError] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    backlogs: list[bool] = field(default_factory=list)
    recovered: list[bool] = field(default_factory=list)
    overflowed: bool | None = None  # so, of the backlog that was in last
    queues_emptied: dict[str, datetime] = field(default_factory=dict)
    held: dict[str, datetime] = field(default_factory=dict)  # kept among these in a journal
    known: dict[str, datetime] = field(default_factory=dict)  # of what they bring, likewise
    uncommitted: list[Callable[[], None]] | None = None  # None: all is committed at once
    told: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until what was told makes `condition` true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.told.clear()
                await self.told.wait()

    @property
    def serials(self) -> list[Any]:
        return [event.get("serial") for event in self.events]

    def event_received(
        self,
        payload: dict[str, Any],
        destination: str | None,
        delivery: Delivery,
        text: bytes | None = None,
    ) -> None:
        assert text is None or json.loads(text) == payload
        assert delivery.received_at is not None
        self.events.append(payload)
        self.destinations.append(destination)
        self.told.set()

    def message_bad(self, bad: MessageBad) -> None:
        self.bad.append(bad)
        self.told.set()

    def message_received(self, delivery: Delivery, wire: WireName = "other") -> None:
        del delivery, wire
        self.messages += 1

    def when_committed(self, call: Callable[[], None]) -> None:
        if self.uncommitted is None:
            call()
        else:
            self.uncommitted.append(call)

    def subscribed(
        self, url: str, *, feed: str, confirmed: bool, attempts: int, backlog: bool = False
    ) -> None:
        assert feed == "a"
        self.connected.append((url, confirmed, attempts))
        self.backlogs.append(backlog)
        self.told.set()

    def caught_up(self, feed: str, *, recovered: bool, overflowed: bool = False) -> None:
        assert feed == "a"
        self.recovered.append(recovered)
        self.overflowed = overflowed
        self.told.set()

    def queues_empty(self, names: Sequence[str], at: datetime | None) -> None:
        for name in names:
            kept = self.held if name.startswith(held_by("")) else self.queues_emptied
            kept = self.known if name.endswith(tuple(OUTLIVES.values())) else kept
            if at is None:
                kept.pop(name, None)
            else:
                kept[name] = at

    def lost(self, url: str, *, feed: str, since: datetime, reason: GapReason, detail: str) -> None:
        del url, feed
        self.lost_.append(Lost(since, reason, detail))
        self.told.set()

    def attempt_failed(self, error: ConnectError, *, feed: str) -> None:
        del feed
        self.failed.append(error)
        self.told.set()

    def destination_refused(
        self, destination: str, *, feed: str, since: datetime, detail: str
    ) -> None:
        del feed, since
        assert detail
        self.refused.append(destination)
        self.told.set()

    def destination_accepted(self, destination: str, *, feed: str) -> None:
        assert feed == "a"
        self.accepted.append(destination)
        self.told.set()


def source_of(
    *urls: str, clock: Clock | None = None, wire: Any = "auto", auth: Any = None, **options: Any
) -> WebSocketSource:
    """Return a source that goes straight to `urls`, and waits for no slow goodbye."""
    settings = {"proxy": None, "close_timeout": 0.2, **options}
    return WebSocketSource(
        urls, wire=wire, auth=auth, clock=clock, options=ConnectionOptions(**settings)
    )


@asynccontextmanager
async def running(
    source: WebSocketSource,
    interest: Interest | None = None,
    *,
    kept: Kept | None = None,
    **known: Any,
) -> AsyncIterator[Kept]:
    """Run a source; it is stopped at the end of the block, and that must not take long."""
    kept = kept or Kept(**known)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(source.run(kept, interest or Interest(NAMESPACE)))
        try:
            yield kept
        finally:
            async with asyncio.timeout(PATIENCE):
                await source.stop()
                await task


def url_of(server: asyncio.Server | Server, path: str = "/events") -> str:
    """Return where a server on the loopback listens."""
    return f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}{path}"


Streams = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def tcp_server(serve: Streams) -> AsyncIterator[str]:
    """Serve TCP connections by hand; they are cut at the end of the block."""
    writers: list[asyncio.StreamWriter] = []
    tasks: set[asyncio.Task[None]] = set()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.append(writer)
        try:
            await serve(reader, writer)
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    try:
        yield url_of(server)
    finally:
        for writer in writers:
            writer.transport.abort()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        server.close()


async def shake_hands(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, then: bytes = b""
) -> None:
    """Answer a WebSocket handshake, with `then` in the same breath."""
    request = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = next(
        line.partition(":")[2].strip()
        for line in request.split("\r\n")
        if line.lower().startswith("sec-websocket-key:")
    )
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()  # noqa: S324 - RFC 6455
    accept = base64.b64encode(digest).decode()
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        + then
    )
    await writer.drain()
