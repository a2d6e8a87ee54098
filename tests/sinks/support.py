"""What the tests of sinks share: a clock in a hurry, and a listener with sinks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cti_listener import Event, Listener, Notice
from cti_listener.clock import SystemClock
from cti_listener.router import Kind
from cti_listener.sinks import SinkOptions
from cti_listener.sinks.making import make_outlets
from cti_listener.sinks.outlet import Outlet
from cti_listener.sinks.running import attach, opened
from cti_listener.testing import FakeSource


class HastyClock(SystemClock):
    """Sleeps no longer than a turn of the loop, and is later by as much as it was asked to sleep.

    Attributes:
        slept: Every wait, in seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []
        self._skipped = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self._skipped

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._skipped += max(0.0, seconds)
        await asyncio.sleep(0)


def options(**given: Any) -> SinkOptions:
    return SinkOptions(**{"namespace": "zhen04.cc", "clock": HastyClock(), **given})


class Running:
    """A listener with sinks, the source that feeds it, and its first sink."""

    def __init__(self, listener: Listener, source: FakeSource, outlets: list[Outlet]) -> None:
        self.listener = listener
        self.source = source
        self.outlets = outlets

    @property
    def sink(self) -> Any:
        """How the first one fares, as a handler."""
        return self.listener.stats().handlers[self.outlets[0].name]


@asynccontextmanager
async def listening(
    *urls: str,
    made_with: SinkOptions,
    journal: Path | None = None,
    kinds: tuple[Kind, ...] = (Event, Notice),
    **keywords: Any,
) -> AsyncIterator[Running]:
    """Run a listener with these sinks, which it is drained of at the end."""
    source = FakeSource()
    listener = Listener(source, namespace="zhen04.cc", journal=journal, **keywords)
    outlets = await asyncio.to_thread(make_outlets, urls, made_with)
    attach(listener, outlets, kinds, kept=journal is not None)
    async with opened(outlets), listener:
        yield Running(listener, source, outlets)
