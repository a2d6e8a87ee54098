"""Several servers that tell of one centre, each with faults and a ledger of its own."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from itertools import tee
from typing import NamedTuple, Self

from cti_listener.clock import Clock, SystemClock
from cti_listener.simulator.faults import Faults
from cti_listener.simulator.player import Player
from cti_listener.simulator.server import SimulatorServer
from cti_listener.simulator.stream_faults import Message
from cti_listener.values import Payload


class _Told(NamedTuple):
    at: float
    server: SimulatorServer
    message: Message


class Twin:
    """Plays one centre on several servers at once; `async with` it, or call `start()` and `stop()`.

    Args:
        servers: The servers, made without a centre. They are started and stopped with it; give
            each its own seed, or they fail alike.
        centre: What happens: a `Centre`, or any stream of (seconds, event), or of messages.
        faults: What goes wrong with the stream before the servers have it: the centre's own, as
            `restart_every`. With `split` an event goes to one server only.
        speed: As for `SimulatorServer`.
        await_subscriber: Have the centre open when each server has had a subscriber.
        seed: Decides what these faults leave to chance.
        clock: Tells the time.

    Attributes:
        servers: As above.

    Raises:
        ConfigurationError: The speed is negative.
    """

    def __init__(
        self,
        *servers: SimulatorServer,
        centre: Iterable[tuple[float, Payload] | Message],
        faults: Faults | None = None,
        speed: float = 1.0,
        await_subscriber: bool = False,
        seed: int = 0,
        clock: Clock | None = None,
    ) -> None:
        """Prepare; nothing listens before `start()`."""
        self.servers = servers
        self._await_all = await_subscriber
        stream = (faults or Faults()).apply(centre, seed=seed)
        self._player = Player(
            heapq.merge(
                *(self._told(index, copy) for index, copy in enumerate(tee(stream, len(servers)))),
                key=lambda told: told.at,
            ),
            speed=speed,
            clock=clock or SystemClock(),
            publish=self._publish,
            subscribed=self._subscribed,
            await_subscriber=await_subscriber,
        )

    def __repr__(self) -> str:
        return f"<Twin {', '.join(map(repr, self.servers))}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the servers, and go on playing where it stopped.

        Raises:
            ConfigurationError: One of the servers cannot listen; then none does.
        """
        async with AsyncExitStack() as started:
            for server in self.servers:
                await started.enter_async_context(server)
            started.pop_all()
        self._player.start()

    async def stop(self) -> None:
        """Pause, and stop the servers.

        Raises:
            Exception: Whatever the play failed with.
        """
        try:
            await self._player.stop()
        finally:
            for server in self.servers:
                await server.stop()

    async def wait_played(self) -> None:
        """Wait until the centre has no more to tell, and all of it is written.

        Raises:
            Exception: Whatever the play failed with.
        """
        await self._player.wait()
        for server in self.servers:
            await server.settle()

    # Private

    def _told(self, index: int, stream: Iterable[Message]) -> Iterator[_Told]:
        """Return what one of the servers tells of the stream."""
        server = self.servers[index]
        return (_Told(one.at, server, one) for one in server.told(self._share(index, stream)))

    def _share(self, index: int, stream: Iterable[Message]) -> Iterator[Message]:
        """Leave out what goes to another server only."""
        for message in stream:
            if message.to_one is None:
                yield message
            elif int(message.to_one * len(self.servers)) == index:
                yield message._replace(to_one=None)

    async def _publish(self, told: _Told) -> None:
        await told.server.publish(told.message, in_time=self._player.keeps_time)

    async def _subscribed(self) -> None:
        """Wait until somebody listens anywhere; at the beginning, if asked to, everywhere."""
        if self._await_all:
            for server in self.servers:
                await server.wait_for_subscribers()
            self._await_all = False
        if any(session.subscribed for server in self.servers for session in server.sessions):
            return
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(server.wait_for_subscribers()) for server in self.servers]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
