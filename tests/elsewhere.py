"""A simulator in a thread of its own: it goes on while the loop of the test is held up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from cti_listener.simulator import SimulatorServer

T = TypeVar("T")


class Elsewhere:
    """A server, and the loop that it runs on."""

    def __init__(self, server: SimulatorServer) -> None:
        self.server = server
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    async def do(self, what: Coroutine[Any, Any, T]) -> T:
        """Run something on the server's loop, and wait for it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(what, self.loop))

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@asynccontextmanager
async def simulator_elsewhere(**options: Any) -> AsyncIterator[Elsewhere]:
    """Serve both wires on a free loopback port, whatever the test's own loop does."""
    elsewhere = Elsewhere(SimulatorServer(**options))
    try:
        await elsewhere.do(elsewhere.server.start())
        yield elsewhere
        await elsewhere.do(elsewhere.server.stop())
    finally:
        await asyncio.to_thread(elsewhere.close)
