"""What the journal's tests share: entries, and a journal that is open for the length of a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cti_listener.clock import Clock
from cti_listener.journal import Entry, Journal, Opened, digest
from cti_listener.testing import ManualClock

NAMESPACE = "zhen04.cc"


def entry(number: int, **given: Any) -> Entry:
    device = given.pop("device", f"{8000 + number % 4}@{NAMESPACE}")
    call = given.pop("call", f"call-{number // 8}")
    payload = {"eventName": "delivered", "serial": number, "callId": call, "srcDeviceId": device}
    return Entry(
        digest=digest((NAMESPACE, "csta", device, number)),
        device=device,
        call=call,
        received_at=given.pop("at", ManualClock().now()),
        feed="a",
        payload={**payload, **given.pop("payload", {})},
        owed=given.pop("owed", ("work",)),
        **given,
    )


class Held(Journal):
    """A journal that keeps what it was told, and can be waited for."""

    def __init__(self, path: Path, *, clock: Clock | None = None, **options: Any) -> None:
        super().__init__(path, clock=clock or ManualClock(), **options)
        self.groups: list[list[Entry]] = []
        self.failures: list[BaseException] = []
        self.opened: Opened
        self.committed = self.groups.append
        self.failed = self.failures.append

    @property
    def entries(self) -> list[Entry]:
        return [one for group in self.groups for one in group]

    async def settle(self) -> None:
        """Wait until everything that was asked for is on disk, or failed."""
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
            while (self._busy or self._pending.urgent) and not self.failures:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def undone(self, handler: str = "work", **filters: Any) -> list[int]:
        found = await asyncio.to_thread(self.unfinished, handler, **filters)
        return [one.seq for one in found]


@asynccontextmanager
async def journal(
    path: Path, handlers: Sequence[str] = ("work",), **options: Any
) -> AsyncIterator[Held]:
    made = Held(path, **options)
    made.opened = await made.open(handlers)
    try:
        yield made
    finally:
        await made.close()
