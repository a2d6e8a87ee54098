"""Does to the whole server what the scripts of its faults say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

from cti_listener.clock import Clock
from cti_listener.errors import ConfigurationError
from cti_listener.simulator.audience import Audience
from cti_listener.simulator.connection_faults import Act, Cue
from cti_listener.simulator.mishaps import due
from cti_listener.simulator.port import Port
from cti_listener.simulator.reception import Reception
from cti_listener.simulator.records import Stats

_AGAIN: Final = 0.05
"""How soon to try the port again where somebody else has it, in seconds."""

_POLICY: Final = 1008


class Outages:
    """The server's own troubles, from `start()` to `stop()`.

    One at a time: what falls due during another one waits for its end.

    Args:
        port: Where the server listens.
        opens: Has it listen again.
        reception: Where clients come in.
        audience: Who is connected.
        stats: Where to count.
        clock: Tells the time.
    """

    def __init__(
        self,
        port: Port,
        *,
        opens: Callable[[], Awaitable[None]],
        reception: Reception,
        audience: Audience,
        stats: Stats,
        clock: Clock,
    ) -> None:
        """Begin without trouble."""
        self._port = port
        self._opens = opens
        self._reception = reception
        self._audience = audience
        self._stats = stats
        self._clock = clock
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self, scripts: Iterable[Iterator[Cue]]) -> None:
        """Play the scripts; the trouble of the time before is over."""
        self._reception.flapping = False
        self._reception.renew()
        # Its owner is the server, from start() to stop(), which no block of code encloses.
        self._task = asyncio.create_task(self._play(scripts))  # noqa: TID251

    async def stop(self) -> None:
        """End them.

        Raises:
            Exception: Whatever a script failed with.
        """
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

    async def _play(self, scripts: Iterable[Iterator[Cue]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for script in scripts:
                tasks.create_task(self._perform(script))

    async def _perform(self, cues: Iterator[Cue]) -> None:
        async for cue in due(cues, self._reception.trouble, self._clock):
            async with self._turn:
                await self._reception.trouble.wait()  # it may have ended while another went on
                self._stats.outages += 1
                match cue.act:
                    case Act.FLAP:
                        await self._flap(cue.amount)
                    case Act.LEAVE:
                        await self._leave(cue.amount)
                    case Act.EXPIRE:
                        await self._expire(cue.amount)
                    case _:
                        raise ValueError(cue.act)  # a connection's

    async def _flap(self, seconds: float) -> None:
        self._reception.flapping = True
        await self._audience.disconnect(None)
        await self._clock.sleep(seconds)
        self._reception.flapping = False

    async def _leave(self, seconds: float) -> None:
        self._reception.flapping = True  # to who is half-way through the handshake
        self._port.refuse()
        await self._audience.disconnect(None)
        await self._port.close()
        await self._clock.sleep(seconds)
        self._reception.flapping = False
        while not self._port.is_open:
            try:
                await self._opens()
            except ConfigurationError:  # a client in search of us may have met itself on our port
                await self._clock.sleep(_AGAIN)

    async def _expire(self, seconds: float) -> None:
        self._reception.expire()
        await self._audience.disconnect(_POLICY)
        await self._clock.sleep(seconds)
        self._reception.renew()
