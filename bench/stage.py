"""A simulated centre with one server or several, and the books it keeps; run by `far_side`."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Self

from cti_listener.simulator import (
    Centre,
    Faults,
    Ledger,
    Life,
    Session,
    SimulatorServer,
    Stats,
    Twin,
)
from cti_listener.simulator.stream_faults import Message
from cti_listener.values import identity, routing_key

NAMESPACE = "zhen04.cc"
MARKER = "marker"
TURN = 3.0
"""For how long one server has troubles before it is the other's turn, in seconds."""

Key = tuple[Any, ...]
"""What makes two copies one event: the seven values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What is played, and what goes wrong.

    Attributes:
        seed: Decides all that chance decides.
        events: How many events; None: until `enough()`.
        devices: How many devices, one agent each.
        rate: Events a second of the centre's time.
        speed: How many of the centre's seconds pass in one of ours.
        servers: How many servers tell of it.
        stream: What goes wrong with the centre's stream: faults as text, one lot behind the other.
        troubles: What goes wrong with each server and its connections, from the first subscription
            on.
        heartbeat: As for `SimulatorServer`.
        rest: Troubles by turns: one server at a time, and the next once each has had a session in
            step for so many seconds. None: all at once.
        ledger: Whether books are kept.
        max_size: A message of more bytes ends the connection of whoever gets it.
    """

    seed: int
    events: int | None
    devices: int = 500
    rate: float = 250.0
    speed: float = 10.0
    servers: int = 1
    stream: Sequence[str] = ()
    troubles: str = ""
    heartbeat: tuple[int, int] = (10_000, 10_000)
    rest: float | None = None
    ledger: bool = True
    max_size: int = 2**20


class Told(NamedTuple):
    """A happening of the centre's stream, a repeat included; its number is its place.

    Attributes:
        key: Which event.
        at: When it was about to be published.
        repeat: Whether it had been told before.
    """

    key: Key
    at: datetime
    repeat: bool


