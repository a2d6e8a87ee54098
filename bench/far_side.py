"""The simulated centre in a process of its own: `far_side(play)` starts it.

In a process of its own, since server and listener in one loop would starve each other. What is
asked of it (`Stage`) goes through a pipe, one question at a time.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from bench.stage import MARKER, Books, Play, Url, run
from cti_listener import Event, Listener


class FarSide:
    """Asks the other process.

    Attributes:
        urls: Where its servers are.
    """

    def __init__(self, pipe: Connection, urls: Sequence[Url]) -> None:
        self.urls = urls
        self._pipe = pipe

    async def played(self) -> None:
        await self._ask("played")

    async def enough(self) -> None:
        await self._ask("enough")

    async def calm(self) -> None:
        await self._ask("calm")

    async def mark(self) -> set[str]:
        marks: set[str] = await self._ask("mark")
        return marks

    async def books(self) -> Books:
        books: Books = await self._ask("books")
        return books

    async def _ask(self, what: str) -> Any:
        await asyncio.to_thread(self._pipe.send, what)
        return await asyncio.to_thread(self._pipe.recv)


@asynccontextmanager
async def far_side(play: Play) -> AsyncIterator[FarSide]:
    """Play in another process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(play, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield FarSide(ours, await asyncio.to_thread(ours.recv))
        await asyncio.to_thread(ours.send, None)
        await asyncio.to_thread(process.join, 10)
    finally:
        process.terminate()
        await asyncio.to_thread(process.join)
        ours.close()
        process.close()


class Marks:
    """Waits for what the servers send last, and with it for all that they sent before.

    Args:
        listener: Gets a handler for it.
    """

    def __init__(self, listener: Listener) -> None:
        self._came: set[str | None] = set()
        self._more = asyncio.Event()

        @listener.on(MARKER)
        async def note(event: Event) -> None:
            self._came.add(event.call_id)
            self._more.set()

    async def all_come(self, far: FarSide, *, limit: float = 60.0) -> None:
        """Have each server send a marker, and wait until they came.

        One may be lost, to a connection that is half-open and was not noticed yet; then another is
        sent.

        Raises:
            TimeoutError: Not even those that were sent in so many seconds came.
        """
        async with asyncio.timeout(limit):
            while not ((marks := await far.mark()) and await self._come(marks)):
                pass

    async def _come(self, marks: set[str]) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while not marks <= self._came:
                    self._more.clear()
                    await self._more.wait()
        return marks <= self._came