class Copy(NamedTuple):
    """One copy that got out to one session, to its last byte.

    Attributes:
        number: Of which happening.
        at: When that was known.
        server: By which server.
        session: To which of its sessions.
    """

    number: int
    at: datetime
    server: int
    session: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All that the far side knows in the end; lives and statistics by server.

    Attributes:
        fatal: When messages above `Play.max_size` were told.
    """

    told: Sequence[Told]
    fatal: Sequence[datetime]
    copies: Sequence[Copy]
    lives: Sequence[Sequence[Life]]
    stats: Sequence[Stats]


class Url(NamedTuple):
    """Where one server is."""

    stomp: str
    json: str


class Stage:
    """The servers, and what can be asked of them."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._told: list[Told] = []
        self._fatal: list[datetime] = []
        self._ended = False
        self._markers = itertools.count()
        self._troubles: asyncio.Task[None] | None = None
        self._life = AsyncExitStack()
        self._faults = Faults.parse(play.troubles)
        # Whoever is refused before anything ever stood gives up.
        benign = replace(self._faults, refuse=0.0)
        self._servers = [
            SimulatorServer(
                port=_free_port(),
                faults=benign,
                heartbeat=play.heartbeat,
                compression=True,
                seed=play.seed * 100 + index,
                ledger=Ledger() if play.ledger else None,
            )
            for index in range(play.servers)
        ]
        self._twin = Twin(
            *self._servers, centre=self._stream(), speed=play.speed, await_subscriber=True
        )

    async def __aenter__(self) -> Self:
        for server in self._servers:
            server.calm = True
        await self._life.enter_async_context(self._twin)
        tasks = await self._life.enter_async_context(asyncio.TaskGroup())
        self._troubles = tasks.create_task(self._trouble())
        self._life.callback(self._troubles.cancel)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._life.aclose()

    @property
    def urls(self) -> list[Url]:
        return [Url(server.stomp_url, server.json_url) for server in self._servers]

    # What is asked

    async def played(self) -> None:
        """Wait until the centre has no more to tell, and all of it is written or lost."""
        await self._twin.wait_played()

    async def enough(self) -> None:
        """Have the centre come to its end."""
        self._ended = True

    async def calm(self) -> None:
        """Begin no more troubles; what has begun ends."""
        if self._troubles is not None:
            self._troubles.cancel()
        for server in self._servers:
            server.calm, server.faults = True, Faults()

    async def mark(self) -> set[str]:
        """Send a marker from each server; return the call ids of those that reached anybody."""
        number = next(self._markers)
        reached = set()
        for index, server in enumerate(self._servers):
            name = f"{index}-{number}"
            device = f"9999@{NAMESPACE}"
            marker = {"eventName": MARKER, "eventType": "csta", "namespace": NAMESPACE}
            if await server.send({**marker, "srcDeviceId": device, "callId": name}):
                reached.add(name)
        return reached

    async def books(self) -> Books:
        """Return what was told, to whom it got out, and who was there."""
        ledgers = [server.ledger or Ledger() for server in self._servers]
        return Books(
            told=self._told,
            fatal=self._fatal,
            copies=[
                Copy(sent.number, sent.at, index, sent.session)
                for index, ledger in enumerate(ledgers)
                for sent in ledger.sent
                if sent.number is not None
            ],
            lives=[ledger.lives for ledger in ledgers],
            stats=[server.stats for server in self._servers],
        )

    # Private

    def _stream(self) -> Iterator[Message]:
        """Play the centre with its own faults, and note what is told."""
        play = self._play
        centre = Centre(play.seed, agents=play.devices, namespace=NAMESPACE, rate=play.rate)
        happenings = itertools.takewhile(lambda _: not self._ended, centre)
        stream: Iterator[Message] = Faults().apply(itertools.islice(happenings, play.events))
        for part, faults in enumerate(play.stream):
            stream = Faults.parse(faults).apply(stream, seed=play.seed * 100 + part)
        return self._noted(stream) if play.ledger else stream

    def _noted(self, stream: Iterator[Message]) -> Iterator[Message]:
        for message in stream:
            if message.body is not None:
                if len(message.body) > self._play.max_size:
                    self._fatal.append(datetime.now(UTC))
                yield message
                continue
            number, event = len(self._told), message.event
            key = identity(event, routing_key(event))[:7]
            self._told.append(Told(key, datetime.now(UTC), message.repeat))
            yield message._replace(number=number)

    async def _trouble(self) -> None:
        """Let troubles begin once each server had a subscriber; by turns, if that is wished."""
        for server in self._servers:
            await server.wait_for_subscribers()
            server.faults = self._faults
        if self._play.rest is None:
            for server in self._servers:
                server.calm = False
            return
        for server in itertools.cycle(self._servers):
            await self._in_step(self._play.rest)
            server.calm = False
            await asyncio.sleep(TURN)
            server.calm = True

    async def _in_step(self, rest: float) -> None:
        """Wait until each server has had the same session in step for so long.

        A client that was without its server may have gone to the other's; it is sent back, once it
        is clear that it has, and that the one there before is not gone.
        """
        there = self._there()
        since = changed = time.monotonic()
        while (now := time.monotonic()) < since + rest:
            await asyncio.sleep(0.05)
            before, there = there, self._there()
            if there != before:
                since = changed = now
            elif not all(there) and now > changed + rest / 3:
                for crowd in there:  # the one that came last; a frozen one may look alive
                    if len(crowd) > 1:
                        crowd[-1].abort()
            if not all(there) or any(one.backlog > 100 for one in itertools.chain(*there)):
                since = now

    def _there(self) -> list[list[Session]]:
        """Return who is subscribed, by server."""
        return [[one for one in server.sessions if one.subscribed] for server in self._servers]


def run(play: Play, pipe: Connection) -> None:
    """Serve, until told to end."""
    for name in ("websockets", "asyncio"):  # clients that break off are meant
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with suppress(EOFError):  # nobody asks any more
        asyncio.run(_serve(play, pipe))


async def _serve(play: Play, pipe: Connection) -> None:
    async with Stage(play) as stage:
        pipe.send(stage.urls)
        while (order := await asyncio.to_thread(pipe.recv)) is not None:
            answer = await getattr(stage, order)()
            await asyncio.to_thread(pipe.send, answer)


def _free_port() -> int:
    """Pick a port that clients are not given.

    A client that looks for a server that is away could be connected to itself there.
    """
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(given.read_text().split()[0]) if given.exists() else 32_768
    while True:
        port = random.SystemRandom().randrange(10_000, first if first > 11_000 else 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
